"""The scheduler as a library: values, prepared sets, bulk calls, paths, time, answers, logs, forks, signals."""
import collections
import copy
import gc
import json
import logging
import math
import multiprocessing
import os
import pathlib
import pickle
import signal
import threading
import time
import weakref

import numpy
import pytest

import llmd

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = os.environ.get("LLMD_TEST_MODEL", str(ROOT / ".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
BODY = {"model": "m", "prompt": "hello"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "word " * 300}]}


def config(*entries):
    return "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n" + "".join(f"- {e}\n" for e in entries)


MIXED = config("{type: prefix-cache-scorer}", "{type: queue-scorer}", "{type: kv-cache-utilization-scorer}",
               "{type: lora-affinity-scorer}", "{type: active-request-scorer}")


def pool(n=3):
    return [llmd.Endpoint(f"e{i}", port=i + 1, waiting=i, kv_usage=i / 1000, num_blocks=1000) for i in range(n)]


# Values

def test_an_endpoint_shows_what_it_is():
    e = llmd.Endpoint("a", address="::1", port=7, namespace="ns", labels={"zone": "north"}, waiting=2, num_blocks=5,
                      attributes={"heat": 1}, active_models=["x"], waiting_models=["y"], max_active_models=3)
    assert (e.name, e.namespace, e.full_name, e.address, e.port, e.host_port) == ("a", "ns", "ns/a", "::1", 7, "[::1]:7")
    assert (e.block_size, e.num_blocks, e.labels, e.max_active_models) == (16, 5, {"zone": "north"}, 3)
    assert e.active_models == ["x"] and e.waiting_models == ["y"]
    assert repr(llmd.Endpoint("a")) == "Endpoint('a')"
    assert eval(repr(e), {"Endpoint": llmd.Endpoint}).labels == e.labels and "waiting=2.0" in repr(e)
    e.block_size, e.kv_usage, e.active_models = 32, 0.25, ["z"]
    for other in (copy.copy(e), copy.deepcopy(e), pickle.loads(pickle.dumps(e))):
        assert repr(other) == repr(e) and other is not e
        other.waiting = 9
        assert e.waiting == 2


@pytest.mark.parametrize("arguments, complaint", [
    ({"kv_usage": 50}, r"kv_usage=50.0: expected 0 to 1"), ({"kv_usage": -0.1}, "kv_usage"), ({"waiting": -3}, r"waiting=-3.0: expected 0 or more"),
    ({"running": math.inf}, "running"), ({"port": 0}, "port=0: expected 1 to 65535"), ({"port": 65536}, "port"), ({"address": ""}, "address"),
    ({"namespace": ""}, "namespace"), ({"block_size": -1}, "block_size"), ({"num_blocks": -1}, "num_blocks"), ({"max_active_models": -1}, "max_active"),
])
def test_what_cannot_be_is_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        llmd.Endpoint("a", **arguments)
    name, value = next(iter(arguments.items()))
    if name in ("kv_usage", "waiting", "running", "block_size", "num_blocks", "max_active_models"):
        e = llmd.Endpoint("a")
        with pytest.raises(ValueError, match=name):
            setattr(e, name, value)
        assert getattr(e, name) >= 0


def test_names_are_names():
    for name in ("", "default/a"):
        with pytest.raises(ValueError, match="name="):
            llmd.Endpoint(name)
    assert math.isnan(llmd.Endpoint("a", waiting=math.nan).waiting)


def test_a_decision_shows_itself_and_travels():
    made = llmd.Scheduler.from_yaml(MIXED)
    chosen, refused = made.schedule(BODY, pool()), made.schedule(BODY, [])
    assert repr(chosen) == f"<llmd.Decision 1: {chosen.endpoint}, total {chosen.picked[0][2]!r}>"
    assert "refused, 503" in repr(refused) and refused.index is None and chosen.index == 0
    for d in (chosen, refused):
        for other in (copy.copy(d), copy.deepcopy(d), pickle.loads(pickle.dumps(d))):
            assert (repr(other), other.to_json(), other.picked, other.set_headers) == (repr(d), d.to_json(), d.picked, d.set_headers)
            assert str(other) == str(d) and other.profiles.keys() == d.profiles.keys()
    assert repr(made).startswith("<llmd.Scheduler") and repr(made.prepare(pool())) == "<llmd.PreparedSet of 3 endpoints>"


