"""What stands before the engines in gateway_bench.py: each is started afresh for every measurement and stopped after it."""
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "e2e"))
from ports import free_port  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
SCORERS = ("prefix-cache-scorer", "queue-scorer", "kv-cache-utilization-scorer")
LOOPS = 2


def descendants(pid):
    """The process and all below it."""
    out = [pid]
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                for child in f.read().split():
                    out += descendants(int(child))
    return out


def answers(port, path):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return s.recv(64).startswith(b"HTTP/1.1 200")
    return False


class Child:
    def __init__(self, argv):
        self.log = tempfile.TemporaryFile()
        self.started = time.monotonic()
        self.popen = subprocess.Popen([str(a) for a in argv], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)

    def wait_ready(self, port, path, timeout=20):
        """Milliseconds from the start to the first 200."""
        while time.monotonic() - self.started < timeout:
            if self.popen.poll() is not None:
                break
            if answers(port, path):
                return (time.monotonic() - self.started) * 1e3
            time.sleep(0.0005)
        self.log.seek(0)
        sys.exit(f"{self.popen.args[0]} did not get ready:\n{self.log.read().decode(errors='replace')[-3000:]}")

    def stop(self):
        self.popen.terminate()
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


class Contestant:
    """`pids` are those of the gateway itself, `others` of what it asks (the picker)."""
    name = ""

    def __init__(self, bench, farm, access_log=False, extra=()):
        self.bench, self.farm, self.access_log, self.extra = bench, farm, access_log, list(extra)
        self.children, self.others, self.ready_ms = [], [], 0.0
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="llmd-bench-"))
        self.port = free_port()

    @classmethod
    def missing(cls, bench):
        """Why it cannot run here, or None."""
        return None

    def child(self, *argv):
        self.children.append(Child(argv))
        return self.children[-1]

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for child in reversed(self.children):
            child.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pids(self):
        return descendants(self.children[-1].popen.pid) if self.children else []

    def start(self):
        raise NotImplementedError


class Direct(Contestant):
    """No gateway: the first engine."""
    name = "direct"

    def start(self):
        self.port = self.farm.ports[0]


class Floor(Contestant):
    name = "floor"

    def start(self):
        self.ready_ms = self.child(f"{self.bench.build}/bench/floor_relay", self.port, *self.farm.ports).wait_ready(self.port, "/v1/models")


class Nginx(Contestant):
    name = "nginx"

    @classmethod
    def missing(cls, bench):
        return None if shutil.which("nginx", path="/usr/sbin:" + os.environ["PATH"]) else "nginx is not installed (scripts/setup.sh)"

    def start(self):
        servers = "\n".join(f"    server 127.0.0.1:{port} max_fails=0;" for port in self.farm.ports)
        conf = (HERE / "nginx.conf").read_text()
        for key, value in {"PORT": self.port, "SERVERS": servers, "FOLDER": self.folder, "WORKERS": LOOPS,
                           "ACCESS_LOG": f"{self.folder}/access.log" if self.access_log else "off"}.items():
            conf = conf.replace(f"@{key}@", str(value))
        (self.folder / "nginx.conf").write_text(conf)
        binary = shutil.which("nginx", path="/usr/sbin:" + os.environ["PATH"])
        self.ready_ms = self.child(binary, "-p", self.folder, "-e", self.folder / "error.log", "-c", self.folder / "nginx.conf").wait_ready(self.port, "/v1/models")


def picker_config(farm):
    plugins = ", ".join(f"{{type: {s}}}" for s in SCORERS)
    return (f"apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{plugins}, {{type: file-discovery, name: files, "
            f"parameters: {{path: {farm.path}}}}}]\ndataLayer: {{discovery: {{pluginRef: files}}}}\n")


class Ours(Contestant):
    """In process, with the prefix, queue and KV scorers."""
    name = "ours"

    def flags(self):
        return [] if self.access_log else ["--zap-log-level", "error"]

    def start(self):
        # The log goes to a file, as nginx's does.
        self.ready_ms = self.child(f"{self.bench.build}/bin/llmd-gateway", "--port", self.port, "--config-text", picker_config(self.farm),
                                   "--loop-threads", LOOPS, *self.flags(), *self.extra, *self.bench.gateway_flags).wait_ready(self.port, "/ready")


