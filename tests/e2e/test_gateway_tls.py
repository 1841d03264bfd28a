"""llmd-gateway over TLS: towards clients, and towards engines."""
import asyncio
import os
import socket
import ssl
import subprocess
import time

import pytest
import requests

from authority import Authority
from conftest import Gateway, binary, endpoints_yaml, metric
from fake_engine import FakeEngine, response
from ports import free_port

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: random-picker}}
- {{type: file-discovery, parameters: {{path: "{endpoints}"}}}}
schedulingProfiles:
- name: default
  plugins: [{{pluginRef: random-picker}}]
dataLayer:
  discovery: {{pluginRef: file-discovery}}
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority") / "ours", "ours")


class Events:
    """An event stream that ends when it is told to."""

    def __init__(self):
        self.go = asyncio.Event()

    async def answer(self, request, writer):
        if request.method == "GET":
            return response()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
        await self.go.wait()
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()

    def end(self, engine):
        engine.loop.call_soon_threadsafe(self.go.set)


async def answer(request, writer):
    return response(body=b'{"choices":[]}')


@pytest.fixture
def start(started, tmp_path, authority):
    """A gateway before engines with `answer`; those speak TLS with a context."""
    engines = []

    def make(*flags, answer=answer, engine_tls=None, count=1):
        new = [FakeEngine(answer, engine_tls) for _ in range(count)]
        engines.extend(new)
        endpoints = tmp_path / f"endpoints-{len(engines)}.yaml"
        endpoints.write_text(endpoints_yaml([(f"e{i}", engine.port, "decode") for i, engine in enumerate(new)]))
        config = tmp_path / f"gateway-{len(engines)}.yaml"
        config.write_text(CONFIG.format(endpoints=endpoints))
        admin = free_port()
        gateway = started(Gateway("--config-file", str(config), "--metrics-port", str(admin), *map(str, flags)))
        gateway.engines, gateway.admin = new, f"http://127.0.0.1:{admin}/metrics"
        gateway.url = gateway.url.replace("http:", "https:")
        gateway.wait_http(admin, "/healthz", timeout=20)
        return gateway
    yield make
    for engine in engines:
        engine.close()


def client(authority, folder=None):
    session = requests.Session()
    session.verify, session.trust_env = str(authority.cert), False
    if folder:
        session.cert = (str(folder / "tls.crt"), str(folder / "tls.key"))
    return session


def complete(session, url, **more):
    return session.post(f"{url}/v1/completions", json={"model": "m", "prompt": "x"}, timeout=20, **more)


def shown(gateway):
    return ssl.get_server_certificate(("127.0.0.1", gateway.port))


