#!/usr/bin/env python3
"""Recomputes scheduling decisions from the published formulas, apart from the C++.

Writes tests/data/golden_decisions.json: seeded random configurations, endpoints, earlier requests and one
request to place, with every filter's survivors, every scorer's raw value, the totals and the set of endpoints
that may win. tests/sched/golden_decisions_test.cc feeds the same cases to llmd::sched and compares.

    python3 tests/support/decision_oracle.py [--cases N] [--seed S] > tests/data/golden_decisions.json

Formulas: docs/plugins.md and the field's endpoint picker. Nothing here is shared with the implementation.
"""
import argparse
import hashlib
import json
import math
import random

BLOCK_FLOOR = 64          # tokens; smaller block sizes are raised
BYTES_PER_TOKEN = 4
MAX_PREFIX_TOKENS = 131072
LRU_BLOCKS = 31250
EPSILON = 1e-9
MATCH_READERS = {"prefix-cache-scorer", "no-hit-lru-scorer", "prefix-cache-affinity-filter",
                 "prefix-based-pd-decider"}
DECODES = {"decode", "prefill-decode", "both", "encode-prefill-decode", None}
PREFILLS = {"prefill", "encode-prefill", "prefill-decode", "both", "encode-prefill-decode"}
ENCODES = {"encode", "encode-prefill", "encode-prefill-decode"}


def text_of(pieces):
    return "".join(unit * count for unit, count in pieces)


def tokens_of(text):
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


class State:
    """What earlier requests left behind: prefix memory, requests in flight, cold order."""

    def __init__(self):
        self.slots = {}
        self.sent = {}       # endpoint → list of (model, blocks)
        self.requests = {}
        self.tokens = {}
        self.cold = []       # endpoints, longest unused first

    def see(self, endpoints):
        for e in endpoints:
            self.slots.setdefault(e["name"], len(self.slots))


