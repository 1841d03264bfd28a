#!/usr/bin/env python3
"""Checks that scheduling and KV code takes time and chance from what it is given (docs/reference/determinism.md).

Under libllmd_sched/ and libllmd_kv/ nothing reads the machine's clock or its random source, except the files listed here with
a reason. Time comes from the Clock that is passed in, randomness from RequestContext::random and DirectorOptions::seed.

usage: tools/check_clock.py [ROOT]
Prints one line per violation and exits 1 when there is any. An entry of the list that is no longer needed is a violation too.
"""
import pathlib
import re
import sys

ROOMS = ("libllmd_sched", "libllmd_kv")
FORBIDDEN = (
    (re.compile(r"\b(?:system_clock|steady_clock|high_resolution_clock|utc_clock|file_clock)\s*::\s*now\b"), "a std::chrono clock"),
    # A name for the clock would hide its now().
    (re.compile(r"\b(?:using\s+\w+\s*=|typedef)\s*(?:std\s*::\s*)?(?:chrono\s*::\s*)?(?:system|steady|high_resolution)_clock\b"),
     "a name for a std::chrono clock"),
    (re.compile(r"\b(?:system|high_resolution)_clock\b"), "a std::chrono clock"),
    (re.compile(r"(?<![\w.>])(?:std\s*::\s*|::\s*)?(?:time\s*\(\s*(?:nullptr|NULL|0|&\w+)\s*\)|gettimeofday\s*\(|clock_gettime\s*\()"),
     "the C library's clock"),
    (re.compile(r"\bstd\s*::\s*clock\s*\("), "the C library's clock"),
    (re.compile(r"\bSystemClock\s*\("), "SystemClock()"),
    (re.compile(r"\brandom_device\b"), "std::random_device"),
    (re.compile(r"(?<![\w.>])(?:std\s*::\s*)?(?:s?rand|getrandom|getentropy|arc4random|RAND_bytes)\s*\("), "the C library's random numbers"),
    (re.compile(r"\b(?:NewUuid|RandomBits)\s*\("), "core's random source"),
)
# Path: reason.
ALLOWED = {
    "libllmd_sched/src/config/graph_builder.cc": "SystemClock() is what LoadOptions without a clock mean",
    "libllmd_sched/src/data/file_watch.cc": "a thread that waits on inotify; it tells of changes, late or early",
    "libllmd_sched/src/testing/clock_reads.cc": "counts the reads of plugins under test",
    "libllmd_sched/src/director/pool_seed.h": "the seed of a director or a set of pools that is given none",
    "libllmd_kv/src/block_hash.cc": "the root of an engine's hashes that is random in that engine too, as told by its configuration",
    "libllmd_kv/src/key_memo.cc": "names of content that nobody outside may foresee; no key or decision depends on them",
    "libllmd_kv/src/region.cc": "the epoch that tells one life of a region from the next",
    "libllmd_kv/src/transfer/connection.h": "deadlines of sockets",
    "libllmd_kv/src/transfer/connection.cc": "deadlines of sockets",
    "libllmd_kv/src/transfer/reader.cc": "deadlines of sockets; elapsed time in a result",
    "libllmd_kv/src/transfer/release.cc": "deadlines of sockets",
    "libllmd_kv/src/transfer/server.cc": "deadlines of sockets, tick of the server's thread",
    "libllmd_kv/src/transfer/session.cc": "deadlines of sockets",
    "libllmd_kv/src/transfer/socket.cc": "deadlines of sockets",
}
TOKEN = re.compile(r'R"(?P<delim>[^()\\ ]{0,16})\(.*?\)(?P=delim)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|//[^\n]*|/\*.*?\*/', re.S)


def code_of(text):
    """The text with comments and literals blanked, lines kept."""
    return TOKEN.sub(lambda m: "\n" * m.group().count("\n") or " ", text)


def findings(text):
    code = code_of(text)
    seen = set()
    for pattern, what in FORBIDDEN:
        for match in pattern.finditer(code):
            line = code.count("\n", 0, match.start()) + 1
            if line not in seen:
                seen.add(line)
                yield line, what


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[1])
    bad, used = [], set()
    for room in ROOMS:
        for path in sorted((root / room).rglob("*")):
            if path.suffix not in (".h", ".cc"):
                continue
            name = path.relative_to(root).as_posix()
            for line, what in sorted(findings(path.read_text())):
                if name in ALLOWED:
                    used.add(name)
                else:
                    bad.append(f"{name}:{line}: reads {what}; take the Clock or the seed that is passed in (tools/check_clock.py)")
    for name in sorted(set(ALLOWED) - used):
        if (root / name).exists():
            bad.append(f"{name}: is listed in tools/check_clock.py but reads no clock")
    print("\n".join(bad), end="\n" if bad else "")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
