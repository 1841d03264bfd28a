"""What producers, parsers and reporters do over the wire of the real llmd-epp."""
import json
import struct

import grpc
import pytest

from conftest import Picker
from ext_proc import POST, Stream
from fake_engine import FakeEngine, response

CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: file-discovery, parameters: {{path: {endpoints}}}}}
- {{type: openai-parser}}
- {{type: anthropic-parser}}
- {{type: vllmgrpc-parser}}
- {{type: vertexai-parser}}
- type: token-producer
  parameters: {{modelName: base, vllm: {{url: "http://localhost:{render}", timeout: 5s}}}}
- type: precise-prefix-cache-producer
  parameters: {{speculativeIndexing: true, speculativeTTL: 60s, tokenProcessorConfig: {{blockSizeTokens: 2}}}}
- {{type: prefix-cache-scorer, parameters: {{prefixMatchInfoProducerName: precise-prefix-cache-producer}}}}
- type: request-attribute-reporter
  parameters:
    attributes:
    - {{key: {{name: cost}}, expression: "usage.prompt_tokens + 3 * usage.completion_tokens", condition: "has(usage.completion_tokens)"}}
- {{type: destination-endpoint-served-verifier}}
schedulingProfiles:
- {{name: default, plugins: [{{pluginRef: prefix-cache-scorer}}]}}
dataLayer: {{injectDefaults: false, discovery: {{pluginRef: file-discovery}}}}
requestHandler:
  parsers: [{{pluginRef: openai-parser}}, {{pluginRef: anthropic-parser}}, {{pluginRef: vllmgrpc-parser}}, {{pluginRef: vertexai-parser}}]
"""


@pytest.fixture(scope="module")
def render():
    async def answer(request, writer):
        if b"down" in request.body:
            return response(500)
        words = json.loads(request.body).get("prompt", "").split()
        return response(body=json.dumps([{"token_ids": [len(w) for w in words]}]).encode())
    engine = FakeEngine(answer)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def picker(started_module, tmp_path_factory, render):
    tmp = tmp_path_factory.mktemp("picker")
    config = lambda path: CONFIG.format(endpoints=path, render=render.port)
    process = started_module(Picker(tmp, [(f"e{i}", 7001 + i, "decode") for i in range(6)], config=config))
    return process.wait_http(process.admin_port, "/readyz")


def path(to):
    return [(k, to if k == ":path" else v) for k, v in POST]


def ask(picker, prompt, *headers):
    with Stream(picker) as stream:
        stream.headers(POST + list(headers)).body(json.dumps({"model": "m", "prompt": prompt}).encode())
        return stream.routed()[0].destination


def test_prompts_are_rendered_by_the_engine_and_matched_by_their_tokens(picker, render):
    first = ask(picker, "aa bbb c dddd")
    sent = json.loads(render.posts()[-1].body)
    assert render.posts()[-1].target == "/v1/completions/render"
    assert sent["model"] == "base" and sent["prompt"] == "aa bbb c dddd"
    # Other words of the same lengths are the same tokens.
    assert {ask(picker, "xx yyy z wwww") for _ in range(8)} == {first}


def test_a_request_goes_on_when_rendering_fails(picker):
    assert ask(picker, "the engine is down").startswith("127.0.0.1:70")


def test_what_is_not_cached_is_412_where_asked_for(picker):
    with Stream(picker) as stream:
        stream.headers(POST + [("prefer", "if-available")]).body(b'{"model":"m","prompt":"never seen bef"}')
        refusal = stream.refused()
    assert (refusal.status, refusal.body) == (
        412, "inference error: PreconditionFailed - no decode worker has the requested KV cache")
    where = ask(picker, "never seen bef")
    assert ask(picker, "never seen bef", ("prefer", "if-available")) == where


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_cost_stands_on_the_last_message_only(picker, size):
    answer = b'{"usage":{"prompt_tokens":5,"completion_tokens":7}}'
    with Stream(picker) as stream:
        stream.headers().body(b'{"model":"m","prompt":"a b"}').routed()
        stream.answered()
        for at in range(0, len(answer), size):
            stream.response_body(answer[at:at + size])
            assert not stream.next().HasField("dynamic_metadata")
        stream.response_body(b"", end=True)
        last = stream.next()
    assert last.dynamic_metadata.fields["envoy.lb"].struct_value.fields["cost"].number_value == 26


def test_the_cost_of_an_answer_with_trailers(picker):
    with Stream(picker) as stream:
        stream.headers().body(b'{"model":"m","prompt":"a b"}').routed()
        stream.answered()
        stream.response_body(b'{"usage":{"completion_tokens":1}}')
        stream.next()
        stream.response_trailers()
        last = stream.next()
    assert last.WhichOneof("response") == "response_trailers"
    assert last.dynamic_metadata.fields["envoy.lb"].struct_value.fields["cost"].number_value == 3


@pytest.mark.parametrize("fields,want", [
    (None, "fail: missing envoy lb metadata"), ({"other": "x"}, "fail: missing destination endpoint served metadata"),
    ({"x-gateway-destination-endpoint-served": "127.0.0.1:7003"}, "127.0.0.1:7003")])
def test_the_endpoint_that_answered_is_shown(picker, fields, want):
    with Stream(picker) as stream:
        stream.headers().body(b'{"model":"m","prompt":"a b"}').routed()
        message = stream.request()
        header = message.response_headers.headers.headers.add()
        header.key, header.raw_value = ":status", b"200"
        for key, value in (fields or {}).items():
            message.metadata_context.filter_metadata["envoy.lb"].fields[key].string_value = value
        stream.send(message)
        mutation = stream.next().response_headers.response.header_mutation
    assert {o.header.key: o.header.raw_value.decode() for o in mutation.set_headers}["x-conformance-test-served-endpoint"] == want


def test_the_stream_closes_where_the_answer_tells_nothing(picker):
    with Stream(picker) as stream:
        stream.headers(path("/v1/messages/count_tokens")).body(b'{"model":"m","messages":[{"role":"user","content":"x"}]}')
        stream.routed()
        with pytest.raises(StopIteration):
            stream.next()
        assert stream.answers.code() == grpc.StatusCode.OK


def framed(message):
    return b"\0" + struct.pack(">I", len(message)) + message


def field(number, data):
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def test_bodies_over_grpc(picker):
    body = framed(field(2, field(2, bytes([5, 6, 7, 8]))))
    with Stream(picker) as stream:
        stream.headers(path("/vllm.grpc.engine.VllmEngine/Generate")).body(body)
        head, sent = stream.routed()
    assert sent == body
    with Stream(picker) as stream:
        stream.headers(path("/x.PredictionService/ChatCompletions") + [("x-llm-d-model-name-rewrite", "much-longer")])
        stream.body(framed(field(2, field(2, b'{"model":"m","messages":[{}]}'))))
        head, sent = stream.routed()
    assert sent == framed(field(2, field(2, b'{"model":"much-longer","messages":[{}]}')))
    assert head.set["content-length"] == str(len(sent))
    with Stream(picker) as stream:
        stream.headers(path("/vllm.grpc.engine.VllmEngine/Embed")).body(b"not framed")
        assert stream.refused().status == 400
