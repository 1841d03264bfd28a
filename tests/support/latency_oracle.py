#!/usr/bin/env python3
"""Recomputes what latency-scorer, slo-headroom-tier-filter, prefix-cache-affinity-filter and
latency-slo-admitter make of given predictions, from the published formulas, apart from the C++.

Writes tests/data/golden_latency.json: seeded random predictions, SLOs and endpoints, and what must come out.
tests/sched/plugins/golden_latency_test.cc feeds the same cases to the plugins and compares.

    python3 tests/support/latency_oracle.py [--cases N] [--seed S] > tests/data/golden_latency.json

Nothing here is shared with the implementation.
"""
import argparse
import json
import math
import random


def headrooms(case, e):
    """(TTFT, TPOT) headroom in ms, or None without a prediction that counts."""
    slo, streaming = case["slo"], case["streaming"]
    counts = streaming and e["role"] != "prefill"
    if e["ttft"] is None or (counts and e["tpot"] is None):
        return None
    ttft_slo, tpot_slo = slo.get("ttft"), slo.get("tpot")
    if ttft_slo is None and tpot_slo is None:
        return -e["ttft"], (-e["tpot"] if counts else 0)
    first = 0 if ttft_slo is None else ttft_slo - e["ttft"]
    if not counts:
        return first, 0
    limits = [x for x in (tpot_slo, e["tightest"]) if x is not None]
    return first, (min(limits) * case["factor"] - e["tpot"] if limits else 0)


def tier(e, room):
    if room is None:
        return 5
    ttft, tpot = room
    if ttft >= 0 and tpot >= 0:
        return 0
    if e["dispatched"] == 0:
        return 1
    if ttft >= 0:
        return 2
    return 3 if tpot >= 0 else 4


def scores(case):
    p, rooms = case["scorer"], [headrooms(case, e) for e in case["endpoints"]]
    tiers = [tier(e, r) for e, r in zip(case["endpoints"], rooms)]
    best = min(tiers)
    if best == 5:
        return composite(case)
    inside = [r for r, t in zip(rooms, tiers) if t == best]
    weights = [p.get("ttftWeight", 0.8), p.get("tpotWeight", 0.2)]
    weights = [w / (weights[0] + weights[1]) for w in weights]
    out = []
    for r, t in zip(rooms, tiers):
        if t != best:
            out.append(0.0)
            continue
        c = 0
        for d in (0, 1):
            values = [abs(x[d]) for x in inside]
            if max(values) > min(values):
                c += weights[d] * ((abs(r[d]) - min(values)) / (max(values) - min(values)))
        most = p.get("headroomSelectionStrategy", "least") == "most" and best == 0
        out.append((math.floor((c if most else 1 - c) * 100) + 1) / 100)
    return out


def composite(case):
    p, es = case["scorer"], case["endpoints"]
    w = [p.get(k, 1) for k in ("compositeKVWeight", "compositeQueueWeight", "compositePrefixWeight")]
    longest = max(e["waiting"] for e in es)
    out = []
    for e in es:
        parts = [1 - e["kv"], (longest - e["waiting"]) / longest if longest else 1, e["prefix"]]
        mean = (w[0] * parts[0] + w[1] * parts[1] + w[2] * parts[2]) / (w[0] + w[1] + w[2])
        out.append(math.floor(mean * 100 + 0.5) / 100)
    return out


def tiered(case):
    """Survivors of slo-headroom-tier-filter without exploration, and with certain exploration."""
    good = [e["name"] for e in case["endpoints"] if tier(e, headrooms(case, e)) == 0]
    names = [e["name"] for e in case["endpoints"]]
    bad = [n for n in names if n not in good]
    return good or names, bad or names


def affine(case):
    es, threshold = case["endpoints"], case["affinity"]["affinityThreshold"]
    names = [e["name"] for e in es]
    sticky = [e for e in es if e["prefix"] >= threshold]
    if len(es) <= 1 or not sticky:
        return names
    known = [e["ttft"] for e in sticky if e["ttft"] is not None]
    other = [e["ttft"] for e in es if e not in sticky and e["ttft"] is not None]
    if known and other and min(known) - min(other) > case["affinity"]["maxTTFTPenaltyMs"]:
        return names
    return [e["name"] for e in sticky]


