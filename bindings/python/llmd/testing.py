"""Unit tests for scorers, filters and pickers written in Python, without a server and without a scheduler.

    from llmd import testing
    scores = my_scorer(testing.request("hello"), testing.candidates(waiting=[0, 3], kv_usage=[0.1, 0.9]))
    testing.check_scorer(my_scorer).verify()

A scorer that threads spoil cannot be found here: its C++ twin can, under ThreadSanitizer.
"""
from __future__ import annotations

import copy
import inspect
import json
import os
import pathlib
import random
from typing import Any, Callable, Mapping, Optional, Sequence, Union

import numpy

from . import Candidates, Endpoint, Request, Scheduler
from ._clocks import shifted_clocks
from .errors import Error, InvalidArgumentError

__all__ = ["Report", "Violation", "candidates", "check_filter", "check_golden", "check_picker", "check_scorer", "endpoints", "request"]

Plugin = Callable[..., Any]
Pool = Callable[[int, int], Sequence[Endpoint]]


def endpoints(count: int, seed: int = 7, *, unknown: bool = False) -> list[Endpoint]:
    """e0, e1 … with varied gauges, roles, zones and adapters; the same for the same seed. unknown: every third has no gauges."""
    draw = random.Random(seed)
    out = []
    for i in range(count):
        waiting, running, kv = draw.randrange(20), draw.randrange(30), draw.random()
        labels = {"zone": draw.choice(["north", "south"]), "llm-d.ai/role": draw.choice(["decode", "prefill", "both"])}
        adapters = draw.sample(["m", "lora-a", "lora-b"], draw.randrange(3))
        nan = float("nan")
        none = unknown and i % 3 == 1
        out.append(Endpoint(f"e{i}", port=1 + i % 65535, labels=labels, waiting=nan if none else waiting,
                            running=nan if none else running, kv_usage=nan if none else kv, num_blocks=draw.randrange(1, 5000),
                            active_models=adapters, max_active_models=4))
    return out


def candidates(*names: str, data: Optional[Mapping[str, Mapping[str, Any]]] = None, stale: Optional[Sequence[bool]] = None,
               labels: Optional[Mapping[str, Sequence[Optional[str]]]] = None, **columns: Sequence[Any]) -> Candidates:
    """Candidates by column: candidates("a", "b", waiting=[0, 3], labels={"zone": ["north", None]}).

    columns: any argument of llmd.Endpoint, one value an endpoint. Without names they are e0, e1 …, as many as the columns are long.
    """
    given: dict[str, Sequence[Any]] = {**columns, **{f"label {key}": values for key, values in (labels or {}).items()}}
    count = len(names) or max((len(values) for values in given.values()), default=0)
    for key, values in given.items():
        if len(values) != count:
            raise InvalidArgumentError(f"{key}: {len(values)} values, expected {count}, one an endpoint", "INVALID_ARGUMENT")
    made = []
    for i in range(count):
        own = {key: values[i] for key, values in (labels or {}).items() if values[i] is not None}
        name = names[i] if names else f"e{i}"
        made.append(Endpoint(name, labels=own, **{key: values[i] for key, values in columns.items()}))  # type: ignore[arg-type]
    return Candidates(made, data=data or {}, stale=stale)


def request(prompt: str = "hello", *, model: str = "m", path: str = "", headers: Optional[Mapping[str, str]] = None,
            priority: int = 0, seed: int = 1, **members: Any) -> Request:
    """A completions request; `members` go into its body (max_tokens=7)."""
    return Request({"model": model, "prompt": prompt, **members}, path=path, headers=dict(headers or {}), priority=priority, seed=seed)


class Violation:
    """A property that does not hold, and on which input."""

    def __init__(self, property: str, detail: str) -> None:
        self.property, self.detail = property, detail

    def __repr__(self) -> str:
        return f"{self.property}: {self.detail}"


