#!/usr/bin/env python3
"""Checks that every public header compiles on its own, with the compilers users link with.

usage: tools/check_headers.py [ROOT] [--compiler CXX]...      (default: clang++-19 and g++, those present)
"""
import argparse
import concurrent.futures
import pathlib
import shutil
import subprocess
import sys

TOPS = ("libllmd", "libllmd_kv", "libllmd_sched", "libllmd_engine")


def compile_alone(job):
    compiler, root, header = job
    includes = [f"-I{root / top / 'include'}" for top in TOPS]
    language = "c" if "llmd/c/" in header.as_posix() else "c++"
    standard = "-std=c11" if language == "c" else "-std=c++20"
    source = f'#include "{header}"\n#include "{header}"\n'
    run = subprocess.run([compiler, standard, "-fsyntax-only", "-Wall", "-Wextra", "-Wno-unused-parameter",
                          "-Wno-missing-field-initializers", *includes, "-x", language, "-"],
                         input=source, capture_output=True, text=True)
    if run.returncode or "warning:" in run.stderr:
        return f"{header.relative_to(root)} ({compiler}):\n{run.stderr.strip()[:2000]}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", default=pathlib.Path(__file__).parent.parent, type=pathlib.Path)
    parser.add_argument("--compiler", action="append")
    args = parser.parse_args()
    root = args.root.resolve()
    compilers = args.compiler or [c for c in ("clang++-19", "g++") if shutil.which(c)]
    headers = [h for top in TOPS for h in sorted((root / top / "include").rglob("*.h"))]
    jobs = [(c, root, h) for c in compilers for h in headers]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        bad = [message for message in pool.map(compile_alone, jobs) if message]
    print("\n".join(bad) if bad else f"check_headers: {len(headers)} headers with {', '.join(compilers)}, clean")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
