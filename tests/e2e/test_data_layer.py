"""The gateway's picker over scripted engines: what it reads of them, and what it makes of that."""
import json
import time

import pytest
import requests

from conftest import Gateway, metric
from fake_engine import FakeEngine, response

CONFIG = """apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: file-discovery, parameters: {{path: {endpoints}, resolveInterval: 1s}}}}
- {{type: metrics-data-source, parameters: {{interval: 100ms}}}}
- type: core-metrics-extractor
  parameters:
    customMetrics: [{{attributeKey: heat, metricSpec: "engine_heat{{place=inside}}"}}]
- {{type: models-data-source, parameters: {{interval: 200ms}}}}
- {{type: models-data-extractor}}
- {{type: dcgm-data-source, parameters: {{interval: 200ms, path: /gpu, port: {gpu_port}}}}}
- {{type: dcgm-extractor}}
- type: endpoint-attribute-scorer
  parameters: {{attributeKey: heat, algorithm: {{type: linear_lower_is_better}}}}
- type: endpoint-attribute-filter
  parameters:
    attribute: GPUUtilization
    producer: dcgm-extractor
    algorithm: {{type: threshold, threshold: {{operator: LessThan, value: 0.9}}}}
schedulingProfiles:
- name: default
  plugins: [{{pluginRef: endpoint-attribute-filter}}, {{pluginRef: endpoint-attribute-scorer}}]
dataLayer:
  discovery: {{pluginRef: file-discovery}}
  sources:
  - {{pluginRef: metrics-data-source, extractors: [{{pluginRef: core-metrics-extractor}}]}}
  - {{pluginRef: models-data-source, extractors: [{{pluginRef: models-data-extractor}}]}}
  - {{pluginRef: dcgm-data-source, extractors: [{{pluginRef: dcgm-extractor}}]}}
"""


class ScriptedEngine(FakeEngine):
    """Serves a metrics page, a model list and completions that name it."""

    def __init__(self, name, models):
        self.name, self.models, self.heat, self.healthy = name, models, 0, True
        super().__init__(self.reply)

    async def reply(self, request, _):
        if request.target == "/metrics":
            page = (f'engine_heat{{place="outside"}} 99\nengine_heat{{place="inside"}} {self.heat}\n'
                    "vllm:num_requests_waiting 0\n")
            return response(200 if self.healthy else 500, page.encode(), "text/plain")
        if request.target == "/v1/models":
            return response(200, json.dumps({"object": "list", "data": self.models}).encode())
        return response(200, json.dumps({"id": self.name, "object": "text_completion", "choices": []}).encode())


class Exporter(FakeEngine):
    """A DCGM exporter that tells of several pods."""

    def __init__(self):
        self.use = {}
        super().__init__(self.reply)

    async def reply(self, request, _):
        page = "".join(f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",pod="{pod}"}} {use}\n' for pod, use in self.use.items())
        return response(200, page.encode(), "text/plain")


def until(holds):
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def pool(started, tmp_path):
    exporter = Exporter()
    exporter.use = {"a": 10, "b": 20}
    engines = [ScriptedEngine("a", [{"id": "base"}, {"id": "sql", "parent": "base"}]),
               ScriptedEngine("b", [{"id": "base"}, {"id": "art", "parent": "base"}])]
    endpoints = tmp_path / "endpoints.yaml"
    endpoints.write_text("endpoints:\n" + "".join(
        f"- {{name: {e.name}, address: localhost, port: {e.port}}}\n" for e in engines))
    config = tmp_path / "gateway.yaml"
    config.write_text(CONFIG.format(endpoints=endpoints, gpu_port=exporter.port))
    gateway = started(Gateway("--config-file", str(config), "--allow-experimental-plugins"))
    gateway.wait_http(gateway.port, "/ready")
    yield gateway, engines, exporter
    for server in engines + [exporter]:
        server.close()


def answered_by(gateway):
    reply = requests.post(f"{gateway.url}/v1/completions", json={"model": "base", "prompt": "x"}, timeout=10)
    return reply.json()["id"] if reply.status_code == 200 else reply.status_code


def test_a_custom_metric_steers(pool):
    gateway, (a, b), _ = pool
    a.heat, b.heat = 1, 2
    assert until(lambda: [answered_by(gateway) for _ in range(4)] == ["a"] * 4)
    a.heat, b.heat = 3, 2
    assert until(lambda: [answered_by(gateway) for _ in range(4)] == ["b"] * 4)


def test_a_busy_gpu_is_left_out_and_all_busy_is_429(pool):
    gateway, (a, b), exporter = pool
    a.heat, b.heat = 1, 2
    exporter.use = {"a": 95, "b": 20}
    assert until(lambda: [answered_by(gateway) for _ in range(4)] == ["b"] * 4)
    exporter.use = {"a": 95, "b": 90}
    assert until(lambda: answered_by(gateway) == 429)


def test_the_model_list_is_the_union_of_the_pool(pool):
    gateway, _, _ = pool

    def models():
        return {m["id"]: m.get("parent") for m in requests.get(f"{gateway.url}/v1/models", timeout=10).json()["data"]}

    assert until(lambda: models() == {"art": "base", "base": None, "sql": "base"})


def test_errors_are_counted_by_source_and_extractor(pool):
    gateway, (a, _), exporter = pool

    def polls(source):
        return metric(f"{gateway.url}/metrics", "llm_d_epp_datalayer_poll_errors_total", source_type=source)

    def extracts():
        return metric(f"{gateway.url}/metrics", "llm_d_epp_datalayer_extract_errors_total",
                      source_type="dcgm-data-source", extractor_type="dcgm-extractor")

    a.healthy = False
    assert until(lambda: polls("metrics-data-source") >= 3)
    exporter.use = {"somebody-else": 50}
    assert until(lambda: extracts() >= 3)
    assert polls("models-data-source") == polls("dcgm-data-source") == 0