def admitted(case):
    if case["priority"] >= 0 or not case["slo"]:
        return True
    rooms = [headrooms(case, e) for e in case["endpoints"]]
    if all(r is None for r in rooms):
        return True
    return any(tier(e, r) == 0 or e["dispatched"] == 0 or e["kv"] < 0.02
               for e, r in zip(case["endpoints"], rooms))


def some_case(rng):
    blind = rng.random() < 0.15
    endpoints = []
    for i in range(rng.randint(1, 8)):
        ttft = rng.choice([40, 90, 100, 250, 400, 700])
        tpot = rng.choice([4, 10, 20, 35, 60])
        if blind or rng.random() < 0.1:
            ttft = tpot = None
        elif rng.random() < 0.1:
            tpot = None
        endpoints.append({
            "name": f"e{i}", "role": rng.choice(["decode", "decode", "prefill"]), "ttft": ttft,
            "tpot": tpot, "tightest": rng.choice([None, None, 15, 30, 50]),
            "dispatched": rng.choice([0, 1, 2, 5]), "waiting": rng.choice([0, 0, 1, 4, 9]),
            "kv": rng.choice([0.0, 0.019, 0.02, 0.3, 0.55, 0.9]),
            "prefix": rng.choice([0.0, 0.25, 0.5, 0.75, 1.0])})
    slo = {}
    if rng.random() < 0.75:
        slo["ttft"] = rng.choice([50, 100, 300, 1000])
    if rng.random() < 0.6:
        slo["tpot"] = rng.choice([5, 25, 40, 100])
    scorer = {}
    if rng.random() < 0.5:
        scorer["headroomSelectionStrategy"] = rng.choice(["least", "most"])
    if rng.random() < 0.4:
        scorer |= rng.choice([{"ttftWeight": 1, "tpotWeight": 3}, {"tpotWeight": 0},
                              {"ttftWeight": 0}])
    if rng.random() < 0.3:
        scorer |= {"compositeKVWeight": 2, "compositePrefixWeight": 0.5}
    return expected({"streaming": rng.random() < 0.7, "factor": rng.choice([1, 1, 0.75]), "slo": slo,
                     "priority": rng.choice([0, -1, -1, 5]), "scorer": scorer,
                     "affinity": {"affinityThreshold": rng.choice([0.5, 0.75]),
                                  "maxTTFTPenaltyMs": rng.choice([50, 300])},
                     "endpoints": endpoints})


def expected(case):
    stay, explored = tiered(case)
    case["expect"] = {"scores": scores(case), "tier": stay, "explored": explored,
                      "affine": affine(case), "admitted": admitted(case)}
    return case


def boundary_cases():
    """An SLO that is met to the millisecond, and composite weights of less than one together."""
    def endpoint(name, ttft, tpot, waiting=0):
        return {"name": name, "role": "decode", "ttft": ttft, "tpot": tpot, "tightest": None, "dispatched": 1,
                "waiting": waiting, "kv": 0.5, "prefix": 0.25}
    rest = {"streaming": True, "factor": 1, "priority": -1, "affinity": {"affinityThreshold": 0.5, "maxTTFTPenaltyMs": 50}}
    slo = {"ttft": 100, "tpot": 25}
    for at, beyond in [((100, 35), (101, 26)), ((101, 25), (130, 26)), ((100, 25), (90, 26))]:
        yield expected({**rest, "slo": slo, "scorer": {}, "endpoints": [endpoint("e0", *beyond), endpoint("e1", *at)]})
    light = {"compositeKVWeight": 0.2, "compositeQueueWeight": 0.3, "compositePrefixWeight": 0.1}
    yield expected({**rest, "slo": slo, "scorer": light, "endpoints": [endpoint("e0", None, None, 4), endpoint("e1", None, None, 1)]})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=20240602)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    cases = [some_case(rng) for _ in range(args.cases)] + list(boundary_cases())
    print("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]")


if __name__ == "__main__":
    main()