def wait_for(what, seconds=10):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_requests_curl_and_openssl_reach_it(start, authority, tmp_path):
    folder = authority.issue(tmp_path / "cert", "gateway")
    gateway = start("--tls-cert-file", folder / "tls.crt", "--tls-key-file", folder / "tls.key")
    session = client(authority)
    assert [complete(session, gateway.url).status_code for _ in range(3)] == [200] * 3
    for version in ("--tls-max 1.2", "--tlsv1.3"):
        curl = subprocess.run(["curl", "-sS", *version.split(), "--http1.1", "--cacert", authority.cert, "-w", "%{http_code}", "-o", os.devnull,
                               "-d", '{"model":"m","prompt":"x"}', f"{gateway.url}/v1/completions"], capture_output=True, text=True, timeout=20)
        assert curl.stdout == "200", curl
    asked = ["openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port}", "-CAfile", authority.cert, "-ign_eof", "-alpn", "h2,http/1.1"]
    ticket = tmp_path / "ticket"
    for extra, new in ((["-sess_out", ticket], "New, TLSv1.3"), (["-sess_in", ticket], "Reused, TLSv1.3")):
        talk = subprocess.run([*asked, *extra], input="GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", capture_output=True,
                              text=True, timeout=20)
        assert new in talk.stdout and "ALPN protocol: http/1.1" in talk.stdout and "HTTP/1.1 200" in talk.stdout, talk
    weak = subprocess.run([*asked[:-2], "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], input="", capture_output=True, text=True, timeout=20)
    assert "handshake failure" in weak.stderr
    assert metric(gateway.admin, "llmd_tls_handshakes_total", result="done") >= 5
    assert metric(gateway.admin, "llmd_tls_handshakes_total", result="failed") >= 1


def test_what_is_wrong_at_the_start_is_named(tmp_path, authority):
    folder = authority.issue(tmp_path / "cert", "gateway")
    (tmp_path / "bad.crt").write_text("nonsense")
    for flags, named in ((["--tls-cert-file", tmp_path / "bad.crt", "--tls-key-file", folder / "tls.key"], "bad.crt"),
                         (["--cert-path", tmp_path], "tls.crt"),
                         (["--cert-path", folder, "--client-ca-file", tmp_path / "bad.crt"], "bad.crt"),
                         (["--upstream-tls", "--upstream-tls-ca-file", tmp_path / "bad.crt"], "bad.crt"),
                         (["--upstream-tls-ca-file", authority.cert], "--upstream-tls"),
                         (["--client-ca-file", authority.cert], "--client-ca-file")):
        run = subprocess.run([binary("llmd-gateway"), "--port=0", *map(str, flags)], capture_output=True, text=True, timeout=20)
        assert run.returncode != 0 and named in run.stderr, run


def test_a_request_in_clear_text_is_told_so(start):
    gateway = start("--secure-serving")
    answer = requests.post(f"http://127.0.0.1:{gateway.port}/v1/completions", json={"model": "m", "prompt": "x"}, timeout=20)
    assert answer.status_code == 400 and "https" in answer.json()["error"]["message"]
    assert answer.headers["x-request-id"]
    assert not gateway.engines[0].posts()
    assert requests.post(f"{gateway.url}/v1/completions", json={"model": "m", "prompt": "x"}, verify=False, timeout=20).status_code == 200


def test_clients_must_show_a_certificate(start, authority, tmp_path):
    folder, alice = authority.issue(tmp_path / "cert", "gateway"), authority.issue(tmp_path / "alice", "alice")
    stranger = Authority(tmp_path / "stranger", "stranger").issue(tmp_path / "mallory", "mallory")
    gateway = start("--cert-path", folder, "--client-ca-file", authority.cert)
    assert complete(client(authority, alice), gateway.url).status_code == 200
    for shows in (None, stranger):
        with pytest.raises(requests.exceptions.ConnectionError):
            complete(client(authority, shows), gateway.url)
    assert len(gateway.engines[0].posts()) == 1
    lines = [line for line in gateway.json_lines() if line.get("msg") == "request"]
    assert [line.get("clientSubject") for line in lines] == ["CN=alice"]


def test_certificates_are_followed_under_an_open_stream(start, authority, tmp_path):
    folder = authority.issue(tmp_path / "cert", "first")
    events = Events()
    gateway = start("--cert-path", folder, answer=events.answer)
    with complete(client(authority), gateway.url, stream=True) as stream:
        lines = stream.iter_lines()
        assert next(lines) == b"data: 1"
        first = shown(gateway)
        authority.issue(folder, "second")
        wait_for(lambda: shown(gateway) != first)
        second = shown(gateway)
        (folder / "tls.key").write_text("nonsense")
        wait_for(lambda: metric(gateway.admin, "llmd_tls_reloads_total", side="client", result="refused") == 1)
        assert shown(gateway) == second
        assert metric(gateway.admin, "llmd_tls_reloads_total", side="client", result="taken") == 1
        assert metric(gateway.admin, "llmd_tls_certificate_expires_timestamp_seconds", side="client") > time.time()
        refused = [line for line in gateway.json_lines() if line.get("level") == "error"]
        assert len(refused) == 1 and "tls.key" in refused[0]["error"]
        events.end(gateway.engines[0])
        assert list(filter(None, lines)) == [b"data: [DONE]"]


def engine_context(authority, tmp_path, ask=False):
    context = Authority.context(authority.issue(tmp_path / "engine", "engine"))
    if ask:
        context.load_verify_locations(authority.cert)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def in_clear(gateway):
    return f"http://127.0.0.1:{gateway.port}"


def test_engines_over_tls_are_checked(start, authority, tmp_path):
    context = engine_context(authority, tmp_path)
    believed = start("--upstream-tls", "--upstream-tls-ca-file", authority.cert, engine_tls=context, count=2)
    assert [complete(requests, in_clear(believed)).status_code for _ in range(6)] == [200] * 6
    anyone = start("--upstream-tls", "--upstream-tls-insecure-skip-verify", engine_tls=context)
    assert complete(requests, in_clear(anyone)).status_code == 200
    other = Authority(tmp_path / "other", "other")
    for flags in (["--upstream-tls-ca-file", other.cert], ["--upstream-tls-ca-file", authority.cert, "--upstream-tls-server-name", "nobody"]):
        stranger = start("--upstream-tls", *flags, engine_tls=context)
        assert complete(requests, in_clear(stranger)).status_code == 503
        assert not stranger.engines[0].requests


def test_engines_may_ask_who_we_are_and_our_certificate_is_followed(start, authority, tmp_path):
    ours = authority.issue(tmp_path / "ours", "first")
    subjects = []

    async def who(request, writer):
        subject = dict(pair[0] for pair in writer.get_extra_info("peercert")["subject"])
        subjects.append(subject["commonName"])
        return response(body=b'{"choices":[]}')

    gateway = start("--upstream-tls", "--upstream-tls-ca-file", authority.cert, "--upstream-tls-cert-file", ours / "tls.crt",
                    "--upstream-tls-key-file", ours / "tls.key", answer=who, engine_tls=engine_context(authority, tmp_path, ask=True))
    assert complete(requests, in_clear(gateway)).status_code == 200
    assert subjects[-1] == "first"
    authority.issue(ours, "second")
    wait_for(lambda: complete(requests, in_clear(gateway)).status_code == 200 and subjects[-1] == "second")
    unknown = start("--upstream-tls", "--upstream-tls-ca-file", authority.cert, answer=who,
                    engine_tls=engine_context(authority, tmp_path / "again", ask=True))
    assert complete(requests, in_clear(unknown)).status_code == 503


@pytest.mark.parametrize("notify", [True, False])
def test_an_engine_that_cuts_its_transport_has_cut_its_answer(start, authority, tmp_path, notify):
    async def until_close(request, writer):
        if request.method == "GET":
            return response()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nabc")
        await writer.drain()
        if notify:
            return None  # closed by the server with a close_notify
        raw = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
        raw.shutdown(socket.SHUT_RDWR)
        raw.close()

    gateway = start("--upstream-tls", "--upstream-tls-ca-file", authority.cert, answer=until_close,
                    engine_tls=engine_context(authority, tmp_path))
    if notify:
        assert complete(requests, in_clear(gateway)).text == "abc"
        return
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
        complete(requests, in_clear(gateway))
