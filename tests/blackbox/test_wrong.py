"""Each case was seen to fail: wrong_map.txt names for every one a way of being wrong in which the small gateway fails it. With
--blackbox-all this is done again, and the gateway that is not wrong has to pass."""
import pathlib
import re

import gateways
import pytest
import runner
from case_list import load_cases

HERE = pathlib.Path(__file__).resolve().parent
RIGHT = "nothing"  # not wrong at all: what one slow thread cannot do


def mapped():
    """{kind: [cases]}"""
    out = {}
    for line in (HERE / "wrong_map.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            kind, case = [p.strip() for p in line.split("|", 1)]
            out.setdefault(kind, []).append(case)
    return out


def test_every_case_is_in_the_map_once():
    named = [case for cases in mapped().values() for case in cases]
    assert sorted(named) == sorted(load_cases()), f"missing: {sorted(set(load_cases()) - set(named))}; unknown: {sorted(set(named) - set(load_cases()))}"


def test_every_kind_of_the_map_is_one_of_the_small_gateway():
    source = "".join((HERE / f).read_text() for f in ("small_gateway.py", "small_exchange.py", "small_relay.py"))
    known = set(re.findall(r'"([a-z0-9-]+)"(?: not)? in self\.wrong', source)) | {k for group in re.findall(r"\{([^{}]*)\} & self\.wrong", source) for k in re.findall(r'"([a-z0-9-]+)"', group)}
    used = {kind for combined in mapped() for kind in combined.split(",")} - {RIGHT}
    assert used <= known, used - known


def outcomes(wrong, cases):
    with gateways.Small(3, wrong=wrong) as gateway:
        return runner.run(cases, gateway)


@pytest.mark.parametrize("kind", sorted(mapped()))
def test_wrong_gateway_fails(request, kind):
    if not request.config.getoption("--blackbox-all"):
        pytest.skip("only with --blackbox-all")
    cases = [load_cases()[name] for name in mapped()[kind]]
    held = [name for name, problem in outcomes("" if kind == RIGHT else kind, cases).items() if problem is None or isinstance(problem, runner.Skip)]
    assert not held, f"these hold all the same: {held}"


def test_right_gateway_passes(request):
    if not request.config.getoption("--blackbox-all"):
        pytest.skip("only with --blackbox-all")
    beyond = set(mapped().get(RIGHT, []))
    failed = {name: str(problem)[:200] for name, problem in outcomes("", [c for n, c in load_cases().items() if n not in beyond]).items() if problem is not None}
    assert not failed, failed
