"""llmd-sidecar on the wire, between scripted engines: order of the legs, relay, failures, disconnects, rewriting."""
import asyncio
import http.client
import json
import re
import socket
import struct
import subprocess
import threading
import time

import pytest
from conftest import binary
from fake_engine import response, send_chunked
from ports import free_port
from scripted_sidecar import PARAMS, TwoEvents, answer_decode, answer_prefill, make, prefill_reply  # noqa: F401

def test_legs_in_order_and_byte_exact(make):
    order = []

    async def prefill(request, writer):
        order.append("prefill")
        return prefill_reply()

    async def decode(request, writer):
        if request.method == "POST":
            order.append("decode")
        return await answer_decode(request, writer)

    p, d = make(prefill), make(decode)
    s = make.sidecar(d.port)
    body = b'{"seed": 9007199254740993, "prompt":"<a&b>\\u00e9","max_tokens":"7","x":1.0,"stream":false}'
    reply = s.post("/v1/completions", body, {"x-prefiller-host-port": p.address, "x-request-id": "abc"})
    assert reply.status == 200 and reply.data == b'{"id":"d","choices":[{"text":"hi"}]}'
    assert order == ["prefill", "decode"]
    (prefilled,), (decoded,) = p.posts(), d.posts()
    assert prefilled.target == decoded.target == "/v1/completions"
    assert prefilled.body.startswith(b'{"seed": 9007199254740993, "prompt":"<a&b>\\u00e9","max_tokens":1,"x":1.0,"stream":false')
    sent = json.loads(prefilled.body)
    assert sent["kv_transfer_params"] == {"do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None,
                                          "remote_block_ids": None, "remote_host": None, "remote_port": None}
    assert sent["min_tokens"] == sent["max_completion_tokens"] == 1
    assert decoded.body == body[:-1] + b',"kv_transfer_params":' + PARAMS.encode() + b"}"
    for request in (prefilled, decoded):
        assert request.header("x-request-id") == ["abc"]
        assert not request.header("x-prefiller-host-port")
        assert request.header("X-Forwarded-For") == ["127.0.0.1"]
    messages = ["running NIXL protocol", "sending request to prefiller", "received prefiller response",
                "sending request to decoder"]
    s.wait_for(messages[-1])
    seen = [line for line in s.lines if line["msg"] in messages]
    assert [line["msg"] for line in seen] == messages
    assert all(line["x-request-id"] == "abc" and line["logger"].startswith("proxy server on port") for line in seen)
    assert seen[1]["url"] == f"http://{p.address}/v1/completions"
    assert (seen[2]["remote_block_ids"], seen[2]["remote_engine_id"], seen[2]["remote_port"]) == ([[3, 4]], "e-1", 5557)
    assert s.stop() == 0


def test_without_header_only_decode_runs_and_client_params_are_dropped(make):
    d = make(answer_decode)
    s = make.sidecar(d.port)
    assert s.post("/v1/chat/completions", b'{"a": 1, "kv_transfer_params":{"do_remote_prefill":true}}').status == 200
    assert s.post("/v1/chat/completions", b'{"a": 1}', {"x-prefiller-host-port": ",b:2"}).status == 200
    assert [r.body for r in d.posts()] == [b'{"a": 1}', b'{"a": 1}']
    assert re.fullmatch(r"[0-9a-f-]{36}", d.posts()[0].header("x-request-id")[0])


def test_legacy_header_without_scheme(make):
    p, d = make(answer_prefill), make(answer_decode)
    s = make.sidecar(d.port)
    assert s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-url": p.address}).status == 200
    assert s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-url": f"http://{p.address}"}).status == 200
    assert len(p.posts()) == 2 and len(d.posts()) == 2
    assert not d.posts()[0].header("x-prefiller-url")


@pytest.mark.parametrize("value", ["127.0.0.1:80/evil?x=", "host", "a:b", "127.0.0.1:0", "u@h:80", "h:80 x"])
def test_only_strict_host_port(make, value):
    d = make(answer_decode)
    s = make.sidecar(d.port)
    reply = s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": value})
    assert reply.status == 400
    error = json.loads(reply.data)
    assert (error["object"], error["type"], error["param"], error["code"]) == ("error", "BadRequestError", "", 400)
    assert not d.posts()


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_prefill_errors_are_relayed_whole(make, status):
    async def fail(request, writer):
        return response(status, b'{"error":"mine"}', "application/problem",
                        [("Retry-After", "7"), ("Set-Cookie", "a"), ("Set-Cookie", "b"), ("Connection", "x-own"), ("x-own", "1")])

    p, d = make(fail), make(answer_decode)
    s = make.sidecar(d.port)
    reply = s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": p.address})
    assert (reply.status, reply.data) == (status, b'{"error":"mine"}')
    assert reply.headers["Retry-After"] == "7" and reply.headers["Content-Type"] == "application/problem"
    assert reply.headers.get_all("Set-Cookie") == ["a", "b"] and "x-own" not in reply.headers
    assert not d.posts()


