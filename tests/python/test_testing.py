"""llmd.testing finds what is wrong with a plugin, and passes what is right."""
import datetime
import itertools
import json
import pathlib
import runpy
import time
from time import monotonic

import numpy
import pytest

import llmd
from llmd import testing

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/03_custom_scorer"


def good(request, candidates, *, worst=20.0):
    """Fewer waiting is better; unknown is the worst."""
    waiting = candidates.waiting
    return numpy.where(numpy.isnan(waiting), 0.0, 1 - numpy.minimum(waiting, worst) / worst)


class Good:
    consumes = ["PrefixCacheMatchInfo"]

    def __init__(self, share=1.0):
        self.share = share

    def __call__(self, request, candidates):
        found = candidates.data("PrefixCacheMatchInfo")
        return self.share * found["per_endpoint"] / found["total"]


counter = itertools.count()


def changes_input(request, candidates):
    candidates.waiting[:] = 0
    return numpy.zeros(len(candidates))


def changes_parameters(request, candidates, *, seen):
    seen.append(len(candidates))
    return numpy.zeros(len(candidates))


class CountsItsCalls:
    def __init__(self):
        self.calls = 0

    def __call__(self, request, candidates):
        self.calls += 1
        return numpy.full(len(candidates), 1 / self.calls)


BAD = {
    "nan": (lambda r, c: numpy.full(len(c), numpy.nan), "nan"),
    "out of range": (lambda r, c: good(r, c) * 2, "range"),
    "negative": (lambda r, c: -good(r, c), "range"),
    "infinite": (lambda r, c: good(r, c) / 0.0, "range"),
    "too short": (lambda r, c: good(r, c)[:-1], "size"),
    "two dimensions": (lambda r, c: numpy.zeros((len(c), 1)), "size"),
    "no numbers": (lambda r, c: ["x"] * len(c), "size"),
    "nothing": (lambda r, c: None, "size"),
    "by candidate order": (lambda r, c: numpy.arange(len(c)) / max(1, len(c)), "order"),
    "by call count": (CountsItsCalls, "calls"),
    "by a count of the module's": (lambda r, c: numpy.full(len(c), 1 / (1 + next(counter))), "repeats"),
    "by time.time": (lambda r, c: numpy.full(len(c), time.time() % 60 / 60), "clock"),
    "by an imported clock": (lambda r, c: numpy.full(len(c), monotonic() % 60 / 60), "clock"),
    "by the date": (lambda r, c: numpy.full(len(c), datetime.datetime.now().second / 60), "clock"),
    "changes its input": (changes_input, "range"),
    "raises": (lambda r, c: 1 / 0, "size"),
    "raises for none": (lambda r, c: good(r, c) / len(c) * (c.waiting.max() * 0 + 1), "size"),
}


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("kind", BAD)
def test_bad_scorers_are_found(kind):
    scorer, violated = BAD[kind]
    report = testing.check_scorer(scorer)
    assert violated in [v.property for v in report.violations], report
    with pytest.raises(AssertionError, match=violated):
        report.verify()
    assert violated not in [v.property for v in testing.check_scorer(scorer, skip=[violated]).violations]


def test_a_scorer_that_changes_its_parameters_is_found():
    report = testing.check_scorer(changes_parameters, parameters={"seen": []})
    assert "it changes its parameters" in str(report)


def test_good_scorers_pass():
    for report in (testing.check_scorer(good), testing.check_scorer(good, parameters={"worst": 3.0}),
                   testing.check_scorer(Good), testing.check_scorer(Good, parameters={"share": 0.25})):
        report.verify()
        assert report and report.checked == ["range", "nan", "size", "order", "calls", "repeats", "clock"]
    scorer = runpy.run_path(str(ROOT / "examples/04_custom_scorer.py"))["KvHeadroom"]
    testing.check_scorer(scorer, skip=["nan"]).verify()


def test_clocks_go_on_afterwards():
    testing.check_scorer(good)
    assert abs(time.time() - datetime.datetime.now().timestamp()) < 60 and time.time() > 1_700_000_000
    assert monotonic is time.monotonic and isinstance(datetime.datetime.now(), datetime.datetime)


@pytest.mark.parametrize("filter_, violated", [
    (lambda r, c: c.waiting < 5, None),
    (lambda r, c: (c.waiting < 5).astype(int), "size"),
    (lambda r, c: numpy.arange(len(c)) % 2 == 0, "order"),
    (lambda r, c: numpy.full(len(c), time.time() % 2 > 1), "clock"),
    (lambda r, c: [True], "size"),
])
def test_filters(filter_, violated):
    report = testing.check_filter(filter_)
    assert (violated is None and report.ok) or violated in [v.property for v in report.violations], report


