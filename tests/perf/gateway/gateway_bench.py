"""The gateway's price beside nginx's and beside a relay that does next to nothing, in one run.

    gateway_bench.py BUILD_DIR [--rows small,sse] [--reps N] [--seconds N] [--with ours,nginx,floor] [--out FILE]
                     [--gateway-flag=--x]      rows: see --help

Each figure is the median of the repetitions, with the least and the most of them behind it; the contestants take turns within each
repetition, each started afresh. CPU is the gateway's own (all its processes, /proc/PID/schedstat), of the same seconds in which the
requests were counted. Load, engines and gateway share the machine: nothing else should run meanwhile.
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import bodies
import contestants
import report
import tls_streams
from contestants import ALL

MEASURES = ("ours", "nginx", "floor")
PEERS = ("envoy", "vllm-router")


class Farm:
    def __init__(self, child, path):
        self.child, self.path = child, path
        self.ports = [int(p) for p in child.stdout.readline().split()[1:]]


@contextlib.contextmanager
def engines(bench, count=4, resetting=0, page="full", lends=0):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "endpoints.yaml")
        argv = [f"{bench.build}/bench/bench_engines", "--count", count, "--resetting", resetting, "--endpoints", path, "--page", page, "--lends", lends]
        child = subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, text=True)
        try:
            yield Farm(child, path)
        finally:
            child.kill()
            child.wait()


def load_argv(bench, target, kind, **options):
    path = bench.folder / f"{kind}.bodies"
    if kind not in bench.targets:
        bench.targets[kind] = bodies.write(kind, path)
    argv = [f"{bench.build}/bench/http_load", "--port", target.port, "--bodies", path, "--path", bench.targets[kind]]
    for name, value in options.items():
        argv += [f"--{name}", value]
    return [str(a) for a in argv]


def load(bench, target, kind, **options):
    """One measurement; adds the CPU of the gateway and of what it asks, µs a request and an event."""
    pids, others = target.pids, target.others
    options.setdefault("seconds", bench.seconds)
    if pids + others:
        options["pids"] = ",".join(map(str, pids + others))
    out = subprocess.run(load_argv(bench, target, kind, **options), capture_output=True, text=True, timeout=120)
    if out.returncode != 0:
        sys.exit(f"{target.name}: {out.args}: {out.stdout}{out.stderr}")
    r = json.loads(out.stdout)
    r["cpu_us"] = sum(r["cpu_s"][:len(pids)]) * 1e6 / max(r["requests"], 1)
    r["other_cpu_us"] = sum(r["cpu_s"][len(pids):]) * 1e6 / max(r["requests"], 1)
    r["event_cpu_us"] = sum(r["cpu_s"][:len(pids)]) * 1e6 / max(r["events"], 1)
    r["cores"] = sum(r["cpu_s"]) / r["seconds"]
    if r["requests"] == 0 or r["bad"] > r["requests"] / 100:
        sys.exit(f"{target.name}: {r['bad']} of {r['requests']} requests of row {kind} were not answered with 200")
    return r


def names(bench, *wanted):
    return [n for n in wanted if n in bench.contestants]


def measured(bench, kind, wanted, access_log=False, **options):
    """{name: [result of each repetition]}, interleaved."""
    out = {n: [] for n in wanted}
    for _ in range(bench.reps):
        for n in wanted:
            with engines(bench) as farm, ALL[n](bench, farm, access_log) as target:
                out[n].append(load(bench, target, kind, **options))
    return out


def key(results, name):
    return {n: [r[name] for r in rs] for n, rs in results.items()}


def throughput(bench, kind, goal, what, access_log=False):
    wanted = names(bench, *MEASURES, *(PEERS if kind in ("small", "220KB") and not access_log else ()))
    closed = measured(bench, kind, wanted, access_log)
    bench.report.row(f"{what}, closed loop of 64: requests/s", key(closed, "rps"))
    bench.report.row(f"{what}, closed loop of 64: CPU a request, µs", key(closed, "cpu_us"), goal)


def small(bench):
    throughput(bench, "small", report.times("nginx", 1.5), "small")
    wanted = names(bench, *MEASURES, *PEERS, "direct")
    opened = measured(bench, "small", wanted, rate=1000)
    direct = [r["p50_us"] for r in opened.pop("direct")] if "direct" in opened else [0.0] * bench.reps
    bench.report.row("small, 1,000/s: CPU a request, µs", key(opened, "cpu_us"), report.times("nginx", 1.5))
    bench.report.row("small, 1,000/s: added p50, µs", {n: [r["p50_us"] - d for r, d in zip(rs, direct)] for n, rs in opened.items()}, report.times("nginx", 1.1))
    bench.report.row("small, 1,000/s: p99, µs", key(opened, "p99_us"))
    bench.report.row("small, 1,000/s: sent late by, p99, µs", key(opened, "late_p99_us"))


def logs(bench):
    throughput(bench, "small", None, "small, access logs on", access_log=True)


def large(kind, goal):
    return lambda bench: throughput(bench, kind, goal, kind.replace("KB", " KB"))


def sse(bench):
    wanted = names(bench, *MEASURES, *PEERS)
    fast = measured(bench, "sse", wanted)
    bench.report.row("streams of 32 events, closed loop of 64: streams/s", key(fast, "rps"))
    bench.report.row("streams of 32 events, closed loop of 64: CPU an event, µs", key(fast, "event_cpu_us"), report.times("nginx", 1.1))
    paced = measured(bench, "paced", wanted)
    bench.report.row("streams of 32 events, one in 5 ms, 64 at a time: CPU an event, µs", key(paced, "event_cpu_us"), report.times("nginx", 1.1))
    bench.report.row("streams of 32 events, one in 5 ms, 64 at a time: event p50 from engine to client, µs", key(paced, "event_p50_us"))
    bench.report.row("streams of 32 events, one in 5 ms, 64 at a time: event p99, µs", key(paced, "event_p99_us"))


def pss_kb(pids):
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/smaps_rollup") as f:
            total += int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M).group(1))
    return total


@contextlib.contextmanager
def held(bench, target, count):
    """That many streams, each past its first event."""
    child = subprocess.Popen(load_argv(bench, target, "held", hold=count), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if child.stdout.readline() != "held\n":
            sys.exit(f"{target.name}: {count} streams did not open")
        yield
    finally:
        child.stdin.close()
        child.wait(30)


def possible_streams(wanted=10_000):
    """As many as the limit of descriptors allows: a stream costs a gateway two. Raising the hard limit takes privileges."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(2 * wanted + 5000, hard),) * 2)
    count = min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 100)
    if count < wanted:
        print(f"row streams: {hard} descriptors allow {count:,} streams, not {wanted:,}", flush=True)
    return count


