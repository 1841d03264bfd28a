"""Flow control of the real llmd-epp, and eviction in the gateway that picks in process or asks llmd-epp."""
import asyncio
import json
import threading
import time

import pytest
import requests

from conftest import Gateway, Picker, endpoints_yaml, metric
from ext_proc import POST, Stream, body_of, config_of
from fake_engine import FakeEngine, response

OBJECTIVES = "objectives:\n- {name: chat, priority: 5}\n- {name: batch, priority: -1}\n"
FLOW = """
flowControl:
  saturationDetector: {{pluginRef: concurrency-detector}}
  defaultRequestTTL: {ttl}
  maxRequests: {max_requests}
  enableEviction: {evict}
"""


def flow_config(endpoints, ttl="30s", max_requests=100, evict="false"):
    """One endpoint takes one request at a time."""
    make = config_of(("queue-scorer",), gates="flowControl", rest=FLOW.format(ttl=ttl, max_requests=max_requests, evict=evict))
    detector = "- {type: concurrency-detector, parameters: {maxConcurrency: 1}}\n"
    return make(endpoints).replace("- type: file-discovery", detector + "- type: file-discovery")


@pytest.fixture
def picker(started, tmp_path):
    def start(**kwargs):
        process = Picker(tmp_path, [("a", 7001, "decode")], config=lambda endpoints: flow_config(endpoints, **kwargs))
        process.set_endpoints([("a", 7001, "decode")], OBJECTIVES)
        return started(process).wait_http(process.admin_port, "/readyz")
    return start


class Client:
    """A request whose answers are read in the background."""

    def __init__(self, picker, objective=None, headers=()):
        self.stream = Stream(picker)
        lines = list(POST) + list(headers)
        if objective:
            lines.append(("x-llm-d-inference-objective", objective))
        self.stream.headers(lines).body(body_of())
        self.answer, self.error = None, None
        self.arrived = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            self.answer = self.stream.next()
        except Exception as error:
            self.error = error
        self.arrived.set()

    @property
    def kind(self):
        assert self.arrived.wait(10), "no answer"
        assert self.answer is not None, self.error
        return self.answer.WhichOneof("response")

    @property
    def refusal(self):
        assert self.kind == "immediate_response", self.answer
        immediate = self.answer.immediate_response
        return immediate.status.code, {o.header.key: o.header.raw_value.decode() for o in immediate.headers.set_headers}

    def finish(self):
        """The model server's answer, to its end; what the picker set on its headers."""
        assert self.kind == "request_headers"
        self.stream.next()  # the request's body
        lines, _, _ = self.stream.answered()
        self.stream.response_body(b'{"usage":{"prompt_tokens":3,"completion_tokens":2}}', True)
        self.stream.next()
        self.stream.half_close()
        return lines

    def leave(self):
        self.stream.answers.cancel()
        self.stream.half_close()