def test_from_yaml_explains_a_files_name(tmp_path):
    file = tmp_path / "file.yaml"
    for text in ("file.yaml", str(file), "conf.yml"):
        with pytest.raises(ValueError, match="looks like a file's name: use Scheduler.from_file"):
            llmd.Scheduler.from_yaml(text)
    with pytest.raises(LookupError, match="file.yaml"):
        llmd.Scheduler.from_file(file)
    file.write_text(MIXED)
    assert llmd.Scheduler.from_file(file).schedule(BODY, pool()).ok and llmd.Scheduler.from_file(str(file), seed=3).warnings is not None


# Prepared sets and bulk calls

def decide_all(make):
    """to_json of 40 decisions while gauges change and answers end; make(scheduler, endpoints) gives schedule and update."""
    scheduler, endpoints, out = llmd.Scheduler.from_yaml(MIXED), pool(12), []
    schedule, update = make(scheduler, endpoints)
    for i in range(40):
        update(i % 12, i % 7, (i % 10) / 10)
        decision = schedule({**CHAT, "user": str(i)}, keep_in_flight=i % 2 == 0)
        out.append(decision.to_json())
        if i % 4 == 0:
            scheduler.finish(decision.id)
    return out


def test_a_prepared_set_decides_as_a_list_does():
    def by_list(scheduler, endpoints):
        def update(i, waiting, kv):
            endpoints[i].waiting, endpoints[i].kv_usage = waiting, kv
        return lambda body, **kw: scheduler.schedule(body, endpoints, **kw), update

    def by_new_lists(scheduler, endpoints):
        schedule, update = by_list(scheduler, endpoints)
        return lambda body, **kw: scheduler.schedule(body, tuple(endpoints), **kw), update

    def by_set(scheduler, endpoints):
        prepared = scheduler.prepare(endpoints)
        return (lambda body, **kw: scheduler.schedule(body, prepared, **kw),
                lambda i, waiting, kv: prepared.update(f"e{i}", waiting=waiting, kv_usage=kv))

    def by_replacing(scheduler, endpoints):
        prepared = scheduler.prepare(endpoints)

        def update(i, waiting, kv):
            endpoints[i].waiting, endpoints[i].kv_usage = waiting, kv
            prepared.replace(endpoints[i])
        return lambda body, **kw: scheduler.schedule(body, prepared, **kw), update

    want = decide_all(by_list)
    assert len(set(want)) == 40
    assert decide_all(by_new_lists) == want and decide_all(by_set) == want and decide_all(by_replacing) == want


def test_a_prepared_set_takes_columns_and_refuses_nonsense():
    made = llmd.Scheduler.from_yaml(config("{type: queue-scorer}"))
    prepared = made.prepare(pool())
    prepared.set_gauges(waiting=[5, 1, 9], kv_usage=numpy.array([0, 0.5, 1]))
    assert prepared.waiting.tolist() == [5, 1, 9] and prepared.kv_usage.tolist() == [0, 0.5, 1] and prepared.running.tolist() == [0, 0, 0]
    assert made.schedule(BODY, prepared).endpoint == "default/e1" and len(prepared) == 3 and prepared.names[2] == "default/e2"
    prepared.update(2, waiting=0)
    assert made.schedule(BODY, prepared).index == 2 == prepared.index("default/e2")
    for call, complaint in ((lambda: prepared.set_gauges(waiting=[1, 2]), "waiting: expected 3 numbers"),
                            (lambda: prepared.set_gauges(kv_usage=[0, 0, 2]), "kv_usage=2.0"),
                            (lambda: prepared.update("e0", waiting=-1), "waiting=-1")):
        with pytest.raises(ValueError, match=complaint):
            call()
    assert prepared.waiting.tolist() == [5, 1, 0]
    with pytest.raises(LookupError, match="no endpoint 'e7'"):
        prepared.update("e7", waiting=1)
    with pytest.raises(IndexError):
        prepared.update(3, waiting=1)
    with pytest.raises(LookupError):
        prepared.replace(llmd.Endpoint("e0", port=99))
    with pytest.raises(ValueError, match="two endpoints are called 'default/a'"):
        made.prepare([llmd.Endpoint("a"), llmd.Endpoint("a")])
    with pytest.raises(ValueError, match="another scheduler's"):
        llmd.Scheduler.from_yaml("").schedule(BODY, prepared)
    with pytest.raises(TypeError, match=r"endpoints\[1\]"):
        made.schedule(BODY, [llmd.Endpoint("a"), "b"])


