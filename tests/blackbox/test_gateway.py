"""Each case against llmd-gateway in process (4 loops) and with a picker (1 loop), or against --gateway-url."""
import pathlib

import pytest
from case_list import listed, load_cases, verdict
from runner import Skip

FAILS = pathlib.Path(__file__).resolve().parent / "llmd_fails.txt"


def test_case(kind, case_name, outcomes):
    problem = outcomes(kind)[case_name]
    if isinstance(problem, Skip):
        pytest.skip(str(problem))
    fails = {} if kind == "url" else listed(FAILS)
    result, text = verdict(problem, fails.get((kind, case_name)) or fails.get(("*", case_name)))
    if result == "expected":
        pytest.xfail(text)
    assert result == "passed", text


def test_the_list_names_cases_and_kinds(request):
    unknown = [k for k in listed(FAILS) if k[1] not in load_cases() or k[0] not in ("*", "in-process", "epp")]
    assert not unknown, unknown
