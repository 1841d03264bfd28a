"""llmd-gateway with an endpoint picker of its own (--epp): what clients and engines see when the picker stands still, dies,
comes back or takes a request back, and that answers pass through it as they come."""
import asyncio
import contextlib
import json
import os
import signal
import socket
import threading
import time

import pytest
import requests

from conftest import Gateway, Picker, free_port, metric
from fake_engine import FakeEngine, response, send_chunked

TIMEOUT_S = 1.0  # --epp-timeout's default
ASK = {"model": "m", "prompt": "hello"}


@pytest.fixture
def engines():
    with contextlib.ExitStack() as stack:
        def start(answer):
            engine = FakeEngine(answer)
            stack.callback(engine.close)
            return engine
        yield start


async def plain(request, writer):
    if request.method == "GET":
        return response(200, b"{}")
    return response(200, json.dumps({"got": len(request.body)}).encode())


def front(started, tmp_path, engines, *args, picker_args=(), config=None):
    """A picker before the engines, and a gateway that asks it."""
    picker = started(Picker(tmp_path, [(f"e{i}", e.port, "decode") for i, e in enumerate(engines)], *picker_args, config=config))
    picker.wait_http(picker.admin_port, "/readyz")
    gateway = started(Gateway("--epp", f"127.0.0.1:{picker.grpc_port}", *args))
    gateway.wait_http(gateway.port, "/ready")
    return picker, gateway


def ask(gateway, timeout=30, stream=False, **body):
    return requests.post(f"{gateway.url}/v1/completions", json={**ASK, **body}, timeout=timeout, stream=stream)


def refused(reply):
    error = reply.json()["error"]
    return reply.status_code == 503 and error["code"] == 503 and error["type"] == "service_unavailable"


@contextlib.contextmanager
def stopped(process):
    process.popen.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.popen.send_signal(signal.SIGCONT)


def eventually(check, timeout=10):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.05)
    return False


# Before routing.

def test_a_stopped_picker_is_503_within_the_deadline_and_found_again(started, tmp_path, engines):
    picker, gateway = front(started, tmp_path, [engines(plain)])
    assert ask(gateway).status_code == 200
    with stopped(picker):
        begun = time.monotonic()
        assert refused(ask(gateway))
        assert time.monotonic() - begun < TIMEOUT_S + 1
        # Known to be lost, it is not waited for again.
        begun = time.monotonic()
        assert all(refused(ask(gateway)) for _ in range(5))
        assert time.monotonic() - begun < TIMEOUT_S
    assert eventually(lambda: ask(gateway).status_code == 200, 5)
    assert metric(f"{gateway.url}/metrics", "llmd_gateway_picker_lost_total") >= 6


def test_a_killed_picker_is_503_at_once_and_a_new_one_is_found(started, tmp_path, engines):
    engine = engines(plain)
    picker, gateway = front(started, tmp_path, [engine])
    picker.kill()
    begun = time.monotonic()
    assert refused(ask(gateway))
    assert time.monotonic() - begun < TIMEOUT_S
    assert eventually(lambda: requests.get(f"{gateway.url}/ready", timeout=5).status_code == 503)
    again = started(Picker(tmp_path, [("e0", engine.port, "decode")], "--grpc-port", str(picker.grpc_port)))
    again.wait_http(again.admin_port, "/readyz")
    assert eventually(lambda: ask(gateway).status_code == 200, 5)
    assert requests.get(f"{gateway.url}/ready", timeout=5).status_code == 200


def test_open_goes_on_without_the_picker(started, tmp_path, engines):
    both = [engines(plain), engines(plain)]
    picker, gateway = front(started, tmp_path, both, "--epp-failure-mode", "open", picker_args=("--emit-endpoint-scores",))
    assert ask(gateway).status_code == 200
    picker.kill()
    before = [len(e.posts()) for e in both]
    assert all(ask(gateway).status_code == 200 for _ in range(10))
    assert [len(e.posts()) - n for e, n in zip(both, before)] == [5, 5]
    assert metric(f"{gateway.url}/metrics", "llmd_gateway_without_picker_total") == 10


def test_open_knows_the_endpoints_it_is_given_and_passes_over_dead_ones(started, tmp_path, engines):
    engine = engines(plain)
    gateway = started(Gateway("--epp", f"127.0.0.1:{free_port()}", "--epp-failure-mode", "open",
                              "--epp-endpoint", f"127.0.0.1:{free_port()}", "--epp-endpoint", engine.address))
    gateway.wait_http(gateway.port, "/ready")
    for _ in range(6):
        reply = ask(gateway)
        assert reply.status_code == 200, reply.text


