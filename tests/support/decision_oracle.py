#!/usr/bin/env python3
"""Recomputes scheduling decisions from the published formulas, apart from the C++.

Writes tests/data/golden_decisions.json: seeded random configurations, endpoints, earlier requests and one
request to place, with every filter's survivors, every scorer's raw value, the totals and the set of endpoints
that may win. tests/sched/golden_decisions_test.cc feeds the same cases to llmd::sched and compares.

    python3 tests/support/decision_oracle.py [--cases N] [--seed S] > tests/data/golden_decisions.json

The formulas are decision_formulas.py's; the random cases are made here.
"""
import argparse
import json
import math
import random

from decision_formulas import (BLOCK_FLOOR, BYTES_PER_TOKEN, EPSILON, Facts, LEVELS, MAX_PREFIX_TOKENS, RELATIONS,
                               SCORERS, State, context_score, labels_of, note, run_profile, tokens_of)

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


def disagg_case(rng, threshold=None):
    roles = ["prefill", "decode", "both", "prefill-decode"]
    endpoints = [some_endpoint(rng, i) for i in range(rng.randint(2, 6))]
    for e in endpoints:
        e["labels"]["llm-d.ai/role"] = rng.choice(roles)
    endpoints[0]["labels"]["llm-d.ai/role"] = "decode"
    request = {"model": "m", "prompt": some_prompt(rng)}
    if threshold is None:
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
    wanted = threshold.get("nonCachedTokens", 0)
    split = (wanted > 0 and facts.input >= max(wanted, threshold.get("promptTokens", 0))
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


def smallest_cases():
    """One token is a load; one token is worth a prefill elsewhere, and no threshold is worth none; a match beyond the
    scale counts as the scale."""
    rng = random.Random(12)
    block = "0123456789abcdef" * (BLOCK_FLOOR * BYTES_PER_TOKEN // 16)
    for kind, parameters, prompt, held in [
            ("token-load-scorer", {"queueThresholdTokens": 100}, [["a", 1]], None),
            ("prefix-cache-scorer", {"matchLengthWeight": 0.5, "matchLengthScaleTokens": 256},
             [[block, 40], [block[::-1], 40]], [[block, 40]])]:
        endpoints = [some_endpoint(rng, i) for i in range(3)]
        plugins = [{"name": kind, "type": kind, "parameters": parameters}]
        history = [{"endpoint": 1, "request": {"model": "m", "prompt": held}, "in_flight": False}] if held else []
        yield one_profile_case(plugins, [{"pluginRef": kind}], endpoints, {"model": "m", "prompt": prompt}, history)
    for threshold in ({"nonCachedTokens": 1}, {}):
        yield next(c for c in (disagg_case(rng, threshold) for _ in range(1000)) if c and len(c["endpoints"]) > 3)


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


def one_profile_case(plugins, refs, endpoints, request, history=()):
    profile = {"name": "only", "plugins": refs}
    state = replay(history, endpoints, plugins)
    facts = Facts(state, endpoints, request, plugins)
    trace, best = run_profile(profile, {p["name"]: p for p in plugins}, state, facts, request,
                              endpoints)
    return {"plugins": plugins, "profiles": [profile], "history": list(history), "endpoints": endpoints,
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
    cases += smallest_cases()
    print("[\n" + ",\n".join(json.dumps(c, separators=(",", ":"), ensure_ascii=False)
                             for c in cases) + "\n]")


if __name__ == "__main__":
    main()
