"""llmd-gateway among engines that are killed, stopped and restarted, reset their clients and answer garbage.

    chaos.py BUILD_DIR [--minutes M] [--epp] [--real] […]

Four scripted engines as processes, or with --real llmd-engine behind sidecars, prefill apart (chaos_real.py). One is well the
whole time; the others reset 5 % of their POSTs and are taken at random times by --kinds, all three at once too. With --epp the
gateway asks llmd-epp; with --picker-chaos that one is killed, stopped and restarted as well. Official SDKs send chats, plain and
streamed, some of which they close early. At the end no request may be
lost (no answer, or 500 and more), no answer be wrong or end as if whole, no stream break on the engine that was well, and no
request, connection, descriptor or memory be left. One summary line; exit 1 on any violation, each of which is printed.
"""
import argparse
import asyncio
import collections
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from chaos_clients import Clients, judge  # noqa: E402
from ports import free_port  # noqa: E402
from soak import slope_per_minute  # noqa: E402

WARM_S = 2.0
GROWTH_MB, GROWTH_SHARE = 4, 0.05  # allowed over the second half
SPARE_FDS = 4
PICKER_STOP_S = 6.0
RECOVERED_S = 1.5  # after the picker is back it may still refuse
SHOWN = 20

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: queue-scorer}
- {type: running-requests-size-scorer}
- {type: prefix-cache-scorer}
- {type: active-request-scorer}
- {type: file-discovery, parameters: {path: ENDPOINTS, watchFile: true}}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 1}
  - {pluginRef: running-requests-size-scorer, weight: 1}
  - {pluginRef: prefix-cache-scorer, weight: 1}
  - {pluginRef: active-request-scorer, weight: 2}
