"""Responses: bytes pass as they come, the client's model name comes back, and each is counted once."""
import gzip
import itertools
import json
import time

import grpc
import pytest
import requests

from conftest import Picker, metric
from ext_proc import FULL_DUPLEX, NONE, POST, STREAMED, Stream, body_of, config_of

SSE = ((":status", "200"), ("content-type", "text/event-stream"))
JSON = ((":status", "200"), ("content-type", "application/json"))
RENAMED = [("x-llm-d-model-name-rewrite", "v2")]
MODELS = itertools.count()


@pytest.fixture(scope="module")
def picker(started_module, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("responses")
    process = started_module(Picker(tmp, [("a", 7001, "decode"), ("b", 7002, "decode")],
                                    config=config_of(("active-request-scorer",))))
    process.wait_http(process.admin_port, "/readyz")
    return process


@pytest.fixture(scope="module")
def channel(picker):
    with grpc.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel:
        yield channel


@pytest.fixture
def model():
    """A name of its own for each test, so that its series stand alone."""
    return f"model-{next(MODELS)}"


class Routed(Stream):
    def __init__(self, picker, channel, model="m", headers=(), protocol=None, **extra):
        super().__init__(picker, channel)
        self.protocol = protocol
        self.headers(POST + list(headers)).body(json.dumps({"model": model, "prompt": "x", **extra}).encode())
        self.head, self.sent = self.routed()


def count(picker, name, wait=True, **labels):
    """A series' value; the picker records the end of a stream just after it answered."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return metric(f"{picker.admin}/metrics", "llm_d_epp_" + name, **labels)
        except AssertionError:
            if not wait or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def settled(picker, name, value, **labels):
    deadline = time.monotonic() + 5
    while count(picker, name, **labels) != value and time.monotonic() < deadline:
        time.sleep(0.02)
    return count(picker, name, **labels) == value


STREAM = (b'data: {"id":"1","model":"m","choices":[{"delta":{"content":"Gr\xc3\xbc\xc3\x9fe"}}]}\n\n'
          b'data: {"id":"1","model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,'
          b'"prompt_tokens_details":{"cached_tokens":4}}}\n\ndata: [DONE]\n\n')
PLAIN = json.dumps({"model": "m", "choices": [{"text": "hello"}], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}).encode()


@pytest.mark.parametrize("size", [1, 2, 7, 50, 10_000])
@pytest.mark.parametrize("lines,data", [(SSE, STREAM), (JSON, PLAIN)], ids=["stream", "plain"])
def test_bytes_pass_untouched_in_any_chunking(picker, channel, lines, data, size):
    with Routed(picker, channel) as stream:
        stream.answered(lines)
        assert stream.passed(data, size) == data


@pytest.mark.parametrize("size", [62_000, 62_001, 400_000, 3_000_000])
def test_large_chunks_come_back_in_pieces(picker, channel, size):
    data = bytes(range(256)) * (size // 256 + 1)
    with Routed(picker, channel) as stream:
        stream.answered()
        assert stream.passed(data[:size], 1_000_000) == data[:size]


def test_every_chunk_is_answered_as_it_comes(picker, channel):
    with Routed(picker, channel, stream=True) as stream:
        stream.answered(SSE)
        for piece in (b"data: 1\n\n", b"", b"data: 2\n\n"):
            stream.response_body(piece)
            answer = stream.next().response_body.response.body_mutation.streamed_response
            assert (answer.body, answer.end_of_stream) == (piece, False)


def test_the_end_of_stream_is_said_once(picker, channel):
    with Routed(picker, channel) as stream:
        stream.answered()
        stream.response_body(b"x" * 130_000, True)
        ends = [stream.next().response_body.response.body_mutation.streamed_response.end_of_stream for _ in range(3)]
        assert ends == [False, False, True]


def test_trailers_end_a_response(picker, channel, model):
    with Routed(picker, channel, model) as stream:
        stream.answered()
        assert stream.passed(b"x", 1, end=False) == b"x"
        stream.response_trailers()
        assert stream.next().HasField("response_trailers")
    assert settled(picker, "request_running", 0, model_name=model)


def test_headers_alone_end_a_response(picker, channel, model):
    with Routed(picker, channel, model) as stream:
        stream.answered(((":status", "204"),), end=True)
        assert settled(picker, "request_running", 0, model_name=model)


@pytest.mark.parametrize("lines", [SSE, JSON, ((":status", "404"),), ((":status", "200"), ("set-cookie", "a"), ("set-cookie", "b"))],
                         ids=["stream", "plain", "error", "repeated"])
def test_response_headers_are_only_added_to(picker, channel, lines):
    with Routed(picker, channel) as stream:
        added, removed, answer = stream.answered(lines)
        assert added["x-went-into-resp-headers"] == "true"
        assert not set(added) & {name for name, _ in lines}, "repeated lines survive only when they are left alone"
        assert removed == []
        mutation = answer.response_headers.response.header_mutation
        assert [o.header.key for o in mutation.set_headers].count("x-went-into-resp-headers") == 1


@pytest.mark.parametrize("status", ["400", "404", "429", "500", "503"])
def test_the_status_is_read_and_errors_are_counted(picker, channel, model, status):
    with Routed(picker, channel, model) as stream:
        stream.answered(((":status", status),), end=True)
    assert count(picker, "request_error_total", model_name=model, error_code=status) == 1


def test_a_success_is_no_error(picker, channel, model):
    with Routed(picker, channel, model) as stream:
        stream.answered(JSON, end=True)
    with pytest.raises(AssertionError):
        count(picker, "request_error_total", wait=False, model_name=model)


@pytest.mark.parametrize("size", range(1, 40, 3))
def test_the_clients_model_name_comes_back_wherever_chunks_break(picker, channel, size):
    data = (b'data: {"id":1,"model":"v2","x":"v2","text":"\\"model\\":\\"v2\\""}\n\n'
            b'data: {"id":1,"model": "v2","y":{"model":"v20"}}\n\ndata: [DONE]\n\n')
    with Routed(picker, channel, "food", RENAMED) as stream:
        assert b'"model": "v2"' in stream.sent
        stream.answered(SSE)
        assert stream.passed(data, size) == data.replace(b'"model":"v2"', b'"model":"food"').replace(
            b'"model": "v2"', b'"model": "food"')


@pytest.mark.parametrize("tail", [b'{"model":"v', b'{"model"', b'"', b'{"model": '])
def test_what_was_held_back_is_sent_at_the_end(picker, channel, tail):
    for end in ("chunk", "empty", "trailers"):
        with Routed(picker, channel, "food", RENAMED) as stream:
            stream.answered(JSON)
            if end == "chunk":
                assert stream.passed(tail, 100) == tail
                continue
            out = stream.passed(tail, 100, end=False)
            if end == "empty":
                assert out + stream.passed(b"", 1) == tail
                continue
            stream.response_trailers()
            answer = stream.next()
            if answer.HasField("response_body"):
                out += answer.response_body.response.body_mutation.streamed_response.body
                answer = stream.next()
            assert answer.HasField("response_trailers") and out == tail


def test_an_answer_that_may_change_loses_its_length(picker, channel):
    with Routed(picker, channel, "food", RENAMED) as stream:
        assert stream.answered(JSON + (("content-length", "20"),))[1] == ["content-length"]


def test_the_name_stays_when_nothing_was_rewritten(picker, channel):
    data = b'{"model":"v2","usage":{"completion_tokens":1}}'
    with Routed(picker, channel, "food") as stream:
        stream.answered(JSON)
        assert stream.passed(data, 3) == data


@pytest.mark.parametrize("size", [1, 5, 33, 10_000])
@pytest.mark.parametrize("lines,data", [(SSE, STREAM), (JSON, PLAIN)], ids=["stream", "plain"])
def test_usage_is_counted_once_however_it_is_split(picker, channel, model, lines, data, size):
    with Routed(picker, channel, model) as stream:
        stream.answered(lines)
        stream.passed(data, size)
    assert count(picker, "request_output_tokens_sum", model_name=model) == 7
    assert count(picker, "request_output_tokens_count", model_name=model) == 1
    assert count(picker, "request_input_tokens_sum", model_name=model) == 5


def test_continuous_usage_counts_its_last_value(picker, channel, model):
    data = b"".join(b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":%d}}\n\n' % i for i in range(1, 9))
    with Routed(picker, channel, model) as stream:
        stream.answered(SSE)
        stream.passed(data, 60)
    assert count(picker, "request_output_tokens_sum", model_name=model) == 8
    assert count(picker, "request_output_tokens_count", model_name=model) == 1


def test_usage_in_the_text_is_no_usage(picker, channel, model):
    text = json.dumps({"choices": [{"text": '"usage":{"prompt_tokens":99,"completion_tokens":99}'}]}).encode()
    with Routed(picker, channel, model) as stream:
        stream.answered(JSON)
        stream.passed(text, 10)
    assert count(picker, "request_output_tokens_count", model_name=model) == 0


@pytest.mark.parametrize("encoding,data", [("gzip", gzip.compress(PLAIN)), ("br", b"\x1b" + PLAIN), ("gzip", b'"model":"v2",' + PLAIN)])
def test_a_compressed_answer_passes_unread(picker, channel, model, encoding, data):
    with Routed(picker, channel, model, RENAMED) as stream:
        stream.answered(JSON + (("content-encoding", encoding),))
        assert stream.passed(data, 11) == data
    assert count(picker, "request_output_tokens_count", model_name=model) == 0


def test_an_identity_encoding_is_read(picker, channel, model):
    with Routed(picker, channel, model) as stream:
        stream.answered(JSON + (("content-encoding", "identity"),))
        stream.passed(PLAIN, 11)
    assert count(picker, "request_output_tokens_sum", model_name=model) == 7


def test_equal_request_ids_do_not_spoil_the_counts(picker, channel):
    """Own ids for in-flight state: two requests of one id, one of which ends, leave one."""
    same = [("x-request-id", "not-unique")]
    with Routed(picker, channel, "same", same) as first, Routed(picker, channel, "same", same) as second:
        assert first.head.destination != second.head.destination, "the second sees the first"
        assert settled(picker, "request_running", 2, model_name="same")
        first.answered(JSON, end=True)
        assert settled(picker, "request_running", 1, model_name="same")
        with Routed(picker, channel, "same", same) as third:
            assert third.head.destination == first.head.destination, "the second is still counted"


@pytest.mark.parametrize("how", ["half-close", "cancel"])
def test_a_stream_that_ends_early_gives_its_charge_back(picker, channel, model, how):
    stream = Routed(picker, channel, model)
    assert settled(picker, "request_running", 1, model_name=model)
    stream.answered(SSE)
    stream.half_close() if how == "half-close" else stream.answers.cancel()
    assert settled(picker, "request_running", 0, model_name=model)


def test_a_request_that_gets_no_answer_is_given_back(picker, channel, model):
    with Routed(picker, channel, model):
        assert settled(picker, "request_running", 1, model_name=model)
    assert settled(picker, "request_running", 0, model_name=model)


# The proxy keeps response bodies to itself.
def test_without_response_bodies_the_request_lasts_as_long_as_its_stream(picker, channel, model):
    with Routed(picker, channel, model, protocol=(FULL_DUPLEX, NONE)) as stream:
        stream.answered(SSE)
        assert count(picker, "request_running", model_name=model) == 1
        stream.half_close()
        assert settled(picker, "request_running", 0, model_name=model)
        assert stream.end()[0] == grpc.StatusCode.OK
    assert count(picker, "request_duration_seconds_count", model_name=model) == 1
    assert count(picker, "response_size_bytes_count", model_name=model) == 0, "unknown, so not recorded"


@pytest.mark.parametrize("renamed", [False, True])
def test_streamed_bodies_are_answered_without_being_repeated(picker, channel, renamed):
    data = b'{"model":"v2","x":1}'
    with Routed(picker, channel, "food", RENAMED if renamed else (), protocol=(FULL_DUPLEX, STREAMED)) as stream:
        stream.answered(JSON)
        stream.response_body(data, True)
        response = stream.next().response_body.response
        if renamed:
            assert response.body_mutation.body == b'{"model":"food","x":1}'
        else:
            assert not response.HasField("body_mutation")


@pytest.fixture(scope="module")
def lean(started_module, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("lean")
    process = started_module(Picker(tmp, [("a", 7001, "decode")], "--token-metrics=false", config=config_of()))
    return process.wait_http(process.admin_port, "/readyz")


def test_the_proxy_is_asked_to_keep_bodies_that_nobody_reads(lean):
    with Routed(lean, None, "lean") as stream:
        mode = stream.answered(SSE)[2].mode_override
        assert (mode.response_body_mode, mode.request_body_mode) == (NONE, FULL_DUPLEX)
        assert mode.response_trailer_mode == 1, "SEND: or Envoy would end the stream, and the accounting, at the headers"
        stream.half_close()
    assert settled(lean, "request_running", 0, model_name="lean")


def test_a_proxy_that_sends_them_still_gets_them_back(lean):
    with Routed(lean, None, "still") as stream:
        stream.answered(SSE)
        assert stream.passed(STREAM, 9) == STREAM
    assert settled(lean, "request_running", 0, model_name="still")
    assert count(lean, "request_output_tokens_count", model_name="still") == 0


def test_bodies_are_read_where_the_name_must_come_back(lean):
    with Routed(lean, None, "food", RENAMED) as stream:
        answer = stream.answered(SSE)[2]
        assert not answer.HasField("mode_override")
        assert stream.passed(b'{"model":"v2"}', 4) == b'{"model":"food"}'


def test_bodies_are_read_where_a_plugin_reads_them(started, tmp_path):
    process = started(Picker(tmp_path, [("a", 7001, "decode")], "--token-metrics=false",
                             config=config_of(("active-request-scorer",))))
    process.wait_http(process.admin_port, "/readyz")
    with Routed(process, None) as stream:
        assert not stream.answered(SSE)[2].HasField("mode_override")


def test_token_metrics_read_every_body(picker, channel):
    with Routed(picker, channel) as stream:
        assert not stream.answered(SSE)[2].HasField("mode_override")


def test_streams_are_counted_by_their_end(picker, channel):
    before = count(picker, "extproc_streams_total", code="OK")
    with Stream(picker, channel) as stream:
        stream.headers().body(body_of()).routed()
        stream.half_close()
        assert stream.end()[0] == grpc.StatusCode.OK
    assert settled(picker, "extproc_streams_total", before + 1, code="OK")
    assert "llm_d_epp_extproc_stream_duration_seconds_count" in requests.get(f"{picker.admin}/metrics", timeout=5).text