class Report:
    """What a check found. True when nothing."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.checked: list[str] = []
        self.violations: list[Violation] = []

    @property
    def ok(self) -> bool:
        return not self.violations

    def __bool__(self) -> bool:
        return self.ok

    def verify(self) -> None:
        """Raises AssertionError with every violation."""
        if not self.ok:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        return "\n".join([f"{self.plugin}: {len(self.checked)} properties, {len(self.violations)} violated"] +
                         [f"  {v!r}" for v in self.violations])

    __repr__ = __str__


class _Failed(Exception):
    pass


class _Subject:
    """A plugin under test: made afresh for each property, called on one scene after another."""

    def __init__(self, plugin: Plugin, parameters: Mapping[str, Any], body: Optional[Mapping[str, Any]],
                 data: Optional[Callable[[Sequence[Endpoint]], Mapping[str, Mapping[str, Any]]]], pool: Pool) -> None:
        self.plugin, self.parameters, self.pool, self.facts = plugin, dict(parameters), pool, data
        self.body = dict(body or {"model": "m", "prompt": "x" * 900, "max_tokens": 64})

    def make(self) -> Plugin:
        if inspect.isclass(self.plugin):
            made: Any = self.plugin
            return made(**copy.deepcopy(self.parameters))  # type: ignore[no-any-return]
        return lambda *arguments: self.plugin(*arguments, **self.parameters)

    def data(self, pool: Sequence[Endpoint]) -> Mapping[str, Mapping[str, Any]]:
        if self.facts is not None:
            return self.facts(pool)
        out = {}
        for kind in getattr(self.plugin, "consumes", ()):
            by_name = {e.name: random.Random(f"{kind} {e.name}").randrange(9) for e in pool}
            out[kind] = {"total": 8, "block_size": 16, "per_endpoint": [float(by_name[e.name]) for e in pool]}
        return out

    def call(self, made: Plugin, pool: Sequence[Endpoint], *rest: Any, seed: int = 1) -> Any:
        """What it returns. _Failed when it raises or changes what it was given."""
        given, seen = Request(self.body, seed=seed), Candidates(pool, data=self.data(pool))
        columns = {c: copy.copy(getattr(seen, c)) for c in ("names", "waiting", "running", "kv_usage", "block_size", "num_blocks", "stale")}
        parameters, others = copy.deepcopy(self.parameters), copy.deepcopy(rest)
        try:
            result = made(given, seen, *rest)
        except Exception as error:
            raise _Failed(f"raises {type(error).__name__}: {error} for {len(pool)} endpoints") from error
        for name, before in columns.items():
            if not _same(before, getattr(seen, name)):
                raise _Failed(f"it changes candidates.{name}")
        if parameters != self.parameters:
            raise _Failed("it changes its parameters")
        if not all(_same(a, b) for a, b in zip(others, rest)):
            raise _Failed("it changes the totals")
        return result


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, numpy.ndarray) and a.dtype.kind == "f":
        return bool(numpy.array_equal(a, b, equal_nan=True))
    return bool(numpy.array_equal(a, b))


def _vector(result: Any, kinds: str, count: Optional[int], want: str) -> numpy.ndarray[Any, Any]:
    try:
        array = numpy.asarray(result)
    except ValueError as error:
        raise _Failed(f"it returned {result!r}, expected {want}") from error
    if array.ndim != 1 or (count is not None and len(array) != count) or (array.dtype.kind not in kinds and len(array) > 0):
        raise _Failed(f"it returned {array.shape} {array.dtype}, expected {want}")
    return array


def _check(report: Report, name: str, skipped: Sequence[str], body: Callable[[], None]) -> None:
    if name in skipped:
        return
    report.checked.append(name)
    try:
        body()
    except _Failed as failed:
        report.violations.append(Violation(name, str(failed)))


_Result = numpy.ndarray[Any, Any]
_SIZES = (0, 1, 2, 50, 1000)
_LATER = (0.5, 1.4, 59.0, 3600.25, 43201.7, 12345678.9)  # seconds


def _common(subject: _Subject, report: Report, skipped: Sequence[str], run: Callable[..., _Result], tolerance: float) -> None:
    """What holds for scorers and filters alike; run(made, pool) gives one value a candidate."""

    def equal(a: _Result, b: _Result, what: str, pool: Sequence[Endpoint]) -> None:
        for i, endpoint in enumerate(pool):
            if a[i] != b[i] and not (a[i] != a[i] and b[i] != b[i]) and not abs(float(a[i]) - float(b[i])) <= tolerance:
                raise _Failed(f"{endpoint.name}: {a[i]}, {what} {b[i]}")

    def size() -> None:
        for count in _SIZES:
            run(subject.make(), subject.pool(count, 7))

    def order() -> None:
        pool = list(subject.pool(30, 7))
        moved = random.Random(3).sample(range(30), 30)
        shuffled = run(subject.make(), [pool[i] for i in moved])
        back = numpy.empty_like(shuffled)
        back[moved] = shuffled
        equal(run(subject.make(), pool), back, "with the candidates in another order", pool)

    def calls() -> None:
        pool, made = subject.pool(20, 7), subject.make()
        first = run(made, pool)
        for i in range(2, 8):
            equal(first, run(made, pool), f"at call {i} with the same input", pool)

    def repeats() -> None:
        pool = subject.pool(20, 7)
        first = run(subject.make(), pool)
        for _ in range(3):
            equal(first, run(subject.make(), pool), "from another new one", pool)

    def clock() -> None:
        pool = subject.pool(20, 7)
        with shifted_clocks(subject.plugin, 0):
            first = run(subject.make(), pool)
        for seconds in _LATER:
            with shifted_clocks(subject.plugin, seconds):
                equal(first, run(subject.make(), pool), f"{seconds} s later", pool)

    for name, body in (("size", size), ("order", order), ("calls", calls), ("repeats", repeats), ("clock", clock)):
        _check(report, name, skipped, body)


def _subject(plugin: Plugin, parameters: Optional[Mapping[str, Any]], body: Optional[Mapping[str, Any]],
             data: Optional[Callable[[Sequence[Endpoint]], Mapping[str, Mapping[str, Any]]]], pool: Optional[Pool]) -> tuple[_Subject, Report]:
    name = getattr(plugin, "__name__", type(plugin).__name__)
    return _Subject(plugin, parameters or {}, body, data, pool or endpoints), Report(name)


def check_scorer(scorer: Plugin, *, parameters: Optional[Mapping[str, Any]] = None, body: Optional[Mapping[str, Any]] = None,
                 data: Optional[Callable[[Sequence[Endpoint]], Mapping[str, Mapping[str, Any]]]] = None, pool: Optional[Pool] = None,
                 tolerance: float = 1e-12, skip: Sequence[str] = ()) -> Report:
    """What every scorer must hold, whatever it computes:

    range    each score is in 0..1, or NaN = not scored
    nan      an endpoint whose gauges are known is scored, also beside some whose gauges are not
    size     one number each for 0, 1, 2, 50 and 1,000 candidates
    order    the order of the candidates changes no score
    calls    the same object says the same again
    repeats  another new object says the same
    clock    so it does at another time of day (time.*, datetime.now, as the plugin's module knows them)

    In each it must not raise, nor change candidates or parameters. `parameters` as the YAML gives them, `body` of the request,
    `pool(count, seed)` makes endpoints, `data(endpoints)` what a producer found (made up for `consumes` otherwise), `skip`: names
    of properties that it breaks by design.
    """
    subject, report = _subject(scorer, parameters, body, data, pool)

    def run(made: Plugin, of: Sequence[Endpoint]) -> _Result:
        return _vector(subject.call(made, of), "fiu", len(of), f"({len(of)},) numbers").astype(float)

    def in_range() -> None:
        for of in (subject.pool(2, 1), subject.pool(50, 2), endpoints(30, 3, unknown=True)):
            for endpoint, score in zip(of, run(subject.make(), of)):
                if not (score != score or 0 <= score <= 1):
                    raise _Failed(f"{endpoint!r}: {score}, expected 0 to 1 or NaN")

    def no_nan() -> None:
        for of in (subject.pool(20, 1), endpoints(30, 3, unknown=True)):
            for endpoint, score in zip(of, run(subject.make(), of)):
                if score != score and endpoint.waiting == endpoint.waiting:
                    raise _Failed(f"{endpoint!r}: NaN, though its gauges are known")

    _check(report, "range", skip, in_range)
    _check(report, "nan", skip, no_nan)
    _common(subject, report, skip, run, tolerance)
    return report


def check_filter(filter: Plugin, *, parameters: Optional[Mapping[str, Any]] = None, body: Optional[Mapping[str, Any]] = None,
                 data: Optional[Callable[[Sequence[Endpoint]], Mapping[str, Mapping[str, Any]]]] = None, pool: Optional[Pool] = None,
                 skip: Sequence[str] = ()) -> Report:
    """As check_scorer, for a mask of bool: size, order, calls, repeats, clock, and unknown (any answer where gauges are NaN)."""
    subject, report = _subject(filter, parameters, body, data, pool)

    def run(made: Plugin, of: Sequence[Endpoint]) -> _Result:
        return _vector(subject.call(made, of), "b", len(of), f"({len(of)},) bool")

    _check(report, "unknown", skip, lambda: None if run(subject.make(), endpoints(30, 3, unknown=True)) is not None else None)
    _common(subject, report, skip, run, 0)
    return report


def check_picker(picker: Plugin, *, parameters: Optional[Mapping[str, Any]] = None, body: Optional[Mapping[str, Any]] = None,
                 pool: Optional[Pool] = None, skip: Sequence[str] = ()) -> Report:
    """What every picker must hold: subset (positions of candidates, none twice, at least one), size (1, 2, 50 and 1,000 candidates),
    repeats (the same seed, the same pick), clock, and ties (each of four equals is picked by some seed)."""
    subject, report = _subject(picker, parameters, body, None, pool)

    def run(count: int, totals: Sequence[float], seed: int = 1) -> list[int]:
        given = numpy.array(totals, float)
        result = _vector(subject.call(subject.make(), subject.pool(count, 7), given, seed=seed), "iu", None, "positions, integers")
        picked = [int(i) for i in result]
        if not picked or len(set(picked)) != len(picked) or min(picked) < 0 or max(picked) >= count:
            raise _Failed(f"it picked {picked} of {count} candidates")
        return picked

    def totals(count: int, seed: int) -> list[float]:
        draw = random.Random(seed)
        return [draw.random() for _ in range(count)]

    def subset() -> None:
        for seed in range(20):
            run(10, totals(10, seed), seed)

    def size() -> None:
        for count in _SIZES[1:]:
            run(count, totals(count, 1))

    def repeats() -> None:
        for seed in range(5):
            first, again = run(20, totals(20, seed), seed), run(20, totals(20, seed), seed)
            if first != again:
                raise _Failed(f"{first} and {again} for the same seed")

    def clock() -> None:
        with shifted_clocks(subject.plugin, 0):
            first = run(20, totals(20, 1))
        for seconds in _LATER:
            with shifted_clocks(subject.plugin, seconds):
                if (later := run(20, totals(20, 1))) != first:
                    raise _Failed(f"{first}, {seconds} s later {later}")

    def ties() -> None:
        never = set(range(4)) - {run(4, [0.5] * 4, seed)[0] for seed in range(200)}
        if never:
            raise _Failed(f"positions {sorted(never)} of four equals are never picked first")

    for name, body_ in (("subset", subset), ("size", size), ("repeats", repeats), ("clock", clock), ("ties", ties)):
        _check(report, name, skip, body_)
    return report


def _endpoint(case: Mapping[str, Any], where: str) -> Endpoint:
    known = {"name": "name", "address": "address", "port": "port", "labels": "labels", "waiting": "waiting", "running": "running",
             "kvUsage": "kv_usage", "blockSize": "block_size", "numBlocks": "num_blocks"}
    if unknown := set(case) - set(known):
        raise InvalidArgumentError(f"{where}: unknown key '{min(unknown)}'; known: {', '.join(known)}", "INVALID_ARGUMENT")
    gauges = ("waiting", "running", "kvUsage")  # null = unknown
    arguments: dict[str, Any] = {known[k]: float("nan") if k in gauges and v is None else v for k, v in case.items()}
    return Endpoint(**arguments)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _difference(want: Any, got: Any, tolerance: float, at: str) -> str:
    """Where and how they differ, or ''."""
    if _is_number(want) and _is_number(got):
        return "" if abs(want - got) <= tolerance * max(1.0, abs(want)) else f"{at}: expected {want}, got {got}"
    if isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        return next(filter(None, (_difference(a, b, tolerance, f"{at}[{i}]") for i, (a, b) in enumerate(zip(want, got)))), "")
    if isinstance(want, dict) and isinstance(got, dict) and set(want) == set(got):
        return next(filter(None, (_difference(want[k], got[k], tolerance, f"{at}.{k}") for k in want)), "")
    return "" if type(want) is type(got) and want == got else f"{at}: expected {json.dumps(want)}, got {json.dumps(got)}"


def check_golden(path: Union[str, os.PathLike[str]], config: str, *, seed: int = 1, tolerance: float = 1e-9,
                 update: Optional[bool] = None, **plugins: Any) -> None:
    """Puts the cases of the JSON file, in order, through one scheduler and compares whole decisions with the file's.

    The file is a list of {"name", "endpoints": [{"name", "port", "waiting", "kvUsage", …}], "request": {"path", "headers",
    "priority", "body"}, "decision"}: the format of the C++ kit. With update, or LLMD_UPDATE_GOLDEN set, the decisions are written
    there instead. `plugins` go to Scheduler.from_yaml (scorers=…). AssertionError names case, place, what was wanted and what came.
    """
    file = pathlib.Path(path)
    cases = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(cases, list) or not cases:
        raise InvalidArgumentError(f"{file}: expected a list of cases", "INVALID_ARGUMENT")
    if update is None:
        update = os.environ.get("LLMD_UPDATE_GOLDEN", "0") not in ("", "0")
    scheduler = Scheduler.from_yaml(config, seed=seed, **plugins)
    differences = []
    for case in cases:
        where = f"{file}: case '{case.get('name', '')}'"
        asked = case["request"]
        pool = [_endpoint(e, f"{where}: endpoints[{i}]") for i, e in enumerate(case["endpoints"])]
        try:
            decision = scheduler.schedule(json.dumps(asked["body"], separators=(",", ":")), pool, path=asked.get("path", ""),
                                          headers=asked.get("headers", {}), priority=asked.get("priority", 0))
        except Error as error:
            raise AssertionError(f"{where}: {error}") from error
        got = json.loads(decision.to_json())
        if not update and (difference := _difference(case.get("decision"), got, tolerance, "decision")):
            differences.append(f"{where}: {difference}")
        case["decision"] = got
    if differences:
        raise AssertionError("\n".join(differences))
    if update:
        file.write_text(json.dumps(cases, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
