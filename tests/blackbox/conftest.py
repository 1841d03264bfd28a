"""Black-box tests of gateways. Without options: llmd-gateway in process and with a picker, each case a test; nginx as one test that
compares what fails with a list. With --gateway-url any other gateway, before engines that these tests open at --engine-ports."""
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def pytest_addoption(parser):
    group = parser.getgroup("blackbox")
    group.addoption("--gateway-url", help="http://HOST:PORT of a gateway that runs already; needs --engine-ports")
    group.addoption("--engine-ports", help="ports on 127.0.0.1 where that gateway looks for its engines, with commas")
    group.addoption("--blackbox-all", action="store_true", help="also slow cases and the wrong gateways (minutes)")


def load_cases():
    """Fills the registry; in this order they are listed."""
    import cases_doors  # noqa: F401
    import cases_failures  # noqa: F401
    import cases_looking  # noqa: F401
    import cases_streams  # noqa: F401
    import cases_surface  # noqa: F401
    import cases_wire  # noqa: F401
    from registry import CASES
    return CASES


def listed(path):
    """{(kind, case): reason} of a list of expected failures; `*` stands for every kind."""
    out = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            parts = [p.strip() for p in line.split("|")]
            assert len(parts) == 3 and all(parts), f"{path}:{number}: KIND | CASE | REASON is expected"
            out[parts[0], parts[1]] = parts[2]
    return out


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
