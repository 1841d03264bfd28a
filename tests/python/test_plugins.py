"""Filters, scorers and pickers written in Python: what they see, what they may return, what happens when they fail."""
import gc
import json
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
EXAMPLE = ROOT / "examples/03_custom_scorer"
BODY = {"model": "m", "prompt": "hello", "max_tokens": 7}


def config(*entries):
    return "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n" + "".join(f"- {e}\n" for e in entries)


def pool(n=3):
    return [llmd.Endpoint(f"e{i}", port=i + 1, waiting=i, running=2 * i, kv_usage=i / 10, num_blocks=100 * i,
                          labels={"zone": "north"} if i % 2 else {}) for i in range(n)]


def scheduler(scorer=None, entry="{type: mine}", **kwargs):
    if scorer is not None:
        kwargs["scorers"] = {"mine": scorer}
    return llmd.Scheduler.from_yaml(config(entry), **kwargs)


def constant(request, candidates):
    return numpy.zeros(len(candidates))


def test_decisions_are_those_of_the_cpp_scorer():
    """examples/03_custom_scorer/golden.json is what the C++ scorer decides; its own test compares it too."""
    scorer = runpy.run_path(str(ROOT / "examples/04_custom_scorer.py"))
    made = llmd.Scheduler.from_yaml((EXAMPLE / "scheduler.yaml").read_text(), scorers={"kv-headroom-scorer": scorer["KvHeadroom"]})
    cases = json.loads((EXAMPLE / "golden.json").read_text())
    assert len(cases) >= 6
    for case in cases:
        body = json.dumps(case["request"]["body"], separators=(",", ":"))
        decision = made.schedule(body, [scorer["endpoint"](e) for e in case["endpoints"]],
                                 path=case["request"].get("path", "/v1/completions"))
        assert json.loads(decision.to_json()) == case["decision"], case["name"]


def test_the_example_prints_every_choice():
    printed = subprocess.run([sys.executable, ROOT / "examples/04_custom_scorer.py"], capture_output=True, text=True,
                             check=True).stdout
    assert "a long answer goes to the larger cache: default/large" in printed
    assert len(printed.splitlines()) == len(json.loads((EXAMPLE / "golden.json").read_text()))


def test_a_scorer_sees_request_and_columns():
    seen = {}

    def scorer(request, candidates):
        seen.update(model=request.model, target=request.target_model, path=request.path, api=request.api, max=request.max_tokens,
                    body=json.loads(request.body), prompt=request.prompt_json, bytes=request.prompt_bytes,
                    headers=request.headers, priority=request.priority, streaming=request.streaming, id=request.request_id)
        for column in ("names", "waiting", "running", "kv_usage", "block_size", "num_blocks", "stale"):
            seen[column] = getattr(candidates, column)
        seen["zone"] = candidates.label("zone")
        return candidates.waiting / 10

    decision = scheduler(scorer).schedule(BODY, pool(), headers={"X-Tier": "gold"}, priority=3, request_id="r-1")
    assert (seen["model"], seen["target"], seen["path"], seen["api"]) == ("m", "m", "/v1/completions", "completions")
    assert seen["max"] == 7 and seen["body"] == BODY and seen["prompt"] == b'"hello"' and seen["bytes"] == 7
    assert seen["headers"] == {"x-tier": "gold"} and seen["priority"] == 3 and not seen["streaming"] and seen["id"] == "r-1"
    assert seen["names"] == ["default/e0", "default/e1", "default/e2"] and seen["zone"] == [None, "north", None]
    for column, want in (("waiting", [0, 1, 2]), ("running", [0, 2, 4]), ("kv_usage", [0, 0.1, 0.2])):
        assert seen[column].dtype == numpy.float64
        numpy.testing.assert_array_equal(seen[column], want)
    assert seen["num_blocks"].dtype == numpy.int64 and seen["num_blocks"].tolist() == [0, 100, 200]
    assert seen["block_size"].tolist() == [16, 16, 16]
    assert seen["stale"].dtype == numpy.bool_ and not seen["stale"].any()
    numpy.testing.assert_array_equal(decision.profiles["default"]["scores"]["mine"], [0, 0.1, 0.2])
    assert decision.endpoint == "default/e2"


def test_nan_is_unscored_and_the_rest_is_clamped():
    decision = scheduler(lambda r, c: [numpy.nan, 5, -1]).schedule(BODY, pool())
    numpy.testing.assert_array_equal(decision.profiles["default"]["totals"], [0, 1, 0])
    assert numpy.isnan(decision.profiles["default"]["scores"]["mine"][0])


