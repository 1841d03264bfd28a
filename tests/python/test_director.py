"""The director in virtual time: queues, TTLs, staleness, fairness, stages, callbacks, reloads, hooks, repeatability."""
import gc
import json
import math
import pathlib
import runpy
import subprocess
import sys
import threading
import weakref

import numpy
import pytest

import llmd

ROOT = pathlib.Path(__file__).resolve().parents[2]
BODY = {"model": "m", "prompt": "hello"}
ONE = "{type: concurrency-detector, parameters: {maxConcurrency: 1}}"


def config(*plugins, flow=None, rest=""):
    text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n"
    text += "".join(f"- {p}\n" for p in plugins) + rest
    if flow is not None:
        detector = next(p for p in plugins if "-detector" in p).split("type: ")[1].split(",")[0].rstrip("}")
        text += f"featureGates: [flowControl]\nflowControl: {{saturationDetector: {{pluginRef: {detector}}}{flow}}}\n"
    return text


def director(*plugins, flow=None, rest="", pods=1, **kwargs):
    made = llmd.Director(config(*plugins, flow=flow, rest=rest), **kwargs)
    made.set_endpoints([llmd.Endpoint(f"e{i}", port=8000 + i) for i in range(pods)])
    return made


def full(flow="", **kwargs):
    """A director whose one place is taken, and who has it."""
    made = director("{type: queue-scorer}", ONE, flow=flow, **kwargs)
    return made, made.route(BODY)


def test_an_answer_in_the_call():
    d = director("{type: queue-scorer}", pods=2)
    d.set_metrics("e0", waiting=5)
    routing = d.route(BODY, headers={"X-Request-Id": "r-1"})
    assert isinstance(routing, llmd.Routing) and routing.ok and routing.endpoint == "default/e1"
    assert routing.addresses[0] == "127.0.0.1:8001" and routing.prefill is None and routing.request_id == "r-1"
    assert routing.denied_status == 0 and routing.retry_after is None
    assert repr(routing) == "<llmd.Routing 'r-1': default/e1>"
    assert d.endpoints == ["default/e0", "default/e1"] and repr(d) == "<llmd.Director at 0.0 s, 2 endpoints>"
    routing.end(prompt_tokens=3, completion_tokens=4)
    routing.end()  # without effect
    assert repr(routing) == "<llmd.Routing 'r-1': default/e1, ended>"


def test_what_is_wrong_is_a_refusal_or_an_error():
    d = director("{type: queue-scorer}")
    bad = d.route("{", path="/v1/completions")
    assert (bad.ok, bad.denied_status, bad.endpoint, bad.endpoints) == (False, 400, None, [])
    assert bad.denied_message and bad.denied_reason == bad.denied_message
    bad.end()
    bad.cancel()
    assert bad.first_token() == {}
    with pytest.raises(llmd.errors.InvalidArgumentError):
        d.route({"model": "m"})
    with pytest.raises(llmd.errors.InvalidArgumentError, match="now=-1.0"):
        d.tick(-1)
    with pytest.raises(llmd.errors.InvalidArgumentError, match="looks like a file's name"):
        llmd.Director("pool.yaml")
    with pytest.raises(llmd.errors.InvalidArgumentError, match="staleness=0.0"):
        llmd.Director("", staleness=0)
    with pytest.raises(llmd.errors.InvalidArgumentError, match="two endpoints are called 'default/a'"):
        d.set_endpoints([llmd.Endpoint("a"), llmd.Endpoint("a", port=2)])
    with pytest.raises(llmd.errors.NotFoundError, match="default/nobody"):
        d.set_metrics("nobody", waiting=1)
    with pytest.raises(llmd.errors.InvalidArgumentError, match="kv_usage=3.0: expected 0 to 1"):
        d.set_metrics("e0", kv_usage=3)
    with pytest.raises(llmd.errors.UnimplementedError, match="attributes"):
        d.set_endpoints([llmd.Endpoint("a", attributes={"heat": 1})])
    with pytest.raises(llmd.errors.InvalidArgumentError, match="completion_tokens=-1"):
        d.route(BODY).end(completion_tokens=-1)
    with pytest.raises(TypeError, match="on_answer is not callable"):
        d.route(BODY, on_answer=3)
    with pytest.raises(llmd.errors.InvalidArgumentError, match="no plugin of type 'mine'"):
        llmd.Director("", scorers={"mine": lambda r, c: c.waiting})