def test_a_queued_request_outlasts_the_timeout_while_the_picker_lives(started, tmp_path, engines):
    """No endpoint yet: flow control keeps the request; one is added after three deadlines."""
    config = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {{type: queue-scorer}}
- type: file-discovery
  parameters: {{path: "{path}", watchFile: true}}
flowControl: {{defaultRequestTTL: 20s, noEndpointRequestTTL: 20s}}
dataLayer:
  discovery: {{pluginRef: file-discovery}}
"""
    engine = engines(plain)
    picker, gateway = front(started, tmp_path, [], config=lambda path: config.format(path=path))
    replies = []
    thread = threading.Thread(target=lambda: replies.append(ask(gateway)))
    thread.start()
    time.sleep(3.5 * TIMEOUT_S)
    assert not replies
    picker.set_endpoints([("late", engine.port, "decode")])
    thread.join(15)
    assert replies[0].status_code == 200, replies[0].text


def test_a_queued_request_ends_with_its_own_deadline(started, tmp_path):
    config = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {{type: queue-scorer}}
- type: file-discovery
  parameters: {{path: "{path}", watchFile: true}}
flowControl: {{defaultRequestTTL: 60s, noEndpointRequestTTL: 60s}}
dataLayer:
  discovery: {{pluginRef: file-discovery}}
"""
    _, gateway = front(started, tmp_path, [], "--epp-queue-timeout", "1500ms", config=lambda path: config.format(path=path))
    begun = time.monotonic()
    assert refused(ask(gateway))
    assert 1.4 < time.monotonic() - begun < 4


# Between routing and the answer's head.

@pytest.mark.parametrize("mode", ["close", "open"])
def test_a_picker_stopped_before_the_head_does_not_hang_the_client(started, tmp_path, engines, mode):
    go = threading.Event()

    async def slow(request, writer):
        while request.method == "POST" and not go.is_set():
            await asyncio.sleep(0.01)
        return await plain(request, writer)

    engine = engines(slow)
    picker, gateway = front(started, tmp_path, [engine], "--epp-failure-mode", mode)
    replies = []
    thread = threading.Thread(target=lambda: replies.append(ask(gateway)))
    thread.start()
    assert eventually(lambda: engine.posts())
    with stopped(picker):
        go.set()
        thread.join(5 * TIMEOUT_S + 3)
        assert replies, "the client hangs"
    assert refused(replies[0]) if mode == "close" else replies[0].json() == {"got": len(json.dumps(ASK))}


def test_the_engine_is_told_at_once_of_a_client_that_leaves_beside_a_stopped_picker(started, tmp_path, engines):
    async def never(request, writer):
        if request.method == "POST":
            await asyncio.sleep(60)
        return await plain(request, writer)

    engine = engines(never)
    picker, gateway = front(started, tmp_path, [engine])
    body = json.dumps(ASK).encode()
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert eventually(lambda: engine.posts())
        picker.popen.send_signal(signal.SIGSTOP)
    try:
        assert engine.disconnected.wait(0.5)
    finally:
        picker.popen.send_signal(signal.SIGCONT)


# Within the answer.

def pieces_of(content_type, pieces, gap=0.25):
    async def paced():
        for i, piece in enumerate(pieces):
            if i:
                await asyncio.sleep(gap)
            yield piece

    async def answer(request, writer):
        if request.method == "GET":
            return response(200, b"{}")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        async for piece in paced():
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
    return answer


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "audio/wav", "application/json", "Text/Event-Stream"])
def test_pieces_come_when_the_engine_sends_them(started, tmp_path, engines, content_type):
    pieces = [b'data: {"piece":%d}\n\n' % i for i in range(5)]
    _, gateway = front(started, tmp_path, [engines(pieces_of(content_type, pieces))])
    begun, times, got = time.monotonic(), [], b""
    with ask(gateway, stream=True) as reply:
        for chunk in reply.iter_content(None):
            got += chunk
            times.append(time.monotonic() - begun)
    assert got == b"".join(pieces)
    assert times[0] < 0.2 * times[-1] + 0.1, times
    assert times[-1] > 0.9