def streams(bench):
    """Memory of an open stream; with --hold-seconds N its growth in the second half of that time too."""
    count = possible_streams()
    per_stream, drift = {}, {}
    for _ in range(bench.reps if bench.hold_seconds == 0 else 1):
        for n in names(bench, *MEASURES[:2]):
            with engines(bench) as farm, ALL[n](bench, farm) as target:
                with held(bench, target, 100):
                    time.sleep(1)
                    few = pss_kb(target.pids)
                with held(bench, target, count):
                    time.sleep(2 + bench.hold_seconds / 2)
                    many = pss_kb(target.pids)
                    time.sleep(bench.hold_seconds / 2)
                    drift.setdefault(n, []).append((pss_kb(target.pids) / many - 1) * 100)
                per_stream.setdefault(n, []).append((many - few) / (count - 100))
    bench.report.row(f"an open stream, (PSS at {count:,} − PSS at 100)/{count - 100:,}, KB", per_stream, report.at_most(12))
    if bench.hold_seconds > 0:
        bench.report.row(f"{count:,} open streams held {bench.hold_seconds:.0f} s: growth in the second half, %", drift, report.at_most(1))


def streams_tls(bench):
    """The same over TLS, printed without a goal."""
    count = possible_streams()
    per_stream = {}
    for _ in range(bench.reps):
        for n in names(bench, "ours TLS"):
            with engines(bench) as farm, ALL[n](bench, farm) as target:
                with tls_streams.held(target.port, 100):
                    time.sleep(1)
                    few = pss_kb(target.pids)
                with tls_streams.held(target.port, count):
                    time.sleep(2)
                    per_stream.setdefault(n, []).append((pss_kb(target.pids) - few) / (count - 100))
    bench.report.row(f"an open stream over TLS, (PSS at {count:,} − PSS at 100)/{count - 100:,}, KB", per_stream)


def start(bench):
    ready = {}
    for _ in range(bench.reps):
        for n in names(bench, *MEASURES, *PEERS):
            with engines(bench) as farm, ALL[n](bench, farm) as target:
                ready.setdefault(n, []).append(target.ready_ms)
    bench.report.row("start to ready, ms", ready, report.at_most(50))


