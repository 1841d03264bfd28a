"""Predicted latency over the wire: llmd-epp learns from the answers that pass, and refuses what no engine can serve in time."""
import json
import time

import grpc
import pytest

from conftest import Picker, metric
from ext_proc import POST, MetricsEngine, Stream

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: predicted-latency-producer, parameters: {streamingMode: true, statePath: "STATE"}}
- {type: latency-scorer}
- {type: latency-slo-admitter}
- {type: file-discovery, parameters: {path: "ENDPOINTS", watchFile: true}}
schedulingProfiles:
- {name: default, plugins: [{pluginRef: latency-scorer}]}
dataLayer: {discovery: {pluginRef: file-discovery}}
"""
BODY = json.dumps({"model": "m", "prompt": "hello", "stream": True}).encode()
SSE = ((":status", "200"), ("content-type", "text/event-stream"))
LAST = b'data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":9}}\n\ndata: [DONE]\n\n'
SAMPLES = 60


@pytest.fixture(scope="module")
def busy_engine():
    engine = MetricsEngine(waiting=1, running=3, kv=0.5)
    yield engine
    engine.close()


def start(started_any, tmp_path, engine):
    def config(endpoints):
        return CONFIG.replace("ENDPOINTS", str(endpoints)).replace("STATE", str(tmp_path / "latency.json"))
    picker = Picker(tmp_path, [("a", engine.port, "decode")], config=config)
    picker.set_endpoints([("a", engine.port, "decode")], "objectives: [{name: batch, priority: -1}]\n")
    started_any(picker).wait_http(picker.admin_port, "/readyz")
    until = time.monotonic() + 10
    while metric(picker.admin + "/metrics", "llm_d_epp_average_kv_cache_utilization") != 0.5:  # a page has been read
        assert time.monotonic() < until, picker.log()
        time.sleep(0.05)
    return picker


def ask(stream, ttft_ms=None, objective=None):
    headers = POST + ([("x-llm-d-slo-ttft-ms", str(ttft_ms))] if ttft_ms is not None else [])
    headers += [("x-llm-d-inference-objective", objective)] if objective else []
    return stream.headers(headers).body(BODY)


def serve(picker, channel):
    with Stream(picker, channel) as stream:
        ask(stream).routed()
        stream.answered(SSE)
        stream.passed(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', 100, end=False)
        stream.passed(LAST, len(LAST))


def test_what_was_learned_is_told_acted_on_and_kept(started, tmp_path, busy_engine):
    picker = start(started, tmp_path, busy_engine)
    with grpc.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel:
        for _ in range(SAMPLES):
            serve(picker, channel)
        assert metric(picker.admin + "/metrics", "llm_d_epp_request_predicted_ttft_seconds_count") == SAMPLES - 50
        assert metric(picker.admin + "/metrics", "llm_d_epp_request_ttft_prediction_duration_seconds_count") == SAMPLES
        with Stream(picker, channel) as idle:
            ask(idle, ttft_ms=0.0001, objective="batch").routed()  # nobody runs there: it may try
            with Stream(picker, channel) as late:
                refusal = ask(late, ttft_ms=0.0001, objective="batch").refused()
                assert (refusal.status, refusal.reason) == (429, "rejected-saturated")
                assert refusal.headers["retry-after"]
            for ttft_ms, objective in [(60_000, "batch"), (0.0001, None), (None, "batch")]:
                with Stream(picker, channel) as fine:
                    ask(fine, ttft_ms, objective).routed()
    picker.stop()
    state = json.loads((tmp_path / "latency.json").read_text())
    assert state["version"] == 1 and state["model"]["classes"][0]["ttft"]["samples"] == SAMPLES

    again = start(started, tmp_path, busy_engine)
    with grpc.insecure_channel(f"127.0.0.1:{again.grpc_port}") as channel:
        serve(again, channel)
    assert metric(again.admin + "/metrics", "llm_d_epp_request_predicted_ttft_seconds_count") == 1
