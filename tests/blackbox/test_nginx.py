"""nginx, as a plain relay, breaks exactly the rules of the checked-in list: the cases can fail, and do no more than they say."""
import pathlib
import re

import gateways
import runner
from case_list import load_cases

FAILS = pathlib.Path(__file__).resolve().parent / "nginx_fails.txt"


def test_nginx_fails_exactly_what_is_listed(request):
    if request.config.getoption("--gateway-url"):
        return
    with gateways.Nginx(3) as gateway:
        results = runner.run(list(load_cases().values()), gateway)
    failed = {name: str(problem) for name, problem in results.items() if problem is not None and not isinstance(problem, runner.Skip)}
    expected = {line for line in FAILS.read_text().splitlines() if line and not line.startswith("#")}
    new = {name: re.sub(r"\s+", " ", failed[name])[:200] for name in sorted(set(failed) - expected)}
    assert not new and not expected - set(failed), f"fail and are not listed: {new}; are listed and do not: {sorted(expected - set(failed))}"
