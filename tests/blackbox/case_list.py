"""The cases, and lists that name some of them."""
import re


def load_cases():
    """Fills the registry; in this order they are listed."""
    import cases_doors  # noqa: F401
    import cases_failures  # noqa: F401
    import cases_leaving  # noqa: F401
    import cases_looking  # noqa: F401
    import cases_streams  # noqa: F401
    import cases_surface  # noqa: F401
    import cases_wire  # noqa: F401
    from registry import CASES
    return CASES


def listed(path):
    """{(kind, case): (reason, pattern)} of a list of expected failures; `*` stands for every kind."""
    out = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            parts = [p.strip() for p in line.split("|")]
            assert len(parts) == 4 and all(parts), f"{path}:{number}: KIND | CASE | REASON | PATTERN is expected"
            out[parts[0], parts[1]] = parts[2], parts[3]
    return out


def verdict(problem, entry):
    """What a case's outcome comes to, beside its entry in the list or None: ("passed" | "failed" | "expected", text)."""
    if entry is None:
        return ("passed", "") if problem is None else ("failed", str(problem))
    reason, pattern = entry
    if problem is None:
        return "failed", f"it holds now: take it out of the list (it said: {reason})"
    if not re.match(pattern, str(problem)):
        return "failed", f"it fails otherwise than by {pattern!r} ({reason}): {problem}"
    return "expected", f"{reason}: {problem}"