def ejected(bench):
    """Endpoints that reset every request, and so are left out, among 10, 200 and 1,000."""
    for count in (10, 200, 1000):
        shares = {"none ejected": 0, "1 % ejected": max(1, count // 100), "10 % ejected": max(1, count // 10)}
        if count == 10:
            del shares["1 % ejected"]
        out = {name: [] for name in shares}
        for _ in range(bench.reps):
            for name, bad in shares.items():
                with engines(bench, count, bad, page="small") as farm:
                    with ALL["ours"](bench, farm, extra=["--refresh-metrics-interval", "1s"]) as target:
                        out[name].append(load(bench, target, "small", warm=2)["cpu_us"])
        bench.report.row(f"ours, {count:,} endpoints: CPU a request, µs", out, report.times("none ejected", 1.05))


def epp(bench):
    wanted = names(bench, "ours", "ours --epp")
    closed = measured(bench, "small", wanted)
    bench.report.row("small with --epp, closed loop of 64: requests/s", key(closed, "rps"))
    bench.report.row("small with --epp: the gateway's CPU a request, µs", key(closed, "cpu_us"), report.times("ours", 2.5))
    bench.report.row("small with --epp: the picker's CPU a request, µs", {"ours --epp": key(closed, "other_cpu_us").get("ours --epp", [])})


def sidecar(bench):
    """The sidecar beside the plain relay: a request it passes through, one that is only decoded, one with a prefill leg."""
    cases = {"pass-through": (contestants.Sidecar, False, {"path": "/v1/embeddings"}), "decode only": (contestants.Sidecar, False, {}),
             "prefill leg": (contestants.Sidecar, True, {}), "relay": (contestants.Relay, False, {})}
    out = {name: [] for name in cases}
    for _ in range(bench.reps):
        for name, (kind, prefill, options) in cases.items():
            with engines(bench, 1) as farm, engines(bench, 1, lends=1) as lender, kind(bench, farm) as target:
                if prefill:
                    options = {"header": f"x-prefiller-host-port: 127.0.0.1:{lender.ports[0]}"}
                out[name].append(load(bench, target, "small", **options))
    bench.report.row("sidecar, small, closed loop of 64: requests/s", key(out, "rps"))
    bench.report.row("sidecar, small, closed loop of 64: CPU a request, µs", key(out, "cpu_us"), report.times("relay", 1.2))
    more = [a["cpu_us"] - b["cpu_us"] for a, b in zip(out["prefill leg"], out["pass-through"])]
    bench.report.row("sidecar: CPU that the prefill leg adds, µs", {"prefill leg": more}, report.at_most(100))


ROWS = {
    "small": small, "sse": sse, "220KB": large("220KB", report.times("nginx", 1.8)), "450KB": large("450KB", report.times("nginx", 1.8)),
    "messages": large("6000 messages", None), "ids": large("75000 ids", None), "japanese": large("japanese", None), "log": logs,
    "streams": streams, "streams-tls": streams_tls, "start": start, "epp": epp, "ejected": ejected, "sidecar": sidecar,
}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--rows", default=",".join(ROWS), help="of " + ",".join(ROWS))
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="measured seconds of each load")
    parser.add_argument("--with", dest="with_", default=",".join(ALL), help="of " + ",".join(ALL))
    parser.add_argument("--hold-seconds", type=float, default=0, help="row streams: how long the 10,000 are held")
    parser.add_argument("--gateway-flag", dest="gateway_flags", action="append", default=[], help="one more flag of llmd-gateway, as --gateway-flag=--x")
    parser.add_argument("--out", help="JSON of all figures (default BUILD/bench/gateway.json)")
    args = parser.parse_args()
    for known, given in ((ROWS, args.rows), (ALL, args.with_)):
        for name in given.split(","):
            if name not in known:
                parser.error(f"'{name}': expected one of {', '.join(known)}")
    return args


def main():
    bench = parse()
    bench.root = pathlib.Path(__file__).resolve().parents[3]
    bench.targets, bench.contestants = {}, []
    for name in bench.with_.split(","):
        missing = ALL[name].missing(bench)
        if missing:
            print(f"left out: {missing}", flush=True)
        else:
            bench.contestants.append(name)
    bench.report = report.Report(bench, contestants.LOOPS)
    with tempfile.TemporaryDirectory(prefix="llmd-bench-") as folder:
        bench.folder = pathlib.Path(folder)
        for row in bench.rows.split(","):
            ROWS[row](bench)
    bench.report.end()


if __name__ == "__main__":
    main()
