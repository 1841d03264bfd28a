"""One trace through gateway, picker, sidecar and two engines, as a collector gets it."""
import json
import subprocess
import time

import pytest
import requests

from conftest import PROMPTS, Engine, Gateway, Picker, Sidecar, binary, endpoints_yaml, kv_pool, metric, picker_config, transfer_config
from otlp_collector import Collector

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.stop()


def spans_by_service(collector):
    """[(service, span)]"""
    out = []
    for request in collector.requests():
        for resource in request.resource_spans:
            service = {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"]
            out += [(service, s) for scope in resource.scope_spans for s in scope.spans]
    return out


class Tree:
    def __init__(self, collector, trace):
        self.spans = [(service, s) for service, s in spans_by_service(collector) if s.trace_id.hex() == trace]

    def named(self, service, name):
        return [s for of, s in self.spans if (of, s.name) == (service, name)]

    def one(self, service, name, parent=None):
        found = [s for s in self.named(service, name) if parent is None or s.parent_span_id == parent.span_id]
        assert len(found) == 1, (service, name, sorted((of, s.name) for of, s in self.spans))
        return found[0]


def wait_for_names(collector, wanted, trace=TRACE, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        tree = Tree(collector, trace)
        missing = wanted - {(service, s.name) for service, s in tree.spans}
        if not missing:
            return tree
        assert time.monotonic() < deadline, f"missing {missing}"
        time.sleep(0.05)


def traced(collector, protocol="grpc"):
    port = collector.grpc_port if protocol == "grpc" else collector.http.server_port
    return {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_BSP_SCHEDULE_DELAY": "50"}


def pool(started, collector):
    """Two engines, the second behind a sidecar; the endpoints to route to. Each exports in a way of its own."""
    flags = [*kv_pool(1440), "--kv-transfer-config", transfer_config("auto")]
    prefill = started(Engine("prefill", *flags, "--otlp-traces-endpoint", f"http://127.0.0.1:{collector.grpc_port}",
                             env={"OTEL_SERVICE_NAME": "prefill", "OTEL_BSP_SCHEDULE_DELAY": "50"}))
    decode = started(Engine("decode", *flags, env={**traced(collector, "http/protobuf"), "OTEL_SERVICE_NAME": "decode"}))
    for engine in (prefill, decode):
        engine.wait_http(engine.port, "/health")
    sidecar = started(Sidecar("sidecar", decode, env=traced(collector, "http/json")))
    sidecar.wait_http(sidecar.port, "/ready")
    return prefill, decode, sidecar, [("p", prefill.port, "prefill"), ("d", sidecar.port, "decode")]


def ask(gateway, stream, sampled=True, prompt="PROMPT_1"):
    reply = requests.post(f"{gateway.url}/v1/completions", timeout=120,
                          json={"model": "smol", "prompt": PROMPTS[prompt], "max_tokens": 8, "temperature": 0, "stream": stream},
                          headers={"traceparent": f"00-{TRACE}-{PARENT}-{'01' if sampled else '00'}", "x-request-id": "one-trace"})
    assert reply.status_code == 200, reply.text
    return reply


WANTED = {("llmd-gateway", "gateway.request"), ("llmd-gateway", "gateway.request_orchestration"), ("llmd-gateway", "gateway.upstream"),
          ("llmd-sidecar", "llm_d.pd_proxy.request"), ("llmd-sidecar", "llm_d.pd_proxy.prefill"), ("llmd-sidecar", "llm_d.pd_proxy.decode"),
          ("prefill", "llm_request"), ("prefill", "llm_request.queue"), ("prefill", "llm_request.prefill"),
          ("decode", "llm_request"), ("decode", "llm_request.queue"), ("decode", "llm_request.kv_load"),
          ("decode", "llm_request.prefill"), ("decode", "llm_request.decode")}


def check(tree):
    """The links from the client down to both engines, and that each span lies within its parent."""
    root = tree.one("llmd-gateway", "gateway.request")
    assert root.parent_span_id.hex() == PARENT
    tree.one("llmd-gateway", "gateway.request_orchestration", root)
    upstream = tree.one("llmd-gateway", "gateway.upstream", root)
    proxy = tree.one("llmd-sidecar", "llm_d.pd_proxy.request", upstream)
    legs = [tree.one("llmd-sidecar", f"llm_d.pd_proxy.{leg}", proxy) for leg in ("prefill", "decode")]
    prefill, decode = (tree.one(engine, "llm_request", leg) for engine, leg in zip(("prefill", "decode"), legs))
    for name in ("queue", "prefill"):
        tree.one("prefill", f"llm_request.{name}", prefill)
    for name in ("queue", "kv_load", "prefill", "decode"):
        tree.one("decode", f"llm_request.{name}", decode)
    assert not tree.named("prefill", "llm_request.kv_load")
    assert legs[0].end_time_unix_nano <= legs[1].start_time_unix_nano, "the decode leg follows the prefill leg"
    load = tree.one("decode", "llm_request.kv_load")
    assert {a.key: a.value.int_value for a in load.attributes}["llm_d.remote_tokens"] > 0
    by_id = {s.span_id: s for _, s in tree.spans}
    for service, span in tree.spans:
        assert span.start_time_unix_nano <= span.end_time_unix_nano, span
        if span.parent_span_id in by_id and service in ("prefill", "decode"):
            assert by_id[span.parent_span_id].start_time_unix_nano <= span.start_time_unix_nano, span
    assert len(by_id) == len(tree.spans), "no identity is used twice"
    return root


@pytest.mark.parametrize("stream", [False, True])
def test_a_disaggregated_request_is_one_trace(started, tmp_path, collector, stream):
    prefill, decode, sidecar, endpoints = pool(started, collector)
    (tmp_path / "endpoints.yaml").write_text(endpoints_yaml(endpoints))
    (tmp_path / "gateway.yaml").write_text(picker_config(tmp_path / "endpoints.yaml", disaggregate=True))
    gateway = started(Gateway("--config-file", str(tmp_path / "gateway.yaml"), "--metrics-port", "0", env=traced(collector)))
    gateway.wait_http(gateway.port, "/ready")
    ask(gateway, stream, sampled=False, prompt="PROMPT_3")
    assert "usage" in ask(gateway, stream).text or stream
    tree = wait_for_names(collector, WANTED)
    check(tree)
    assert len(tree.named("llmd-gateway", "gateway.request")) == 1, "the request whose parent is not sampled leaves none"
    lines = [line for line in gateway.json_lines() if line["msg"] == "request" and line["x-request-id"] == "one-trace"]
    assert [line["traceId"] for line in lines] == [TRACE, TRACE]
    for line in lines:
        assert (line["endpoint"], line["address"]) == ("default/d", f"127.0.0.1:{sidecar.port}")
        assert line["model"] == "smol" and line["route"] == line["path"] == "/v1/completions" and line["attempts"] == 1
        assert line["completionTokens"] > 0 if stream else line["completionTokens"] == 8
        assert line.get("estimated", False) == stream
        assert 0 < line["ttftSeconds"] <= line["seconds"] and line["queueSeconds"] >= 0
    assert PROMPTS["PROMPT_1"][:30] not in "".join(json.dumps(line) for line in gateway.json_lines())
    [line] = [line for line in sidecar.json_lines() if line["msg"] == "request" and line.get("traceId") == TRACE][1:]
    assert line["endpoint"] == f"127.0.0.1:{prefill.port}" and line["address"] == f"127.0.0.1:{decode.port}" and line["attempts"] == 2
    answered = [line for line in decode.json_lines() if line.get("route") == "/v1/completions"]
    assert [line["traceId"] for line in answered] == [TRACE, TRACE] and answered[-1]["completionTokens"] == 8
    assert metric(f"{decode.url}/metrics", "http_requests_total", handler="/v1/completions", status="200") == 2
    assert metric(f"{decode.url}/metrics", "vllm:request_queue_time_seconds_count") == 2


def test_with_a_picker_of_its_own_it_is_one_trace_too(started, tmp_path, collector):
    prefill, decode, sidecar, endpoints = pool(started, collector)
    picker = started(Picker(tmp_path, endpoints, disaggregate=True, env={**traced(collector), "OTEL_SERVICE_NAME": "picker"}))
    picker.wait_http(picker.admin_port, "/readyz")
    gateway = started(Gateway("--epp", f"127.0.0.1:{picker.grpc_port}", "--metrics-port", "0", env=traced(collector)))
    gateway.wait_http(gateway.port, "/ready")
    ask(gateway, False)
    tree = wait_for_names(collector, WANTED | {("picker", "gateway.request"), ("picker", "run_scheduler_profile")})
    check(tree)
    asking = tree.one("llmd-gateway", "gateway.request_orchestration")
    tree.one("picker", "gateway.request", asking)
    [line] = [line for line in gateway.json_lines() if line["msg"] == "request" and line["x-request-id"] == "one-trace"]
    assert line["traceId"] == TRACE and line["model"] == "smol" and line["endpoint"] == f"127.0.0.1:{sidecar.port}"


def test_a_bad_variable_ends_sidecar_and_engine_and_is_named():
    for command in (["llmd-sidecar", "--port", "0", "--secure-proxy=false", "--tracing"], ["llmd-engine", "serve", "none.gguf", "--tracing"]):
        done = subprocess.run([binary(command[0]), *command[1:]], capture_output=True, text=True, timeout=20,
                              env={"OTEL_TRACES_SAMPLER_ARG": "2"})
        assert done.returncode == 1 and "OTEL_TRACES_SAMPLER_ARG='2'" in done.stderr, (command, done)
