#!/usr/bin/env python3
"""Changes every constant of the scheduler's formulas, one at a time, and says which test notices.

    tools/mutate_constants.py [--jobs N] [--keep DIR] [FILE...]

Works on a copy of the committed tree. A constant is a number in the code of FILE (default: the plugins that decide:
scorers, filters, pickers, deciders, handlers, admitters, detectors, flow policies and the producers whose figures they
read), outside comments and texts; the bounds of parameters and the first index of things are left out. Each change is
built and run against the golden decisions first, then against all tests of the scheduler. Prints a line a change:
golden, test, or SURVIVED; the exit status is 1 when one survived. Some do rightly: a first value that is always
written over, a clamp of what is within it.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
PLUGINS = "libllmd_sched/src/plugins"
DEFAULT = [f"{PLUGINS}/{kind}/*.{end}" for kind in ("scorer", "filter", "picker", "decider", "profile_handler", "admitter") for end in ("cc", "h")]
DEFAULT += [f"{PLUGINS}/flow/*_detector.cc", f"{PLUGINS}/flow/*_policy.cc", f"{PLUGINS}/flow/program_aware_fairness.cc"]
DEFAULT += [f"{PLUGINS}/producer/{name}.{end}" for name in
            ("approx_prefix_cache_producer", "inflight_load_producer", "token_estimate", "packer", "media_estimate") for end in ("cc", "h")]

SKIPPED = re.compile(r'//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|^\s*#[^\n]*', re.M)
NUMBER = re.compile(r"(?<![\w.])(\d[\d']*\.\d*|\.\d+|\d[\d']*)(e[+-]?\d+)?(?![\w.])")
# The bounds of a parameter, after its default; texts are blanks by then.
BOUNDS = re.compile(r"\.(?:Int|Double)\(\s*,[^,]*,([^;]*?)\)[);]")
# Where a loop or a container begins.
PLUMBING = re.compile(r"for \([^;]* = 0$|\[0$|size\(\) - 1$|_t \w+ = 0$")


def constants(text):
    """(begin, end, literal) of each number in code."""
    code = SKIPPED.sub(lambda m: " " * len(m.group()), text)
    bounds = [m.span(1) for m in BOUNDS.finditer(code)]
    for m in NUMBER.finditer(code):
        if any(begin <= m.start() < end for begin, end in bounds) or PLUMBING.search(code[:m.end()].rpartition("\n")[2]):
            continue
        yield m.start(), m.end(), m.group()


def changed(literal):
    if "." in literal or "e" in literal:
        value = float(literal.replace("'", ""))
        return repr(value * 1.25 if value else 0.5)
    value = int(literal.replace("'", ""))
    return str(value + 1 if value < 16 else value + value // 8)


def run(argv, cwd, seconds):
    try:
        return subprocess.run(argv, cwd=cwd, capture_output=True, timeout=seconds).returncode == 0
    except subprocess.TimeoutExpired:
        return False


TESTS = ("sched_test", "sched_plugins_test", "sched_flow_test", "sched_director_test")


def build(tree, jobs):
    return run(["ninja", "-C", "build/mutants", f"-j{jobs}", *TESTS], tree, 900)


def verdict(tree, jobs):
    if not build(tree, jobs):
        return "does not build"
    tests = [f"build/mutants/tests/{name}" for name in TESTS]
    if not all(run([test, "--gtest_filter=GoldenDecisions.*:GoldenLatency.*"], tree, 60) for test in tests):
        return "golden"
    return "SURVIVED" if all(run([test], tree, 120) for test in tests) else "test"


def check(tree, name, jobs, counts):
    path = tree / name
    original = path.read_text()
    for begin, end, literal in list(constants(original)):
        path.write_text(original[:begin] + changed(literal) + original[end:])
        said = verdict(tree, jobs)
        counts[said] = counts.get(said, 0) + 1
        line = original.count("\n", 0, begin)
        print(f"{said:15}{name.removeprefix(PLUGINS + '/')}:{line + 1}: {literal} -> {changed(literal)}   {original.splitlines()[line].strip()[:90]}", flush=True)
    path.write_text(original)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="paths from the project's root")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", help="folder for the copy and its build (default: a temporary one)")
    args = parser.parse_args()
    names = args.files or sorted({str(p.relative_to(ROOT)) for pattern in DEFAULT for p in ROOT.glob(pattern)})
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(args.keep or folder)
        tree.mkdir(exist_ok=True)
        subprocess.run(f"git -C {ROOT} archive HEAD | tar -xm -C {tree}", shell=True, check=True)
        subprocess.run(["cmake", "--preset", "release", "-B", "build/mutants", "-DLLMD_BUILD_TESTS=ON", "-DCMAKE_CXX_FLAGS_RELEASE=-O1"],
                       cwd=tree, check=True, stdout=subprocess.DEVNULL)
        if not build(tree, args.jobs) or verdict(tree, args.jobs) != "SURVIVED":
            sys.exit("the tests do not pass as they are")
        counts = {}
        for name in names:
            check(tree, name, args.jobs, counts)
    print(", ".join(f"{said}: {n}" for said, n in sorted(counts.items())))
    sys.exit(1 if counts.get("SURVIVED") else 0)


if __name__ == "__main__":
    main()