@pytest.mark.parametrize("result, complaint", [
    ([1, 2], r"returned \(2,\) int64, expected \(3,\) numbers"),
    ([[1, 2, 3]], r"returned \(1, 3\) int64, expected"),
    (None, "expected .3,. numbers"),
    (["a", "b", "c"], "expected .3,. numbers"),
    ([True, False, True], r"returned \(3,\) bool"),
    ([1j, 2, 3], r"complex128"),
    (0.5, r"returned \(\) float64"),
])
def test_a_wrong_result_names_the_plugin_and_the_rule(result, complaint):
    with pytest.raises(llmd.Error, match="plugin 'called-so' failed: it returned|plugin 'called-so' failed") as error:
        scheduler(lambda r, c: result, entry="{name: called-so, type: mine}").schedule(BODY, pool())
    assert error.value.code == "INTERNAL"
    with pytest.raises(llmd.Error, match=complaint):
        scheduler(lambda r, c: result).schedule(BODY, pool())


def test_an_exception_is_the_cause_and_nothing_is_counted():
    calls = []

    def scorer(request, candidates):
        calls.append(candidates)
        if len(calls) == 1:
            raise KeyError("no such tenant")
        return numpy.ones(len(candidates))

    made = llmd.Scheduler.from_yaml(config("{type: mine}", "{type: active-request-scorer}"), scorers={"mine": scorer})
    with pytest.raises(llmd.Error, match="plugin 'mine' failed: KeyError: 'no such tenant'") as error:
        made.schedule(BODY, pool(1), keep_in_flight=True)
    assert isinstance(error.value.__cause__, KeyError)
    decision = made.schedule(BODY, pool(1))  # the scheduler goes on, and nobody is in flight
    assert decision.profiles["default"]["scores"]["active-request-scorer"].tolist() == [1.0]


def test_a_keyboard_interrupt_stays_one():
    def scorer(request, candidates):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scheduler(scorer).schedule(BODY, pool())


def test_views_end_with_the_call_and_arrays_stay():
    kept = []

    def scorer(request, candidates):
        kept.extend([request, candidates, candidates.waiting, candidates.names])
        return candidates.waiting

    scheduler(scorer).schedule(BODY, pool())
    request, candidates, waiting, names = kept
    assert waiting.tolist() == [0, 1, 2] and names[2] == "default/e2"
    for read in (lambda: request.model, lambda: request.random(), lambda: candidates.waiting, lambda: len(candidates),
                 lambda: candidates.label("zone"), lambda: candidates.data("SessionID")):
        with pytest.raises(llmd.Error, match="ended with the call") as error:
            read()
        assert error.value.code == "FAILED_PRECONDITION"


def test_parameters_are_keyword_arguments_checked_at_load():
    def scorer(request, candidates, *, best, weights=()):
        return numpy.array([(name == best) + sum(weights) for name in candidates.names], float)

    made = scheduler(scorer, "{type: mine, parameters: {best: default/e1, weights: [0.25, 0.25]}}")
    assert made.schedule(BODY, pool()).profiles["default"]["scores"]["mine"].tolist() == [0.5, 1.5, 0.5]
    with pytest.raises(ValueError, match="line 4: .*plugin 'mine': TypeError: .*bset"):
        scheduler(scorer, "{type: mine, parameters: {best: x, bset: default/e1}}")
    with pytest.raises(ValueError, match="missing a required argument: 'best'"):
        scheduler(scorer)
    with pytest.raises(ValueError, match="expected a map of parameters"):
        scheduler(scorer, "{type: mine, parameters: [1]}")


def test_a_class_is_made_once_for_each_configured_plugin():
    made = []

    class Scorer:
        def __init__(self, share=0.5):
            made.append(share)
            self.share = share

        def __call__(self, request, candidates):
            return numpy.full(len(candidates), self.share)

    text = config("{name: a, type: mine}", "{name: b, type: mine, parameters: {share: 0.125}}")
    decision = llmd.Scheduler.from_yaml(text, scorers={"mine": Scorer}).schedule(BODY, pool(1))
    assert made == [0.5, 0.125]
    scores = decision.profiles["default"]["scores"]
    assert scores["a"].tolist() == [0.5] and scores["b"].tolist() == [0.125]
    with pytest.raises(ValueError, match="ValueError: no"):
        def refuse(self):
            raise ValueError("no")
        scheduler(type("Refuses", (), {"__init__": refuse}))
    with pytest.raises(ValueError, match="not callable"):
        scheduler(type("Plain", (), {}))


def test_filters_keep_by_mask():
    text = config("{type: north-only}", "{type: queue-scorer}")
    north = lambda request, candidates: numpy.array([z == "north" for z in candidates.label("zone")])  # noqa: E731
    made = llmd.Scheduler.from_yaml(text, filters={"north-only": north})
    decision = made.schedule(BODY, pool(4))
    assert decision.profiles["default"]["filters"]["north-only"] == ["default/e1", "default/e3"]
    assert decision.endpoint == "default/e1"
    assert made.schedule(BODY, pool(1)).denied_status == 503
    with pytest.raises(llmd.Error, match=r"\(1,\) int64, expected \(1,\) bool"):
        llmd.Scheduler.from_yaml(text, filters={"north-only": lambda r, c: [1]}).schedule(BODY, pool(1))


