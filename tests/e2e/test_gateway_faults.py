"""llmd-gateway and llmd-sidecar when something near them fails: engines that break off, no descriptors left, a log that nobody
reads."""
import os
import resource
import signal
import subprocess
import time

import pytest
import requests

from conftest import Process, binary, endpoints_yaml, metric, picker_config
from fake_engine import FakeEngine, response
from ports import free_port

BAD = "break off"


async def reset(request, writer):
    writer.transport.abort()


async def early_close(request, writer):
    writer.close()


async def malformed(request, writer):
    return b"this is no HTTP\r\n\r\n"


def breaking_off_at(bad):
    """An engine that serves everything but prompts that say so."""
    async def answer(request, writer):
        if BAD.encode() in request.body:
            return await bad(request, writer)
        return response(body=b'{"choices":[]}')
    return answer


class LimitedGateway(Process):
    """`stdout` None is the log file."""

    def __init__(self, tmp_path, endpoints, *args, stdout=None, descriptors=None):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        endpoints_path = tmp_path / "endpoints.yaml"
        endpoints_path.write_text(endpoints_yaml(endpoints))
        config = tmp_path / "gateway.yaml"
        config.write_text(picker_config(endpoints_path, disaggregate=False))
        self.popen_args(stdout, descriptors)
        super().__init__("gateway", [binary("llmd-gateway"), "--host", "127.0.0.1", "--port", str(self.port),
                                     "--config-file", str(config), *args], **self.extra)

    def popen_args(self, stdout, descriptors):
        self.extra = {}
        if stdout is not None:
            self.extra["stdout"] = stdout
        if descriptors is not None:
            self.extra["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, descriptors)


@pytest.fixture
def engines():
    made = []

    def make(count, answer):
        made.extend(FakeEngine(answer) for _ in range(count))
        return made
    yield make
    for engine in made:
        engine.close()


def endpoints_of(engines):
    return [(f"e{i}", engine.port, "decode") for i, engine in enumerate(engines)]


def post(gateway, prompt, timeout=30):
    return requests.post(f"{gateway.url}/v1/completions", json={"model": "m", "prompt": prompt}, timeout=timeout)


@pytest.mark.parametrize("bad", [reset, early_close, malformed])
@pytest.mark.parametrize("count", [1, 3])
def test_one_bad_exchange_does_not_take_the_pool_down(started, tmp_path, engines, count, bad):
    gateway = started(LimitedGateway(tmp_path, endpoints_of(engines(count, breaking_off_at(bad)))))
    gateway.wait_http(gateway.port, "/ready")
    assert post(gateway, BAD).status_code == 503
    assert [post(gateway, "hello").status_code for _ in range(20)] == [200] * 20


def open_descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_lack_of_descriptors_ejects_no_engine(started, tmp_path, engines):
    async def answer(request, writer):
        if request.target == "/v1/models":  # asked by the gateway itself: no connection is left of it
            return b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        return await breaking_off_at(reset)(request, writer)
    all_engines = engines(4, answer)
    gateway = started(LimitedGateway(tmp_path, endpoints_of(all_engines), "--model-refresh-interval", "1h"))
    gateway.wait_http(gateway.port, "/ready")
    with requests.Session() as client:
        assert client.get(f"{gateway.url}/health", timeout=5).status_code == 200  # a connection is there already
        now = open_descriptors(gateway.popen.pid)
        _, hard = resource.prlimit(gateway.popen.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(gateway.popen.pid, resource.RLIMIT_NOFILE, (now, hard))
        body = {"model": "m", "prompt": "hello"}
        for _ in range(2):  # at two or three endpoints each
            refused = client.post(f"{gateway.url}/v1/completions", json=body, timeout=10)
            assert refused.status_code == 503 and "open files" in refused.text
        resource.prlimit(gateway.popen.pid, resource.RLIMIT_NOFILE, (hard, hard))
        assert [client.post(f"{gateway.url}/v1/completions", json=body, timeout=10).status_code for _ in range(20)] == [200] * 20
    assert metric(f"{gateway.url}/metrics", "llmd_gateway_panic_attempts_total") == 0


def test_the_descriptor_limit_is_raised_to_the_hard_one(started, tmp_path, engines):
    gateway = started(LimitedGateway(tmp_path, endpoints_of(engines(1, breaking_off_at(reset))), descriptors=(200, 1000)))
    gateway.wait_http(gateway.port, "/ready")
    assert resource.prlimit(gateway.popen.pid, resource.RLIMIT_NOFILE) == (1000, 1000)
    line = next(line for line in gateway.json_lines() if line["msg"] == "descriptor limit")
    assert (line["before"], line["limit"]) == (200, 1000)


@pytest.fixture
def unread_pipe():
    """The writing end of a pipe that nobody reads; call to read what is in it."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def check_serves(url, port, process, metrics_url, headers=None):
    process.wait_http(port, "/health")
    with requests.Session() as client:
        body = {"model": "m", "prompt": "hello"}
        for _ in range(500):
            assert client.post(f"{url}/v1/completions", json=body, headers=headers, timeout=10).status_code == 200
    assert requests.get(f"{url}/health", timeout=5).status_code == 200
    assert metric(metrics_url, "llmd_log_lines_dropped_total") >= 0


def test_a_gateway_serves_though_nobody_reads_its_log(started, tmp_path, engines, unread_pipe):
    gateway = started(LimitedGateway(tmp_path, endpoints_of(engines(1, breaking_off_at(reset))), "-v", "5", stdout=unread_pipe[1]))
    check_serves(gateway.url, gateway.port, gateway, f"{gateway.url}/metrics")
    begun = time.monotonic()
    gateway.kill(signal.SIGTERM)
    assert time.monotonic() - begun < 10


def test_a_sidecar_serves_though_nobody_reads_its_log(started, engines, unread_pipe):
    (engine,) = engines(1, breaking_off_at(reset))
    port, metrics_port = free_port(), free_port()
    sidecar = started(Process("sidecar", [binary("llmd-sidecar"), "--port", str(port), "--model-server-port", str(engine.port),
                                          "--secure-proxy=false", "-v", "5", "--metrics-port", str(metrics_port)],
                              stdout=unread_pipe[1]))
    check_serves(f"http://127.0.0.1:{port}", port, sidecar, f"http://127.0.0.1:{metrics_port}/metrics",
                 {"x-prefiller-host-port": engine.address})
    begun = time.monotonic()
    sidecar.kill(signal.SIGTERM)
    assert time.monotonic() - begun < 10