def test_a_full_pool_queues_and_the_end_of_an_answer_lets_the_next_in():
    d, first = full()
    told = []
    waiting = d.route(BODY, on_answer=told.append)
    assert isinstance(waiting, llmd.Pending) and waiting.routing is None and repr(waiting) == "<llmd.Pending, waiting>"
    assert told == []
    first.end(completion_tokens=5)
    assert told == [waiting.routing] and told[0].ok and repr(waiting) == "<llmd.Pending, answered>"
    told[0].end()
    assert d.route(BODY).ok


def test_ttls_expire_to_the_tick():
    d, first = full()
    ends = {}
    for ttl in ("1234567us", "17ms", "3s"):
        d.route(BODY, headers={"x-llm-d-inference-ttl": ttl}, on_answer=lambda r, t=ttl: ends.update({t: (d.now, r.denied_reason)}))
    due = d.tick()
    assert due == 0.017 and d.waiting == 3
    while d.waiting:
        due = d.tick(due)
    assert ends == {"17ms": (0.017, "rejected-ttl-expired"), "1234567us": (1.234567, "rejected-ttl-expired"),
                    "3s": (3.0, "rejected-ttl-expired")}
    assert first.ok


@pytest.mark.parametrize("start", [0.0, 1e-9, 12345.678901234, 1e8 / 3])
def test_a_due_time_is_reached_by_ticking_to_it(start):
    d, first = full(start=start)
    d.route(BODY, headers={"x-llm-d-inference-ttl": "100ms"})
    due = d.tick()
    assert due == pytest.approx(start + 0.1, rel=1e-9)
    d.tick(due)
    assert d.waiting == 0, "one step does it"
    assert d.now >= due and first.ok


def test_metrics_open_the_gate_and_grow_stale():
    d = director("{type: queue-scorer}", "{type: utilization-detector, parameters: {staleMaxConcurrency: 1}}", flow="", staleness=1.5)
    d.set_metrics("e0", waiting=50)
    pending = d.route(BODY)
    d.tick(0.01)
    assert pending.routing is None
    d.set_metrics("default/e0", waiting=0)
    d.tick()
    assert pending.routing.ok
    pending.routing.end()
    seen = []
    e = llmd.Director(config("{type: mine}"), scorers={"mine": lambda r, c: seen.append((c.stale[0], c.waiting[0])) or [0.0]}, staleness=1.5)
    e.set_endpoints([llmd.Endpoint("a", waiting=3)])
    e.route(BODY)
    e.tick(1.49)
    e.route(BODY)
    e.tick(2)
    e.route(BODY)
    e.set_metrics(llmd.Endpoint("a", waiting=4))
    e.route(BODY)
    assert [bool(stale) for stale, _ in seen] == [False, False, True, False]
    assert seen[1][1] == 3 and math.isnan(seen[2][1]) and seen[3][1] == 4


def test_two_flows_share_by_their_weights():
    weights = "{type: virtual-token-counter-fairness-policy, parameters: {weights: {gold: 3, tin: 1}}}"
    d = director("{type: queue-scorer}", ONE, weights,
                 flow=", defaultPriorityBand: {fairnessPolicyRef: virtual-token-counter-fairness-policy}")
    served, busy = {"gold": 0, "tin": 0}, [d.route(BODY)]

    def ask(flow):
        def answered(routing):
            served[flow] += 1
            busy.append(routing)
        d.route({**BODY, "max_tokens": 10}, headers={"x-llm-d-inference-fairness-id": flow}, on_answer=answered)

    for _ in range(300):
        ask("gold")
        ask("tin")
    for _ in range(200):
        busy.pop().end(prompt_tokens=10, completion_tokens=10)
        d.tick(d.now + 0.01)
    assert sum(served.values()) == 200
    assert served["gold"] / 200 == pytest.approx(0.75, abs=0.02)


DISAGG = """schedulingProfiles:
- {name: prefill, plugins: [{pluginRef: prefill-filter}, {pluginRef: queue-scorer}]}
- {name: decode, plugins: [{pluginRef: decode-filter}, {pluginRef: queue-scorer}]}
"""


def test_prefill_and_decode():
    d = llmd.Director(config("{type: decode-filter}", "{type: prefill-filter}", "{type: queue-scorer}", "{type: always-disagg-pd-decider}",
                             "{type: disagg-profile-handler, parameters: {deciders: {prefill: always-disagg-pd-decider}}}", rest=DISAGG))
    d.set_endpoints([llmd.Endpoint(role, port=8000 + i, labels={"llm-d.ai/role": role}) for i, role in enumerate(("prefill", "decode"))])
    routing = d.route(BODY)
    assert (routing.endpoint, routing.prefill) == ("default/decode", "default/prefill")
    assert routing.set_headers["x-prefiller-host-port"] == "127.0.0.1:8000"
    assert repr(routing).endswith(": default/decode, prefill default/prefill>")
    d.set_endpoints([llmd.Endpoint("decode", port=8001, labels={"llm-d.ai/role": "decode"})])
    assert d.route(BODY).prefill is None


