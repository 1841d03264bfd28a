"""The decision of 01_schedule.cc in Python: same YAML, same request, same scores.

usage: 02_schedule.py [CONFIG.yaml]
"""
import pathlib
import sys

import llmd

DEFAULT = pathlib.Path(__file__).parent / "data" / "schedule.yaml"


def main():
    config = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else DEFAULT)
    scheduler = llmd.Scheduler.from_yaml(config.read_text())
    endpoints = [
        llmd.Endpoint(name, address="10.0.0.1", port=port, labels={"llm-d.ai/role": role}, waiting=waiting, kv_usage=usage)
        for name, role, port, waiting, usage in [
            ("decode-0", "decode", 8000, 4, 0.5), ("decode-1", "decode", 8001, 1, 0.7), ("prefill-0", "prefill", 8002, 0, 0)]]
    for _ in range(2):  # the second time the prefix is known where the first one went
        decision = scheduler.schedule({"model": "demo", "prompt": "a" * 2000}, endpoints)
        for name, profile in decision.profiles.items():
            for i, endpoint in enumerate(profile["candidates"]):
                scores = "".join(f" {scorer} {values[i]:.6f}" for scorer, values in profile["scores"].items())
                print(f"{name} {endpoint} total {profile['totals'][i]:.6f}{scores}")
        print("chosen", decision.endpoint)


if __name__ == "__main__":
    main()
