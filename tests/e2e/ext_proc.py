"""The ext_proc peer of llmd-epp, message by message: what an Envoy sends and must get back."""
import functools
import json
import pathlib
import queue
import subprocess
import sys
import tempfile

import grpc

from conftest import ROOT
from fake_engine import FakeEngine, response

PROTO = ROOT / "services" / "proto"
PROCESS = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
DESTINATION = "x-gateway-destination-endpoint"
SUBSET = "x-gateway-destination-endpoint-subset"
REASON = "x-llm-d-request-dropped-reason"
POST = [(":method", "POST"), (":path", "/v1/completions"), (":authority", "llm"), ("content-type", "application/json")]
GET = [(":method", "GET"), (":path", "/v1/models"), (":authority", "llm")]
PIECE = 62_000
FULL_DUPLEX, NONE, STREAMED, BUFFERED = 4, 0, 1, 2  # Envoy's body send modes


@functools.cache
def messages():
    """name → Python class, of the project's own protos."""
    with tempfile.TemporaryDirectory() as out:
        file_set = pathlib.Path(out) / "set.pb"
        files = [str(p.relative_to(PROTO)) for p in PROTO.rglob("*.proto")]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"--descriptor_set_out={file_set}",
                        "--include_imports", *files], check=True, cwd=PROTO)
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
        pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(file_set.read_bytes()).file:
            pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def body_of(size=0, **extra):
    return json.dumps({"model": "m", "prompt": "hello" + "x" * size, **extra}).encode()


def chunked(data, size):
    """Pieces of `size` bytes; one empty piece for no data."""
    return [data[at:at + size] for at in range(0, len(data), size)] or [b""]


def call(channel, method, request, reply, **kwargs):
    unary = channel.unary_unary(method, request_serializer=lambda m: m.SerializeToString(), response_deserializer=reply.FromString)
    return unary(request, timeout=10, **kwargs)


class Refusal:
    def __init__(self, immediate):
        self.status = immediate.status.code
        self.body = immediate.body.decode()
        self.headers = {o.header.key: o.header.raw_value.decode() for o in immediate.headers.set_headers}
        self.reason = self.headers.get(REASON)
        self.details = immediate.details


class Head:
    """The answer to the request's headers."""

    def __init__(self, answer):
        assert answer.WhichOneof("response") == "request_headers", answer
        common = answer.request_headers.response
        self.clear_route_cache = common.clear_route_cache
        self.options = list(common.header_mutation.set_headers)
        self.set = {o.header.key: o.header.raw_value.decode() for o in self.options}
        self.removed = list(common.header_mutation.remove_headers)
        fields = answer.dynamic_metadata.fields
        self.namespaces = set(fields)
        self.metadata = dict(fields["envoy.lb"].struct_value.fields) if "envoy.lb" in fields else {}

    @property
    def destination(self):
        """Header and metadata are never different."""
        assert self.metadata[DESTINATION].string_value == self.set[DESTINATION]
        return self.set[DESTINATION]

    @property
    def scores(self):
        key = DESTINATION + "-scores"
        return {k: v.number_value for k, v in self.metadata[key].struct_value.fields.items()} if key in self.metadata else None


