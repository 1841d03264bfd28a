"""Refusals: the status, the reason and when to come again."""
import contextlib
import threading
import time

import grpc
import pytest

from conftest import Picker, metric
from ext_proc import POST, MetricsEngine, Stream, body_of, config_of, page


@pytest.fixture(scope="module")
def picker(started_module, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("refusals")
    process = started_module(Picker(tmp, [("a", 7001, "decode")], "--max-body-bytes", "1000000", config=config_of()))
    return process.wait_http(process.admin_port, "/readyz")


@pytest.fixture(scope="module")
def channel(picker):
    with grpc.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel:
        yield channel


BAD = {
    "empty": b"", "open-brace": b"{", "no-json": b"nope", "array": b"[1]", "string": b'"text"', "null": b"null",
    "model-number": b'{"model":1,"prompt":"x"}', "model-null": b'{"model":null,"prompt":"x"}', "no-model": b'{"prompt":"x"}',
    "empty-model": b'{"model":"","prompt":"x"}', "trailing": b'{"model":"m","prompt":"x"} trailing',
    "trailing-comma": b'{"model":"m","prompt":"x",}', "bom": b"\xef\xbb\xbf" + body_of(), "nan": b'{"model":"m","prompt":"x","t":NaN}',
    "bad-escape": rb'{"model":"m","prompt":"\q"}', "lone-quote": b'{"model":"m","prompt":"x', "control": b'{"model":"m","prompt":"\x01"}',
    "bad-utf8": b'{"model":"m","prompt":"\xff\xfe"}', "deep-arrays": b"[" * 100_000,
    "deep-objects": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "deep-inside": b'{"model":"m","prompt":"x","a":' + b"[" * 12_000 + b"]" * 12_000 + b"}"}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_body_is_400_and_says_what_is_wrong(picker, channel, name):
    with Stream(picker, channel) as stream:
        refusal = stream.headers().chunks(BAD[name], 40_000).refused()
        assert refusal.status == 400 and refusal.reason is None
        assert refusal.body.startswith("inference error: BadRequest - ") and len(refusal.body) > 40
        assert "retry-after" not in refusal.headers
        assert refusal.headers["content-type"] == "text/plain"
        assert stream.end()[0] == grpc.StatusCode.OK, "a refusal is no failure of the stream"


@pytest.mark.parametrize("path", ["/v1/unknown", "/", "/v1/completions/../x"])
def test_a_path_that_no_parser_takes_is_400(picker, channel, path):
    with Stream(picker, channel) as stream:
        stream.headers([(":method", "POST"), (":path", path)])
        refusal = stream.body(body_of()).refused()
        assert refusal.status == 400 and path in refusal.body


@pytest.mark.parametrize("chunk", [1_000, 400_000, 1_000_001])
def test_a_body_over_the_cap_is_413_before_it_is_whole(picker, channel, chunk):
    with Stream(picker, channel) as stream:
        stream.headers()
        for _ in range(1_000_001 // chunk + 1):
            stream.body(b"x" * chunk, end=False)
        refusal = stream.refused()
        assert refusal.status == 413 and "1000000" in refusal.body
        assert refusal.body.startswith("inference error: PayloadTooLarge - ")


def test_a_body_at_the_cap_passes(picker, channel):
    data = body_of(1_000_000 - len(body_of()))
    assert len(data) == 1_000_000
    with Stream(picker, channel) as stream:
        assert stream.headers().chunks(data, 250_000).routed()[1] == data


def test_a_message_over_grpcs_limit_ends_the_stream(picker, channel):
    with Stream(picker, channel) as stream:
        assert stream.headers().body(b"x" * (5 << 20)).end()[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_declared_length_is_not_believed(picker, channel):
    with Stream(picker, channel) as stream:
        stream.headers(POST + [("content-length", "99999999999999999999")])
        assert stream.body(body_of()).routed()[1] == body_of()


def test_an_empty_pool_is_503_with_and_without_a_body(started, tmp_path):
    picker = started(Picker(tmp_path, [], config=config_of()))
    picker.wait_http(picker.admin_port, "/healthz")
    for body in (True, False):
        with Stream(picker) as stream:
            stream.headers(end=not body)
            if body:
                stream.body(body_of())
            refusal = stream.refused()
            assert (refusal.status, refusal.reason) == (503, "rejected-no-endpoints")
            assert int(refusal.headers["retry-after"]) > 0
            assert refusal.body == "inference error: ServiceUnavailable - no pods available in datastore"
            assert refusal.details == "rejected-no-endpoints"


def test_no_endpoint_of_the_profiles_role_is_503(started, tmp_path):
    picker = started(Picker(tmp_path, [("p", 7003, "prefill")], config=config_of()))
    picker.wait_http(picker.admin_port, "/readyz")
    with Stream(picker) as stream:
        refusal = stream.headers().body(body_of()).refused()
        assert (refusal.status, refusal.reason) == (503, "rejected-no-endpoints")


@pytest.fixture
def full_engine():
    engine = MetricsEngine(waiting=500, kv=0.99)
    yield engine
    engine.close()


def wait_until_read(engine):
    deadline = time.monotonic() + 10
    while len(engine.requests) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)


def flow_picker(started, tmp, engine, rest, *args, extra=""):
    picker = started(Picker(tmp, [("a", engine.port, "decode")], *args,
                            config=config_of(gates="flowControl", rest=rest)))
    picker.set_endpoints([("a", engine.port, "decode")], extra)
    picker.wait_http(picker.admin_port, "/readyz")
    wait_until_read(engine)
    return picker


def test_a_request_that_waits_too_long_is_429(started, tmp_path, full_engine):
    picker = flow_picker(started, tmp_path, full_engine, "flowControl: {defaultRequestTTL: 300ms}")
    with Stream(picker) as stream:
        refusal = stream.headers().body(body_of()).refused()
        assert (refusal.status, refusal.reason) == (429, "rejected-ttl-expired")
        assert int(refusal.headers["retry-after"]) > 0
        assert refusal.body.startswith("inference error: ResourceExhausted - ")


def wait_for_queue(picker, size):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(AssertionError):
            if metric(f"{picker.admin}/metrics", "llm_d_epp_flow_control_queue_size") == size:
                return
        time.sleep(0.02)
    raise AssertionError(f"the queue never had {size} requests")


def test_a_full_queue_is_429(started, tmp_path, full_engine):
    picker = flow_picker(started, tmp_path, full_engine, "flowControl: {maxRequests: 1, defaultRequestTTL: 30s}")
    with Stream(picker) as waiting, Stream(picker) as late:
        waiting.headers().body(body_of())
        wait_for_queue(picker, 1)
        refusal = late.headers().body(body_of()).refused()
        assert (refusal.status, refusal.reason) == (429, "rejected-saturated")
        assert int(refusal.headers["retry-after"]) > 0


def test_a_sheddable_request_at_saturation_is_429(started, tmp_path, full_engine):
    picker = started(Picker(tmp_path, [], config=config_of()))
    picker.set_endpoints([("a", full_engine.port, "decode")], "objectives: [{name: batch, priority: -1}]\n")
    picker.wait_http(picker.admin_port, "/readyz")
    wait_until_read(full_engine)
    with Stream(picker) as stream:
        stream.headers(POST + [("x-llm-d-inference-objective", "batch")])
        refusal = stream.body(body_of()).refused()
        assert (refusal.status, refusal.reason) == (429, "rejected-saturated")
    with Stream(picker) as stream:
        stream.headers().body(body_of()).routed()


def test_a_queued_request_goes_once_there_is_room(started, tmp_path, full_engine):
    picker = flow_picker(started, tmp_path, full_engine, "flowControl: {defaultRequestTTL: 30s}")
    with Stream(picker) as stream:
        stream.headers().body(body_of())
        threading.Timer(0.3, lambda: setattr(full_engine, "page", page())).start()
        assert stream.routed()[0].destination == full_engine.address


def test_a_queued_request_whose_peer_leaves_is_forgotten(started, tmp_path, full_engine):
    picker = flow_picker(started, tmp_path, full_engine, "flowControl: {defaultRequestTTL: 60s}")
    for leave in (Stream.half_close, lambda stream: stream.answers.cancel()):
        stream = Stream(picker)
        stream.headers().body(body_of())
        wait_for_queue(picker, 1)
        leave(stream)
        wait_for_queue(picker, 0)


def test_more_streams_than_allowed_are_429(started, tmp_path):
    picker = started(Picker(tmp_path, [("a", 7001, "decode")], "--max-streams", "2", config=config_of()))
    picker.wait_http(picker.admin_port, "/readyz")
    with Stream(picker) as one, Stream(picker) as two:
        for stream in (one, two):
            stream.headers().body(body_of()).routed()
        with Stream(picker) as three:
            refusal = three.headers().body(body_of()).refused()
            assert (refusal.status, refusal.reason) == (429, "rejected-saturated")
            assert three.end()[0] == grpc.StatusCode.OK
    for _ in range(100):
        with Stream(picker) as again:
            again.headers().body(body_of())
            if again.next().HasField("request_headers"):
                return
    raise AssertionError("no stream is welcome after the others have left")
