"""Request bodies: what goes in comes out, whatever the chunking; only the model's bytes may change."""
import json

import grpc
import pytest

from conftest import Picker
from ext_proc import PIECE, POST, Stream, body_of, chunked, config_of

RULES = """
rewrites:
- name: canary
  rules:
  - matches: [{model: {type: Exact, value: food}}]
    targets: [{modelRewrite: food-v2}]
"""


@pytest.fixture(scope="module")
def picker(started_module, tmp_path_factory):
    process = started_module(Picker(tmp_path_factory.mktemp("bodies"), [], "--max-body-bytes", "8000000", config=config_of()))
    process.set_endpoints([("a", 7001, "decode"), ("b", 7002, "decode")], RULES)
    process.wait_http(process.admin_port, "/readyz")
    return process


@pytest.fixture(scope="module")
def channel(picker):
    with grpc.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel:
        yield channel


TEXTS = {
    "ascii": body_of(200),
    "utf8": json.dumps({"model": "m", "prompt": "Grüße 你好 🚀 " * 6}, ensure_ascii=False).encode(),
    "escapes": rb'{"model":"m","prompt":"a\"b\\c\ud83d\ude80\n<>&"}',
    "blanks": b'\r\n {\t"model" : "m" ,\n "prompt" : [ "a" , "b" ] }  \n',
    "numbers": b'{"model":"m","prompt":"x","seed":12345678901234567890,"temperature":1.0,"top_p":1e-1}',
    "model-last": b'{"prompt":"x","nested":{"model":"other"},"model":"m"}',
}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("name", TEXTS)
def test_bytes_pass_untouched_in_any_chunking(picker, channel, name, size):
    with Stream(picker, channel) as stream:
        head, body = stream.headers().chunks(TEXTS[name], size).routed()
        assert body == TEXTS[name]
        assert head.destination in ("127.0.0.1:7001", "127.0.0.1:7002")
        assert head.clear_route_cache


@pytest.mark.parametrize("size", [61_900, PIECE - 40, PIECE, PIECE + 1, 450_000, 5_000_000])
@pytest.mark.parametrize("chunk", [16_384, 1_000_000])
def test_large_bodies_come_back_in_pieces_of_62000_bytes(picker, channel, size, chunk):
    data = body_of(size)
    with Stream(picker, channel) as stream:
        stream.headers().chunks(data, chunk)
        assert stream.next().HasField("request_headers")
        pieces = []
        while not pieces or not pieces[-1].end_of_stream:
            pieces.append(stream.next().request_body.response.body_mutation.streamed_response)
        assert b"".join(p.body for p in pieces) == data
        assert [len(p.body) for p in pieces] == [len(c) for c in chunked(data, PIECE)]
        assert sum(p.end_of_stream for p in pieces) == 1


@pytest.mark.parametrize("size", [0, 100_000])
def test_gzipped_grpc_messages_are_taken(picker, channel, size):
    data = body_of(size)
    with Stream(picker, channel, compression=grpc.Compression.Gzip) as stream:
        assert stream.headers().chunks(data, 30_000).routed()[1] == data


@pytest.mark.parametrize("size", [1, 9, 10_000])
def test_trailers_end_an_open_body(picker, channel, size):
    data = body_of(20)
    with Stream(picker, channel) as stream:
        stream.headers()
        for piece in chunked(data, size):
            stream.body(piece, end=False)
        stream.trailers()
        assert stream.next().HasField("request_headers")
        piece = stream.next().request_body.response.body_mutation.streamed_response
        assert piece.body == data and not piece.end_of_stream, "the trailers end it"
        assert stream.next().HasField("request_trailers")


def test_an_empty_last_chunk_ends_the_body(picker, channel):
    data = body_of()
    with Stream(picker, channel) as stream:
        stream.headers().body(data, end=False).body(b"", end=True)
        assert stream.routed()[1] == data


def rewritten(picker, channel, data, size, headers=()):
    with Stream(picker, channel) as stream:
        head, body = stream.headers(POST + list(headers)).chunks(data, size).routed()
        assert head.set["content-length"] == str(len(body))
        return body


TO = [("x-llm-d-model-name-rewrite", "food \"v2\"")]
SPLICED = {
    b'{"model":"m","prompt":"x","seed":12345678901234567890}': b'{"model":"food \\"v2\\"","prompt":"x","seed":12345678901234567890}',
    b'{ "z":1.0, "model" :\t"m" , "a":"<>&" ,"prompt":"x"}': b'{ "z":1.0, "model" :\t"food \\"v2\\"" , "a":"<>&" ,"prompt":"x"}',
    rb'{"prompt":"\"model\":\"m\"","model":"\u006d"}': rb'{"prompt":"\"model\":\"m\"","model":"food \"v2\""}',
    b'{"model":"first","prompt":"x","model":"m"}': b'{"model":"first","prompt":"x","model":"food \\"v2\\""}',
}


@pytest.mark.parametrize("size", [1, 2, 5, 10_000])
@pytest.mark.parametrize("data", SPLICED, ids=["keeps-integers", "keeps-blanks", "leaves-text", "two-models"])
def test_a_rewrite_splices_the_models_bytes_only(picker, channel, data, size):
    assert rewritten(picker, channel, data, size, TO) == SPLICED[data]


@pytest.mark.parametrize("data,expected", [
    (b'{"prompt":"x"}', b'{"model":"v2","prompt":"x"}'),
    (b' { "prompt":"x" } ', b' {"model":"v2", "prompt":"x" } '),
    (b'{"prompt":"x","kv_transfer_params":{"a":1}}', b'{"model":"v2","prompt":"x"}')], ids=["plain", "blanks", "with-a-removal"])
def test_a_missing_model_is_inserted(picker, channel, data, expected):
    assert rewritten(picker, channel, data, 3, [("x-llm-d-model-name-rewrite", "v2")]) == expected


def test_the_old_name_of_the_rewrite_header_is_understood(picker, channel):
    assert rewritten(picker, channel, b'{"model":"m","prompt":"x"}', 4, [("x-gateway-model-name-rewrite", "v2")]) == \
        b'{"model":"v2","prompt":"x"}'


def test_a_rule_wins_over_the_header(picker, channel):
    assert rewritten(picker, channel, b'{"model":"food","prompt":"x"}', 4, [("x-llm-d-model-name-rewrite", "no")]) == \
        b'{"model":"food-v2","prompt":"x"}'


def test_the_header_holds_where_no_rule_matches(picker, channel):
    assert rewritten(picker, channel, b'{"model":"other","prompt":"x"}', 4, [("x-llm-d-model-name-rewrite", "v9")]) == \
        b'{"model":"v9","prompt":"x"}'


def test_kv_transfer_params_of_the_client_never_pass(picker, channel):
    data = b'{"model":"m", "kv_transfer_params": {"remote_host":"evil"} , "prompt":"x"}'
    body = rewritten(picker, channel, data, 2)
    assert b"evil" not in body and json.loads(body) == {"model": "m", "prompt": "x"}
