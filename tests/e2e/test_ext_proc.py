"""The real llmd-epp over gRPC, message by message: what an Envoy would send and must get back."""
import json
import queue
import subprocess
import sys

import grpc
import pytest

from conftest import ROOT, Picker, binary

PROTO = ROOT / "services" / "proto"


@pytest.fixture(scope="module")
def wire(tmp_path_factory):
    """Python classes of the project's own protos."""
    out = tmp_path_factory.mktemp("wire")
    files = [str(p.relative_to(PROTO)) for p in PROTO.rglob("*.proto")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"--descriptor_set_out={out / 'set.pb'}",
                    "--include_imports", *files], check=True, cwd=PROTO)
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString((out / "set.pb").read_bytes()).file:
        pool.Add(file)

    def message(name):
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    return message


@pytest.fixture(scope="module")
def picker(started_module, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("picker")
    process = started_module(Picker(tmp, [("a", 7001, "decode"), ("b", 7002, "decode"), ("p", 7003, "prefill")],
                                    "--max-body-bytes", "2000000"))
    process.wait_http(process.admin_port, "/readyz")
    return process


class Stream:
    """One ext_proc stream; messages are sent one by one, answers read one by one."""

    def __init__(self, wire, picker):
        self.request = wire("envoy.service.ext_proc.v3.ProcessingRequest")
        self.response = wire("envoy.service.ext_proc.v3.ProcessingResponse")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{picker.grpc_port}")
        self.queue = queue.Queue()
        call = self.channel.stream_stream("/envoy.service.ext_proc.v3.ExternalProcessor/Process",
                                          request_serializer=lambda m: m.SerializeToString(),
                                          response_deserializer=self.response.FromString)
        self.answers = call(iter(self.queue.get, None), timeout=20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.queue.put(None)
        self.answers.cancel()
        self.channel.close()

    def headers(self, lines, end=False, subset=None):
        message = self.request()
        for name, value in lines:
            header = message.request_headers.headers.headers.add()
            header.key, header.raw_value = name, value.encode()
        message.request_headers.end_of_stream = end
        if subset is not None:
            space = message.metadata_context.filter_metadata["envoy.lb.subset_hint"]
            value = space.fields["x-gateway-destination-endpoint-subset"]
            if isinstance(subset, str):
                value.string_value = subset
            else:
                value.list_value.SetInParent()
                for item in subset:
                    value.list_value.values.add().string_value = item
        self.queue.put(message)

    def body(self, data, end=True):
        message = self.request()
        message.request_body.body, message.request_body.end_of_stream = data, end
        self.queue.put(message)

    def trailers(self):
        message = self.request()
        message.request_trailers.SetInParent()
        self.queue.put(message)

    def next(self):
        return next(self.answers)

    def routed(self):
        """(headers answer, whole body) of an accepted request."""
        head = self.next()
        assert head.HasField("request_headers"), head
        body, end = b"", False
        while not end:
            piece = self.next().request_body.response.body_mutation.streamed_response
            assert len(piece.body) <= 62_000
            body += piece.body
            end = piece.end_of_stream
        return head, body


POST = [(":method", "POST"), (":path", "/v1/completions"), ("content-type", "application/json")]


def set_headers(answer):
    return {o.header.key: o.header.raw_value.decode() for o in answer.request_headers.response.header_mutation.set_headers}


def destination(answer):
    value = set_headers(answer)["x-gateway-destination-endpoint"]
    lb = answer.dynamic_metadata["envoy.lb"]
    assert lb["x-gateway-destination-endpoint"] == value
    return value


def body_of(size=0, **extra):
    return json.dumps({"model": "m", "prompt": "hello" + "x" * size, **extra}).encode()


@pytest.mark.parametrize("chunk", [1, 7, 1000, 62_000, 200_000])
@pytest.mark.parametrize("size", [0, 61_999, 62_001, 450_000])
def test_bodies_arrive_untouched_whatever_the_chunking(wire, picker, chunk, size):
    if size > 1000 and chunk < 1000:
        chunk *= 997  # a message a byte would test gRPC, not us
    data = body_of(size)
    with Stream(wire, picker) as stream:
        stream.headers(POST)
        for at in range(0, len(data), chunk):
            stream.body(data[at:at + chunk], at + chunk >= len(data))
        head, body = stream.routed()
        assert body == data
        assert destination(head) in ("127.0.0.1:7001", "127.0.0.1:7002")
        assert head.request_headers.response.clear_route_cache


def test_prefill_endpoints_never_get_a_request(wire, picker):
    seen = set()
    for i in range(40):  # no two prompts alike, or the prefix would decide
        with Stream(wire, picker) as stream:
            stream.headers(POST)
            stream.body(json.dumps({"model": "m", "prompt": f"{i} {i * i}"}).encode())
            seen.add(destination(stream.routed()[0]))
    assert seen == {"127.0.0.1:7001", "127.0.0.1:7002"}


def test_a_get_is_answered_at_its_headers(wire, picker):
    with Stream(wire, picker) as stream:
        stream.headers([(":method", "GET"), (":path", "/v1/models")], end=True)
        assert destination(stream.next()) in ("127.0.0.1:7001", "127.0.0.1:7002")


def test_trailers_end_the_body(wire, picker):
    with Stream(wire, picker) as stream:
        stream.headers(POST)
        stream.body(body_of(), end=False)
        stream.trailers()
        assert stream.next().HasField("request_headers")
        assert not stream.next().request_body.response.body_mutation.streamed_response.end_of_stream
        assert stream.next().HasField("request_trailers")


def test_routing_headers_of_the_client_are_removed(wire, picker):
    with Stream(wire, picker) as stream:
        stream.headers(POST + [("x-prefiller-host-port", "evil:1"), ("x-gateway-destination-endpoint", "evil:2")])
        stream.body(body_of())
        head, _ = stream.routed()
        removed = set(head.request_headers.response.header_mutation.remove_headers)
        assert "x-prefiller-host-port" in removed
        assert destination(head).startswith("127.0.0.1")


def test_kv_transfer_params_of_the_client_are_dropped_and_nothing_else_changes(wire, picker):
    data = b'{"model":"m", "kv_transfer_params": {"remote_host":"evil"} , "seed": 9007199254740993, "x": 1.0, "prompt":"<a&b>"}'
    with Stream(wire, picker) as stream:
        stream.headers(POST)
        stream.body(data)
        _, body = stream.routed()
        assert b"evil" not in body and b"kv_transfer_params" not in body
        assert b'"seed": 9007199254740993' in body and b'"x": 1.0' in body and b'"<a&b>"' in body
        json.loads(body)


@pytest.mark.parametrize("subset,expected", [
    (["127.0.0.1:7001"], "127.0.0.1:7001"), ("127.0.0.1:7002", "127.0.0.1:7002"),
    ("10.9.9.9:1, 127.0.0.1:7002", "127.0.0.1:7002")])
def test_subset_hints_are_strict_in_both_forms(wire, picker, subset, expected):
    for _ in range(5):
        with Stream(wire, picker) as stream:
            stream.headers(POST, subset=subset)
            stream.body(body_of())
            assert destination(stream.routed()[0]) == expected


def refused(wire, picker, data, headers=None, subset=None):
    with Stream(wire, picker) as stream:
        stream.headers(headers or POST, subset=subset)
        stream.body(data)
        answer = stream.next()
        assert answer.HasField("immediate_response"), answer
        immediate = answer.immediate_response
        lines = {o.header.key: o.header.raw_value.decode() for o in immediate.headers.set_headers}
        return immediate.status.code, immediate.body.decode(), lines


@pytest.mark.parametrize("subset", [["127.0.0.1:7003"], ["127.0.0.1:9"], []])
def test_a_subset_without_a_match_is_503(wire, picker, subset):
    code, body, lines = refused(wire, picker, body_of(), subset=subset)
    assert code == 503 and body.startswith("inference error: ServiceUnavailable - ")
    assert lines["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"


@pytest.mark.parametrize("data", [
    b"", b"{", b"nope", b"[1]", b'"text"', b'{"model":1,"prompt":"x"}', b'{"prompt":"x"}', b'{"model":"m","prompt":"x"} trailing',
    b"\xef\xbb\xbf" + body_of(), b"[" * 100_000, b'{"a":' * 20_000 + b"1" + b"}" * 20_000])
def test_bad_bodies_are_400_with_a_reason(wire, picker, data):
    code, body, _ = refused(wire, picker, data)
    assert code == 400 and body.startswith("inference error: BadRequest - ") and len(body) > 35


def test_a_body_over_the_limit_is_413(wire, picker):
    assert refused(wire, picker, body_of(2_000_001))[0] == 413


def test_two_model_keys_mean_the_last(wire, picker):
    with Stream(wire, picker) as stream:
        stream.headers(POST + [("x-request-id", "two-models")])
        stream.body(b'{"model":"first","prompt":"x","model":"second"}')
        stream.routed()
    assert picker.decision("two-models")["model"] == "second"


@pytest.mark.parametrize("service", ["", "liveness", "readiness", "inference-extension",
                                     "envoy.service.ext_proc.v3.ExternalProcessor", "any-name"])
def test_health_answers_every_name_the_manifests_probe(wire, picker, service):
    request, response = wire("grpc.health.v1.HealthCheckRequest"), wire("grpc.health.v1.HealthCheckResponse")
    for port in (picker.health_port, picker.grpc_port):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=lambda m: m.SerializeToString(),
                                        response_deserializer=response.FromString)
            assert check(request(service=service), timeout=10).status == 1


def test_response_bytes_pass_and_the_hooks_mark_the_headers(wire, picker):
    with Stream(wire, picker) as stream:
        stream.headers(POST)
        stream.body(body_of(stream=True))
        stream.routed()
        message = stream.request()
        for name, value in ((":status", "200"), ("content-type", "text/event-stream")):
            header = message.response_headers.headers.headers.add()
            header.key, header.raw_value = name, value.encode()
        stream.queue.put(message)
        lines = {o.header.key: o.header.raw_value for o in
                 stream.next().response_headers.response.header_mutation.set_headers}
        assert lines["x-went-into-resp-headers"] == b"true"
        for text, end in ((b'data: {"choices":[{"te', False), (b'xt":"a"}]}\n\n', False), (b"data: [DONE]\n\n", True)):
            message = stream.request()
            message.response_body.body, message.response_body.end_of_stream = text, end
            stream.queue.put(message)
            piece = stream.next().response_body.response.body_mutation.streamed_response
            assert (piece.body, piece.end_of_stream) == (text, end)


def test_a_port_in_use_is_named(picker, tmp_path):
    result = subprocess.run([binary("llmd-epp"), "--config-file", str(picker.endpoints_path.with_name(f"epp-{picker.grpc_port}.yaml")),
                             "--grpc-port", str(picker.grpc_port), "--metrics-port", "0", "--grpc-health-port", "0",
                             "--secure-serving=false"], capture_output=True, text=True, timeout=20)
    assert result.returncode == 1
    assert "--grpc-port" in result.stderr and str(picker.grpc_port) in result.stderr


@pytest.mark.parametrize("flag,code,word", [
    (["--secure-serving"], 2, "--secure-serving"), (["--no-such-flag"], 2, "no-such-flag"),
    (["--secure-serving=false", "--tracing"], 2, "--tracing"), (["--ha-enable-leader-election"], 2, "leader")])
def test_flags_that_cannot_be_honoured_exit_2_and_say_why(flag, code, word):
    result = subprocess.run([binary("llmd-epp"), *flag], capture_output=True, text=True, timeout=20)
    assert result.returncode == code and word in result.stderr

