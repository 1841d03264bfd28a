"""Configurations that change under load: the real gateway and the real picker lose no request."""
import signal
import threading
import time

import requests

from conftest import Gateway, Picker, endpoints_yaml, metric, picker_config
from fake_engine import FakeEngine, response

OTHER = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: queue-scorer}}
- {{type: active-request-scorer}}
- {{type: file-discovery, parameters: {{path: "{endpoints}", watchFile: true}}}}
schedulingProfiles:
- name: default
  plugins: [{{pluginRef: queue-scorer}}, {{pluginRef: active-request-scorer, weight: {weight}}}]
dataLayer: {{discovery: {{pluginRef: file-discovery}}}}
"""
BAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: no-such-scorer}, {tpye: queue-scorer}]\n"
RELOADS = "llm_d_epp_config_reloads_total"


def replace(path, text):
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def wait_for(condition, what, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


async def answer(request, _writer):
    if request.method == "GET":
        return response(body=b"vllm:num_requests_waiting 0.0\nvllm:num_requests_running 0.0\n", content_type="text/plain")
    return response(body=b'{"id":"x","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}')


class Load:
    """Clients in a closed loop; what does not end with 200 is kept."""

    def __init__(self, url, clients=4):
        self.url, self.count, self.wrong = url, 0, []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self):
        with requests.Session() as session:
            while not self.stop.is_set():
                reply = session.post(f"{self.url}/v1/completions", json={"model": "m", "prompt": "hello"}, timeout=20)
                self.count += 1
                if reply.status_code != 200:
                    self.wrong.append((reply.status_code, reply.text))

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def test_the_gateway_reloads_under_load_without_an_error(started, tmp_path):
    engines = [FakeEngine(answer) for _ in range(2)]
    endpoints = tmp_path / "endpoints.yaml"
    endpoints.write_text(endpoints_yaml([(f"e{i}", e.port, "decode") for i, e in enumerate(engines)]))
    config = tmp_path / "gateway.yaml"
    config.write_text(picker_config(endpoints, disaggregate=False))
    gateway = started(Gateway("--config-file", str(config), "--metrics-port", "0"))
    gateway.wait_http(gateway.port, "/ready")
    metrics = f"{gateway.url}/metrics"
    load = Load(gateway.url)
    try:
        for turn in range(1, 6):
            replace(config, OTHER.format(endpoints=endpoints, weight=turn))
            wait_for(lambda: metric(metrics, RELOADS, result="success") == turn, f"reload {turn}")
            seen = load.count
            wait_for(lambda: load.count > seen + 20, "requests go on")
        replace(config, BAD)
        wait_for(lambda: metric(metrics, RELOADS, result="failure") == 1, "the bad file is refused")
        seen = load.count
        wait_for(lambda: load.count > seen + 20, "requests go on")
    finally:
        load.end()
    assert load.wrong == []
    wait_for(lambda: metric(metrics, "llm_d_epp_request_running") == 0, "nothing is counted for ever")
    told = [line for line in gateway.json_lines() if line["msg"] == "Configuration not reloaded, keeping the previous one"]
    assert len(told) == 1
    assert "no-such-scorer" in told[0]["error"] and "type" in told[0]["error"]


def test_the_picker_reads_its_file_on_sighup_and_keeps_its_endpoints(started, tmp_path):
    picker = started(Picker(tmp_path, [("a", 7001, "decode")], "--config-reload=false"))
    picker.wait_http(picker.admin_port, "/readyz")
    config = tmp_path / f"epp-{picker.grpc_port}.yaml"
    replace(config, OTHER.format(endpoints=picker.endpoints_path, weight=3))
    assert metric(f"{picker.admin}/metrics", RELOADS, result="success") == 0
    picker.popen.send_signal(signal.SIGHUP)
    wait_for(lambda: metric(f"{picker.admin}/metrics", RELOADS, result="success") == 1, "SIGHUP reloads")
    reloaded = [line for line in picker.json_lines() if line["msg"] == "Configuration reloaded"]
    assert reloaded[0]["pluginsKept"] >= 1, "file-discovery is the same"
    updates = sum(line["msg"] == "Endpoints updated" for line in picker.json_lines())
    picker.popen.send_signal(signal.SIGHUP)
    wait_for(lambda: metric(f"{picker.admin}/metrics", RELOADS, result="success") == 2, "again, though nothing changed")
    assert sum(line["msg"] == "Endpoints updated" for line in picker.json_lines()) == updates, "discovery ran on"
    assert requests.get(f"{picker.admin}/readyz", timeout=5).status_code == 200