dataLayer: {discovery: {pluginRef: file-discovery}}
"""


class Child:
    """A process that can be taken away and come back under the same address."""

    def __init__(self, argv, log, ready_url=None):
        self.argv, self.log, self.ready_url = [str(a) for a in argv], log, ready_url
        self.process, self.starts = None, 0

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self.starts += 1
        return self

    def send(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    async def ready(self, seconds=30):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if await asyncio.to_thread(page, self.ready_url) is not None:
                return self
            await asyncio.sleep(0.05)
        raise SystemExit(f"{self.argv[0]} did not get ready:\n{self.log.read_text(errors='replace')[-2000:]}")

    def rss_mb(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024e-6
        return 0.0

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def sockets(self):
        """{state: number} of its TCP connections, the listening ones left out."""
        own = set()
        for fd in pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                own.add(os.readlink(fd))
            except OSError:
                continue
        states = collections.Counter()
        for row in pathlib.Path(f"/proc/{self.process.pid}/net/tcp").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] != "0A" and f"socket:[{fields[9]}]" in own:
                states[(int(fields[1].split(":")[1], 16), fields[3])] += 1
        return states


def page(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.read().decode() if answer.status == 200 else None
    except (OSError, ValueError):
        return None


def value(url, name):
    """The first series of that name, None when there is none."""
    for line in (page(url) or "").splitlines():
        if line.startswith((name + " ", name + "{")):
            return float(line.rsplit(" ", 1)[1])
    return None


class Trouble:
    """Takes children at random times. `spans` are the times in which the picker was away, monotonic seconds."""

    def __init__(self, seed, kinds, longest_stop_s, pause_s):
        self.random, self.kinds, self.longest_stop_s, self.pause_s = random.Random(seed), kinds, longest_stop_s, pause_s
        self.counts, self.spans = collections.Counter(), []

    async def engine(self, child, until):
        while time.monotonic() < until:
            await child.ready()  # so that what waited for it has been answered before the next trouble
            await asyncio.sleep(self.random.uniform(*self.pause_s))
            await getattr(self, self.random.choice(self.kinds))(child, self.longest_stop_s)

    async def picker(self, child, until):
        while time.monotonic() < until:
            await asyncio.sleep(self.random.uniform(2, 4))
            begun = time.monotonic()
            await getattr(self, self.random.choice(["kill", "stop"]))(child, PICKER_STOP_S)
            await child.ready()
            self.spans.append((begun, time.monotonic()))

    async def kill(self, child, _):
        self.counts["kills"] += 1
        child.kill()
        await asyncio.sleep(self.random.uniform(0.2, 1.5))
        child.start()

    async def stop(self, child, longest_s):
        self.counts["stops"] += 1
        child.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(self.random.uniform(longest_s / 3, longest_s))
        finally:
            child.send(signal.SIGCONT)

    async def garbage(self, child, _):
        self.counts["garbage"] += 1
        child.send(signal.SIGUSR1)
        await asyncio.sleep(self.random.uniform(0.5, 2))
        child.send(signal.SIGUSR2)

    def excused(self, end):
        """Whether the picker was away at some moment of that request."""
        return any(begun <= end.ended and end.begun <= ended + RECOVERED_S for begun, ended in self.spans)


def endpoints_yaml(endpoints):
    """endpoints: (port, role)."""
    return "endpoints:\n" + "".join(f"- {{name: e{port}, address: 127.0.0.1, port: {port}, labels: {{llm-d.ai/role: {role}}}}}\n"
                                    for port, role in endpoints)


class Cluster:
    """Four engines, the gateway and, if asked for, a picker. engines[0] is the one that stays well."""
    config = CONFIG
    pause_s = (0.3, 1.5)                                # between an engine's troubles
    settle_s = 2.0                                      # until all that is under way has gone
    gone = [("requests", "vllm:num_requests_running")]  # what an engine's page must say is 0 at the end
    clients = {}                                        # options of Clients

    def __init__(self, args, folder):
        self.args, self.folder = args, folder
        self.endpoints = folder / "endpoints.yaml"
        self.config_path = folder / "config.yaml"
        self.config_path.write_text(self.config.replace("ENDPOINTS", str(self.endpoints)))
        self.between = []  # processes between gateway and engines
        self.engines = self._engines()
        self.picker = self._picker() if args.epp else None
        self.gateway = self._gateway()

    def child(self, name, argv, port, path):
        child = Child(argv, self.folder / f"{name}.log", f"http://127.0.0.1:{port}{path}")
        child.port = port
        return child

    def _engines(self):
        script, out = pathlib.Path(__file__).with_name("chaos_engine.py"), []
        for i in range(4):
            port = free_port()
            argv = [sys.executable, script, port, "--seed", self.args.seed * 10 + i, "--reset", 0.05 if i else 0]
            out.append(self.child(f"engine-{i}", argv, port, "/metrics"))
        self.endpoints.write_text(endpoints_yaml([(e.port, "decode") for e in out]))
        return out

    def _picker(self):
        self.grpc_port, health, admin = free_port(), free_port(), free_port()
        argv = [f"{self.args.build}/bin/llmd-epp", "--config-file", self.config_path, "--grpc-port", self.grpc_port,
                "--grpc-health-port", health, "--metrics-port", admin, "--secure-serving=false", "-v", "1"]
        child = self.child("epp", argv, admin, "/readyz")
        child.metrics = f"http://127.0.0.1:{admin}/metrics"
        return child

    def _gateway(self):
        port, admin = free_port(), free_port()
        argv = [f"{self.args.build}/bin/llmd-gateway", "--host", "127.0.0.1", "--port", port, "--metrics-port", admin,
                "-v", "1", "--loop-threads", self.args.loop_threads]
        argv += ["--epp", f"127.0.0.1:{self.grpc_port}"] if self.args.epp else ["--config-file", self.config_path]
        if self.args.failure_mode:
            argv += ["--epp-failure-mode", self.args.failure_mode]
        child = self.child("gateway", argv, port, "/ready")
        child.url, child.metrics = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}/metrics"
        return child

    @property
    def well(self):
        return self.engines[0]

    @property
    def ill(self):
        return self.engines[1:]

    @property
    def all(self):
        return [*self.engines, *self.between, *([self.picker] if self.picker else []), self.gateway]

    def end(self):
        for child in self.all:
            if child.process is not None and child.process.poll() is None:
                child.send(signal.SIGCONT)
                child.kill()


class Growth:
    """RSS of a child, twice a second. A new process of it begins anew."""

    def __init__(self, name, child):
        self.name, self.child, self.samples, self.starts = name, child, [], child.starts

    async def run(self, until):
        begun = time.monotonic()
        while time.monotonic() < until:
            await asyncio.sleep(0.5)
            if self.child.starts != self.starts:
                self.samples, self.starts = [], self.child.starts
            try:
                self.samples.append((time.monotonic() - begun, self.child.rss_mb()))
            except OSError:
                continue

    def violations(self):
        half = self.samples[len(self.samples) // 2:]
        if len(half) < 10:
            return []
        grown = slope_per_minute(half) * (half[-1][0] - half[0][0]) / 60
        if grown <= GROWTH_MB + GROWTH_SHARE * half[0][1]:
            return []
        return [f"{self.name}: RSS grew by {grown:.1f} MB from {half[0][1]:.1f} MB in the second half"]


async def left_over(cluster, fds, clients):
    """What should have gone when nobody asks any more."""
    for engine in cluster.engines:
        await engine.ready()
    await asyncio.sleep(cluster.settle_s)
    out = []
    counts = [(f"engine {e.port}: {what} left", f"http://127.0.0.1:{e.port}/metrics", series) for e in cluster.engines
              for what, series in cluster.gone]
    counts.append(("gateway", cluster.gateway.metrics, "llmd_gateway_requests_inflight"))
    if cluster.picker:
        counts.append(("picker", cluster.picker.metrics, "llm_d_epp_extproc_streams_inflight"))
    for name, url, series in counts:
        if (count := await asyncio.to_thread(value, url, series)) != 0:
            out.append(f"{name}: {series} is {count}")
    states = cluster.gateway.sockets()
    from_clients = sum(n for (port, _), n in states.items() if port == cluster.gateway.port)
    half_closed = sum(n for (_, state), n in states.items() if state == "08")
    now = cluster.gateway.descriptors()
    if from_clients:
        out.append(f"{from_clients} connections from clients are left")
    if half_closed:
        out.append(f"{half_closed} connections are held that the other side has closed")
    # An engine that was busy alone for a while may have more idle connections than at first, one for each client at most.
    if now > fds + clients * len(cluster.engines) + SPARE_FDS:
        out.append(f"{now} descriptors where {fds} were open before")
    return now, out


async def chaos(args, cluster):
    violations = []
    for child in cluster.all:
        await child.start().ready()
    warm = Clients(cluster.gateway.url, args.clients, args.seed + 1, patience_s=args.patience, **cluster.clients)
    await warm.run(WARM_S)
    await asyncio.sleep(0.5)
    fds = cluster.gateway.descriptors()
    until = time.monotonic() + args.seconds
    trouble = Trouble(args.seed, args.kinds, args.longest_stop, cluster.pause_s)
    growth = [Growth("gateway", cluster.gateway)] + ([Growth("picker", cluster.picker)] if cluster.picker else [])
    clients = Clients(cluster.gateway.url, args.clients, args.seed, patience_s=args.patience, **cluster.clients)
    work = [trouble.engine(e, until) for e in cluster.ill if args.kinds]
    if args.picker_chaos:
        work.append(trouble.picker(cluster.picker, until))
    await asyncio.gather(clients.run(args.seconds), *work, *[g.run(until) for g in growth])
    now, left = await left_over(cluster, fds, args.clients)
    violations += left
    for g in growth:
        violations += g.violations()
    # With `open` nothing is refused; an answer whose bytes the picker held when it went is cut all the same.
    def excused(end):
        return trouble.excused(end) and (end.what == "broken" or args.failure_mode != "open")
    counts, wrong = judge(clients.ends, str(cluster.well.port), excused)
    violations += wrong
    slow = max((e.ended - e.begun for e in clients.ends if e.what == "refused"), default=0)
    if slow > args.refused_within:
        violations.append(f"a refusal took {slow:.2f} s")
    if not counts["ok"]:
        violations.append("nothing was answered")
    if cluster.gateway.process.poll() is None:
        cluster.gateway.send(signal.SIGTERM)
        if await asyncio.to_thread(cluster.gateway.process.wait, 40) != 0:
            violations.append(f"llmd-gateway exited with {cluster.gateway.process.returncode} on SIGTERM")
    else:
        violations.append(f"llmd-gateway had ended with {cluster.gateway.process.returncode}")
    told = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
    done = ", ".join(f"{n} {what}" for what, n in sorted(trouble.counts.items()))
    rss = ", ".join(f"{g.name} {g.samples[-1][1]:.1f} MB" for g in growth if g.samples)
    print(f"chaos: {len(violations)} violations in {args.seconds:g} s; {len(clients.ends)} requests ({told}); {done}; "
          f"{len(trouble.spans)} times without the picker; slowest refusal {slow:.2f} s; descriptors {fds} -> {now}; {rss}")
    return violations


def chaos_real():
    import chaos_real as module  # which builds on this one
    return module


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--minutes", type=float, help="instead of --seconds")
    parser.add_argument("--real", action="store_true", help="llmd-engine, prefill apart, instead of scripted engines")
    parser.add_argument("--ill-decode", action="store_true", help="with --real: one of the two decode engines too")
    parser.add_argument("--epp", action="store_true", help="decide in llmd-epp")
    parser.add_argument("--picker-chaos", action="store_true", help="take llmd-epp away too")
    parser.add_argument("--failure-mode", choices=["close", "open"], help="the gateway's --epp-failure-mode")
    parser.add_argument("--kinds", default="kill,stop,garbage", help="what happens to engines; none: they only reset")
    parser.add_argument("--longest-stop", type=float, default=3.0, help="seconds")
    parser.add_argument("--patience", type=float, default=10.0, help="seconds that clients wait for a byte")
    parser.add_argument("--refused-within", type=float, default=8.0, help="seconds")
    parser.add_argument("--loop-threads", type=int, default=1)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.seconds = args.minutes * 60 if args.minutes else args.seconds
    if args.picker_chaos and not args.epp:
        parser.error("--picker-chaos needs --epp")
    args.kinds = [] if args.kinds == "none" else args.kinds.split(",")
    if unknown := set(args.kinds) - {"kill", "stop", "garbage"}:
        parser.error(f"--kinds: unknown {', '.join(sorted(unknown))}")
    if args.real and "garbage" in args.kinds:
        parser.error("--real engines answer no garbage: --kinds kill,stop")
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # children inherit it: one that has only just begun must not die of them
        signal.signal(number, signal.SIG_IGN)
    with tempfile.TemporaryDirectory(prefix="llmd-chaos-") as folder:
        cluster = (chaos_real().RealCluster if args.real else Cluster)(args, pathlib.Path(folder))
        try:
            violations = asyncio.run(chaos(args, cluster))
        finally:
            cluster.end()
    for text in violations[:SHOWN]:
        print(f"violation: {text}")
    if len(violations) > SHOWN:
        print(f"and {len(violations) - SHOWN} more violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
