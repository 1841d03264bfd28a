"""Spans as a real OpenTelemetry collector receives them: gRPC, HTTP/protobuf and HTTP/JSON, checked with its own schema."""
import time

import pytest
import requests

from authority import Authority
from conftest import Gateway, endpoints_yaml, metric, picker_config
from fake_engine import FakeEngine, response
from otlp_collector import Collector

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SPANS = {"gateway.request", "gateway.request_orchestration", "gateway.upstream", "run_scheduler_profile", "filter_endpoints",
         "llm_d.epp.scoring", "llm_d.epp.scorer.prefix-cache-scorer", "llm_d.epp.scorer.load-aware-scorer", "pick_endpoints"}


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.stop()


async def answer(request, _writer):
    if request.method == "GET":
        return response(body=b"vllm:num_requests_waiting 0.0\n", content_type="text/plain")
    return response(body=b'{"id":"x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}')


def gateway_with(started, tmp_path, environment, flags=("--tracing",)):
    engine = FakeEngine(answer)
    endpoints = tmp_path / "endpoints.yaml"
    endpoints.write_text(endpoints_yaml([("e", engine.port, "decode")]))
    config = tmp_path / "gateway.yaml"
    config.write_text(picker_config(endpoints, disaggregate=False))
    gateway = started(Gateway("--config-file", str(config), "--metrics-port", "0", *flags,
                              env={"OTEL_BSP_SCHEDULE_DELAY": "50", **environment}))
    gateway.wait_http(gateway.port, "/ready")
    return gateway, engine


def ask(gateway, sampled=True):
    reply = requests.post(f"{gateway.url}/v1/completions", json={"model": "m", "prompt": "hello"}, timeout=20,
                          headers={"traceparent": f"00-{TRACE}-{PARENT}-{'01' if sampled else '00'}"})
    assert reply.status_code == 200, reply.text


def wait_for(condition, what, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf", "http/json"])
def test_a_collector_gets_the_request_as_a_tree_of_spans(started, tmp_path, collector, protocol):
    port = collector.grpc_port if protocol == "grpc" else collector.http.server_port
    gateway, engine = gateway_with(started, tmp_path, {
        "OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_EXPORTER_OTLP_HEADERS": "X-Team=blue",
        "OTEL_SERVICE_NAME": "picker-of-tests"})
    ask(gateway, sampled=False)
    ask(gateway)
    wait_for(lambda: {s.name for s in collector.spans()} >= SPANS, "every span arrives")
    spans = {s.name: s for s in collector.spans()}
    assert len(collector.spans()) == len(SPANS), "the request whose parent was not sampled leaves none"
    assert all(s.trace_id.hex() == TRACE for s in spans.values())
    root = spans["gateway.request"]
    assert root.parent_span_id.hex() == PARENT and root.kind == root.SPAN_KIND_SERVER
    assert spans["gateway.request_orchestration"].parent_span_id == root.span_id
    assert spans["run_scheduler_profile"].parent_span_id == spans["gateway.request_orchestration"].span_id
    assert spans["llm_d.epp.scorer.load-aware-scorer"].parent_span_id == spans["llm_d.epp.scoring"].span_id
    for span in spans.values():
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano <= root.end_time_unix_nano
    attributes = {a.key: a.value for a in root.attributes}
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["gen_ai.usage.output_tokens"].int_value == 5
    assert attributes["gen_ai.request.model"].string_value == "m"
    resource = collector.requests()[0].resource_spans[0].resource.attributes
    assert {a.key: a.value.string_value for a in resource} == {"service.name": "picker-of-tests"}
    assert collector.headers[0]["x-team"] == "blue"
    # The engine continues the trace below the attempt that asks it.
    attempt = spans["gateway.upstream"]
    assert attempt.parent_span_id == root.span_id and attempt.kind == attempt.SPAN_KIND_CLIENT
    sent = [r for r in engine.requests if r.method == "POST"][-1].header("traceparent")
    assert sent == [f"00-{TRACE}-{attempt.span_id.hex()}-01"]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_spans_go_over_tls_to_a_collector_that_is_believed(started, tmp_path, protocol):
    authority = Authority(tmp_path / "authority", "ours")
    collector = Collector(authority.issue(tmp_path / "collector", "collector"))
    port = collector.grpc_port if protocol == "grpc" else collector.http.server_port
    environment = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                   "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://127.0.0.1:{port}"}
    stranger, _ = gateway_with(started, tmp_path, environment)
    ask(stranger)
    wait_for(lambda: "certificate" in stranger.log().lower() or "handshake" in stranger.log().lower(), "the refusal is logged")
    assert not collector.bodies
    gateway, _ = gateway_with(started, tmp_path, {**environment, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.cert)})
    ask(gateway)
    wait_for(lambda: {s.name for s in collector.spans()} >= SPANS, "every span arrives")
    collector.stop()


def test_spans_are_flushed_on_exit(started, tmp_path, collector):
    gateway, _ = gateway_with(started, tmp_path, {
        "OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.grpc_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "600000"})
    ask(gateway)
    assert collector.spans() == []
    gateway.popen.terminate()
    gateway.popen.wait(20)
    assert {s.name for s in collector.spans()} >= SPANS


def test_a_dead_collector_costs_no_request_and_is_told_once(started, tmp_path):
    gateway, _ = gateway_with(started, tmp_path, {
        "OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "200"})
    for _ in range(5):
        ask(gateway)
        time.sleep(0.1)
    wait_for(lambda: metric(f"{gateway.url}/metrics", "llm_d_epp_trace_spans_failed_total") > 0, "failures are counted")
    assert sum(line["msg"] == "Spans not exported" for line in gateway.json_lines()) == 1


def test_the_console_exporter_writes_lines_beside_the_log(started, tmp_path):
    gateway, _ = gateway_with(started, tmp_path, {})
    ask(gateway)
    wait_for(lambda: any(line.get("msg") == "span" for line in gateway.json_lines()), "a line appears")
    span = next(line for line in gateway.json_lines() if line["msg"] == "span")["span"]
    assert span["traceId"] == TRACE


def test_a_wrong_variable_ends_the_start_and_is_named(started, tmp_path):
    import subprocess

    from conftest import binary
    done = subprocess.run([binary("llmd-gateway"), "--port", "0", "--metrics-port", "0", "--tracing"], capture_output=True,
                          text=True, timeout=20, env={"OTEL_TRACES_SAMPLER_ARG": "2"})
    assert done.returncode == 1 and "OTEL_TRACES_SAMPLER_ARG='2'" in done.stderr


@pytest.mark.parametrize("flags, variables, traced", [
    ((), {}, False), (("--tracing=false",), {"OTEL_TRACES_EXPORTER": "console"}, False), (("--tracing",), {}, True),
    ((), {"OTEL_TRACES_EXPORTER": "console"}, True)])
def test_tracing_is_on_by_default_once_the_environment_names_an_exporter(started, tmp_path, flags, variables, traced):
    gateway, _ = gateway_with(started, tmp_path, variables, flags)
    ask(gateway)
    page = requests.get(f"{gateway.url}/metrics", timeout=5).text
    assert ("llm_d_epp_trace_spans_exported_total" in page) == traced
