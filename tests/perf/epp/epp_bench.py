"""The picker's figures beside their goals, the real picker's (measured on other 2 cores) and a bare gRPC echo's.

    epp_bench.py BUILD_DIR [--seconds N] [--only PART[,PART]]     parts: decisions process small large sse scrape

Each figure is one line of a Markdown table. Nothing else should run on the machine meanwhile: the load generator and the
engines share its cores with the picker.
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "e2e"))
from ports import free_port  # noqa: E402

SCORERS = ["queue-scorer", "kv-cache-utilization-scorer", "prefix-cache-scorer", "running-requests-size-scorer", "load-aware-scorer"]
ROWS = []


def row(figure, ours, goal="", real="", echo=""):
    ROWS.append((figure, ours, goal, real, echo))
    print(f"| {figure} | {ours} | {goal} | {real} | {echo} |", flush=True)


def cpu_seconds(pid):
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/task/{task}/schedstat") as f:
            total += int(f.read().split()[0])
    return total * 1e-9


def rss_mb(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) * 1024e-6


@contextlib.contextmanager
def process(*argv, stdout=subprocess.PIPE):
    child = subprocess.Popen([str(a) for a in argv], stdout=stdout, text=True)
    try:
        yield child
    finally:
        child.terminate()
        child.wait(timeout=60)


class Engines:
    def __init__(self, child, path):
        self.child, self.path = child, path
        self.control = int(child.stdout.readline().split()[1])

    def get(self, target):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.control}{target}") as reply:
            return json.load(reply)


@contextlib.contextmanager
def engines(bench, count):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "endpoints.yaml")
        with process(f"{bench.build}/bench/fake_engines", "--count", count, "--endpoints", path) as child:
            yield Engines(child, path)


class Picker:
    def __init__(self, child, ports, start_ms):
        self.child, self.pid, self.start_ms = child, child.pid, start_ms
        self.grpc, self.health, self.metrics = ports


def until_ready(port, started):
    """Milliseconds until /readyz says 200."""
    while time.monotonic() - started < 20:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as s:
            s.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            if s.recv(64).startswith(b"HTTP/1.1 200"):
                return (time.monotonic() - started) * 1e3
        time.sleep(0.0002)
    sys.exit("llmd-epp did not get ready")


@contextlib.contextmanager
def picker(bench, farm, scorers, interval="50ms"):
    plugins = ", ".join(f"{{type: {s}}}" for s in scorers)
    config = (f"apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{plugins}, {{type: file-discovery, name: files, "
              f"parameters: {{path: {farm.path}}}}}]\ndataLayer: {{discovery: {{pluginRef: files}}}}\n")
    ports = [free_port() for _ in range(3)]
    started = time.monotonic()
    with process(f"{bench.build}/bin/llmd-epp", "--config-text", config, "--secure-serving=false", "--grpc-port", ports[0], "--grpc-health-port",
                 ports[1], "--metrics-port", ports[2], "--refresh-metrics-interval", interval, "--drain-timeout", "1s",
                 stdout=subprocess.DEVNULL) as child:
        yield Picker(child, ports, until_ready(ports[2], started))


@contextlib.contextmanager
def echo(bench, queues):
    with process(f"{bench.build}/bench/ext_proc_echo", "--queues", queues) as child:
        yield Picker(child, (int(child.stdout.readline().split()[1]), 0, 0), 0)


def load(bench, server, **options):
    options.setdefault("seconds", bench.seconds)
    argv = [f"{bench.build}/bench/ext_proc_load", "--port", server.grpc, "--pid", server.pid]
    for name, value in options.items():
        argv += [f"--{name}", value]
    out = subprocess.run([str(a) for a in argv], capture_output=True, text=True)
    if out.returncode != 0:
        sys.exit(f"{argv}: {out.stdout}{out.stderr}")
    return json.loads(out.stdout.splitlines()[-1])


def echoed(bench, queues=1, **options):
    """The echo serves as the picker does, from one completion queue; 0 queues: gRPC's callback API."""
    with echo(bench, queues) as server:
        return load(bench, server, echo=1, **options)


