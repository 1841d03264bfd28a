"""The wire's important cases again through the real Envoy, for each kind of cluster: ORIGINAL_DST by metadata and by header, and a
cluster that knows its hosts. Engines are scripted."""
import asyncio
import json
import socket
import time

import pytest
import requests

from conftest import Picker, metric
from envoy_process import Envoy
from ext_proc import config_of, page
from fake_engine import FakeEngine, response, send_chunked

SUBSET_FROM_HEADER = """          http_filters:
          - name: envoy.filters.http.header_to_metadata
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config
              request_rules:
              - header: x-test-subset
                on_header_present: {metadata_namespace: envoy.lb.subset_hint, key: x-gateway-destination-endpoint-subset}
"""
FILTERS = ("          http_filters:\n", SUBSET_FROM_HEADER)
BY_METADATA = "original_dst_lb_config: {metadata_key: {key: envoy.lb, path: [{key: x-gateway-destination-endpoint}]}}"
BY_HEADER = "original_dst_lb_config: {use_http_header: true, http_header_name: x-gateway-destination-endpoint}"
REMOVE = "                request_headers_to_remove: [x-gateway-destination-endpoint]\n"
KINDS = ["metadata", "header", "hosts"]


class Engine(FakeEngine):
    """Answers as the request's x-test says."""

    def __init__(self):
        self.page = page()
        super().__init__(self._answer)

    async def _answer(self, request, writer):
        if request.target == "/metrics":
            return response(200, self.page, "text/plain")
        if request.method == "GET":
            return response(200, b'{"data":[]}')
        asked = (request.header("x-test") or ["plain"])[0]
        if asked == "stream":
            return await send_chunked(writer, [b"data: %d\n\n" % i for i in range(5)] + [b"data: [DONE]\n\n"], "text/event-stream")
        if asked == "endless":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"9\r\ndata: 1\n\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        if asked.isdigit():
            return response(int(asked), b'{"error":"x"}', headers=[("Retry-After", "7")])
        body = json.dumps({"model": json.loads(request.body)["model"], "size": len(request.body)}).encode()
        return response(200, body, headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])


class Stack:
    def __init__(self, envoy, picker, engines, kind):
        self.envoy, self.picker, self.engines, self.kind = envoy, picker, engines, kind

    def post(self, body=None, test="plain", headers=None, **kwargs):
        data = json.dumps({"model": "m", "prompt": "x"}).encode() if body is None else body
        return requests.post(f"{self.envoy.url}/v1/completions", data=data, timeout=30,
                             headers={"content-type": "application/json", "x-test": test, **(headers or {})}, **kwargs)



def start(started, tmp, kind, engines, *args, plugins=("queue-scorer", "max-score-picker"), names=1, edits=(), endpoints=None):
    config = config_of(plugins, parameters={"max-score-picker": f"{{maxNumOfEndpoints: {names}}}"})
    rows = endpoints or [(f"e{i}", e.port, "decode") for i, e in enumerate(engines)]
    picker = started(Picker(tmp, rows, "--max-body-bytes", "6000000", *args, config=config))
    picker.wait_http(picker.admin_port, "/readyz")
    edits = [FILTERS, *edits]
    if kind == "header":
        edits += [(BY_METADATA, BY_HEADER), (REMOVE, "")]
    if kind == "hosts":
        edits += [(f"port_value: {8200 + i}", f"port_value: {row[1]}") for i, row in enumerate(rows[:2])]
    envoy = started(Envoy(tmp, picker, "envoy-fallback.yaml" if kind == "hosts" else "envoy.yaml", edits))
    envoy.wait_http(envoy.port, "/v1/models")
    return Stack(envoy, picker, engines, kind)


@pytest.fixture(scope="module", params=KINDS)
def stack(request, started_module, tmp_path_factory):
    engines = [Engine(), Engine()]
    yield start(started_module, tmp_path_factory.mktemp("clusters"), request.param, engines)
    for engine in engines:
        engine.close()


def requests_of(stack):
    return sum(len(e.posts()) for e in stack.engines)


def test_plain_answers_arrive(stack):
    reply = stack.post()
    assert reply.status_code == 200 and reply.json()["model"] == "m"


