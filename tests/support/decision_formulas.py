"""The published formulas of filters, scorers and producers, apart from the C++.

What decision_oracle.py recomputes decisions with: what earlier requests left behind (State), what a request's producers
know (Facts), and one profile over them (run_profile). Formulas: the pages of docs/reference.
Nothing here is shared with the implementation.
"""
import hashlib
import math

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