def test_local_decode_policy(make):
    async def fail(request, writer):
        return response(int(json.loads(request.body)["prompt"]), b"no")

    p, d = make(fail), make(answer_decode)
    s = make.sidecar(d.port, "--prefill-failure-policy=local-decode")
    headers = {"x-prefiller-host-port": p.address}
    assert s.post("/v1/completions", {"prompt": "500"}, headers).status == 200
    assert d.posts()[0].body == b'{"prompt": "500"}'
    assert s.post("/v1/completions", {"prompt": "429"}, headers).status == 429
    refused = {"x-prefiller-host-port": f"127.0.0.1:{free_port()}"}
    assert s.post("/v1/completions", {"prompt": "1"}, refused).status == 200


def test_refused_prefill_is_502_with_an_error_object(make):
    d = make(answer_decode)
    s = make.sidecar(d.port)
    reply = s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": f"127.0.0.1:{free_port()}"})
    assert reply.status == 502 and json.loads(reply.data)["type"] == "BadGateway"
    assert not d.posts()


def test_cut_prefill_reply_is_502_with_an_error_object(make):
    async def cut(request, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()

    p, d = make(cut), make(answer_decode)
    s = make.sidecar(d.port)
    reply = s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": p.address})
    assert reply.status == 502 and json.loads(reply.data)["object"] == "error"


def test_prefill_that_never_answers_is_504(make):
    async def hang(request, writer):
        await asyncio.sleep(60)

    p, d = make(hang), make(answer_decode)
    s = make.sidecar(d.port, "--prefill-timeout=200ms")
    reply = s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": p.address})
    assert reply.status == 504 and json.loads(reply.data)["type"] == "GatewayTimeout"
    assert p.disconnected.wait(5)


def test_bad_bodies_are_400(make):
    async def garbage(request, writer):
        return response(body=b"<html>") if b"html" in request.body else response(204, b"")

    p, d = make(garbage), make(answer_decode)
    s = make.sidecar(d.port)
    headers = {"x-prefiller-host-port": p.address}
    for body in (b"", b"[1]", b"{", b"nonsense", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
        assert s.post("/v1/completions", body, headers).status == 400
    assert not p.posts()
    for body in ({"prompt": "html"}, {"prompt": "empty"}):
        assert s.post("/v1/completions", body, headers).status == 400
    assert not d.posts()


def test_retries_then_next_candidate(make):
    async def busy(request, writer):
        return response(503, b"busy")

    first, second, d = make(busy), make(answer_prefill), make(answer_decode)
    s = make.sidecar(d.port, "--prefill-max-retries=2", "--prefill-retry-backoff=1ms")
    gone = f"127.0.0.1:{free_port()}"
    reply = s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": f"{first.address},{gone},{second.address}"})
    assert reply.status == 200
    assert (len(first.posts()), len(second.posts()), len(d.posts())) == (3, 1, 1)


def test_missing_params_decode_null_and_are_counted(make):
    async def bare(request, writer):
        return response(body=b"{}")

    p, d = make(bare), make(answer_decode)
    metrics = free_port()
    s = make.sidecar(d.port, f"--metrics-port={metrics}")
    assert s.post("/v1/completions", b'{"a":1}', {"x-prefiller-host-port": p.address}).status == 200
    assert d.posts()[0].body == b'{"a":1,"kv_transfer_params":null}'
    connection = http.client.HTTPConnection("127.0.0.1", metrics, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    assert "llmd_sidecar_missing_kv_transfer_params_total 1.0" in text
    assert 'llmd_sidecar_leg_seconds_count{leg="prefill",outcome="ok"} 1.0' in text
    assert re.search(r'llmd_sidecar_requests_total\{.*path="disaggregated".*\} 1\.0', text)


def test_decode_refused_is_503_and_says_what_it_waits_for(make):
    p = make(answer_prefill)
    s = make.sidecar(free_port())
    s.wait_for("waiting for vLLM to be ready")
    reply = s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": p.address})
    assert reply.status == 503 and json.loads(reply.data)["type"] == "ServiceUnavailable"
    assert s.get("/health").status == 200
    assert s.get("/ready").status == 503
    s.wait_for("decode leg never started, telling the prefiller to release its blocks")
    s.wait_for("prefiller was not told; its lease will expire")


class FakeLender:
    """The lender's side of docs/wire/transfer.md, as far as a releaser gets."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.frames = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rb") as stream:
            for answer in (2, 8):
                magic, version, kind, _, size, tag = struct.unpack("<4sBBHII", stream.read(16))
                assert (magic, version) == (b"LKVT", 1)
                payload, fields = stream.read(size), {}
                while payload:
                    field, _, length = struct.unpack("<HHI", payload[:8])
                    fields[field], payload = payload[8:8 + length], payload[8 + length:]
                self.frames.append((kind, fields))
                connection.sendall(struct.pack("<4sBBHII", b"LKVT", 1, answer, 0, 0, tag))


def test_lender_is_told_when_the_decode_leg_never_starts(make):
    lender = FakeLender()

    async def prefill(request, writer):
        return response(body=prefill_reply().split(b"\r\n\r\n")[1].replace(b"5557", str(lender.port).encode()))

    p = make(prefill)
    s = make.sidecar(free_port())
    assert s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": p.address}).status == 503
    lender.thread.join(10)
    assert lender.frames == [(1, {1: b"e-1", 2: b"", 6: b"\x01"}), (7, {32: b"r-1"})]


@pytest.mark.parametrize("leave", [False, True])
def test_lender_is_told_when_the_engine_never_answers(make, leave):
    """By timeout, or because the client left after the prefill leg."""
    lender = FakeLender()

    async def prefill(request, writer):
        return response(body=prefill_reply().split(b"\r\n\r\n")[1].replace(b"5557", str(lender.port).encode()))

    async def hang(request, writer):
        if request.method == "GET":
            return response()
        await asyncio.sleep(60)

    p, d = make(prefill), make(hang)
    s = make.sidecar(d.port, *([] if leave else ["--decode-timeout=300ms"]))
    client = socket.create_connection(("127.0.0.1", s.port), timeout=10)
    client.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nx-prefiller-host-port: {p.address}\r\n"
                   "Content-Length: 2\r\n\r\n{}".encode())
    end = time.monotonic() + 10
    while not d.posts() and time.monotonic() < end:
        time.sleep(0.005)
    if not leave:
        assert client.recv(4096).startswith(b"HTTP/1.1 504 ")
    client.close()
    lender.thread.join(10)
    assert [kind for kind, _ in lender.frames] == [1, 7]
    assert d.disconnected.wait(5)


def test_lenders_that_do_not_answer_hold_up_neither_names_nor_the_end(make):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        async def prefill(request, writer):
            return response(body=prefill_reply().split(b"\r\n\r\n")[1].replace(b"5557", str(port).encode()))

        p = make(prefill)
        s = make.sidecar(free_port())
        for _ in range(16):
            assert s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": p.address}).status == 503
        begun = time.monotonic()
        assert s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": f"localhost:{p.port}"}).status == 503
        assert time.monotonic() - begun < 2
        assert s.stop() == 0
        assert time.monotonic() - begun < 10


def test_clients_are_not_told_addresses(make):
    gone = free_port()
    d = make(answer_decode)
    s = make.sidecar(d.port)
    reply = s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": f"127.0.0.1:{gone}"})
    assert reply.status == 502 and str(gone).encode() not in reply.data
    assert str(gone) in s.wait_for("prefill leg failed")["err"]
    s = make.sidecar(gone)
    for reply in (s.post("/v1/completions", {"prompt": "x"}), s.get("/v1/models"), s.get("/ready")):
        assert reply.status == 503 and str(gone).encode() not in reply.data, reply.data


def test_prefillers_and_engines_by_name(make):
    p, d = make(answer_prefill), make(answer_decode)
    s = make.sidecar(d.port, "--model-server-host=localhost")
    for _ in range(3):
        assert s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": f"localhost:{p.port}"}).status == 200
    assert len(p.posts()) == len(d.posts()) == 3
    reply = s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": f"no-such-host.invalid:{p.port}"})
    assert reply.status == 502 and json.loads(reply.data)["type"] == "BadGateway"
    both = f"no-such-host.invalid:1,localhost:{p.port}"
    assert s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": both}).status == 200


def test_large_bodies_go_byte_exact_to_both_legs(make):
    p, d = make(answer_prefill), make(answer_decode)
    s = make.sidecar(d.port)
    body = b'{"prompt":"' + b"\\u00e9x" * 1_000_000 + b'","max_tokens":9}'
    assert s.post("/v1/completions", body, {"x-prefiller-host-port": p.address}).status == 200
    assert p.posts()[0].body.startswith(body[:-2] + b"1,")
    assert d.posts()[0].body == body[:-1] + b',"kv_transfer_params":' + PARAMS.encode() + b"}"
    evil = body[:-1] + b',"kv_transfer_params":{"evil":1}}'
    assert s.post("/v1/completions", evil).status == 200
    assert d.posts()[1].body == body
    assert s.post("/v1/completions", body + b"x", {"x-prefiller-host-port": p.address}).status == 400


def test_clients_that_leave_while_their_large_bodies_are_read(make):
    p, d = make(answer_prefill), make(answer_decode)
    s = make.sidecar(d.port)
    body = b'{"prompt":"' + b"x" * 8_000_000 + b'"}'
    head = (f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nx-prefiller-host-port: {p.address}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode()
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", s.port), timeout=10) as client:
            client.sendall(head + body)
    assert s.post("/v1/completions", body, {"x-prefiller-host-port": p.address}).status == 200
    assert s.stop() == 0


def test_a_trickling_prefill_reply_ends_at_the_deadline(make):
    async def trickle(request, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    p, d = make(trickle), make(answer_decode)
    s = make.sidecar(d.port, "--prefill-timeout=400ms")
    begun = time.monotonic()
    assert s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": p.address}).status == 504
    assert time.monotonic() - begun < 5
    assert not d.posts()


def test_refusals_have_the_shape_of_all_errors_and_are_counted(make):
    d = make(answer_decode)
    metrics = free_port()
    s = make.sidecar(d.port, "--max-body-bytes=10", f"--metrics-port={metrics}")
    many = ",".join(["127.0.0.1:1"] * 65)
    for reply, status, kind in ((s.post("/v1/completions", b"x" * 11), 413, "RequestEntityTooLarge"),
                                (s.post("/v1/completions", b"{}", {"x-prefiller-host-port": many}), 400, "BadRequestError")):
        error = json.loads(reply.data)
        assert reply.status == status and (error["object"], error["type"], error["code"]) == ("error", kind, status)
    connection = http.client.HTTPConnection("127.0.0.1", metrics, timeout=10)
    connection.request("GET", "/metrics")
    assert 'llmd_sidecar_requests_total{code="413",path="refused"} 1.0' in connection.getresponse().read().decode()
    assert not d.posts()


def test_a_long_request_id_makes_no_long_log(make):
    p, d = make(answer_prefill), make(answer_decode)
    s = make.sidecar(d.port)
    identity = "i" * 60_000
    assert s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": p.address, "x-request-id": identity}).status == 200
    assert d.posts()[0].header("x-request-id") == [identity]
    s.wait_for("sending request to decoder")
    assert all(len(json.dumps(line)) < 1000 for line in s.lines)


def test_several_loops_serve_alike(make):
    p, d = make(answer_prefill), make(answer_decode)
    s = make.sidecar(d.port, "--loop-threads=4")
    replies = []

    def client():
        for _ in range(10):
            replies.append(s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": p.address}).status)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert replies == [200] * 80
    assert s.stop() == 0


def test_health_ready_and_pass_through(make):
    d = make(answer_decode)
    s = make.sidecar(d.port)
    health = s.get("/health")
    assert (health.status, health.data) == (200, b"")
    assert s.get("/ready").status == 200
    for path in ("/metrics", "/v1/models", "/v1/completions", "/healthz?x=1"):
        assert s.get(path).data == b'{"engine":"decode"}'
        assert d.requests[-1].target == path
    assert s.post("/tokenize", b"anything at all").status == 200
    assert d.posts()[-1].body == b"anything at all"


def test_cached_tokens_in_a_big_json_reply(make):
    filler = b"x" * 300_000
    body = b'{"text":"' + filler + b'","usage":{"n":9007199254740993,"prompt_tokens_details":{"cached_tokens":999}}}'

    async def decode(request, writer):
        return response(body=body)

    p, d = make(answer_prefill), make(decode)
    s = make.sidecar(d.port)
    reply = s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": p.address})
    assert reply.data == body.replace(b"999}", b"32}")
    assert s.post("/v1/completions", {"prompt": "x"}).data == body, "without a prefill leg nothing is rewritten"


def test_sse_usage_is_spliced_and_the_rest_untouched(make):
    events = (b': ping "usage"\n\nevent: x\ndata: {"z":1,"a":1.0}\n\n'
              b'data: {"b":2,"usage":{"prompt_tokens_details":{"cached_tokens":999}},"a":9007199254740993}\n\ndata: [DONE]\n\n')

    async def decode(request, writer):
        if request.method == "GET":
            return response()
        await send_chunked(writer, [events[i:i + 7] for i in range(0, len(events), 7)], "text/event-stream")
        return b""

    p, d = make(answer_prefill), make(decode)
    s = make.sidecar(d.port)
    reply = s.post("/v1/chat/completions", {"stream": True}, {"x-prefiller-host-port": p.address})
    assert reply.headers["Content-Type"] == "text/event-stream"
    assert reply.data == events.replace(b"999", b"32")


def test_sse_events_come_as_they_are_written(make):
    events = TwoEvents()
    p, d = make(answer_prefill), make(events.answer)
    events.check(make.sidecar(d.port), p)


@pytest.mark.parametrize("leg", ["prefill", "decode"])
def test_client_disconnect_reaches_the_leg(make, leg):
    async def hang(request, writer):
        if request.method == "GET":
            return response()
        await asyncio.sleep(60)

    p = make(hang if leg == "prefill" else answer_prefill)
    d = make(hang if leg == "decode" else answer_decode)
    s = make.sidecar(d.port)
    client = socket.create_connection(("127.0.0.1", s.port))
    client.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nx-prefiller-host-port: {p.address}\r\n"
                   "Content-Length: 2\r\n\r\n{}".encode())
    target = p if leg == "prefill" else d
    end = time.monotonic() + 10
    while not target.posts() and time.monotonic() < end:
        time.sleep(0.005)
    client.close()
    assert target.disconnected.wait(5)
    assert leg == "decode" or not d.posts()


def test_cut_decode_stream_looks_cut(make):
    async def decode(request, writer):
        if request.method == "GET":
            return response()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:\r\n")
        await writer.drain()

    d = make(decode)
    s = make.sidecar(d.port)
    with pytest.raises(http.client.IncompleteRead):
        s.post("/v1/completions", {"stream": True})


def test_closed_idle_prefill_connection_is_not_the_clients_problem(make):
    async def once(request, writer):
        writer.write(prefill_reply())
        await writer.drain()
        # Closes the connection after each answer without having said so.

    p, d = make(once), make(answer_decode)
    s = make.sidecar(d.port)
    for _ in range(20):
        assert s.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": p.address}).status == 200


@pytest.mark.parametrize("flags,named", [
    (["--cert-path=/nowhere", "--secure-proxy=false"], "--cert-path"),
    (["--enable-tls=prefiller,nobody"], "'nobody': expected prefiller or decoder"),
    (["--enable-tls=encoder"], "encoder disaggregation"),
    (["--enable-tls=prefiller", "--tls-insecure-skip-verify=decoder"], "--tls-insecure-skip-verify"),
    (["--decoder-tls-insecure-skip-verify"], "--tls-insecure-skip-verify"),
    (["--secure-proxy=false", "--kv-connector=sglang"], "--kv-connector 'sglang'"),
    (["--secure-proxy=false", "--enable-ssrf-protection"], "--enable-ssrf-protection"),
    (["--secure-proxy=false", "--prefill-max-retries=1", "--prefill-retry-backoff=0s"], "--prefill-retry-backoff"),
    (["--secure-proxy=false", "--no-such-flag"], "no-such-flag"),
    (["--secure-proxy=false", "--prefill-failure-policy=maybe"], "relay or local-decode"),
])
def test_bad_flags_end_with_2_and_name_the_flag(flags, named):
    done = subprocess.run([binary("llmd-sidecar"), "--port=0", *flags], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert named in done.stderr + done.stdout


def test_old_single_dash_flags():
    port = free_port()
    process = subprocess.Popen([binary("llmd-sidecar"), "-port", str(port), "-vllm-port=1", "-connector", "nixlv2", "-secure-proxy=false"],
                               stdout=subprocess.PIPE, text=True)
    try:
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert all("deprecated" in line["msg"] for line in lines)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.01)
        else:
            raise AssertionError("never listened")
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_port_in_use_is_named(make):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run([binary("llmd-sidecar"), "--host=127.0.0.1", f"--port={port}", "--secure-proxy=false"],
                              capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