def test_a_set_in_use_is_not_changed():
    held = []

    def scorer(request, candidates):
        with pytest.raises(llmd.Error, match="in use") as error:
            held[0].update(0, waiting=1)
        assert error.value.code == "FAILED_PRECONDITION"
        return numpy.zeros(len(candidates))

    made = llmd.Scheduler.from_yaml(config("{type: mine}"), scorers={"mine": scorer})
    held.append(made.prepare(pool()))
    assert made.schedule(BODY, held[0]).ok
    held[0].update(0, waiting=1)


def test_schedule_many_decides_as_schedule_does():
    one, many = llmd.Scheduler.from_yaml(MIXED, seed=5), llmd.Scheduler.from_yaml(MIXED, seed=5)
    bodies = [{**CHAT, "user": str(i)} if i % 3 else json.dumps({"model": "m", "prompt": "p" * i}) for i in range(300)]
    a, b = one.prepare(pool(9)), many.prepare(pool(9))
    singles = [one.schedule(body, a, keep_in_flight=True) for body in bodies]
    got = many.schedule_many(bodies, b, keep_in_flight=True)
    assert len(got) == 300 and repr(got) == "<llmd.Decisions of 300 requests>"
    assert got.endpoint.tolist() == [d.index for d in singles] and got.endpoint.dtype == numpy.int32
    assert got.total.tolist() == [d.picked[0][2] for d in singles] and got.id.tolist() == [d.id for d in singles]
    assert not got.status.any() and (got.prefill == -1).all()
    refused = many.schedule_many([BODY] * 2, many.prepare([]))
    assert refused.endpoint.tolist() == [-1, -1] and refused.status.tolist() == [503, 503] and numpy.isnan(refused.total).all()
    assert len(many.schedule_many([], b)) == 0
    with pytest.raises(ValueError, match=r"requests\[70\]: "):
        many.schedule_many([BODY] * 70 + ["{nope"] + [BODY], b)


def test_an_interrupt_ends_schedule_many():
    made = llmd.Scheduler.from_yaml(MIXED)
    prepared = made.prepare(pool())
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(10_000):
            made.schedule_many([CHAT] * 1000, prepared)
    timer.join()


# Paths

def test_the_path_comes_from_the_body():
    seen = []
    made = llmd.Scheduler.from_yaml(config("{type: mine}"), scorers={"mine": lambda r, c: seen.append((r.api, r.path)) or numpy.zeros(len(c))})
    for body in (CHAT, BODY, {"model": "m", "input": "text"}, {"model": "m", "input": [1, 2]}, {"model": "m", "input": "t", "instructions": "i"},
                 {"model": "m", "input": [{"role": "user", "content": "x"}]}, CHAT):
        made.schedule(body, pool())
    assert [api for api, _ in seen] == ["chat", "completions", "embeddings", "embeddings", "responses", "responses", "chat"]
    assert seen[0][1] == "/v1/chat/completions"
    made.schedule(CHAT, pool(), path="/v1/chat/completions?api-version=1")
    assert seen[-1] == ("chat", "/v1/chat/completions")
    with pytest.raises(ValueError, match="no parser takes the path '/foo'; known endings: chat/completions"):
        made.schedule(CHAT, pool(), path="/foo")
    with pytest.raises(ValueError, match="messages, prompt and input"):
        made.schedule({"model": "m"}, pool())


def test_a_chat_body_finds_its_prefix_without_a_path():
    made = llmd.Scheduler.from_yaml(config("{type: prefix-cache-scorer}"))
    first = made.schedule(CHAT, pool()).endpoint
    again = made.schedule(CHAT, pool())
    assert again.endpoint == first and max(again.profiles["default"]["scores"]["prefix-cache-scorer"]) == 1


# Time and answers

def test_time_stands_still_until_it_is_set():
    made = llmd.Scheduler.from_yaml(config("{type: session-affinity-scorer, parameters: {strategy: session_id, evictionTtlSeconds: 60}}"))
    score = lambda: max(made.schedule(BODY, pool(), headers={"x-session-id": "s"}).profiles["default"]["scores"]["session-affinity-scorer"])  # noqa: E731
    assert made.now == 0 and score() == 0 and score() == 1
    made.now = 60.0
    assert made.now == 60 and score() == 1
    made.now = 120.5
    assert score() == 0
    for wrong in (1.0, math.nan, 1e300):
        with pytest.raises(ValueError, match="now="):
            made.now = wrong


