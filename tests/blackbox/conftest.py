"""Black-box tests of gateways. Without options: llmd-gateway in process and with a picker, each case a test; nginx as one test that
compares what fails with a list. With --gateway-url any other gateway, before engines that these tests open at --engine-ports."""
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from case_list import load_cases  # noqa: E402


def pytest_addoption(parser):
    group = parser.getgroup("blackbox")
    group.addoption("--gateway-url", help="http://HOST:PORT of a gateway that runs already; needs --engine-ports")
    group.addoption("--engine-ports", help="ports on 127.0.0.1 where that gateway looks for its engines, with commas")
    group.addoption("--blackbox-all", action="store_true", help="also slow cases and the wrong gateways (minutes)")


def kinds(config):
    if config.getoption("--gateway-url"):
        return ["url"]
    return ["in-process", "epp"]


def pytest_generate_tests(metafunc):
    if "case_name" in metafunc.fixturenames:
        every = metafunc.config.getoption("--blackbox-all")
        pairs = [(kind, name) for kind in kinds(metafunc.config) for name, case in load_cases().items() if every or not case.slow]
        metafunc.parametrize("kind,case_name", pairs, ids=[f"{k}:{n}" for k, n in pairs])


@pytest.fixture(scope="session")
def outcomes(request):
    """outcomes(kind) -> {case: None, text or Skip} of the cases of that kind that were selected, run when first asked for."""
    import gateways
    import runner
    cases, done = load_cases(), {}
    selected = {}
    for item in request.session.items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if "case_name" in params:
            selected.setdefault(params["kind"], []).append(cases[params["case_name"]])

    def run(kind):
        if kind not in done:
            if kind == "url":
                gateway = gateways.ByUrl(request.config.getoption("--gateway-url"), [int(p) for p in (request.config.getoption("--engine-ports") or "").split(",")])
            else:
                gateway = {"in-process": gateways.InProcess, "epp": gateways.Epp}[kind](3)
            with gateway:
                done[kind] = runner.run(selected[kind], gateway)
        return done[kind]
    return run