class Stream:
    """One ext_proc stream; messages are sent one by one, answers read one by one."""

    def __init__(self, picker, channel=None, compression=None, timeout=20):
        self.request = messages()("envoy.service.ext_proc.v3.ProcessingRequest")
        self.response = messages()("envoy.service.ext_proc.v3.ProcessingResponse")
        self.channel = channel or grpc.insecure_channel(f"127.0.0.1:{picker.grpc_port}")
        self.own_channel = channel is None
        self.queue = queue.Queue()
        method = self.channel.stream_stream(PROCESS, request_serializer=lambda m: m.SerializeToString(),
                                            response_deserializer=self.response.FromString)
        self.answers = method(iter(self.queue.get, None), timeout=timeout, compression=compression)
        self.protocol = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.half_close()
        self.answers.cancel()
        if self.own_channel:
            self.channel.close()

    def half_close(self):
        self.queue.put(None)

    def send(self, message, subset=None, exclude=()):
        for item in exclude:
            fields = message.metadata_context.filter_metadata["envoy.lb.subset_hint"].fields
            fields[f"{DESTINATION}-exclude"].list_value.values.add().string_value = item
        if self.protocol:
            message.protocol_config.request_body_mode, message.protocol_config.response_body_mode = self.protocol
            self.protocol = None
        if subset is not None:
            value = message.metadata_context.filter_metadata["envoy.lb.subset_hint"].fields[SUBSET]
            if isinstance(subset, str):
                value.string_value = subset
            else:
                value.list_value.SetInParent()
                for item in subset:
                    value.list_value.values.add().string_value = item
        self.queue.put(message)
        return self

    def _lines(self, header_map, lines):
        for name, value in lines:
            header = header_map.headers.add()
            header.key, header.raw_value = name, value.encode() if isinstance(value, str) else value

    def headers(self, lines=POST, end=False, subset=None, exclude=()):
        message = self.request()
        self._lines(message.request_headers.headers, lines)
        message.request_headers.end_of_stream = end
        return self.send(message, subset, exclude)

    def body(self, data, end=True, subset=None):
        message = self.request()
        message.request_body.body, message.request_body.end_of_stream = data, end
        return self.send(message, subset)

    def chunks(self, data, size):
        pieces = chunked(data, size)
        for i, piece in enumerate(pieces):
            self.body(piece, i + 1 == len(pieces))
        return self

    def trailers(self):
        message = self.request()
        message.request_trailers.SetInParent()
        return self.send(message)

    def response_headers(self, lines=((":status", "200"), ("content-type", "application/json")), end=False):
        message = self.request()
        self._lines(message.response_headers.headers, lines)
        message.response_headers.end_of_stream = end
        return self.send(message)

    def response_body(self, data, end=False):
        message = self.request()
        message.response_body.body, message.response_body.end_of_stream = data, end
        return self.send(message)

    def response_trailers(self):
        message = self.request()
        message.response_trailers.SetInParent()
        return self.send(message)

    def next(self):
        return next(self.answers)

    def routed(self, has_body=True):
        """(Head, whole body) of an accepted request."""
        head = Head(self.next())
        body, end = b"", not has_body
        while not end:
            answer = self.next()
            assert answer.WhichOneof("response") == "request_body", answer
            piece = answer.request_body.response.body_mutation.streamed_response
            assert len(piece.body) <= PIECE
            body += piece.body
            end = piece.end_of_stream
        return head, body

    def refused(self):
        answer = self.next()
        assert answer.WhichOneof("response") == "immediate_response", answer
        return Refusal(answer.immediate_response)

    def answered(self, lines=((":status", "200"), ("content-type", "application/json")), end=False):
        """The answer to response headers: (set, removed, the message)."""
        self.response_headers(lines, end)
        answer = self.next()
        assert answer.WhichOneof("response") == "response_headers", answer
        mutation = answer.response_headers.response.header_mutation
        return {o.header.key: o.header.raw_value.decode() for o in mutation.set_headers}, list(mutation.remove_headers), answer

    def passed(self, data, size, end=True):
        """The bytes that come back for a response body sent in pieces of `size`, one answer or more for each."""
        out = b""
        pieces = chunked(data, size)
        for i, piece in enumerate(pieces):
            last = end and i + 1 == len(pieces)
            self.response_body(piece, last)
            out += self.next_body(len(piece), last)
        return out

    def next_body(self, sent, last):
        out = b""
        while True:
            answer = self.next()
            assert answer.WhichOneof("response") == "response_body", answer
            piece = answer.response_body.response.body_mutation.streamed_response
            out += piece.body
            if piece.end_of_stream or (not last and (len(piece.body) < PIECE or len(out) >= sent)):
                return out

    def end(self):
        """The status with which the picker ends the stream; no answer may come before."""
        try:
            answer = self.next()
        except StopIteration:
            return grpc.StatusCode.OK, ""
        except grpc.RpcError as error:
            return error.code(), error.details()
        raise AssertionError(f"an answer instead of an end: {answer}")


def page(waiting=0, running=0, kv=0.0):
    """A vLLM metrics page."""
    return (f'vllm:num_requests_waiting{{model_name="m"}} {waiting}\nvllm:num_requests_running{{model_name="m"}} {running}\n'
            f'vllm:kv_cache_usage_perc{{model_name="m"}} {kv}\n'
            'vllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1\n').encode()


class MetricsEngine(FakeEngine):
    """A model server of which only the metrics page is read."""

    def __init__(self, **gauges):
        self.page = page(**gauges)
        super().__init__(self._answer)

    async def _answer(self, request, writer):
        return response(200, self.page, "text/plain")


CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [{gates}]
plugins:
- {{type: openai-parser}}
- {{type: decode-filter}}
{plugins}
- type: file-discovery
  parameters: {{path: "{endpoints}", watchFile: true}}
schedulingProfiles:
- name: default
  plugins: [{{pluginRef: decode-filter}}{refs}]
dataLayer:
  discovery: {{pluginRef: file-discovery}}
requestHandler:
  parsers: [{{pluginRef: openai-parser}}]
{rest}
"""


def config_of(plugins=("queue-scorer",), gates="", rest="", parameters=None):
    """For Picker(config=…): one profile of decode-filter and `plugins`, endpoints still to be filled in."""
    lines = "\n".join(f"- {{type: {p}, parameters: {(parameters or {}).get(p, '{}')}}}" for p in plugins)
    refs = "".join(f", {{pluginRef: {p}}}" for p in plugins)
    return lambda endpoints: CONFIG.format(gates=gates, plugins=lines, refs=refs, rest=rest, endpoints=endpoints)
