#!/usr/bin/env python3
"""Checks who may include whom (docs/architecture.md, "Layers") and the size rules of thin services.

usage: tools/check_layers.py [ROOT]
Prints one line per violation, "file:line: rule", and exits 1 when there is any.
"""
import pathlib
import re
import sys

# A room is a path prefix; it may include headers of the rooms listed (and its own).
ROOMS = {
    "core": ("libllmd/include/llmd/", "libllmd/src/"),
    "openai": ("libllmd/include/llmd/openai/", "libllmd/src/openai/"),
    "http": ("libllmd/include/llmd/http/", "libllmd/src/http/"),
    "relay": ("libllmd/include/llmd/http/relay/", "libllmd/src/http/relay/"),
    "text": ("libllmd/include/llmd/text/", "libllmd/src/text/"),
    "pd": ("libllmd/include/llmd/pd/", "libllmd/src/pd/"),
    "k8s": ("libllmd/include/llmd/k8s/", "libllmd/src/k8s/"),
    "kv": ("libllmd_kv/",),
    "sched": ("libllmd_sched/",),
    "engine": ("libllmd_engine/",),
    "services": ("services/",),
    "python": ("bindings/python/",),
}
MAY_INCLUDE = {
    "core": {"openai"},
    "openai": {"core"},
    "http": {"core", "openai"},
    "relay": {"core", "http"},
    "text": {"core"},
    "pd": {"core", "openai"},
    "k8s": {"core", "http"},
    "kv": {"core"},
    "sched": {"core", "openai", "kv"},
    "engine": {"core", "openai", "text", "kv"},
    "services": {"core", "openai", "http", "relay", "text", "pd", "k8s", "kv", "sched", "engine"},
    "python": {"core", "openai", "text", "kv", "sched", "engine"},
}
PUBLIC_DIRS = {"http": "http", "openai": "openai", "text": "text", "pd": "pd", "k8s": "k8s", "kv": "kv",
               "sched": "sched", "engine": "engine", "c": "core"}
THIRD_PARTY = re.compile(r"^(boost|absl|spdlog|fmt|nlohmann|google|grpc|grpcpp|yaml-cpp|xxhash|openssl|zmq|ucp|simdjson|pybind11|CLI)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
COROUTINE = re.compile(r"\bco_(await|return|yield)\b")
MAX_LINES = {"main.cc": 100, "app.cc": 300}
MAX_FILE_LINES = 700


def room_of(path):
    best = None
    for room, prefixes in ROOMS.items():
        for prefix in prefixes:
            if path.startswith(prefix) and (best is None or len(prefix) > len(best[1])):
                best = (room, prefix)
    return best[0] if best else None


def room_of_include(name):
    parts = name.split("/")
    if parts[0] != "llmd":
        return None
    if parts[1:3] == ["http", "relay"]:
        return "relay"
    return PUBLIC_DIRS.get(parts[1], "core") if len(parts) > 2 else "core"


def strip_comments(text):
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group().count("\n"), text, flags=re.S)
    return re.sub(r"//[^\n]*", "", text)


def check_file(root, path):
    rel = path.relative_to(root).as_posix()
    room = room_of(rel)
    if room is None:
        return
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    public = "/include/llmd/" in rel
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = room_of_include(match[2])
        if target and target != room and target not in MAY_INCLUDE[room]:
            yield f"{rel}:{number}: {room} may not include {match[2]} (room {target})"
        if public and THIRD_PARTY.match(match[2]):
            allowed = room == "http" and match[2].startswith("boost/asio/")
            if not allowed:
                yield f"{rel}:{number}: third-party header {match[2]} in a public header"
    if room not in ("http", "services", "k8s"):
        for number, line in enumerate(strip_comments(text).split("\n"), 1):
            if COROUTINE.search(line):
                yield f"{rel}:{number}: coroutines live in http/ and services/ only"
    count = len(lines) - 1
    limit = MAX_LINES.get(path.name) if rel.startswith("services/") else None
    if limit and count > limit:
        yield f"{rel}:{count}: {path.name} has {count} lines, at most {limit} are allowed"
    if count > MAX_FILE_LINES:
        yield f"{rel}:{count}: {count} lines, at most {MAX_FILE_LINES} are allowed"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()
    files = [p for top in ("libllmd", "libllmd_kv", "libllmd_sched", "libllmd_engine", "services", "bindings")
             for p in sorted((root / top).rglob("*")) if p.suffix in (".h", ".cc", ".cu", ".cuh")]
    found = [message for path in files for message in check_file(root, path)]
    print("\n".join(found) if found else f"check_layers: {len(files)} files, clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