def first_of_the_best(request, candidates, totals):
    return [int(numpy.argmax(totals))]


def any_of_the_best(request, candidates, totals):
    best = numpy.flatnonzero(totals == totals.max())
    return best[[int(request.random() * len(best))]]


def spoils_totals(request, candidates, totals):
    totals[0] = 9
    return [0]


@pytest.mark.parametrize("picker, violated", [
    (any_of_the_best, None),
    (first_of_the_best, "ties"),
    (spoils_totals, "subset"),
    (lambda r, c, t: [], "subset"),
    (lambda r, c, t: [0, 0], "subset"),
    (lambda r, c, t: [len(c)], "subset"),
    (lambda r, c, t: [next(counter) % len(c)], "repeats"),
    (lambda r, c, t: [int(time.time()) % len(c)], "clock"),
])
def test_pickers(picker, violated):
    report = testing.check_picker(picker)
    assert (violated is None and report.ok) or violated in [v.property for v in report.violations], report


def test_candidates_by_column():
    made = testing.candidates("a", "b", waiting=[1, 2], kv_usage=[0.5, float("nan")], active_models=[["x"], []],
                              labels={"zone": ["north", None]}, stale=[False, True],
                              data={"PrefixCacheMatchInfo": {"total": 4, "per_endpoint": [1, 3]}})
    assert made.names == ["default/a", "default/b"] and len(made) == 2 and made.label("zone") == ["north", None]
    assert made.waiting[0] == 1 and numpy.isnan(made.waiting[1]) and made.stale.tolist() == [False, True]
    assert made.active_models[0] == ["x"]
    found = made.data("PrefixCacheMatchInfo")
    assert found["total"] == 4 and found["per_endpoint"].tolist() == [1, 3]
    with pytest.raises(LookupError):
        made.data("InFlightLoad")
    assert testing.candidates(running=[1, 2, 3]).names[2] == "default/e2"
    with pytest.raises(ValueError, match="kv_usage: 1 values, expected 2"):
        testing.candidates(waiting=[1, 2], kv_usage=[0.1])
    with pytest.raises(ValueError, match="per_endpoint.*expected 1 numbers"):
        llmd.Candidates([llmd.Endpoint("a")], data={"X": {"per_endpoint": [1, 2]}})
    with pytest.raises(ValueError, match="known are total"):
        llmd.Candidates([llmd.Endpoint("a")], data={"X": {"per_endpont": [1]}})
    with pytest.raises(TypeError, match=r"endpoints\[0\]"):
        llmd.Candidates(["a"])


def test_requests_alone():
    made = testing.request("héllo", max_tokens=7, headers={"X-Tier": "gold"}, priority=2)
    assert json.loads(made.prompt_json) == "héllo" and made.max_tokens == 7 and made.api == "completions" and made.priority == 2
    assert made.headers == {"x-tier": "gold"} and json.loads(made.body)["model"] == "m"
    assert made.random() != made.random() and testing.request(seed=3).random() == testing.request(seed=3).random()
    chat = llmd.Request({"messages": [{"role": "user", "content": "x"}]})
    assert chat.api == "chat" and "/v1/chat/completions" in repr(chat)
    with pytest.raises(ValueError):
        llmd.Request("{nope")


def test_golden_decisions(tmp_path):
    scorer = runpy.run_path(str(ROOT / "examples/04_custom_scorer.py"))["KvHeadroom"]
    config, scorers = (EXAMPLE / "scheduler.yaml").read_text(), {"kv-headroom-scorer": scorer}
    testing.check_golden(EXAMPLE / "golden.json", config, scorers=scorers)  # what the C++ scorer decides
    cases = json.loads((EXAMPLE / "golden.json").read_text())
    cases[1]["decision"]["profiles"][0]["totals"][0] += 0.5
    wrong = tmp_path / "golden.json"
    wrong.write_text(json.dumps(cases))
    with pytest.raises(AssertionError, match=r"case '.*': decision.profiles\[0\].totals\[0\]: expected"):
        testing.check_golden(wrong, config, scorers=scorers)
    testing.check_golden(wrong, config, scorers=scorers, update=True)
    testing.check_golden(wrong, config, scorers=scorers)
    assert json.loads(wrong.read_text()) == json.loads((EXAMPLE / "golden.json").read_text())
    cases[0]["endpoints"][0]["kvusage"] = 1
    wrong.write_text(json.dumps(cases))
    with pytest.raises(ValueError, match="unknown key 'kvusage'"):
        testing.check_golden(wrong, config, scorers=scorers)