def queued(picker, count):
    """Waits until so many requests are in the queue."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if metric(f"{picker.admin}/metrics", "llm_d_epp_flow_control_queue_size") == count:
                return
        except AssertionError:
            pass  # the series comes with the first request
        time.sleep(0.02)
    raise AssertionError(f"the queue never held {count}")


def test_requests_wait_for_room_by_priority_and_say_so(picker):
    epp = picker()
    first = Client(epp)
    assert first.kind == "request_headers"
    low = Client(epp)
    queued(epp, 1)
    high = Client(epp, "chat")
    queued(epp, 2)
    assert not low.arrived.is_set() and not high.arrived.is_set()
    lines = first.finish()
    assert "x-llm-d-queue-time-ms" not in lines
    assert high.kind == "request_headers" and not low.arrived.is_set()
    lines = high.finish()
    assert int(lines["x-llm-d-queue-time-ms"]) >= 0 and lines["x-llm-d-queue-reason"] == "saturated"
    low.finish()
    page = f"{epp.admin}/metrics"
    assert metric(page, "llm_d_epp_flow_control_requests_total", outcome="Dispatched", priority="5") == 1
    assert metric(page, "llm_d_epp_flow_control_request_queue_duration_seconds_count", outcome="Dispatched") == 3
    assert metric(page, "llm_d_epp_flow_control_pool_saturation", stage="effective") >= 0


def test_a_full_queue_is_429_with_retry_after_and_reason(picker):
    epp = picker(max_requests=1)
    first = Client(epp)
    assert first.kind == "request_headers"
    waiting = Client(epp)
    queued(epp, 1)
    code, lines = Client(epp).refusal
    assert code == 429 and lines["x-llm-d-request-dropped-reason"] == "rejected-saturated"
    assert 1 <= int(lines["retry-after"]) <= 60
    assert not waiting.arrived.is_set()


def test_the_ttl_of_the_configuration_and_the_clients_shorter_one(picker):
    epp = picker(ttl="2s")
    first = Client(epp)
    assert first.kind == "request_headers"
    started = time.monotonic()
    long = Client(epp, headers=[("x-llm-d-inference-ttl", "1h")])
    short = Client(epp, headers=[("x-llm-d-inference-ttl", "200ms")])
    code, lines = short.refusal
    assert code == 429 and lines["x-llm-d-request-dropped-reason"] == "rejected-ttl-expired"
    assert int(lines["x-llm-d-queue-time-ms"]) >= 200 and "retry-after" in lines
    assert not long.arrived.is_set()
    assert long.refusal[0] == 429
    assert 1.9 < time.monotonic() - started < 8


def test_a_ttl_that_is_no_duration_is_400(picker):
    assert Client(picker(), headers=[("x-llm-d-inference-ttl", "soon")]).refusal[0] == 400


def test_a_client_that_leaves_the_queue_is_forgotten(picker):
    epp = picker()
    first = Client(epp)
    assert first.kind == "request_headers"
    gone, last = Client(epp), Client(epp)
    queued(epp, 2)
    gone.leave()
    queued(epp, 1)
    first.finish()
    assert last.kind == "request_headers"
    assert metric(f"{epp.admin}/metrics", "llm_d_epp_flow_control_requests_total", outcome="EvictedContextCancelled") == 1


def test_a_sheddable_answer_is_broken_off_for_a_higher_band(picker):
    epp = picker(evict="true")
    batch = Client(epp, "batch")
    assert batch.kind == "request_headers"
    batch.stream.next()
    batch.stream.answered(((":status", "200"), ("content-type", "text/event-stream")))
    batch.stream.response_body(b"data: {}\n\n")
    batch.stream.next()
    chat = Client(epp, "chat")
    refusal = batch.stream.refused()
    assert (refusal.status, refusal.body, refusal.reason) == (429, "request evicted by flow control", "evicted-priority")
    assert "retry-after" in refusal.headers
    assert chat.kind == "request_headers"
    chat.finish()
    page = f"{epp.admin}/metrics"
    assert metric(page, "llm_d_epp_flow_control_revocations_issued_total", priority="5") == 1
    assert metric(page, "llm_d_epp_flow_control_revocations_total", outcome="confirmed") == 1


@pytest.mark.parametrize("asks", [False, True], ids=["in-process", "asks-a-picker"])
def test_the_gateway_ends_an_evicted_stream_with_an_error_event(started, tmp_path, asks):
    async def answer(request, writer):
        if request.method == "GET":
            return response(200, b"", "text/plain")
        if b"chat" in request.body:
            return response(200, b'{"choices":[]}')
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"9\r\ndata: 1\n\n\r\n")
        await writer.drain()
        await asyncio.sleep(60)
        return None
    engine = FakeEngine(answer)
    try:
        members = [("a", engine.port, "decode")]
        if asks:
            epp = Picker(tmp_path, members, config=lambda endpoints: flow_config(endpoints, evict="true"))
            epp.set_endpoints(members, OBJECTIVES)
            started(epp).wait_http(epp.admin_port, "/readyz")
            gateway = started(Gateway("--epp", f"127.0.0.1:{epp.grpc_port}"))
        else:
            endpoints = tmp_path / "endpoints.yaml"
            endpoints.write_text(endpoints_yaml(members) + OBJECTIVES)
            config = tmp_path / "gateway.yaml"
            config.write_text(flow_config(endpoints, evict="true"))
            gateway = started(Gateway("--config-file", str(config)))
        gateway.wait_http(gateway.port, "/ready")
        url = f"{gateway.url}/v1/completions"
        stream = requests.post(url, json={"model": "m", "prompt": "batch", "stream": True}, stream=True, timeout=30,
                               headers={"x-llm-d-inference-objective": "batch"})
        lines = stream.iter_lines()
        assert next(lines) == b"data: 1"
        chat = requests.post(url, json={"model": "m", "prompt": "chat"}, timeout=30,
                             headers={"x-llm-d-inference-objective": "chat"})
        assert chat.status_code == 200
        rest = [line for line in lines if line]
        error = json.loads(rest[0].removeprefix(b"data: "))["error"]
        assert error["code"] == 429 and error["message"] == "request evicted by flow control"
        assert engine.disconnected.wait(10), "the engine must see the abort"
    finally:
        engine.close()