def test_an_answer_is_never_shortened_without_a_cut_when_the_picker_dies(started, tmp_path, engines):
    """200,000 bytes of JSON in pieces; the picker dies between them, at many points."""
    text = json.dumps({"text": "x" * 200_000}).encode()
    pieces = [text[at:at + 10_000] for at in range(0, len(text), 10_000)]
    engine = engines(pieces_of("application/json", pieces, gap=0.02))
    picker, gateway = front(started, tmp_path, [engine])
    port = picker.grpc_port
    for delay in (0.02, 0.1, 0.2, 0.3):
        timer = threading.Timer(delay, picker.kill)
        timer.start()
        try:
            whole = ask(gateway).content
        except requests.RequestException:
            whole = None  # cut, and seen to be
        timer.join()
        assert whole is None or whole == text or b'"error"' in whole
        picker = started(Picker(tmp_path, [("e0", engine.port, "decode")], "--grpc-port", str(port)))
        picker.wait_http(picker.admin_port, "/readyz")
        assert eventually(lambda: ask(gateway).content == text)


def test_a_stream_goes_on_without_a_picker_that_changed_nothing(started, tmp_path, engines):
    events = [b'data: {"i":%d}\n\n' % i for i in range(30)]
    engine = engines(pieces_of("text/event-stream", events, gap=0.05))
    picker, gateway = front(started, tmp_path, [engine])
    threading.Timer(0.5, picker.kill).start()
    assert ask(gateway).content == b"".join(events)


def test_a_picker_stopped_within_a_stream_does_not_hang_it(started, tmp_path, engines):
    events = [b'data: {"i":%d}\n\n' % i for i in range(30)]
    engine = engines(pieces_of("text/event-stream", events, gap=0.05))
    picker, gateway = front(started, tmp_path, [engine])
    threading.Timer(0.5, lambda: picker.popen.send_signal(signal.SIGSTOP)).start()
    begun = time.monotonic()
    try:
        assert ask(gateway).content == b"".join(events)
    finally:
        picker.popen.send_signal(signal.SIGCONT)
    assert time.monotonic() - begun < 1.5 + 5 * TIMEOUT_S + 2


REWRITE = """rewrites:
- name: all
  rules:
  - targets: [{weight: 1, modelRewrite: inner}]
"""


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_the_picker_changes_is_cut_when_it_dies(started, tmp_path, engines, stream):
    events = [b'data: {"model":"inner","i":%d}\n\n' % i for i in range(40)]
    engine = engines(pieces_of("text/event-stream" if stream else "application/json", events, gap=0.05))
    picker, gateway = front(started, tmp_path, [engine])
    picker.set_endpoints([("e0", engine.port, "decode")], REWRITE)
    assert eventually(lambda: (ask(gateway).status_code, json.loads(engine.posts()[-1].body)["model"]) == (200, "inner"), 20)
    threading.Timer(0.7, picker.kill).start()
    if not stream:
        with pytest.raises(requests.RequestException):
            ask(gateway)
        return
    got = ask(gateway).text.strip().split("\n\n")
    assert all(json.loads(e[6:])["model"] == "m" for e in got[:-1])
    assert json.loads(got[-1][6:])["error"]["code"] == 502 and len(got) < 40


def peak_kb(process):
    with open(f"/proc/{process.popen.pid}/status") as status:
        return int(status.read().split("VmHWM:")[1].split()[0])


def big(megabytes):
    block = os.urandom(1 << 16)

    async def answer(request, writer):
        if request.method == "GET":
            return response(200, b"{}")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: {megabytes << 20}\r\n\r\n".encode())
        for _ in range(megabytes * 16):
            writer.write(block)
            await writer.drain()
    return answer


@pytest.mark.parametrize("slow", [False, True], ids=["fast-client", "slow-client"])
def test_memory_stays_flat_for_300_mb(started, tmp_path, engines, slow):
    megabytes = 300 if not slow else 100
    _, gateway = front(started, tmp_path, [engines(big(megabytes))])
    before, total = peak_kb(gateway), 0
    with ask(gateway, timeout=120, stream=True) as reply:
        for chunk in reply.iter_content(1 << 16):
            total += len(chunk)
            if slow and total % (8 << 20) < 1 << 16:
                time.sleep(0.05)
    assert total == megabytes << 20
    assert peak_kb(gateway) - before < 24 << 10