def test_pickers_give_positions_best_first():
    text = config("{type: queue-scorer}", "{type: worst}")

    def worst(request, candidates, totals):
        assert totals.dtype == numpy.float64 and totals.tolist() == [1.0, 0.5, 0.0]
        return numpy.argsort(totals)[:2]

    decision = llmd.Scheduler.from_yaml(text, pickers={"worst": worst}).schedule(BODY, pool())
    assert [p[0] for p in decision.picked] == ["default/e2", "default/e1"]
    for result, complaint in (([], "picked nothing|returned"), ([3], "position 3 of 3"), ([-1], "position -1"), ([1, 1], "position 1 twice"),
                              ([0.0], "float64, expected 1 to 3 positions")):
        with pytest.raises(llmd.Error, match=complaint):
            llmd.Scheduler.from_yaml(text, pickers={"worst": lambda r, c, t: result}).schedule(BODY, pool())


def test_random_repeats_for_a_seed():
    def draws(seed):
        out = []
        made = scheduler(lambda r, c: out.append((r.random(), r.random())) or numpy.zeros(len(c)), seed=seed)
        for _ in range(3):
            made.schedule(BODY, pool())
        return out

    assert draws(1) == draws(1) != draws(2)
    assert len({x for pair in draws(1) for x in pair}) == 6 and all(0 < x < 1 for pair in draws(1) for x in pair)


def test_declared_data_can_be_read():
    seen = []

    def scorer(request, candidates):
        seen.append(candidates.data("PrefixCacheMatchInfo"))
        with pytest.raises(LookupError, match="consumes"):
            candidates.data("InFlightLoad")
        return numpy.zeros(len(candidates))

    scorer.consumes = ["PrefixCacheMatchInfo"]
    made = scheduler(scorer)
    body = {"model": "m", "prompt": "word " * 1000}
    large = [llmd.Endpoint(name, num_blocks=1000) for name in ("e0", "e1")]
    first = made.schedule(body, large).endpoint
    made.schedule(body, large)
    assert seen[0]["per_endpoint"].tolist() == [0, 0] and seen[0]["total"] > 0 and seen[0]["block_size"] > 0
    matched = dict(zip(["default/e0", "default/e1"], seen[1]["per_endpoint"]))
    assert matched[first] == seen[1]["total"] and min(matched.values()) == 0


def test_what_makes_no_sense_is_refused_at_load():
    with pytest.raises(ValueError, match=r"scorers\['mine'\] is not callable"):
        scheduler(5)
    with pytest.raises(ValueError, match="no plugin of type 'other'"):
        llmd.Scheduler.from_yaml(config("{type: queue-scorer}"), scorers={"other": constant})
    with pytest.raises(llmd.Error, match="'queue-scorer' is registered twice") as error:
        llmd.Scheduler.from_yaml(config("{type: queue-scorer}"), scorers={"queue-scorer": constant})
    assert error.value.code == "ALREADY_EXISTS"
    with pytest.raises(ValueError, match="TypeError: .*argument"):
        scheduler(lambda request: [])


def test_a_plugin_may_not_call_its_own_scheduler():
    made = []

    def scorer(request, candidates):
        made[0].schedule(BODY, pool())
        return numpy.zeros(len(candidates))

    made.append(scheduler(scorer))
    with pytest.raises(llmd.Error, match="called the scheduler that is calling it"):
        made[0].schedule(BODY, pool())
    inner = scheduler(constant)  # another one it may
    outer = scheduler(lambda r, c: inner.schedule(BODY, pool()).profiles["default"]["totals"])
    assert outer.schedule(BODY, pool()).ok


def test_threads_share_a_scheduler():
    """schedule() waits for the scheduler without the GIL and the callable takes it again: no thread waits for ever."""
    made = scheduler(lambda r, c: numpy.asarray([float(sum(range(50)) > 0)] * len(c)))
    failures = []

    def work():
        try:
            for _ in range(200):
                decision = made.schedule(BODY, pool(), keep_in_flight=True)
                made.finish(decision.id)
        except Exception as e:  # noqa: BLE001
            failures.append(e)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures and not any(thread.is_alive() for thread in threads)


def test_the_callable_lives_as_long_as_the_scheduler():
    class Scorer:
        def __call__(self, request, candidates):
            return numpy.zeros(len(candidates))

    callable_ = Scorer()
    gone = weakref.ref(callable_)
    made = scheduler(callable_)
    del callable_
    gc.collect()
    assert gone() is not None and made.schedule(BODY, pool()).ok
    del made
    gc.collect()
    assert gone() is None
