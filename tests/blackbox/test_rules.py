"""Every rule of the page is named by a case, and no case names one that is not there."""
import pathlib
import re

from case_list import load_cases

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
