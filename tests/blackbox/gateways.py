"""The gateways that the cases run against: llmd-gateway in process and with a picker, nginx, any other by its URL."""
import contextlib
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from ports import free_port  # noqa: E402

from engines import Farm  # noqa: E402
from runner import Skip  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BODY_LIMIT = 16 << 20

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: prefix-cache-scorer}
- {type: queue-scorer}
- {type: kv-cache-utilization-scorer}
- type: file-discovery
  parameters: {path: "@PATH@", watchFile: true}
dataLayer:
  discovery: {pluginRef: file-discovery}
"""


def build_dir():
    if "LLMD_BUILD_DIR" in os.environ:
        return pathlib.Path(os.environ["LLMD_BUILD_DIR"])
    found = sorted((ROOT / "build").glob("*/bin/llmd-gateway"), key=lambda p: p.stat().st_mtime)
    assert found, "no build directory with bin/llmd-gateway: build first"
    return found[-1].parents[1]


def answers(port, path):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return s.recv(64).startswith(b"HTTP/1.1 200")
    return False


class Gateway:
    """One gateway before one farm of engines; a context manager. `options` are those of the kind."""
    kind, has_process, host = "", False, "127.0.0.1"

    def __init__(self, engines=3, **options):
        self.farm = Farm(engines)
        self.options = options
        self.children, self.port, self.admin_port = [], free_port(), None
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="llmd-blackbox-"))

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for child in reversed(self.children):
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.kill()
            child.wait()
        self.farm.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def another(self, engines=2, **options):
        return type(self)(engines, **options)

    @property
    def process(self):
        return self.children[-1]

    def spawn(self, argv, stdout=None, descriptors=None):
        log = (self.folder / f"log-{len(self.children)}").open("wb")

        def limit():
            resource.setrlimit(resource.RLIMIT_NOFILE, descriptors)
        self.children.append(subprocess.Popen([str(a) for a in argv], stdout=log if stdout is None else stdout, stderr=log,
                                              stdin=subprocess.DEVNULL, preexec_fn=limit if descriptors else None))
        log.close()
        return self.children[-1]

    def log(self, index=-1):
        return (self.folder / f"log-{len(self.children) + index if index < 0 else index}").read_text(errors="replace")

    def wait_ready(self, port, path, timeout=15):
        deadline = time.monotonic() + timeout
        while not answers(port, path):
            assert self.process.poll() is None, f"{self.kind} ended: {self.log()[-2000:]}"
            assert time.monotonic() < deadline, f"{self.kind} is not ready: {self.log()[-2000:]}"
            time.sleep(0.01)

    def rss_kb(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0])

    def peak_kb(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmHWM:")[1].split()[0])

    def write_endpoints(self, count=None):
        engines = self.farm.engines[:count]
        lines = [f'- {{name: engine-{e.index}, address: 127.0.0.1, port: "{e.port}"}}' for e in engines]
        (self.folder / "endpoints.new").write_text("endpoints:\n" + "\n".join(lines) + "\n")
        (self.folder / "endpoints.new").rename(self.folder / "endpoints.yaml")


# Made short where the binary knows them, so that cases about time need not wait long, and cases about size not fill the memory.
SHORT = {"--client-head-timeout": "2s", "--client-body-timeout": "3s", "--client-body-grace": "3s", "--client-idle-timeout": "4s",
         "--max-body-bytes-in-flight": str(256 << 20)}
_known = {}


def known_flags(binary):
    if binary not in _known:
        _known[binary] = subprocess.run([binary, "--help"], capture_output=True, text=True, check=True).stdout
    return _known[binary]


class InProcess(Gateway):
    """Options: flags, max_body, loops, stdout (a descriptor), descriptors (soft, hard), ready (False: not waited for)."""
    kind, has_process, loops = "in-process", True, 4

    def picker_flags(self):
        config = self.folder / "config.yaml"
        config.write_text(CONFIG.replace("@PATH@", str(self.folder / "endpoints.yaml")))
        return ["--config-file", config, "--refresh-metrics-interval", "100ms"]

    def start(self):
        self.write_endpoints()
        binary = build_dir() / "bin/llmd-gateway"
        short = [x for flag, value in SHORT.items() if f"  {flag} " in known_flags(binary) for x in (flag, value)]
        self.admin_port = free_port()
        self.spawn([binary, "--host", self.host, "--port", self.port, "--loop-threads", self.options.get("loops", self.loops), "--max-body-bytes", self.options.get("max_body", BODY_LIMIT),
                    *([] if "--drain-timeout" in self.options.get("flags", ()) else ["--drain-timeout", "5s"]), "--metrics-port", self.admin_port, *short, *self.mode_flags(), *self.options.get("flags", ())],
                   self.options.get("stdout"), self.options.get("descriptors"))
        if self.options.get("ready", True):
            self.wait_ready(self.port, "/ready")
            # An engine whose page was not read yet is passed over, which is not what the cases are about.
            deadline = time.monotonic() + 3
            while min(e.page_requests for e in self.farm.engines) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)

    def mode_flags(self):
        return self.picker_flags()


class Epp(InProcess):
    kind, loops = "epp", 1

    def mode_flags(self):
        grpc, health, admin = free_port(), free_port(), free_port()
        self.spawn([build_dir() / "bin/llmd-epp", *self.picker_flags(), "--grpc-port", grpc, "--grpc-health-port", health, "--metrics-port", admin,
                    "--secure-serving=false", "--max-body-bytes", self.options.get("max_body", BODY_LIMIT)])
        self.wait_ready(admin, "/readyz")
        return ["--epp", f"127.0.0.1:{grpc}", *(x for port in self.farm.ports for x in ("--epp-endpoint", f"127.0.0.1:{port}"))]

    @property
    def picker(self):
        return self.children[0]


class Nginx(Gateway):
    kind = "nginx"

    def start(self):
        binary = shutil.which("nginx", path="/usr/sbin:" + os.environ["PATH"])
        assert binary, "nginx is not installed: run scripts/setup.sh"
        conf = (HERE / "nginx.conf").read_text()
        servers = "\n".join(f"    server 127.0.0.1:{p} max_fails=0;" for p in self.farm.ports)
        errors = "".join(f"""
    error_page {code} /error-{code};
    location = /error-{code} {{
      internal;
      default_type application/json;
      return {code} '{{"error":{{"message":"refused","type":"own","param":null,"code":{code}}}}}';
    }}""" for code in (400, 404, 405, 408, 413, 414, 431, 500, 501, 502, 503, 504, 505))
        for key, value in {"ERRORS": errors, "PORT": self.port, "FOLDER": self.folder, "SERVERS": servers, "LIMIT": BODY_LIMIT}.items():
            conf = conf.replace(f"@{key}@", str(value))
        (self.folder / "nginx.conf").write_text(conf)
        self.spawn([binary, "-p", self.folder, "-e", self.folder / "error.log", "-c", self.folder / "nginx.conf"])
        self.wait_ready(self.port, "/v1/models")


class Small(Gateway):
    """The small gateway, wrong in the way that the option says; the picker that it is told to have is a process that does nothing."""
    kind, has_process = "small", True

    def start(self):
        self.spawn(["sleep", "600"])
        self.spawn([sys.executable, HERE / "wrong_gateway.py", "--port", self.port, "--engines", ",".join(map(str, self.farm.ports)),
                    "--picker", self.picker.pid, "--wrong", self.options.get("wrong", ""), "--max-body-bytes", self.options.get("max_body", BODY_LIMIT), *self.options.get("flags", ())],
                   self.options.get("stdout"), self.options.get("descriptors"))
        if self.options.get("ready", True):
            if self.options.get("wrong"):
                self.wait_ready(self.port, "/health")
                time.sleep(0.5)  # until it knows the models
            else:
                self.wait_ready(self.port, "/ready")

    @property
    def picker(self):
        return self.children[0]

    def another(self, engines=2, **options):
        return Small(engines, **{"wrong": self.options.get("wrong", ""), **options})


class ByUrl(Gateway):
    """A gateway that somebody else started, before engines at ports it was told."""
    kind = "url"

    def __init__(self, url, ports):
        parts = urllib.parse.urlsplit(url)
        assert parts.scheme == "http" and parts.hostname, f"--gateway-url {url}: http://HOST:PORT is expected"
        self.host, self.port = parts.hostname, parts.port or 80
        self.farm, self.children, self.folder = Farm(ports=ports), [], pathlib.Path(tempfile.mkdtemp(prefix="llmd-blackbox-"))

    def start(self):
        pass

    def another(self, engines=2, **options):
        raise Skip("the case starts a gateway of its own")
