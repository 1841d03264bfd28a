"""Every rule of the page is named by a case, and no case names one that is not there."""
import pathlib
import re

import gateways
import runner
from case_list import load_cases, verdict
from registry import Case

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/reference/gateway.md"


def rules():
    found = re.findall(r"^- \*\*(GW-\d+)\*\* ", PAGE.read_text(), re.M)
    assert found and len(found) == len(set(found)), "a number is used twice"
    return set(found)


def test_every_rule_is_named_by_a_case():
    named = {rule for case in load_cases().values() for rule in case.rules}
    assert not rules() - named, f"no case names {sorted(rules() - named)}"


def test_no_case_names_a_rule_that_is_not_there():
    unknown = {case.name: sorted(set(case.rules) - rules()) for case in load_cases().values() if set(case.rules) - rules()}
    assert not unknown, unknown


def test_there_are_many_cases():
    assert len(load_cases()) >= 150


def test_an_expected_failure_is_one_way_of_failing():
    entry = "it is slow", r"took \d+ ms"
    assert verdict("took 90 ms", entry)[0] == "expected"
    assert verdict("ConnectionRefusedError: nobody there", entry)[0] == "failed"
    assert verdict(None, entry)[0] == "failed"
    assert verdict("took 90 ms", None)[0] == "failed" and verdict(None, None)[0] == "passed"


def test_a_gateway_that_ends_in_an_expected_failure_fails():
    def run(b):
        own = b.own(1)
        own.gateway.process.kill()
        own.gateway.process.wait()
        own.get("/health")

    def slow(b):
        b.own(1)
        raise AssertionError("took 90 ms")
    entry = "it is slow", r"took \d+ ms|ConnectionRefusedError"
    with gateways.Small(1) as gateway:
        ended, lives = (runner.attempt(Case(case, ["GW-1"], True, True, False), gateway) for case in (run, slow))
    assert ended.startswith("the gateway's process has ended") and verdict(ended, entry)[0] == "failed"
    assert verdict(lives, entry)[0] == "expected"