class OursTls(Ours):
    """The same, over TLS towards its clients."""
    name = "ours TLS"

    def start(self):
        metrics = free_port()
        self.ready_ms = self.child(f"{self.bench.build}/bin/llmd-gateway", "--port", self.port, "--config-text", picker_config(self.farm),
                                   "--loop-threads", LOOPS, "--secure-serving", "--metrics-port", metrics, *self.flags(), *self.extra,
                                   *self.bench.gateway_flags).wait_ready(metrics, "/readyz")


class OursEpp(Ours):
    """llmd-epp with those scorers, asked by llmd-gateway; `pids` are the gateway's alone."""
    name = "ours --epp"

    def start(self):
        grpc, health, metrics = free_port(), free_port(), free_port()
        epp = self.child(f"{self.bench.build}/bin/llmd-epp", "--config-text", picker_config(self.farm), "--secure-serving=false",
                         "--grpc-port", grpc, "--grpc-health-port", health, "--metrics-port", metrics, *self.flags())
        epp.wait_ready(metrics, "/readyz")
        self.others = descendants(epp.popen.pid)
        self.ready_ms = self.child(f"{self.bench.build}/bin/llmd-gateway", "--port", self.port, "--epp", f"127.0.0.1:{grpc}",
                                   "--loop-threads", LOOPS, *self.flags(), *self.bench.gateway_flags).wait_ready(self.port, "/ready")


class Envoy(Contestant):
    """Plain reverse proxy, round robin, two workers."""
    name = "envoy"

    @classmethod
    def binary(cls, bench):
        return shutil.which("envoy", path=f"{bench.root}/.deps/venv/bin:" + os.environ["PATH"])

    @classmethod
    def missing(cls, bench):
        return None if cls.binary(bench) else "envoy is not on this machine (scripts/setup.sh)"

    def start(self):
        endpoints = "".join(f"\n          - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {p}}}}}}}" for p in self.farm.ports)
        conf = (HERE / "envoy.yaml").read_text().replace("@PORT@", str(self.port)).replace("@ENDPOINTS@", endpoints)
        (self.folder / "envoy.yaml").write_text(conf)
        self.ready_ms = self.child(self.binary(self.bench), "-c", self.folder / "envoy.yaml", "--concurrency", LOOPS, "--log-level", "error",
                                   "--base-id", self.port, "--disable-hot-restart").wait_ready(self.port, "/v1/models")


class VllmRouter(Contestant):
    name = "vllm-router"

    @classmethod
    def binary(cls, bench):
        return shutil.which("vllm-router", path=f"{bench.root}/.deps/venv/bin:" + os.environ["PATH"])

    @classmethod
    def missing(cls, bench):
        return None if cls.binary(bench) else "vllm-router is not on this machine (PyPI: vllm-router)"

    def start(self):
        urls = [f"http://127.0.0.1:{p}" for p in self.farm.ports]
        self.ready_ms = self.child(self.binary(self.bench), "--host", "127.0.0.1", "--port", self.port, "--policy", "round_robin",
                                   "--worker-urls", *urls).wait_ready(self.port, "/health")


class Relay(Contestant):
    """The data plane with nothing to decide, to the first engine."""
    name = "relay"

    def start(self):
        self.ready_ms = self.child(f"{self.bench.build}/bench/relay_proxy", self.port, LOOPS, f"127.0.0.1:{self.farm.ports[0]}").wait_ready(self.port, "/v1/models")


class Sidecar(Contestant):
    """In front of the first engine, with the log as it is by default, in a file."""
    name = "sidecar"

    def start(self):
        self.ready_ms = self.child(f"{self.bench.build}/bin/llmd-sidecar", "--host", "127.0.0.1", "--port", self.port, "--secure-proxy=false",
                                   "--model-server-port", self.farm.ports[0], "--loop-threads", LOOPS).wait_ready(self.port, "/ready")


ALL = {c.name: c for c in (Ours, OursTls, Nginx, Floor, OursEpp, Envoy, VllmRouter, Direct)}