def decisions(bench):
    out = subprocess.run([f"{bench.build}/bench/sched_bench"], capture_output=True, text=True, check=True).stdout
    goals = {"100": ("≤ 10", "≤ 50", "0")}
    reals = {"10": ("60", "1,000–4,000", ""), "100": ("160", "1,000–4,000", "")}
    for n, p50, p99, allocations in re.findall(r"(\d+) endpoints x 5 scorers: p50\s+([\d.]+) us\s+p99\s+([\d.]+) us\s+allocations/decision ([\d.]+)", out):
        for i, (name, value) in enumerate([("p50, µs", p50), ("p99, µs", p99), ("allocations", allocations)]):
            row(f"a decision of 5 scorers over {n} endpoints, {name}", value, goals.get(n, ("",) * 3)[i], reals.get(n, ("",) * 3)[i])


def process_figures(bench):
    starts = []
    with engines(bench, 10) as farm:
        for _ in range(9):
            with picker(bench, farm, SCORERS) as epp:
                starts.append(epp.start_ms)
        with picker(bench, farm, SCORERS) as epp:
            time.sleep(2)
            idle = rss_mb(epp.pid)
    row("start to ready, ms (median of 9)", f"{statistics.median(starts):.0f}", "≤ 30", "53")
    row("RSS idle, 10 engines scraped, MB", f"{idle:.1f}", "≤ 30", "64")


def small(bench):
    base, callbacks = echoed(bench), echoed(bench, queues=0)
    with engines(bench, 10) as farm, picker(bench, farm, SCORERS) as epp:
        r = load(bench, epp)
    row("300 B bodies, 10 endpoints, 5 scorers, closed loop of 32: exchanges/s", f"{r['rps']:,}", "≥ 8,000", "2,881", f"{base['rps']:,}")
    row("… CPU an exchange, µs", f"{r['cpu_us']:.0f}", "≤ 100", "460", f"{base['cpu_us']:.0f} (callback API: {callbacks['cpu_us']:.0f})")
    row("… answer p50 / p99, ms", f"{r['p50_us'] / 1e3:.2f} / {r['p99_us'] / 1e3:.2f}", "", "1.3–1.5 / –", f"{base['p50_us'] / 1e3:.2f} / {base['p99_us'] / 1e3:.2f}")


def large(bench):
    base = echoed(bench, body=220_000, streams=8)
    with engines(bench, 4) as farm, picker(bench, farm, SCORERS[:3]) as epp:
        r = load(bench, epp, body=220_000, streams=8)
    row("220 KB bodies, 4 engines, closed loop of 8: exchanges/s", f"{r['rps']:,}", "≥ 1,000", "239–275", f"{base['rps']:,}")
    row("… CPU an exchange, ms", f"{r['cpu_us'] / 1e3:.2f}", "≤ 0.6", "6", f"{base['cpu_us'] / 1e3:.2f}")
    rates = {rate: echoed(bench, body=450_000, rate=rate) for rate in (10, 100)}
    with engines(bench, 100) as farm:
        with picker(bench, farm, SCORERS[:3], interval="1s") as epp:
            time.sleep(1)
            before = cpu_seconds(epp.pid)
            time.sleep(bench.seconds)
            idle = (cpu_seconds(epp.pid) - before) / bench.seconds
            for rate, base in rates.items():
                r = load(bench, epp, body=450_000, rate=rate)
                row(f"450 KB bodies, 100 endpoints, 3 scorers, {rate}/s: CPU an exchange net of scraping, ms", f"{(r['cores'] - idle) * 1e3 / rate:.2f}", "≤ 1.2", "12–17", f"{base['cpu_us'] / 1e3:.2f}")
        base = rates[10]
        with picker(bench, farm, SCORERS[:3]) as epp:
            r = load(bench, epp, body=450_000, rate=10)
            row("… answer p50 / p99 at 10/s, engines scraped every 50 ms, ms", f"{r['p50_us'] / 1e3:.2f} / {r['p99_us'] / 1e3:.2f}", "– / ≤ 5", "10 / 40", f"{base['p50_us'] / 1e3:.2f} / {base['p99_us'] / 1e3:.2f}")
            closed = load(bench, epp, body=450_000, streams=8)
            base = echoed(bench, body=450_000, streams=8)
            row("… closed loop of 8: exchanges/s", f"{closed['rps']:,}", "", "", f"{base['rps']:,}")
            row("… CPU an exchange there, scraping included, ms", f"{closed['cpu_us'] / 1e3:.2f}", "≤ 1.2", "", f"{base['cpu_us'] / 1e3:.2f}")
            row("… RSS after a closed loop of 8, MB", f"{rss_mb(epp.pid):.0f}", "≤ 100", "490")