class Learner:
    """Scores by the tokens each endpoint has answered so far."""

    def __init__(self):
        self.tokens, self.seen = {}, []

    def __call__(self, request, candidates):
        return numpy.array([1 / (1 + self.tokens.get(name, 0)) for name in candidates.names])

    def on_routed(self, request, endpoint, prefill):
        self.seen.append(("routed", request.request_id, request.decision_id, endpoint, prefill))

    def on_first_token(self, request, endpoint):
        self.seen.append(("first", request.request_id, endpoint))

    def on_end(self, request, endpoint, usage):
        self.tokens[endpoint] = self.tokens.get(endpoint, 0) + (usage["completion_tokens"] or 0)
        self.seen.append(("end", request.request_id, endpoint, usage))


def test_plugins_learn_how_requests_fare():
    learner = Learner()
    made = llmd.Scheduler.from_yaml(config("{type: mine}"), scorers={"mine": learner})
    two = pool(2)
    first = made.schedule(BODY, two, keep_in_flight=True, request_id="r1")
    assert made.first_token(first.id) == {} and made.first_token(first.id) == {}
    made.finish(first.id, usage={"prompt_tokens": 3, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": 2}})
    made.finish(first.id)
    usage = {"prompt_tokens": 3, "completion_tokens": 50, "cached_tokens": 2, "aborted": False}
    assert learner.seen == [("routed", "r1", first.id, first.endpoint, None), ("first", "r1", first.endpoint), ("end", "r1", first.endpoint, usage)]
    second = made.schedule(BODY, two, keep_in_flight=True, request_id="r2")
    assert second.endpoint != first.endpoint
    made.finish(second.id, aborted=True)
    assert learner.seen[-1] == ("end", "r2", second.endpoint, {"prompt_tokens": None, "completion_tokens": None, "cached_tokens": None, "aborted": True})
    made.schedule(BODY, two)  # not kept: it ends at once
    assert [kind for kind, *_ in learner.seen[-2:]] == ["routed", "end"]
    with pytest.raises(ValueError, match="completion_tokens"):
        made.finish(second.id, usage={"completion_tokens": -1})


def test_classes_with_hooks_work_as_filters_and_pickers_too():
    told = []

    class Filter:
        def __call__(self, request, candidates):
            return candidates.waiting < 2

        def on_end(self, request, endpoint, usage):
            told.append(endpoint)

    class Picker:
        def __call__(self, request, candidates, totals):
            return [len(candidates) - 1]

        def on_routed(self, request, endpoint, prefill):
            told.append(endpoint)

    made = llmd.Scheduler.from_yaml(config("{type: f}", "{type: queue-scorer}", "{type: p}"), filters={"f": Filter}, pickers={"p": Picker})
    assert made.schedule(BODY, pool()).endpoint == "default/e1" and told == ["default/e1", "default/e1"]


def test_a_hook_that_raises_is_an_error_and_the_request_ends():
    class Bad(Learner):
        def on_routed(self, request, endpoint, prefill):
            if request.request_id == "routed":
                raise KeyError("r")

        def on_end(self, request, endpoint, usage):
            if request.request_id == "end":
                raise KeyError("e")

    made = llmd.Scheduler.from_yaml(config("{type: mine}", "{type: active-request-scorer}"), scorers={"mine": Bad})
    with pytest.raises(llmd.Error, match="plugin 'mine' failed: KeyError: 'r'") as error:
        made.schedule(BODY, pool(1), keep_in_flight=True, request_id="routed")
    assert isinstance(error.value.__cause__, KeyError)
    kept = made.schedule(BODY, pool(1), keep_in_flight=True, request_id="end")
    with pytest.raises(llmd.Error, match="KeyError: 'e'"):
        made.finish(kept.id)
    assert made.schedule(BODY, pool(1)).profiles["default"]["scores"]["active-request-scorer"].tolist() == [1]


# Logs, forks, signals

def test_lines_reach_pythons_logging(caplog):
    with caplog.at_level(logging.DEBUG, logger="llmd"):
        made = llmd.Scheduler.from_yaml(config("{type: queue-scorer}"))
        made.schedule(BODY, pool(), request_id="told")
    lines = [r for r in caplog.records if r.name.startswith("llmd")]
    assert any(getattr(r, "llmd", {}).get("x-request-id") == "told" and r.levelno == logging.DEBUG for r in lines)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="llmd"):
        llmd.Scheduler.from_yaml(config("{type: queue-scorer}")).schedule(BODY, pool())
    assert not [r for r in caplog.records if r.name.startswith("llmd")]


def in_child(work):
    """What work() returns in a forked process."""
    ours, theirs = multiprocessing.Pipe()
    child = os.fork()
    if child == 0:
        try:
            theirs.send(work())
        finally:
            os._exit(0)
    answered = ours.poll(30)
    if not answered:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert answered, "the child hangs"
    return ours.recv()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scheduler_goes_on_in_a_child():
    made, endpoints = llmd.Scheduler.from_yaml(MIXED), pool()
    made.schedule(BODY, endpoints)
    assert in_child(lambda: made.schedule(BODY, endpoints).id) == 2 and made.schedule(BODY, endpoints).id == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scheduler_in_use_is_refused_in_a_child():
    inside, go_on = threading.Event(), threading.Event()

    def scorer(request, candidates):
        inside.set()
        go_on.wait(30)
        return numpy.zeros(len(candidates))

    made = llmd.Scheduler.from_yaml(config("{type: mine}"), scorers={"mine": scorer})
    thread = threading.Thread(target=lambda: made.schedule(BODY, pool()))
    thread.start()
    inside.wait(30)

    def child():
        try:
            made.schedule(BODY, pool())
        except llmd.Error as error:
            return str(error), error.code

    answer = in_child(child)
    go_on.set()
    thread.join(30)
    assert answer and "forked" in answer[0] and answer[1] == "FAILED_PRECONDITION"
    assert made.schedule(BODY, pool()).ok


class Kept(logging.Handler):
    """Keeps the last lines. Unlike a file's it holds no lock that Python leaves locked in a forked child."""

    def __init__(self):
        super().__init__()
        self.lines = collections.deque(maxlen=100)

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.fixture
def kept_lines():
    """What the library logs at debug, kept from the handlers of pytest: its log file's lock is not safe to fork."""
    logger, handler = logging.getLogger("llmd"), Kept()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(level)
    logger.propagate = propagate


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forks_while_other_threads_log_are_safe(kept_lines):
    done = threading.Event()

    def busy():
        made = llmd.Scheduler.from_yaml(MIXED)
        while not done.is_set():
            for _ in range(20):
                made.schedule(BODY, pool())

    def child():
        return llmd.Scheduler.from_yaml(MIXED).schedule(BODY, pool()).ok

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert all(in_child(child) for _ in range(60))
    finally:
        done.set()
        for thread in threads:
            thread.join(30)
    assert kept_lines


# What refers to each other ends together

class Scorer:
    """A scorer that knows its scheduler, and what that made."""

    def __call__(self, request, candidates):
        return numpy.ones(len(candidates))


@pytest.mark.parametrize("knows", ["scheduler", "set", "bound method", "parameter"])
def test_a_scorer_that_refers_to_its_scheduler_keeps_neither_alive(knows):
    scorer = Scorer()
    given = scorer
    if knows == "bound method":
        given = scorer.__call__
    if knows == "parameter":
        given = lambda request, candidates, scorer=scorer: scorer(request, candidates)
    made = llmd.Scheduler.from_yaml(config("{type: mine}"), scorers={"mine": given})
    endpoints = pool()
    assert made.schedule(BODY, endpoints).ok
    scorer.known = made.prepare(endpoints) if knows == "set" else made
    assert made.schedule(BODY, endpoints).ok
    gone = weakref.ref(scorer)
    del scorer, given, made
    gc.collect()
    assert gone() is None


def test_a_set_keeps_its_scheduler():
    endpoints = llmd.Scheduler.from_yaml(config("{type: queue-scorer}")).prepare(pool())
    gc.collect()
    assert len(endpoints) == len(pool()) and endpoints.names


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_engine_is_refused_in_a_child_and_ends_by_interrupt():
    engine = llmd.Engine(MODEL, kv_cache_bytes=64 << 20, threads=1)

    def child():
        try:
            engine.generate("x", max_tokens=1)
        except llmd.Error as error:
            return str(error), error.code

    answer = in_child(child)
    assert "forked" in answer[0] and answer[1] == "FAILED_PRECONDITION"
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    begun = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        engine.generate("Once upon a time", max_tokens=1500, temperature=1.0, seed=1)
    assert time.monotonic() - begun < 20
    timer.join()
    assert engine.generate("The capital of France is", max_tokens=8)