def blocks_of(text, size):
    """A digest per block of it and all before it; the last block may be partial."""
    data = text.encode()
    data += b"\0" * (-len(data) % BYTES_PER_TOKEN)
    step = size * BYTES_PER_TOKEN
    out, running = [], hashlib.sha1()
    for i in range(0, min(len(data), MAX_PREFIX_TOKENS // size * step), step):
        running.update(data[i : i + step])
        out.append(running.hexdigest())
    return out


class Facts:
    """The producers' view of one request."""

    def __init__(self, state, endpoints, request, plugins):
        text = text_of(request["prompt"])
        self.input = tokens_of(text)
        reported = endpoints[0].get("block_size", 0) if endpoints else 0
        self.block = max(BLOCK_FLOOR, reported or 16)
        self.blocks = blocks_of(text, self.block)
        self.total = len(self.blocks)
        self.match = {}
        for e in endpoints:
            longest = 0
            for model, size, sent in state.sent.get(e["name"], []):
                if model != request["model"] or size != self.block:
                    continue
                n = 0
                while n < min(len(sent), self.total) and sent[n] == self.blocks[n]:
                    n += 1
                longest = max(longest, n)
            self.match[e["name"]] = longest
        self.requests = {e["name"]: state.requests.get(e["name"], 0) for e in endpoints}
        self.tokens = {e["name"]: state.tokens.get(e["name"], 0) for e in endpoints}
        # Load discounts a match only where some plugin has the matches made.
        known = self.block if any(p["type"] in MATCH_READERS for p in plugins) else 0
        self.uncached = {e["name"]: max(0, self.input - self.match[e["name"]] * known)
                         for e in endpoints}
        self.hit = any(self.match.values())
        self.peer = None


def labels_of(e):
    return e.get("labels", {})


def relative(values):
    low, high = min(values), max(values)
    return [1.0 if high == low else (high - v) / (high - low) for v in values]


def score(spec, state, facts, request, cands):
    kind, p = spec["type"], spec.get("parameters", {})
    if kind == "queue-scorer":
        return relative([e["waiting"] for e in cands])
    if kind == "running-requests-size-scorer":
        return relative([e["running"] for e in cands])
    if kind == "kv-cache-utilization-scorer":
        return [1 - e["kv"] for e in cands]
    if kind == "load-aware-scorer":
        t = p.get("threshold", 128)
        return [0.5 * (1 - min(e["waiting"], t) / t) for e in cands]
    if kind == "active-request-scorer":
        idle, busy = p.get("idleThreshold", 0), p.get("maxBusyScore", 1)
        counts = [facts.requests[e["name"]] for e in cands]
        return [1.0 if c <= idle else (max(counts) - c) / max(counts) * busy for c in counts]
    if kind == "token-load-scorer":
        t = p.get("queueThresholdTokens", 4194304)
        loads = [facts.tokens[e["name"]] + facts.uncached[e["name"]] for e in cands]
        return [1.0 if n <= 0 else 1 - min(n, t) / t for n in loads]
    if kind == "prefix-cache-scorer":
        w, s = p.get("matchLengthWeight", 0), p.get("matchLengthScaleTokens", 8192)
        if facts.total == 0:
            return [0.0] * len(cands)
        return [w * min(1, facts.match[e["name"]] * facts.block / s) ** 2
                + (1 - w) * facts.match[e["name"]] / facts.total for e in cands]
    if kind == "no-hit-lru-scorer":
        if facts.hit:
            return [0.5] * len(cands)
        if len(cands) == 1:
            return [1.0]
        names = [e["name"] for e in cands]
        never = sorted((n for n in names if n not in state.cold), key=lambda n: state.slots[n])
        order = never + [n for n in state.cold if n in names]
        return [max(0, 1 - order.index(n) / (len(names) - 1)) for n in names]
    if kind == "lora-affinity-scorer":
        out = []
        for e in cands:
            active, waiting = e.get("active", []), e.get("waiting_models", [])
            if request["model"] in active:
                out.append(1.0)
            elif len(active) + len(waiting) < e.get("max_models", 0):
                out.append(0.8)
            else:
                out.append(0.6 if request["model"] in waiting else 0.0)
        return out
    if kind == "context-length-aware":
        return [context_score(labels_of(e).get("llm-d.ai/context-length-range"), facts.input)
                for e in cands]
    if kind == "header-label-affinity-scorer":
        wanted = request.get("headers", {}).get(p["headerName"])
        return [1.0 if wanted and labels_of(e).get(p["labelKey"]) == wanted else 0.0 for e in cands]
    if kind == "endpoint-attribute-scorer":
        return attribute_scores(p, [e.get("attributes", {}).get(p["attributeKey"]) for e in cands])
    if kind == "topology-affinity-scorer":
        return [PROXIMITY[nearness(facts.peer, e)] for e in cands]
    raise KeyError(kind)


def attribute_scores(p, values):
    present = [v for v in values if v is not None]
    fixed = p["algorithm"].get("normalization", {}).get("fixedRange")
    low, high = (fixed["min"], fixed["max"]) if fixed else (min(present, default=0),
                                                            max(present, default=0))
    out = []
    for v in values:
        if v is None:
            out.append(0.0)
        elif high == low:
            out.append(1.0)
        else:
            place = (min(max(v, low), high) - low) / (high - low)
            higher = p["algorithm"]["type"] == "linear_higher_is_better"
            out.append(place if higher else 1 - place)
    return out


LEVELS = ["host", "rack", "zone", "region"]
PROXIMITY = {"host": 1.0, "rack": 0.2, "zone": 0.05, "region": 0.02, None: 0.0}


def nearness(peer, e):
    """The tightest level that both share; a host without a label is its address."""
    place = lambda x, level: labels_of(x).get(level, x["address"] if level == "host" else None)
    for level in LEVELS:
        if peer is not None and place(e, level) is not None and place(e, level) == place(peer, level):
            return level
    return None


RELATIONS = {"LessThan": lambda v, t: v < t, "LessThanOrEqual": lambda v, t: v <= t,
             "GreaterThan": lambda v, t: v > t, "GreaterThanOrEqual": lambda v, t: v >= t,
             "Equal": lambda v, t: v == t, "NotEqual": lambda v, t: v != t}


def context_score(text, length):
    if text is None:
        return 0.5
    try:
        low, high = (int(x) for x in text.split("-"))
    except ValueError:
        return 0.0
    if not low <= length <= high:
        return 0.3 / (1 + (low - length if length < low else length - high) / 1000)
    width = high - low
    if width == 0:
        return 1.0
    return 0.3 + 0.7 * (0.7 / (1 + width / 10000) + 0.3 * (high - length) / width)


def keep(spec, facts, cands):
    kind, p = spec["type"], spec.get("parameters", {})
    role = lambda e: labels_of(e).get("llm-d.ai/role")
    if kind == "decode-filter":
        return [e for e in cands if role(e) in DECODES]
    if kind == "prefill-filter":
        return [e for e in cands if role(e) in PREFILLS]
    if kind == "encode-filter":
        return [e for e in cands if role(e) in ENCODES]
    if kind == "label-selector-filter":
        return [e for e in cands
                if all(labels_of(e).get(k) == v for k, v in p["matchLabels"].items())]
    if kind == "by-label":
        value = lambda e: labels_of(e).get(p["label"])
        return [e for e in cands if value(e) in p["validValues"]
                or (value(e) is None and p.get("allowsNoLabel", False))]
    if kind == "utilization-filter":
        metric = {"active-requests": lambda e: facts.requests[e["name"]],
                  "running-requests": lambda e: e["running"],
                  "waiting-queue": lambda e: e["waiting"],
                  "kv-cache-utilization": lambda e: e["kv"]}
        kept = [e for e in cands
                if all(metric[c["metric"]](e) <= c["maxValue"] for c in p["conditions"])]
        return cands if not kept and p.get("fallbackOnEmpty", False) else kept
    if kind == "prefix-cache-affinity-filter":
        if len(cands) <= 1 or facts.total == 0:
            return cands
        sticky = [e for e in cands
                  if facts.match[e["name"]] / facts.total >= p.get("affinityThreshold", 0.80)]
        if not sticky:
            return cands
        ttft = lambda e: facts.tokens[e["name"]] / p.get("peakPrefillThroughput", 15928) * 1000
        other = [ttft(e) for e in cands if e not in sticky]
        best = min(ttft(e) for e in sticky)
        if other and best - min(other) > p.get("maxTTFTPenaltyMs", 18000):
            return cands
        return sticky
    if kind == "endpoint-attribute-filter":
        holds = RELATIONS[p["algorithm"]["threshold"]["operator"]]
        value = lambda e: e.get("attributes", {}).get(p["attribute"])
        kept = [e for e in cands
                if (p.get("onMissing", "Pass") == "Pass" if value(e) is None
                    else holds(value(e), p["algorithm"]["threshold"]["value"]))]
        return cands if not kept and p.get("fallbackOnEmpty", False) else kept
    if kind == "topology-affinity-filter":
        near = LEVELS[: LEVELS.index(p.get("minAffinity", "host")) + 1]
        return [e for e in cands if nearness(facts.peer, e) in near] or cands
    raise KeyError(kind)


SCORERS = ["queue-scorer", "running-requests-size-scorer", "kv-cache-utilization-scorer",
           "load-aware-scorer", "active-request-scorer", "token-load-scorer", "prefix-cache-scorer",
           "no-hit-lru-scorer", "lora-affinity-scorer", "context-length-aware",
           "header-label-affinity-scorer"]
SECOND_STAGE_SCORERS = ["endpoint-attribute-scorer", "topology-affinity-scorer"]


def run_profile(profile, specs, state, facts, request, endpoints):
    """The profile's trace as C++ records it, and the endpoints that may win."""
    cands, filters = list(endpoints), []
    for ref in profile["plugins"]:
        spec = specs[ref["pluginRef"]]
        if spec["type"] == "context-length-aware":  # a filter too, which keeps all by default
            filters.append([spec["name"], [e["name"] for e in cands]])
        elif spec["type"].endswith("-filter") or spec["type"] == "by-label":
            cands = keep(spec, facts, cands)
            filters.append([spec["name"], [e["name"] for e in cands]])
        else:
            continue
        if not cands:
            return {"name": profile["name"], "filters": filters, "scores": [], "totals": [],
                    "best": []}, []
    scores, totals = [], [0.0] * len(cands)
    for ref in profile["plugins"]:
        spec = specs[ref["pluginRef"]]
        if spec["type"] not in SCORERS + SECOND_STAGE_SCORERS:
            continue
        weight, raw = ref.get("weight", 1.0), score(spec, state, facts, request, cands)
        scores.append([spec["name"], weight, raw])
        totals = [t + weight * min(1.0, max(0.0, r)) for t, r in zip(totals, raw)]
    best = [e["name"] for e, t in zip(cands, totals) if t >= max(totals) - EPSILON]
    return {"name": profile["name"], "filters": filters, "scores": scores, "totals": totals,
            "best": best}, best


def note(state, facts, request, name, in_flight):
    state.sent.setdefault(name, []).append((request["model"], facts.block, facts.blocks[:LRU_BLOCKS]))
    if not facts.hit:
        if name in state.cold:
            state.cold.remove(name)
        state.cold.append(name)
    if in_flight:
        state.requests[name] = state.requests.get(name, 0) + 1
        state.tokens[name] = state.tokens.get(name, 0) + facts.uncached[name]


# ---- random cases

WORDS = ["the cache ", "of an engine ", "holds blocks ", "é ", "0123456789abcdef"]


def some_prompt(rng, longest=4000):
    return [[rng.choice(WORDS), rng.randint(1, max(1, longest // 40))]
            for _ in range(rng.randint(1, 3))]


def some_endpoint(rng, i):
    e = {"name": f"e{i}", "waiting": rng.choice([0, 1, 3, 8, 40, 64, 127, 128, 300]),
         "running": rng.choice([0, 1, 2, 9, 30]), "kv": round(rng.random(), 3), "labels": {}}
    role = rng.choice([None, None, "decode", "prefill", "encode", "prefill-decode", "both",
                       "encode-prefill", "encode-prefill-decode", "unheard-of"])
    if role:
        e["labels"]["llm-d.ai/role"] = role
    if rng.random() < 0.7:
        e["labels"]["zone"] = rng.choice(["north", "south"])
    if rng.random() < 0.6:
        e["labels"]["llm-d.ai/context-length-range"] = rng.choice(
            ["0-100", "0-2000", "64-64", "500-4000", "9000-20000", "100-100000", "many", "300-"])
    models = ["m", "adapter", "other"]
    e["active"] = rng.sample(models, rng.randint(0, 2))
    e["waiting_models"] = rng.sample(models, rng.randint(0, 2))
    e["max_models"] = rng.randint(0, 4)
    return e


def some_scorer(rng, kind):
    p = {}
    custom = rng.random() < 0.4
    if kind == "load-aware-scorer" and custom:
        p["threshold"] = rng.choice([1, 10, 64])
    if kind == "active-request-scorer" and custom:
        p = {"idleThreshold": rng.choice([0, 1, 2]), "maxBusyScore": rng.choice([0.25, 0.5, 1])}
    if kind == "token-load-scorer" and custom:
        p["queueThresholdTokens"] = rng.choice([100, 1000, 4000])
    if kind == "prefix-cache-scorer" and custom:
        p["matchLengthWeight"] = rng.choice([0.25, 0.5, 1])
        if rng.random() < 0.5:
            p["matchLengthScaleTokens"] = rng.choice([256, 1024])
    if kind == "header-label-affinity-scorer":
        p = {"headerName": "x-zone", "labelKey": "zone"}
    return {"name": rng.choice([kind, kind + "-2"]), "type": kind, "parameters": p}


def some_filter(rng):
    kind = rng.choice(["decode-filter", "prefill-filter", "encode-filter", "label-selector-filter",
                       "by-label", "utilization-filter", "prefix-cache-affinity-filter"])
    p = {}
    if kind == "label-selector-filter":
        p["matchLabels"] = {"zone": rng.choice(["north", "south"])}
    if kind == "by-label":
        p = {"label": "zone", "validValues": [rng.choice(["north", "south"])],
             "allowsNoLabel": rng.random() < 0.5}
    if kind == "utilization-filter":
        metrics = ["active-requests", "running-requests", "waiting-queue", "kv-cache-utilization"]
        p["conditions"] = [{"metric": m, "maxValue": rng.choice([0.5, 1, 8, 64])}
                           for m in rng.sample(metrics, rng.randint(1, 2))]
        p["fallbackOnEmpty"] = rng.random() < 0.5
    if kind == "prefix-cache-affinity-filter" and rng.random() < 0.7:
        p = {"affinityThreshold": rng.choice([0.2, 0.5, 1.0]),
             "maxTTFTPenaltyMs": rng.choice([10, 100]),
             "peakPrefillThroughput": rng.choice([1000, 5000])}
    return {"name": kind, "type": kind, "parameters": p}


def some_history(rng, endpoints, request):
    out = []
    for _ in range(rng.randint(0, 6)):
        earlier = {"model": rng.choice([request["model"], "m"]), "prompt": some_prompt(rng)}
        if rng.random() < 0.6:  # shares a beginning with the request
            cut = rng.randint(1, len(request["prompt"]))
            earlier["prompt"] = request["prompt"][:cut] + some_prompt(rng)[: rng.randint(0, 1)]
        out.append({"endpoint": rng.randrange(len(endpoints)), "request": earlier,
                    "in_flight": rng.random() < 0.5})
    return out


def replay(history, endpoints, plugins):
    state = State()
    for h in history:
        only = [endpoints[h["endpoint"]]]
        state.see(only)
        facts = Facts(state, only, h["request"], plugins)
        note(state, facts, h["request"], only[0]["name"], h["in_flight"])
    state.see(endpoints)
    return state


def single_case(rng):
    endpoints = [some_endpoint(rng, i) for i in range(rng.randint(1, 9))]
    request = {"model": rng.choice(["m", "adapter"]), "prompt": some_prompt(rng)}
    if rng.random() < 0.5:
        request["headers"] = {"x-zone": rng.choice(["north", "south", "west"])}
    plugins, refs = [], []
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        plugins.append(some_filter(rng))
    plugins = list({p["name"]: p for p in plugins}.values())
    refs = [{"pluginRef": p["name"]} for p in plugins]
    for kind in rng.sample(SCORERS, rng.randint(1, 5)):
        plugins.append(some_scorer(rng, kind))
        ref = {"pluginRef": plugins[-1]["name"]}
        if rng.random() < 0.7:
            ref["weight"] = rng.choice([0, 0.5, 2, 3, 10])
        refs.append(ref)
    # History goes through the same filters: those that could drop the lone endpoint are left out.
    history = [] if any(p["type"].endswith("filter") or p["type"] == "by-label" for p in plugins
                        if p["type"] != "prefix-cache-affinity-filter") \
        else some_history(rng, endpoints, request)
    case = {"plugins": plugins, "profiles": [{"name": "only", "plugins": refs}],
            "history": history, "endpoints": endpoints, "request": request}
    state = replay(history, endpoints, plugins)
    facts = Facts(state, endpoints, request, plugins)
    trace, best = run_profile(case["profiles"][0], {p["name"]: p for p in plugins}, state, facts,
                              request, endpoints)
    case["expect"] = {"ok": bool(best), "profiles": [trace], "decision_type": "decode-only"}
    return case


def disagg_case(rng):
    roles = ["prefill", "decode", "both", "prefill-decode"]
    endpoints = [some_endpoint(rng, i) for i in range(rng.randint(2, 6))]
    for e in endpoints:
        e["labels"]["llm-d.ai/role"] = rng.choice(roles)
    endpoints[0]["labels"]["llm-d.ai/role"] = "decode"
    request = {"model": "m", "prompt": some_prompt(rng)}
    threshold = {"nonCachedTokens": rng.choice([0, 16, 128]),
                 "promptTokens": rng.choice([0, 0, 100, 400])}
    names = ["decode-filter", "prefill-filter", "prefix-cache-scorer", "queue-scorer"]
    plugins = [{"name": n, "type": n, "parameters": {}} for n in names] + [
        {"name": "decider", "type": "prefix-based-pd-decider", "parameters": threshold},
        {"name": "handler", "type": "disagg-profile-handler",
         "parameters": {"deciders": {"prefill": "decider"}}}]
    profiles = [{"name": "decode", "plugins": [{"pluginRef": "decode-filter"},
                                               {"pluginRef": "prefix-cache-scorer", "weight": 3},
                                               {"pluginRef": "queue-scorer"}]},
                {"name": "prefill", "plugins": [{"pluginRef": "prefill-filter"},
                                                {"pluginRef": "queue-scorer", "weight": 2}]}]
    history = [h for h in some_history(rng, endpoints, request)
               if endpoints[h["endpoint"]]["labels"]["llm-d.ai/role"] == "decode"]
    state = replay(history, endpoints, plugins)
    facts = Facts(state, endpoints, request, plugins)
    specs = {p["name"]: p for p in plugins}
    decode, best = run_profile(profiles[0], specs, state, facts, request, endpoints)
    if len(best) != 1:
        return None  # the decider looks at the chosen endpoint: only clear choices are told
    cached = min(facts.input, facts.match[best[0]] * facts.block)
    wanted = threshold["nonCachedTokens"]
    split = (wanted > 0 and facts.input >= max(wanted, threshold["promptTokens"])
             and facts.input - cached >= wanted)
    expect = {"ok": True, "profiles": [decode], "decision_type": "decode-only", "prefill": []}
    if split:
        prefill, peers = run_profile(profiles[1], specs, state, facts, request, endpoints)
        if best[0] in peers and len(peers) > 1:
            return None
        expect["profiles"].append(prefill)
        expect["prefill"] = [p for p in peers if p != best[0]]
        if expect["prefill"]:
            expect["decision_type"] = "prefill-decode"
    return {"plugins": plugins, "profiles": profiles, "history": history, "endpoints": endpoints,
            "request": request, "expect": expect}


def default_constant_cases():
    """Large prompts that reach the default constants no small case can tell apart."""
    rng = random.Random(99)
    for kind, prompt, waiting in [
            ("token-load-scorer", [["0123456789abcdef", 262144]], 0),       # 2^20 tokens of 2^22
            ("prefix-cache-scorer", [["0123456789abcdef", 40000]], 0),      # past the match limit
            ("prefix-cache-affinity-filter", [["abcd", 290000]], 0),        # 18.2 s at 15928 tok/s
            ("prefix-cache-affinity-filter", [["abcd", 284000]], 0),        # 17.8 s
            ("prefix-cache-scorer", [["abcd", 6144]], 0)]:
        endpoints = [some_endpoint(rng, i) for i in range(3)]
        for e in endpoints:
            e["waiting"], e["labels"] = waiting, {}
        spec = some_scorer(random.Random(1), "queue-scorer")
        parameters = {"matchLengthWeight": 0.5} if prompt[0][1] == 6144 else {}
        plugins = [{"name": kind, "type": kind, "parameters": parameters}, spec]
        history = [{"endpoint": 0, "request": {"model": "m", "prompt": prompt}, "in_flight": True}]
        request = {"model": "m", "prompt": prompt}
        profiles = [{"name": "only", "plugins": [{"pluginRef": p["name"]} for p in plugins]}]
        if "affinity" in kind:
            # Only what can be matched counts as the prompt: the sent prefix is its whole.
            assert Facts(State(), endpoints, request, plugins).total == MAX_PREFIX_TOKENS // BLOCK_FLOOR
        state = replay(history, endpoints, plugins)
        facts = Facts(state, endpoints, request, plugins)
        trace, best = run_profile(profiles[0], {p["name"]: p for p in plugins}, state, facts,
                                  request, endpoints)
        yield {"plugins": plugins, "profiles": profiles, "history": history,
               "endpoints": endpoints, "request": request,
               "expect": {"ok": True, "profiles": [trace], "decision_type": "decode-only"}}


def boundary_cases():
    """Matches at the default threshold of 0.80 and just below it, and of a prompt past the limit."""
    rng = random.Random(7)
    block = "0123456789abcdef" * (BLOCK_FLOOR * BYTES_PER_TOKEN // 16)
    for kind, held, total in [("prefix-cache-affinity-filter", 8, 10),
                              ("prefix-cache-affinity-filter", 71, 89),
                              ("prefix-cache-scorer", 1000, 2100)]:
        endpoints = [some_endpoint(rng, i) for i in range(3)]
        plugins = [{"name": kind, "type": kind, "parameters": {}},
                   some_scorer(random.Random(1), "queue-scorer")]
        profiles = [{"name": "only", "plugins": [{"pluginRef": p["name"]} for p in plugins]}]
        history = [{"endpoint": 1, "request": {"model": "m", "prompt": [[block, held]]},
                    "in_flight": False}]
        request = {"model": "m", "prompt": [[block, held], [block[::-1], total - held]]}
        state = replay(history, endpoints, plugins)
        facts = Facts(state, endpoints, request, plugins)
        trace, _ = run_profile(profiles[0], {p["name"]: p for p in plugins}, state, facts,
                               request, endpoints)
        yield {"plugins": plugins, "profiles": profiles, "history": history,
               "endpoints": endpoints, "request": request,
               "expect": {"ok": True, "profiles": [trace], "decision_type": "decode-only"}}


def attribute_case(rng):
    endpoints = [some_endpoint(rng, i) for i in range(rng.randint(1, 8))]
    for e in endpoints:
        e["attributes"] = {k: rng.choice([0, 1, 2, 2.5, 7, -3]) for k in ("heat", "depth")
                           if rng.random() < 0.7}
    extractor = {"name": "core-metrics-extractor", "type": "core-metrics-extractor",
                 "parameters": {"customMetrics": [{"attributeKey": k, "metricSpec": "x_" + k}
                                                  for k in ("heat", "depth")]}}
    algorithm = {"type": rng.choice(["linear_lower_is_better", "linear_higher_is_better"])}
    if rng.random() < 0.6:
        algorithm["normalization"] = rng.choice(
            [{"fixedRange": {"min": 0, "max": 5}}, {"fixedRange": {"min": -1.5, "max": 2}},
             {"adaptiveRange": {}}])
    scorer = {"name": "by-heat", "type": "endpoint-attribute-scorer",
              "parameters": {"attributeKey": "heat", "algorithm": algorithm}}
    chosen = {"attribute": "depth", "algorithm": {"type": "threshold", "threshold": {
        "operator": rng.choice(sorted(RELATIONS)), "value": rng.choice([0, 2, 2.5])}}}
    if rng.random() < 0.5:
        chosen["onMissing"] = rng.choice(["Pass", "Fail"])
    if rng.random() < 0.5:
        chosen["fallbackOnEmpty"] = rng.random() < 0.7
    keeper = {"name": "by-depth", "type": "endpoint-attribute-filter", "parameters": chosen}
    plugins = [extractor, keeper, scorer, some_scorer(rng, "queue-scorer")]
    refs = [{"pluginRef": "by-depth"}, {"pluginRef": "by-heat", "weight": rng.choice([1, 2.5])},
            {"pluginRef": plugins[-1]["name"]}]
    return one_profile_case(plugins, refs, endpoints, {"model": "m", "prompt": some_prompt(rng)})


def one_profile_case(plugins, refs, endpoints, request):
    profile = {"name": "only", "plugins": refs}
    state = replay([], endpoints, plugins)
    facts = Facts(state, endpoints, request, plugins)
    trace, best = run_profile(profile, {p["name"]: p for p in plugins}, state, facts, request,
                              endpoints)
    return {"plugins": plugins, "profiles": [profile], "history": [], "endpoints": endpoints,
            "request": request,
            "expect": {"ok": bool(best), "profiles": [trace], "decision_type": "decode-only"}}


def topology_case(rng):
    """Two stages, the second of which looks at where the first one's endpoint stands."""
    prefill_first = rng.random() < 0.5
    roles = ["prefill", "decode"] if prefill_first else ["decode", "prefill"]
    endpoints = [some_endpoint(rng, i) for i in range(rng.randint(3, 9))]
    for i, e in enumerate(endpoints):
        e["address"] = f"10.0.0.{rng.randint(1, 4)}"
        e["labels"] = {"llm-d.ai/role": roles[min(i, 1)]}
        for level, count in zip(LEVELS, [6, 4, 3, 2]):
            if rng.random() < 0.8:
                e["labels"][level] = f"{level}{rng.randint(1, count)}"
    near = {"minAffinity": rng.choice(LEVELS)} if rng.random() < 0.8 else {}
    handler = {"stageOrder": "prefill-first"} if prefill_first else {
        "deciders": {"prefill": "always-disagg-pd-decider"}}
    plugins = [{"name": n, "type": n, "parameters": p} for n, p in [
        ("topology-extractor", {"hostname": "host", **{x: x for x in LEVELS[1:]}}),
        ("topology-affinity-filter", near), ("topology-affinity-scorer", {}),
        ("prefill-filter", {}), ("decode-filter", {}), ("queue-scorer", {}),
        ("always-disagg-pd-decider", {}), ("disagg-profile-handler", handler)]]
    second = [{"pluginRef": "topology-affinity-filter"}] if rng.random() < 0.5 else []
    second += [{"pluginRef": "topology-affinity-scorer", "weight": rng.choice([1, 3])},
               {"pluginRef": "queue-scorer", "weight": rng.choice([0.1, 1])}]
    profiles = [{"name": roles[0], "plugins": [{"pluginRef": roles[0] + "-filter"}]},
                {"name": roles[1], "plugins": [{"pluginRef": roles[1] + "-filter"}] + second}]
    request = {"model": "m", "prompt": some_prompt(rng)}
    state = replay([], endpoints, plugins)
    facts = Facts(state, endpoints, request, plugins)
    specs = {p["name"]: p for p in plugins}
    first, chosen = run_profile(profiles[0], specs, state, facts, request, endpoints)
    facts.peer = endpoints[0]
    assert chosen == [endpoints[0]["name"]]
    then, best = run_profile(profiles[1], specs, state, facts, request, endpoints)
    return {"plugins": plugins, "profiles": profiles, "history": [], "endpoints": endpoints,
            "request": request,
            "expect": {"ok": True, "profiles": [first, then], "decision_type": "prefill-decode",
                       "prefill": chosen if prefill_first else best}}


# ---- cases over what a request's body holds: media, token ids, cached peers

MEDIA_PIXELS_PER_TOKEN = 1024


def chat(text, media):
    parts = [{"type": "text", "text": text}]
    for kind, url in media:
        parts.append({"type": kind + "_url", kind + "_url": {"url": url}})
    return {"path": "/v1/chat/completions", "model": "m",
            "body": json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]})}


def token_prompt(ids, model="m"):
    return {"path": "/v1/completions", "model": model,
            "body": json.dumps({"model": model, "prompt": ids})}


def body_case(plugins, endpoints, history, request, raw, weight=1.0, **expect):
    """One scorer over all endpoints; `raw` are its values."""
    totals = [weight * r for r in raw]
    best = [e["name"] for e, t in zip(endpoints, totals) if t >= max(totals) - EPSILON]
    trace = {"name": "only",
             "filters": [[plugins[0]["name"], [e["name"] for e in endpoints]]]
             if plugins[0]["type"] == "context-length-aware" else [],
             "scores": [[plugins[0]["name"], weight, raw]], "totals": totals, "best": best}
    return {"plugins": plugins,
            "profiles": [{"name": "only", "plugins": [{"pluginRef": plugins[0]["name"],
                                                       "weight": weight}]}],
            "history": history, "endpoints": endpoints, "request": request,
            "expect": {"ok": True, "profiles": [trace], "decision_type": "decode-only", **expect}}


def sent(endpoint, request):
    return {"endpoint": endpoint, "request": request, "in_flight": False}


def encoder_case(rng):
    endpoints = [some_endpoint(rng, i) for i in range(rng.randint(2, 5))]
    urls = [f"http://pictures/{i}" for i in range(5)]
    pick = lambda: rng.choices(urls, k=rng.randint(1, 4))
    history, seen = [], {i: set() for i in range(len(endpoints))}
    for _ in range(rng.randint(0, 4)):
        at, some = rng.randrange(len(endpoints)), pick()
        history.append(sent(at, chat("hi", [("image", u) for u in some])))
        seen[at] |= set(some)
    wanted = pick()
    raw = [len(set(wanted) & seen[i]) / len(set(wanted)) for i in range(len(endpoints))]
    kind = "mm-embeddings-cache-scorer"
    return body_case([{"name": kind, "type": kind, "parameters": {}}], endpoints, history,
                     chat("hi", [("image", u) for u in wanted]), raw, 2.0)


def precise_case(rng):
    endpoints = [some_endpoint(rng, i) for i in range(rng.randint(2, 5))]
    size = rng.choice([2, 3, 16])
    some_ids = lambda n: [rng.randrange(100000) for _ in range(n)]
    ids, model = some_ids(rng.randint(1, 9 * size)), rng.choice(["m", "adapter"])
    history, held = [], {i: [] for i in range(len(endpoints))}
    for _ in range(rng.randint(0, 6)):
        at, cut = rng.randrange(len(endpoints)), rng.randint(0, len(ids))
        earlier = ids[:cut] + some_ids(rng.randint(0, 2 * size))
        if not earlier:
            continue
        of = rng.choice([model, "m"])
        history.append(sent(at, token_prompt(earlier, of)))
        held[at].append((of, earlier))
    blocks = len(ids) // size

    def matched(at):
        """Blocks from the first one that the endpoint was sent as part of the same beginning."""
        n = 0
        while n < blocks and any(of == model and len(e) // size > n
                                 and e[:(n + 1) * size] == ids[:(n + 1) * size]
                                 for of, e in held[at]):
            n += 1
        return n

    raw = [matched(i) / blocks if blocks else 0.0 for i in range(len(endpoints))]
    kind = "precise-prefix-cache-scorer"
    return body_case([{"name": kind, "type": kind,
                       "parameters": {"speculativeIndexing": True,
                                      "tokenProcessorConfig": {"blockSizeTokens": size}}}],
                     endpoints, history, token_prompt(ids, model), raw, 3.0)


def estimate_case(rng):
    endpoints = [some_endpoint(rng, i) for i in range(rng.randint(2, 5))]
    text = "".join(rng.choice(WORDS) for _ in range(rng.randint(1, 60)))
    media = [(rng.choice(["image", "video"]), f"http://m/{i}") for i in range(rng.randint(0, 3))]
    request, headers = chat(text, media), {}
    width, height, seconds = 640, 360, 10.0
    if rng.random() < 0.5:
        width, height = rng.choice([(1280, 720), (320, 240)])
        headers["x-llm-d-video-resolution"] = f"{width}x{height}"
    if rng.random() < 0.5:
        seconds = rng.choice([1.5, 4, 30])
        headers["x-llm-d-video-duration-seconds"] = str(seconds)
    request["headers"] = headers
    tokens = tokens_of("user" + text)
    for kind, _ in media:
        if kind == "image":
            tokens += 640 * 360 // MEDIA_PIXELS_PER_TOKEN
        else:
            tokens += int(seconds * 2) * (width * height // MEDIA_PIXELS_PER_TOKEN)
    raw = [context_score(labels_of(e).get("llm-d.ai/context-length-range"), tokens)
           for e in endpoints]
    kind = "context-length-aware"
    return body_case([{"name": kind, "type": kind, "parameters": {}}], endpoints, [], request, raw)


def fnv32a(text):
    h = 0x811C9DC5
    for b in text.encode():
        h = (h ^ b) * 0x01000193 & 0xFFFFFFFF
    return h


def peer_case(rng):
    endpoints = [some_endpoint(rng, i) for i in range(rng.randint(2, 6))]
    prompt = "0123456789abcdef" * rng.randint(16, 200)
    of_text = lambda t: {"path": "/v1/completions", "model": "m",
                         "body": json.dumps({"model": "m", "prompt": t})}
    step = BLOCK_FLOOR * BYTES_PER_TOKEN
    total = math.ceil(len(prompt) / step)
    history, cached = [], [0] * len(endpoints)
    for _ in range(rng.randint(0, 6)):
        at, blocks = rng.randrange(len(endpoints)), rng.randint(1, total)
        history.append(sent(at, of_text(prompt[:blocks * step])))
        cached[at] = max(cached[at], blocks)
    raw = [1 - e["kv"] for e in endpoints]
    delta = rng.choice([1, 1, 65, 300])
    chosen = [i for i, r in enumerate(raw) if r >= max(raw) - EPSILON]
    if len(chosen) != 1:
        return None
    near = [i for i, c in enumerate(cached) if c > 0 and c + 1 >= max(cached)]
    weights = [1 / (1 + endpoints[i]["waiting"]) for i in near]
    left, source = fnv32a(f"decision-{len(history) + 1}") / 2**32 * sum(weights), ""
    for i, w in zip(near, weights):
        source = i
        if left < w:
            break
        left -= w
    if source != "" and (source == chosen[0]
                         or (cached[source] - cached[chosen[0]]) * BLOCK_FLOOR < delta):
        source = ""
    plugins = [{"name": "kv", "type": "kv-cache-utilization-scorer", "parameters": {}},
               {"name": "p2p", "type": "p2p-source-producer",
                "parameters": {"minCachedTokenDelta": delta}}]
    return body_case(plugins, endpoints, history, of_text(prompt), raw,
                     source="" if source == "" else endpoints[source]["name"])


def body_cases():
    rng = random.Random(31)
    for make in [encoder_case, precise_case, estimate_case, peer_case]:
        count = 0
        while count < 15:
            case = make(rng)
            if case:
                count += 1
                yield case


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=240)
    parser.add_argument("--seed", type=int, default=20240601)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    cases = list(default_constant_cases()) + list(boundary_cases())
    while len(cases) < args.cases:
        case = disagg_case(rng) if len(cases) % 3 == 0 else single_case(rng)
        if case:
            cases.append(case)
    cases += [attribute_case(random.Random(1000 + i)) for i in range(24)]
    cases += [topology_case(random.Random(2000 + i)) for i in range(24)]
    cases += body_cases()
    print("[\n" + ",\n".join(json.dumps(c, separators=(",", ":"), ensure_ascii=False)
                             for c in cases) + "\n]")


if __name__ == "__main__":
    main()
