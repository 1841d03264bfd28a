"""The cases, and lists that name some of them."""


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
