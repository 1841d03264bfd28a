"""The list of cases. A case is a function of a bench (see runner.py) that raises where the gateway breaks a rule it names."""

CASES = {}


class Case:
    def __init__(self, run, rules, own, process, slow):
        self.run, self.rules = run, rules
        self.own = own          # starts gateways for itself: run with few others beside it
        self.process = process  # needs llmd-gateway's process: flags, signals, its own log
        self.slow = slow        # only with --all
        self.name = run.__name__


def _register(run, name, rules, own, process, slow):
    assert name not in CASES, f"two cases are called {name}"
    assert rules and all(r.startswith("GW-") for r in rules), f"{name} names no rule"
    case = Case(run, rules, own, process, slow)
    case.name = name
    CASES[name] = case


def case(*rules, own=False, process=False, slow=False):
    def register(run):
        _register(run, run.__name__, rules, own or process, process, slow)
        return run
    return register


def family(table, *rules, own=False, process=False, slow=False):
    """One case for each entry of {suffix: argument}; the function takes the argument second."""
    def register(run):
        for suffix, argument in table.items():
            _register(lambda b, argument=argument: run(b, argument), f"{run.__name__}[{suffix}]", rules, own or process, process, slow)
        return run
    return register