def sse(bench):
    base = echoed(bench, sse=500, streams=32)
    with engines(bench, 10) as farm, picker(bench, farm, SCORERS, interval="1s") as epp:
        r = load(bench, epp, sse=500, streams=32)
    row("event stream of 500 chunks, closed loop of 32, engines scraped once a second: CPU a chunk, µs", f"{r['chunk_cpu_us']:.1f}", f"≤ {base['chunk_cpu_us'] * 1.5:.1f}", "12", f"{base['chunk_cpu_us']:.1f}")
    row("… chunks/s", f"{r['chunks_per_s']:,}", "", "", f"{base['chunks_per_s']:,}")


def freshness(bench, farm, epp):
    """Milliseconds until a request follows the engine whose queue just became the shortest, each of 20 times."""
    argv = [f"{bench.build}/bench/ext_proc_load", "--port", epp.grpc, "--streams", 1, "--seconds", 8, "--warm", 0, "--rate", 500, "--destinations", 1]
    with process(*argv) as child:
        changes, shortest = [], 0
        time.sleep(1)
        for i in range(20):
            changes.append(time.monotonic_ns())
            farm.get(f"/set?engine={shortest}&waiting=50")
            shortest = (i * 7 + 3) % 100
            farm.get(f"/set?engine={shortest}&waiting=10")
            time.sleep(0.3)
        lines = child.stdout.read().splitlines()
    turns = [int(line.split()[0]) for line in lines if not line.startswith("{")]
    return [min((t - c for t in turns if t > c), default=10**12) / 1e6 for c in changes[1:]]


def scrape(bench):
    with engines(bench, 100) as farm:
        with picker(bench, farm, SCORERS) as epp:
            time.sleep(2)
            first, before, begin = farm.get("/counters"), cpu_seconds(epp.pid), time.monotonic()
            time.sleep(bench.seconds)
            took = time.monotonic() - begin
            last, cores = farm.get("/counters"), (cpu_seconds(epp.pid) - before) / took
            r = load(bench, epp, rate=200, streams=32)
        rate = (last["pages"] - first["pages"]) / took
        least = (last["least"] - first["least"]) / took
        row(f"100 engines every 50 ms ({last['page_bytes'] / 1e3:.0f} KB, {last['page_lines']} lines): whole pages/s (of the slowest engine)", f"{rate:,.0f} ({least:.1f})", "2,000 (20)", "840–911")
        row("… cores", f"{cores:.3f}", "≤ 0.25", "1.7–2")
        row("… CPU a page, µs", f"{cores / rate * 1e6:.0f}", "", "1,800–2,100")
        row("… small requests meanwhile, 200/s: p50 / p99, ms", f"{r['p50_us'] / 1e3:.2f} / {r['p99_us'] / 1e3:.2f}", "– / ≤ 5", "145 / –")
        with picker(bench, farm, SCORERS[:1]) as epp:
            seen = freshness(bench, farm, epp)
        row("… a changed gauge turns a decision after, ms (median / most of 19)", f"{statistics.median(seen):.0f} / {max(seen):.0f}", "≤ 100")


PARTS = {"decisions": decisions, "process": process_figures, "small": small, "large": large, "sse": sse, "scrape": scrape}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--only", default=",".join(PARTS))
    bench = parser.parse_args()
    print("| figure | ours | goal | real picker | bare echo |\n|---|---|---|---|---|")
    for part in bench.only.split(","):
        PARTS[part](bench)


if __name__ == "__main__":
    main()