def test_memory_stays_bounded_before_a_stopped_picker(started, tmp_path, engines):
    picker, gateway = front(started, tmp_path, [engines(big(100))], "--epp-timeout", "2s")
    before = peak_kb(gateway)
    with ask(gateway, timeout=60, stream=True) as reply:
        next(reply.iter_content(1 << 16))
        with stopped(picker):
            time.sleep(1.5)
            assert peak_kb(gateway) - before < 24 << 10


# Elsewhere.

def test_a_dead_endpoint_is_passed_over(started, tmp_path, engines):
    alive = [engines(plain), engines(plain)]
    dead = FakeEngine(plain)
    _, gateway = front(started, tmp_path, [*alive, dead])
    assert all(ask(gateway, prompt=f"{i} is another").status_code == 200 for i in range(20))
    assert dead.posts(), "the one that dies was never chosen"
    dead.close()
    for i in range(60):
        reply = ask(gateway, prompt=f"{i} is another")
        assert reply.status_code == 200, reply.text


def test_an_endpoint_that_resets_is_passed_over(started, tmp_path, engines):
    """It serves its page, so the picker goes on to choose it."""
    async def reset(request, writer):
        if request.method == "GET":
            return response(200, b"{}")
        writer.transport.abort()

    good, bad = engines(plain), engines(reset)
    _, gateway = front(started, tmp_path, [good, bad])
    for i in range(60):
        reply = ask(gateway, prompt=f"{i} is another")
        assert reply.status_code == 200, reply.text
    assert bad.posts(), "the bad one was never chosen"


def test_all_endpoints_bad_are_tried_all_the_same_and_recover(started, tmp_path, engines):
    broken = threading.Event()
    broken.set()

    async def answer(request, writer):
        if request.method == "GET":
            return response(200, b"{}")
        if broken.is_set():
            return writer.transport.abort()
        return await plain(request, writer)

    both = [engines(answer), engines(answer)]
    _, gateway = front(started, tmp_path, both)
    for _ in range(4):
        assert refused(ask(gateway))
    broken.clear()
    assert [ask(gateway).status_code for _ in range(10)] == [200] * 10


def test_a_large_body_passes_and_is_edited_once(started, tmp_path, engines):
    engine = engines(plain)
    picker, gateway = front(started, tmp_path, [engine])
    prompt = "word " * 1_000_000
    assert ask(gateway, prompt=prompt).status_code == 200
    assert json.loads(engine.posts()[-1].body)["prompt"] == prompt
    picker.set_endpoints([("e0", engine.port, "decode")], REWRITE)
    assert eventually(lambda: (ask(gateway).status_code, json.loads(engine.posts()[-1].body)["model"]) == (200, "inner"), 20)
    assert ask(gateway, prompt=prompt).status_code == 200
    sent = json.loads(engine.posts()[-1].body)
    assert sent == {"model": "inner", "prompt": prompt}
    assert engine.posts()[-1].header("content-length") == [str(len(engine.posts()[-1].body))]


def test_headers_pass_and_the_picker_adds_its_own(started, tmp_path, engines):
    engine = engines(plain)
    _, gateway = front(started, tmp_path, [engine])
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    reply = requests.post(f"{gateway.url}/v1/completions", json=ASK, timeout=30,
                          headers={"traceparent": trace, "x-request-id": "my-id", "x-mine": "1", "X-Prefiller-Host-Port": "1.2.3.4:5",
                                   "x-gateway-destination-endpoint": "1.2.3.4:5"})
    assert reply.status_code == 200
    assert reply.headers["x-request-id"] == "my-id"
    assert "x-went-into-resp-headers" not in reply.headers
    request = engine.posts()[-1]
    assert request.header("x-mine") == ["1"] and request.header("x-request-id") == ["my-id"]
    assert request.header("traceparent")[0].startswith(trace[:36]) and len(request.header("traceparent")) == 1
    assert not request.header("x-prefiller-host-port") and not request.header("x-gateway-destination-endpoint")


@pytest.mark.parametrize("args,word", [
    (["--epp-failure-mode", "ajar"], "expected close or open"),
    (["--epp-timeout", "1ms"], "--epp-timeout"),
    (["--epp-queue-timeout", "10ms"], "--epp-queue-timeout"),
    (["--epp-endpoint", "engine:8000"], "--epp-endpoint"),
])
def test_settings_that_cannot_be_are_named(started, args, word):
    gateway = started(Gateway("--epp", "127.0.0.1:1", *args))
    gateway.popen.wait(10)
    assert gateway.popen.returncode != 0 and word in gateway.log()
