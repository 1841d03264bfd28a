"""llmd-gateway over real engines: what clients see when engines die, refuse or are gone."""
import json
import socket
import threading
import time

import pytest
import requests

from conftest import PROMPTS, Engine, Gateway, complete, endpoints_yaml, free_port, kv_pool, metric, picker_config


def gateway_over(started, tmp_path, endpoints, *args):
    endpoints_path = tmp_path / "endpoints.yaml"
    endpoints_path.write_text(endpoints_yaml(endpoints))
    config = tmp_path / "gateway.yaml"
    config.write_text(picker_config(endpoints_path, disaggregate=False))
    gateway = started(Gateway("--config-file", str(config), *args))
    gateway.wait_http(gateway.port, "/ready")
    return gateway


@pytest.fixture(scope="module")
def engine(started_module):
    engine = started_module(Engine("decode-0", *kv_pool(1440)))
    engine.wait_http(engine.port, "/health")
    return engine


def test_a_dead_endpoint_is_passed_over_before_the_first_byte(started, tmp_path, engine):
    gateway = gateway_over(started, tmp_path, [("dead", free_port(), "decode"), ("alive", engine.port, "decode")])
    for _ in range(12):
        complete(gateway.url, "Hello", 2)


def test_all_engines_down_is_503_with_an_error_object_and_recovers(started, tmp_path):
    port = free_port()
    gateway = gateway_over(started, tmp_path, [("late", port, "decode")])
    reply = requests.post(f"{gateway.url}/v1/completions", json={"model": "smol", "prompt": "x"}, timeout=30)
    assert reply.status_code == 503
    assert reply.json()["error"]["message"]
    server = CutServer(port, plain=True)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            reply = requests.post(f"{gateway.url}/v1/completions", json={"model": "smol", "prompt": "x"}, timeout=30)
            if reply.status_code == 200:
                break
            time.sleep(0.2)
        assert reply.status_code == 200
    finally:
        server.close()


class CutServer:
    """An engine scripted to break off its stream (a real one cannot be killed at a chosen byte)."""

    def __init__(self, port, plain=False):
        self.socket = socket.create_server(("127.0.0.1", port))
        self.plain = plain
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client:
            data = b""
            while b"\r\n\r\n" not in data:
                piece = client.recv(65536)
                if not piece:
                    return
                data += piece
            if self.plain or data.startswith(b"GET"):
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
                return
            event = b'data: {"choices":[{"text":"half"}]}\n\n'
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                           + b"%x\r\n%s\r\n" % (len(event), event))

    def close(self):
        self.socket.close()


def test_an_engine_that_dies_mid_stream_gives_an_error_event_and_no_done(started, tmp_path):
    port = free_port()
    server = CutServer(port)
    try:
        gateway = gateway_over(started, tmp_path, [("cut", port, "decode")])
        with requests.post(f"{gateway.url}/v1/completions", stream=True, timeout=30,
                           json={"model": "smol", "prompt": "x", "stream": True}) as reply:
            events = [line for line in reply.iter_lines() if line.startswith(b"data: ")]
        assert json.loads(events[0][6:])["choices"][0]["text"] == "half"
        assert json.loads(events[-1][6:])["error"]["code"] == 502
        assert b"data: [DONE]" not in events
    finally:
        server.close()


def test_client_routing_headers_do_not_steer(started, tmp_path, engine):
    gateway = gateway_over(started, tmp_path, [("alive", engine.port, "decode")])
    complete(gateway.url, "Hello", 2, headers={"x-gateway-destination-endpoint": "127.0.0.1:1",
                                               "x-prefiller-host-port": "127.0.0.1:1"})


def test_errors_are_openai_objects(started, tmp_path, engine):
    gateway = gateway_over(started, tmp_path, [("alive", engine.port, "decode")])
    unknown = requests.get(f"{gateway.url}/nowhere", timeout=5)
    assert unknown.status_code == 404 and unknown.json()["error"]["code"] == "unknown_path"
    bad = requests.post(f"{gateway.url}/v1/completions", data=b"[1]", timeout=5)
    assert bad.status_code == 400 and bad.json()["error"]["message"]
    model = requests.post(f"{gateway.url}/v1/completions", json={"model": "nobody", "prompt": "x"}, timeout=5)
    assert model.status_code == 404


def test_a_client_that_leaves_frees_the_engine(started, tmp_path, engine):
    gateway = gateway_over(started, tmp_path, [("alive", engine.port, "decode")])
    body = {"model": "smol", "prompt": PROMPTS["PROMPT_4"], "max_tokens": 1000, "ignore_eos": True, "stream": True}
    with requests.post(f"{gateway.url}/v1/completions", json=body, stream=True, timeout=60) as reply:
        next(reply.iter_lines())
    deadline = time.monotonic() + 5
    while metric(f"{engine.url}/metrics", "vllm:num_requests_running") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert metric(f"{engine.url}/metrics", "vllm:num_requests_running") == 0


def test_drain_lets_a_stream_finish(started, tmp_path, engine):
    gateway = gateway_over(started, tmp_path, [("alive", engine.port, "decode")])
    with requests.post(f"{gateway.url}/v1/completions", stream=True, timeout=60,
                       json={"model": "smol", "prompt": "Once", "max_tokens": 64, "ignore_eos": True, "stream": True}) as reply:
        lines = reply.iter_lines()
        next(lines)
        gateway.popen.terminate()
        assert b"data: [DONE]" in list(lines)
    assert gateway.popen.wait(20) == 0
