"""Ten minutes of a pool in virtual time: requests come, wait in flow control, are served, or give up.

usage: 06_simulation.py
"""
import heapq
import itertools
import math
import random

import llmd

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {type: queue-scorer}
- {type: active-request-scorer}
- {type: concurrency-detector, parameters: {maxConcurrency: 4}}
flowControl: {saturationDetector: {pluginRef: concurrency-detector}, defaultRequestTTL: 5s}
"""


def simulate(seed, requests=3000, endpoints=4):
    director, draw, order = llmd.Director(CONFIG, seed=seed), random.Random(seed), itertools.count()
    director.set_endpoints([llmd.Endpoint(f"e{i}", port=8000 + i) for i in range(endpoints)])
    events, waits, refused = [], [], []

    def at(when, act):
        heapq.heappush(events, (when, next(order), act))

    def arrive():
        came = director.now

        def answered(routing):
            if not routing.ok:
                return refused.append(routing.denied_reason)
            waits.append(director.now - came)
            at(director.now + draw.expovariate(1 / 3), lambda: routing.end(completion_tokens=200))

        answer = director.route({"model": "m", "prompt": f"question {draw.randrange(50)}"}, on_answer=answered)
        if isinstance(answer, llmd.Routing):
            answered(answer)

    for i in range(requests):
        at(i * 0.2, arrive)
    due = None
    while events or director.waiting:  # whatever comes first: an event, or what the director waits for
        director.tick(min(events[0][0] if events else math.inf, math.inf if due is None else due))
        while events and events[0][0] <= director.now + 1e-9:  # its clock counts nanoseconds
            heapq.heappop(events)[2]()
        due = director.tick()
    return waits, refused, director


def main():
    waits, refused, director = simulate(seed=1)
    print(f"{len(waits)} answered, {len(refused)} refused, {director.now:.0f} s of virtual time")
    print(f"waited {sum(waits) / len(waits):.3f} s, at most {max(waits):.3f} s")


if __name__ == "__main__":
    main()