def test_streams_arrive_chunk_by_chunk_and_whole(stack):
    with stack.post(test="stream", stream=True) as reply:
        assert reply.headers["content-type"] == "text/event-stream"
        assert [line for line in reply.iter_lines() if line] == [b"data: %d" % i for i in range(5)] + [b"data: [DONE]"]


def test_an_answer_to_get_comes_from_an_engine(stack):
    assert requests.get(f"{stack.envoy.url}/v1/models", timeout=10).json() == {"data": []}


def test_bad_json_is_400_and_reaches_no_engine(stack):
    before = requests_of(stack)
    reply = stack.post(b"{nope")
    assert reply.status_code == 400 and reply.text.startswith("inference error: BadRequest - ")
    assert requests_of(stack) == before


def test_a_body_over_the_cap_is_413(stack):
    assert stack.post(b"x" * 6_500_000).status_code == 413


@pytest.mark.parametrize("size", [60_000, 1_000_000, 5_000_000])
def test_a_large_body_arrives_byte_for_byte(stack, size):
    body = json.dumps({"model": "m", "prompt": "Grüße 你好 " * (size // 20)}, ensure_ascii=False).encode()
    assert stack.post(body).json()["size"] == len(body)
    assert body in [r.body for e in stack.engines for r in e.posts()]


def test_repeated_headers_survive_on_both_sides(stack):
    with socket.create_connection(("127.0.0.1", stack.envoy.port), timeout=10) as s:
        body = b'{"model":"m","prompt":"repeated"}'
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Mine: 1\r\nX-Mine: 2\r\n"
                  b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        reply = b""
        while piece := s.recv(65536):
            reply += piece
    assert reply.lower().count(b"set-cookie:") == 2
    sent = next(r for e in stack.engines for r in e.posts() if r.body == body)
    assert ",".join(sent.header("x-mine")).replace(" ", "") == "1,2"


def test_control_headers_of_the_client_do_not_reach_the_engine(stack):
    stack.post(b'{"model":"m","prompt":"control"}', headers={
        "x-prefiller-host-port": "evil:1", "x-llm-d-inference-fairness-id": "f", "x-slo-ttft-ms": "5",
        "x-gateway-destination-endpoint": "10.9.9.9:1"})
    sent = next(r for e in stack.engines for r in e.posts() if b"control" in r.body)
    for name in ("x-prefiller-host-port", "x-llm-d-inference-fairness-id", "x-slo-ttft-ms"):
        assert not sent.header(name)
    assert "10.9.9.9:1" not in sent.header("x-gateway-destination-endpoint")
    assert len(sent.header("traceparent")) == 1 and len(sent.header("x-request-id")) == 1


def test_a_renamed_model_goes_there_and_comes_back(stack):
    body = b'{"z":1.0,"model":"food","prompt":"x"}'
    reply = stack.post(body, headers={"x-llm-d-model-name-rewrite": "food-review-v2"})
    assert reply.json()["model"] == "food", "restored, and the length that was the engine's is gone"
    assert b'{"z":1.0,"model":"food-review-v2","prompt":"x"}' in [r.body for e in stack.engines for r in e.posts()]


@pytest.mark.parametrize("status", ["404", "429", "503"])
def test_an_engines_error_is_relayed(stack, status):
    reply = stack.post(test=status)
    assert (reply.status_code, reply.headers["retry-after"]) == (int(status), "7")
    assert metric(f"{stack.picker.admin}/metrics", "llm_d_epp_request_error_total", error_code=status) >= 1


def test_a_subset_is_kept_to(stack):
    for engine in stack.engines * 2:
        before = len(engine.posts())
        assert stack.post(headers={"x-test-subset": engine.address}).status_code == 200
        assert len(engine.posts()) == before + 1


def test_a_subset_without_a_match_is_503(stack):
    reply = stack.post(headers={"x-test-subset": "127.0.0.1:1"})
    assert (reply.status_code, reply.headers["x-llm-d-request-dropped-reason"]) == (503, "rejected-no-endpoints")
    assert int(reply.headers["retry-after"]) > 0


def test_a_client_that_leaves_ends_the_engines_stream_and_the_count(stack):
    body = b'{"model":"leaver","prompt":"x","stream":true}'
    with stack.post(body, test="endless", stream=True) as reply:
        chunks = reply.iter_content(1)
        next(chunks)
        assert metric(f"{stack.picker.admin}/metrics", "llm_d_epp_request_running", model_name="leaver") == 1
    deadline = time.monotonic() + 10
    while not any(e.disconnected.is_set() for e in stack.engines) or \
            metric(f"{stack.picker.admin}/metrics", "llm_d_epp_request_running", model_name="leaver") != 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)


# What needs a configuration of its own.
@pytest.fixture
def engines():
    made = [Engine(), Engine()]
    yield made
    for engine in made:
        engine.close()


def dead_port():
    """Bound, but nobody listens: connections are refused."""
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    return s


def test_a_dead_first_endpoint_is_retried_at_the_second(started, tmp_path, engines):
    """Only where the cluster takes the picker's list. Without scorers the order is random, so some requests meet the dead one."""
    with dead_port() as dead:
        rows = [("dead", dead.getsockname()[1], "decode"), ("alive", engines[0].port, "decode")]
        stack = start(started, tmp_path, "hosts", engines[:1], plugins=("max-score-picker",), names=2, endpoints=rows)
        first = set()
        for i in range(12):
            assert stack.post(headers={"x-request-id": f"retry-{i}"}).status_code == 200
            trace = stack.picker.decision(f"retry-{i}")
            first.add(trace["addresses"][trace["primary"]])
        assert len(first) == 2, "the dead endpoint was never the first choice"


def sent_to_picker(stack):
    """By Envoy's own count."""
    lines = requests.get(f"{stack.envoy.admin}/stats?filter=ext_proc.stream_msgs_sent", timeout=5).text.split()
    return int(lines[-1])


def read_chunks(stack, body, count):
    """Messages that Envoy sent to the picker for an answer of which `count` chunks were read; what it counts meanwhile."""
    def running():
        return metric(f"{stack.picker.admin}/metrics", "llm_d_epp_request_running", model_name=body["model"])
    before = sent_to_picker(stack)
    with stack.post(json.dumps(body).encode(), test="endless", stream=True) as reply:
        chunks = reply.iter_content(9)
        for _ in range(count):
            next(chunks)
        sent, counted = sent_to_picker(stack) - before, running()
    deadline = time.monotonic() + 10
    while running() != 0:
        assert time.monotonic() < deadline, "the end was not noticed"
        time.sleep(0.02)
    return sent, counted


@pytest.mark.parametrize("kind", KINDS)
def test_the_picker_sees_no_token_when_the_proxy_keeps_the_bodies(started, tmp_path, engines, kind):
    stack = start(started, tmp_path, kind, engines, "--token-metrics=false",
                  edits=[("response_body_mode: FULL_DUPLEX_STREAMED", "response_body_mode: NONE")])
    sent, counted = read_chunks(stack, {"model": "quiet", "prompt": "x", "stream": True}, 100)
    assert sent <= 4, "request_headers, request_body once or twice, response_headers"
    assert counted == 1, "the request lasts as long as its answer"
    assert stack.post(test="stream").content.endswith(b"data: [DONE]\n\n")


def test_the_picker_sees_every_chunk_otherwise(started, tmp_path, engines):
    stack = start(started, tmp_path, "metadata", engines)
    sent, counted = read_chunks(stack, {"model": "loud", "prompt": "x", "stream": True}, 100)
    assert sent >= 50 and counted == 1


def test_an_override_is_ignored_by_this_envoy_but_does_no_harm(started, tmp_path, engines):
    """When this fails, Envoy heeds mode_override in full duplex too: the documentation can say so."""
    stack = start(started, tmp_path, "metadata", engines, "--token-metrics=false")
    sent, counted = read_chunks(stack, {"model": "asked", "prompt": "x", "stream": True}, 100)
    assert sent >= 50 and counted == 1


@pytest.mark.parametrize("test", ["plain", "stream"])
def test_a_streamed_response_mode_works_too(started, tmp_path, engines, test):
    stack = start(started, tmp_path, "metadata", engines,
                  edits=[("response_body_mode: FULL_DUPLEX_STREAMED", "response_body_mode: STREAMED")])
    reply = stack.post(b'{"model":"food","prompt":"x"}', test=test, headers={"x-llm-d-model-name-rewrite": "food-review-v2"})
    assert reply.status_code == 200
    assert reply.json()["model"] == "food" if test == "plain" else reply.content.endswith(b"data: [DONE]\n\n")