def test_who_failed_is_excluded():
    d = director("{type: queue-scorer}", pods=3)
    failed = []
    for _ in range(3):
        routing = d.route(BODY, exclude=failed)
        assert routing.endpoint not in failed
        failed.append(routing.endpoint)
    assert d.route(BODY, exclude=failed).denied_status == 503
    with pytest.raises(llmd.errors.NotFoundError, match="the director never had an endpoint 'default/e9'"):
        d.route(BODY, exclude=["e9"])


def test_endpoints_of_one_address_are_told_apart():
    d = director("{type: inflight-load-producer}", "{type: active-request-scorer}", pods=0)
    d.set_endpoints([llmd.Endpoint("a"), llmd.Endpoint("b")])
    routed = [d.route(BODY) for _ in range(4)]
    assert sorted(r.endpoint for r in routed) == ["default/a", "default/a", "default/b", "default/b"]
    assert {a for r in routed for a in r.addresses} == {"127.0.0.1:8000"}
    for name, other in (("a", "b"), ("b", "a")):
        assert [d.route(BODY, exclude=[name]).endpoint for _ in range(3)] == [f"default/{other}"] * 3
    disaggregated = director("{type: decode-filter}", "{type: prefill-filter}", "{type: queue-scorer}", "{type: always-disagg-pd-decider}",
                             "{type: disagg-profile-handler, parameters: {deciders: {prefill: always-disagg-pd-decider}}}", rest=DISAGG, pods=0)
    disaggregated.set_endpoints([llmd.Endpoint(role, labels={"llm-d.ai/role": role}) for role in ("prefill", "decode")])
    routing = disaggregated.route(BODY)
    assert (routing.endpoint, routing.prefill) == ("default/decode", "default/prefill")


def test_who_comes_back_is_excluded_as_whoever_it_is_now():
    d = director("{type: inflight-load-producer}", "{type: active-request-scorer}", pods=0)
    a, b = llmd.Endpoint("a", port=1), llmd.Endpoint("b", port=2)
    d.set_endpoints([a, b])
    assert d.route(BODY, exclude=["a"]).endpoint == "default/b", "nobody was routed to it yet"
    held = [d.route(BODY) for _ in range(2)]
    assert {r.endpoint for r in held} == {"default/a", "default/b"}
    d.set_endpoints([b])
    assert d.route(BODY, exclude=["a"]).endpoint == "default/b", "who left excludes nobody"
    for back in (a, llmd.Endpoint("a", port=7)):
        d.set_endpoints([back, b])
        assert {d.route(BODY, exclude=["a"]).endpoint for _ in range(8)} == {"default/b"}
        assert {d.route(BODY, exclude=["b"]).endpoint for _ in range(8)} == {"default/a"}


def test_a_pending_may_be_cancelled_while_another_thread_has_it_answered():
    d, first = full()
    for _ in range(200):
        pending = d.route(BODY)
        other = threading.Thread(target=pending.cancel)
        other.start()
        first.end()
        other.join()
        assert pending.routing is not None
        pending.routing.end()
        first = d.route(BODY)
        assert first.ok and d.waiting == 0


def test_a_slow_producer_keeps_the_request():
    d = director("{type: burst-prefix-cache-producer, parameters: {windowDurationMs: 50}}",
                 "{type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: burst-prefix-cache-producer}}", pods=4)
    waiting = [d.route({"model": "m", "prompt": f"{i % 2} " + "word " * 500}) for i in range(8)]
    due, steps = d.tick(), 0
    while any(w.routing is None for w in waiting):
        due, steps = d.tick(due), steps + 1
        assert steps < 20
    assert d.waiting == 0 and d.now == pytest.approx(0.05, abs=0.011)
    chosen = [w.routing.endpoint for w in waiting]
    assert len(set(chosen[::2])) == len(set(chosen[1::2])) == 1 and chosen[0] != chosen[1], "each prompt has a place of its own"


