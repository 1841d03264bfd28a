"""Microseconds of CPU a decision from Python, so that a busy machine spoils little: a 1 KB chat body, prefix, queue, KV, LoRA and session scorers.

usage: python tests/perf/python_sched_bench.py [--seconds 1]      with the installed package
Goals: prepared set 10 us, list of Endpoint 25 us at 8 and 60 us at 100, schedule_many 5 us a request.
"""
import argparse
import statistics
import time

import llmd

YAML = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: prefix-cache-scorer}, {type: queue-scorer}, {type: kv-cache-utilization-scorer},
          {type: lora-affinity-scorer}, {type: session-affinity-scorer}]
"""
TEXT = "Some words of a question that is about one kilobyte long, as they are. " * 13
BODY = '{"model":"m","messages":[{"role":"user","content":"%s"}]}' % TEXT
AS_DICT = {"model": "m", "messages": [{"role": "user", "content": TEXT}]}


def pool(n):
    return [llmd.Endpoint(f"e{i}", port=8000 + i, waiting=i * 7 % 13, running=i % 5, kv_usage=(i * 3 % 10) / 10, num_blocks=10000,
                          active_models=["a"], max_active_models=4) for i in range(n)]


def microseconds(call, per_call, seconds):
    """Median over batches of a fifteenth of the time each, so that a busy machine spoils few of them."""
    call()
    begun = time.thread_time()
    call()
    batch = max(1, int(seconds / 15 / max(time.thread_time() - begun, 1e-7)))
    took = []
    for _ in range(15):
        begun = time.thread_time()
        for _ in range(batch):
            call()
        took.append((time.thread_time() - begun) / batch / per_call * 1e6)
    return statistics.median(took), min(took)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=1.0)
    seconds = options.parse_args().seconds
    for n, goal in ((8, 25), (100, 60)):
        endpoints = pool(n)
        scheduler = llmd.Scheduler.from_yaml(YAML)
        prepared = scheduler.prepare(endpoints)

        def changing(body=BODY):
            endpoints[0].waiting = (endpoints[0].waiting + 1) % 9
            return scheduler.schedule(body, endpoints)

        for name, call, per_call, want in (
                ("prepared set", lambda: scheduler.schedule(BODY, prepared), 1, 10),
                ("prepared set, and its profiles read", lambda: scheduler.schedule(BODY, prepared).profiles, 1, None),
                ("list of Endpoint, one gauge changed", changing, 1, goal),
                ("list made anew each time", lambda: scheduler.schedule(BODY, list(reversed(endpoints))), 1, None),
                ("prepared set, body as dict", lambda: scheduler.schedule(AS_DICT, prepared), 1, None),
                ("schedule_many, 256 bodies", lambda: scheduler.schedule_many([BODY] * 256, prepared), 256, 5)):
            median, least = microseconds(call, per_call, seconds)
            print(f"{n:4} endpoints, {name:38} {median:7.2f} us (least {least:7.2f})" + (f"  goal {want}" if want else ""))


if __name__ == "__main__":
    main()
