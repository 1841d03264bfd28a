"""One picker process for several pools: by model, by host, by header, by the proxy's own word; health and metrics of each."""
import json
import queue

import grpc
import pytest
import requests

from conftest import ROOT, Gateway, Process, binary, endpoints_yaml, free_port, metric, picker_config
from fake_engine import FakeEngine, response

POOLS = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerPools
pools:
- {name: chat, configFile: chat.yaml, models: ["llama-*"]}
- {name: code, configFile: code.yaml, models: [coder], hosts: [code.example.com]}
- {name: empty, configFile: empty.yaml}
"""


async def answer(request, _writer):
    if request.method == "GET":
        return response(body=b"vllm:num_requests_waiting 0.0\n", content_type="text/plain")
    return response(body=json.dumps({"id": "x", "model": json.loads(request.body)["model"]}).encode())


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("pools")
    engines = {"chat": FakeEngine(answer), "code": FakeEngine(answer)}
    for name in ("chat", "code", "empty"):
        endpoints = tmp / f"{name}-endpoints.yaml"
        endpoints.write_text(endpoints_yaml([(f"{name}-0", engines[name].port, "decode")] if name in engines else []))
        (tmp / f"{name}.yaml").write_text(picker_config(endpoints, disaggregate=False))
    (tmp / "pools.yaml").write_text(POOLS)
    return tmp / "pools.yaml", engines


@pytest.fixture(scope="module")
def gateway(started_module, pools):
    gateway = started_module(Gateway("--pools-file", str(pools[0]), "--metrics-port", "0"))
    gateway.wait_http(gateway.port, "/ready")
    return gateway


def posts(engine):
    return sum(r.method == "POST" for r in engine.requests)


@pytest.mark.parametrize("model,headers,pool", [
    ("llama-8b", {}, "chat"), ("coder", {}, "code"), ("any", {"Host": "code.example.com"}, "code"),
    ("coder", {"x-llm-d-pool": "chat"}, "chat")])
def test_a_request_goes_to_its_pool(gateway, pools, model, headers, pool):
    before = {name: posts(engine) for name, engine in pools[1].items()}
    reply = requests.post(f"{gateway.url}/v1/completions", json={"model": model, "prompt": "x"}, headers=headers, timeout=20)
    assert reply.status_code == 200, reply.text
    assert {name: posts(e) - before[name] for name, e in pools[1].items()} == {**dict.fromkeys(before, 0), pool: 1}
    assert pools[1][pool].requests[-1].header("x-llm-d-pool") == []


def test_what_no_pool_takes_is_404(gateway):
    for headers, model in (({}, "unknown"), ({"x-llm-d-pool": "none"}, "coder")):
        reply = requests.post(f"{gateway.url}/v1/completions", json={"model": model, "prompt": "x"}, headers=headers, timeout=20)
        assert reply.status_code == 404 and "no pool" in reply.text


def test_metrics_name_the_pool(gateway):
    url = f"{gateway.url}/metrics"
    for pool, endpoints in (("chat", 1), ("code", 1), ("empty", 0)):
        assert metric(url, "llm_d_epp_ready_endpoints", pool=pool) == endpoints
    assert metric(url, "llm_d_epp_request_total", pool="code", model_name="coder") >= 1
    page = requests.get(url, timeout=5).text
    assert page.count("# TYPE llm_d_epp_request_total counter") == 1


class Epp(Process):
    def __init__(self, pools_file):
        self.grpc_port, self.health_port, self.admin_port = free_port(), free_port(), free_port()
        super().__init__("epp", [binary("llmd-epp"), "--pools-file", str(pools_file), "--grpc-port", str(self.grpc_port),
                                 "--grpc-health-port", str(self.health_port), "--metrics-port", str(self.admin_port),
                                 "--secure-serving=false"])


@pytest.fixture(scope="module")
def epp(started_module, pools):
    epp = started_module(Epp(pools[0]))
    epp.wait_http(epp.admin_port, "/readyz")
    return epp


def test_health_is_per_pool(epp):
    admin = f"http://127.0.0.1:{epp.admin_port}/readyz"
    assert [requests.get(f"{admin}?pool={p}", timeout=5).status_code for p in ("chat", "code", "empty", "none")] == [
        200, 200, 200, 503], "a pool without endpoints answers by itself"
    channel = grpc.insecure_channel(f"127.0.0.1:{epp.health_port}")
    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    serving = {}
    for name in ("", "liveness", "pool/chat", "pool/empty", "pool/none"):
        request = b"" if not name else b"\x0a" + bytes([len(name)]) + name.encode()
        serving[name] = check(request, timeout=5) == b"\x08\x01"
    channel.close()
    assert serving == {"": True, "liveness": True, "pool/chat": True, "pool/empty": True, "pool/none": False}


def test_the_proxys_metadata_names_the_pool(epp, pools):
    """As Envoy's grpc_service.initial_metadata does."""
    import subprocess
    import sys
    out = subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", "--descriptor_set_out=/dev/stdout", "--include_imports",
                          "envoy/service/ext_proc/v3/external_processor.proto"], cwd=ROOT / "services/proto", check=True,
                         capture_output=True).stdout
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(out).file:
        pool.Add(file)

    def kind(name):
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"envoy.service.ext_proc.v3.{name}"))
    request_type, response_type = kind("ProcessingRequest"), kind("ProcessingResponse")
    channel = grpc.insecure_channel(f"127.0.0.1:{epp.grpc_port}")
    call = channel.stream_stream("/envoy.service.ext_proc.v3.ExternalProcessor/Process",
                                 request_serializer=lambda m: m.SerializeToString(), response_deserializer=response_type.FromString)
    messages = queue.Queue()
    answers = call(iter(messages.get, None), timeout=20, metadata=[("x-llm-d-pool", "code")])
    headers = request_type()
    for key, value in ((":path", "/v1/completions"), (":method", "POST")):
        header = headers.request_headers.headers.headers.add()
        header.key, header.raw_value = key, value.encode()
    body = request_type()
    body.request_body.body, body.request_body.end_of_stream = b'{"model":"llama-8b","prompt":"x"}', True
    messages.put(headers)
    messages.put(body)
    set_headers = {h.header.key: h.header.raw_value.decode()
                   for h in next(answers).request_headers.response.header_mutation.set_headers}
    messages.put(None)
    channel.close()
    assert set_headers["x-gateway-destination-endpoint"] == pools[1]["code"].address