def test_callbacks_may_cancel_route_and_raise():
    d, first = full()
    order = []

    def second(routing):
        order.append("second")
        third.cancel()  # waits
        routing.cancel()  # its place is free at once
        assert d.route(BODY, on_answer=lambda r: order.append("never")).ok

    d.route(BODY, on_answer=second)
    third = d.route(BODY, on_answer=lambda r: order.append(("third", r.denied_status, r.denied_reason)))
    first.end()
    assert order == ["second", ("third", 503, "rejected-context-cancelled")]
    assert third.routing.denied_status == 503
    third.cancel()

    d, first = full()

    def raises(routing):
        raise KeyError("mine")

    others = [d.route(BODY, on_answer=raises), d.route(BODY)]
    with pytest.raises(KeyError, match="mine"):
        first.end()
    assert others[0].routing.ok and others[1].routing is None
    others[0].routing.end()
    assert others[1].routing.ok


def test_of_several_exceptions_one_is_raised_and_the_rest_are_shown(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", lambda u: shown.append(u.exc_value))
    d, first = full()

    def raises(routing):
        raise ValueError("one of two")

    for _ in range(2):
        d.route(BODY, headers={"x-llm-d-inference-ttl": "1s"}, on_answer=raises)
    with pytest.raises(ValueError, match="one of two"):
        d.tick(2)
    assert [type(e) for e in shown] == [ValueError] and first.ok


def test_a_routing_that_nobody_holds_ends():
    d, first = full()
    pending = d.route(BODY)
    del first
    gc.collect()
    assert pending.routing.ok
    d, first = full()
    told = []
    d.route(BODY, on_answer=told.append)
    d.stop()
    assert [r.denied_status for r in told] == [503]
    asked = weakref.ref(d)
    pending = d.route(BODY)
    del d, told, first
    gc.collect()
    assert asked() is None and pending is not None


def test_a_reload_keeps_who_waits_and_an_error_changes_nothing():
    d, first = full()
    pending = d.route(BODY)
    with pytest.raises(llmd.errors.InvalidArgumentError, match="nonsense"):
        d.reload(config("{type: nonsense}"))
    assert pending.routing is None
    wider = ONE.replace("1}", "2}")
    d.reload(config("{type: queue-scorer}", wider, flow=""))
    d.tick()
    assert pending.routing.ok and first.ok


class Learner:
    def __init__(self, start=0.5):
        self.value, self.told = start, []
        Learner.last = self

    def __call__(self, request, candidates):
        return numpy.full(len(candidates), self.value)

    def on_routed(self, request, endpoint, prefill):
        self.told.append(("routed", request.request_id, endpoint, prefill))

    def on_first_token(self, request, endpoint):
        self.told.append(("first", request.request_id, endpoint))

    def on_end(self, request, endpoint, usage):
        self.told.append(("end", request.request_id, endpoint, usage))
        self.value = 1.0


def test_hooks_reach_a_scorer_class_through_reloads():
    text = config("{type: learner, parameters: {start: 0.25}}", "{type: queue-scorer}")
    d = llmd.Director(text, scorers={"learner": Learner})
    d.set_endpoints([llmd.Endpoint("a")])
    first = Learner.last
    routing = d.route(BODY, headers={"x-request-id": "r"})
    assert first.value == 0.25
    routing.first_token()
    routing.first_token()
    d.reload(text.replace("{type: queue-scorer}", "{type: kv-cache-utilization-scorer}"))
    assert Learner.last is first, "the same parameters keep the object"
    routing.end(prompt_tokens=9, completion_tokens=50, cached_tokens=4)
    usage = {"prompt_tokens": 9, "completion_tokens": 50, "cached_tokens": 4, "aborted": False}
    assert first.told == [("routed", "r", "default/a", None), ("first", "r", "default/a"), ("end", "r", "default/a", usage)]
    assert d.explain("r")["endpoints"] == ["default/a"]
    d.route(BODY).cancel()
    assert first.told[-1][3]["aborted"]
    d.reload(text.replace("0.25", "0.75"))
    assert Learner.last is not first and d.route(BODY).ok


def test_a_plugin_that_fails_makes_the_call_raise():
    fails = []

    def scorer(request, candidates):
        if fails:
            raise fails.pop()
        return numpy.ones(len(candidates))

    d = llmd.Director(config("{type: mine}", ONE, flow=""), scorers={"mine": scorer})
    d.set_endpoints([llmd.Endpoint("a")])
    fails.append(KeyError("tenant"))
    with pytest.raises(llmd.Error, match="plugin 'mine' failed: KeyError: 'tenant'") as error:
        d.route(BODY)
    assert error.value.code == "INTERNAL" and isinstance(error.value.__cause__, KeyError)
    first = d.route(BODY)  # the one that raised holds no place
    assert isinstance(first, llmd.Routing) and first.ok
    told = []
    d.route(BODY, on_answer=told.append)
    fails.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        first.end()
    assert len(told) == 1


def test_a_plugin_must_not_call_a_director():
    def scorer(request, candidates):
        d.route(BODY)

    d = llmd.Director(config("{type: mine}"), scorers={"mine": scorer})
    d.set_endpoints([llmd.Endpoint("a")])
    with pytest.raises(llmd.Error, match="a plugin called the director that is calling it"):
        d.route(BODY)


def test_bands_go_by_priority():
    d, running = full()
    order = []
    for priority in (-1, 0, 5):
        d.route(BODY, priority=priority, on_answer=lambda r, p=priority: order.append((p, r)))
    running.end()
    order[0][1].end()
    order[1][1].end()
    assert [p for p, _ in order] == [5, 0, -1]
    with pytest.raises(TypeError):
        d.route(BODY, priority=2**40)


def test_who_is_taken_back_is_told_and_has_ended():
    d = director("{type: queue-scorer}", ONE, flow=", enableEviction: true")
    taken = []
    batch = d.route(BODY, priority=-1, on_evicted=taken.append)
    assert batch.ok and not taken
    chat = []
    d.route(BODY, priority=5, on_answer=chat.append)
    while not chat:
        d.tick(d.tick() or d.now + 1)
    (refusal,) = taken
    assert (refusal.ok, refusal.denied_status, refusal.denied_reason) == (False, 429, "evicted-priority")
    assert repr(batch).endswith("ended>") and chat[0].ok
    batch.end()  # without effect
    with pytest.raises(TypeError, match="on_evicted is not callable"):
        d.route(BODY, on_evicted=5)


def test_without_on_evicted_nobody_is_taken_back():
    d = director("{type: queue-scorer}", ONE, flow=", enableEviction: true")
    batch = d.route(BODY, priority=-1)
    chat = d.route(BODY, priority=5)
    d.tick(50)
    assert isinstance(chat, llmd.Pending) and chat.routing is None
    batch.end()
    assert chat.routing.ok


def test_pages():
    d = director("{type: queue-scorer}")
    for i in range(3):
        d.route(BODY, headers={"x-request-id": f"r{i}"}).end(completion_tokens=2)
        d.tick(i + 1)
    last = d.decisions(2)
    assert len(last) == 2 and json.dumps(last).count("r2") == 1 and "r0" not in json.dumps(last)
    assert d.explain("r0")["request_id"] == "r0"
    with pytest.raises(llmd.errors.NotFoundError):
        d.explain("r9")
    assert "request" in d.metrics_page() and d.metrics_page().startswith("#")


def test_threads_may_share_one():
    d = director("{type: queue-scorer}", "{type: mine}", "{type: concurrency-detector, parameters: {maxConcurrency: 2}}", flow="", pods=2,
                 scorers={"mine": lambda r, c: numpy.ones(len(c))})
    answers, lock = [], threading.Lock()

    def told(routing):
        with lock:
            answers.append(routing.ok)
        routing.end()

    def ask():
        for _ in range(50):
            answer = d.route(BODY, on_answer=told)
            if isinstance(answer, llmd.Routing):
                told(answer)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert answers == [True] * 200


def test_the_simulation_repeats_and_its_seed_counts():
    example = runpy.run_path(str(ROOT / "examples/06_simulation.py"))
    runs = [example["simulate"](seed, requests=400) for seed in (1, 1, 2)]
    logs = [[{k: v for k, v in one.items() if k != "decision_ns"} for one in run[2].decisions(1000)] for run in runs]
    assert runs[0][:2] == runs[1][:2] and logs[0] == logs[1] and runs[0][0] != runs[2][0]
    assert len(runs[0][0]) + len(runs[0][1]) == 400 and max(runs[0][0]) <= 5.0
    assert set(runs[0][1]) <= {"rejected-ttl-expired"}
    printed = subprocess.run([sys.executable, ROOT / "examples/06_simulation.py"], capture_output=True, text=True, check=True).stdout
    assert "answered" in printed and "virtual time" in printed


class Knowing:
    """A scorer that knows whom it scores for."""

    def __call__(self, request, candidates):
        return numpy.ones(len(candidates))


def test_a_scorer_that_refers_to_its_director_keeps_neither_alive():
    scorer = Knowing()
    scorer.known = llmd.Director(config("{type: mine}"), scorers={"mine": scorer})
    gone = weakref.ref(scorer)
    gc.collect()
    assert scorer.known.endpoints == []
    del scorer
    gc.collect()
    assert gone() is None
