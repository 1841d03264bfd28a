"""The real Envoy in front of llmd-epp and real engines, with the configuration the project ships."""
import sys
import time

import pytest
import requests

from conftest import PROMPTS, Engine, Picker, Process, complete, free_port, kv_pool, metric
from envoy_process import Envoy


@pytest.fixture(scope="module")
def stack(started_module, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("envoy")
    engines = [started_module(Engine(f"decode-{i}", *kv_pool(1440))) for i in range(2)]
    for engine in engines:
        engine.wait_http(engine.port, "/health")
    picker = started_module(Picker(tmp, [(e.name, e.port, "decode") for e in engines], "--max-body-bytes", "1000000"))
    picker.wait_http(picker.admin_port, "/readyz")
    envoy = started_module(Envoy(tmp, picker))
    envoy.wait_http(envoy.port, "/v1/models")
    return envoy, picker, engines


def post(envoy, body, **kwargs):
    return requests.post(f"{envoy.url}/v1/completions", timeout=60, **kwargs,
                         **({"json": body} if isinstance(body, dict) else {"data": body}))


def test_plain_and_streaming_give_the_same_text(stack):
    envoy, _, engines = stack
    direct = complete(engines[0].url, PROMPTS["PROMPT_1"], 24)["choices"][0]["text"]
    assert complete(envoy.url, PROMPTS["PROMPT_1"], 24)["choices"][0]["text"] == direct
    assert complete(envoy.url, PROMPTS["PROMPT_1"], 24, stream=True) == direct


def test_envoys_access_log_names_the_endpoint_of_the_trace(stack):
    envoy, picker, _ = stack
    complete(envoy.url, PROMPTS["PROMPT_2"], 4, headers={"x-request-id": "envoy-trace-1"})
    trace = picker.decision("envoy-trace-1")
    deadline = time.monotonic() + 15
    while envoy.access("envoy-trace-1") is None and time.monotonic() < deadline:
        time.sleep(0.1)
    line = envoy.access("envoy-trace-1")
    assert line, envoy.log()[-2000:]
    assert line["upstream"] == trace["addresses"][trace["primary"]]
    assert int(line["code"]) == 200


def test_a_large_prompt_arrives_whole(stack):
    envoy, _, _ = stack
    reply = post(envoy, {"model": "smol", "prompt": "word " * 90_000, "max_tokens": 1})
    assert reply.status_code == 400 and "maximum context length" in reply.text


def test_unknown_model_is_404(stack):
    assert post(stack[0], {"model": "nobody", "prompt": "x"}).status_code == 404


def test_bad_json_is_400_with_a_reason(stack):
    reply = post(stack[0], b"{nope", headers={"content-type": "application/json"})
    assert reply.status_code == 400 and "inference error: BadRequest" in reply.text


def test_a_body_over_the_limit_is_413(stack):
    reply = post(stack[0], {"model": "smol", "prompt": "x" * 1_100_000})
    assert reply.status_code == 413


def test_no_endpoint_is_503(started, tmp_path):
    picker = started(Picker(tmp_path, []))
    envoy = started(Envoy(tmp_path, picker))
    envoy.wait_http(envoy.admin_port, "/ready")
    deadline = time.monotonic() + 20
    while True:
        reply = post(envoy, {"model": "smol", "prompt": "x"})
        if reply.headers.get("x-llm-d-request-dropped-reason") or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert reply.status_code == 503
    assert reply.headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"


def test_an_engines_429_is_relayed_with_retry_after(started, tmp_path):
    saturated = started(SaturatedEngine())
    saturated.wait_http(saturated.port, "/health")
    picker = started(Picker(tmp_path, [("decode-0", saturated.port, "decode")]))
    picker.wait_http(picker.admin_port, "/readyz")
    envoy = started(Envoy(tmp_path, picker))
    envoy.wait_http(envoy.port, "/v1/models")
    reply = post(envoy, {"model": "smol", "prompt": "x"})
    assert reply.status_code == 429
    assert reply.headers["retry-after"] == "7"


class SaturatedEngine(Process):
    """Scripted, since a real engine is not saturated on command."""

    def __init__(self):
        self.port = free_port()
        script = ("import http.server\n"
                  "class H(http.server.BaseHTTPRequestHandler):\n"
                  "  def do_GET(self):\n"
                  "    self.send_response(200); self.send_header('Content-Length', '0'); self.end_headers()\n"
                  "  def do_POST(self):\n"
                  "    n = self.headers.get('Content-Length')\n"
                  "    while n is None:\n"
                  "      size = int(self.rfile.readline(), 16); self.rfile.read(size + 2)\n"
                  "      if size == 0: break\n"
                  "    if n: self.rfile.read(int(n))\n"
                  "    self.send_response(429); self.send_header('Retry-After', '7'); self.send_header('Content-Length', '0'); self.end_headers()\n"
                  "  def log_message(self, *a): pass\n"
                  f"http.server.ThreadingHTTPServer(('127.0.0.1', {self.port}), H).serve_forever()\n")
        super().__init__("saturated", [sys.executable, "-c", script])


def wait_for_running(engines, wanted):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if sum(metric(f"{e.url}/metrics", "vllm:num_requests_running") for e in engines) == wanted:
            return True
        time.sleep(0.01)
    return False


def test_a_client_that_leaves_mid_stream_frees_the_engines_blocks(stack):
    envoy, _, engines = stack
    body = {"model": "smol", "prompt": PROMPTS["PROMPT_4"], "max_tokens": 1000, "ignore_eos": True, "stream": True}
    with requests.post(f"{envoy.url}/v1/completions", json=body, stream=True, timeout=60) as reply:
        assert reply.status_code == 200
        lines = reply.iter_lines(chunk_size=1)  # dropped, it would close the connection
        next(lines)
        assert wait_for_running(engines, 1)
    assert wait_for_running(engines, 0)
    assert sum(metric(f"{e.url}/metrics", "vllm:kv_cache_usage_perc") for e in engines) == 0


def test_without_the_picker_new_requests_get_503(started, tmp_path, stack):
    _, _, engines = stack
    picker = started(Picker(tmp_path, [("decode-0", engines[0].port, "decode")]))
    picker.wait_http(picker.admin_port, "/readyz")
    envoy = started(Envoy(tmp_path, picker))
    envoy.wait_http(envoy.port, "/v1/models")
    picker.kill()
    assert post(envoy, {"model": "smol", "prompt": "x"}).status_code == 503
