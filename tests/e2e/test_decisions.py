"""What the real gateway tells of its decisions: the admin routes, the response header, the command."""
import json
import subprocess

import pytest
import requests

from conftest import Gateway, binary, endpoints_yaml, free_port, picker_config
from fake_engine import FakeEngine, response


async def answer(request, _writer):
    if request.method == "GET":
        return response(body=b"vllm:num_requests_waiting 0.0\n", content_type="text/plain")
    return response(body=b'{"id":"x","choices":[]}')


@pytest.fixture(scope="module")
def gateway(started_module, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("decisions")
    engines = [FakeEngine(answer) for _ in range(2)]
    endpoints = tmp / "endpoints.yaml"
    endpoints.write_text(endpoints_yaml([(f"e{i}", e.port, "decode") for i, e in enumerate(engines)]))
    config = tmp / "gateway.yaml"
    config.write_text(picker_config(endpoints, disaggregate=False))
    admin_port = free_port()
    gateway = started_module(Gateway("--config-file", str(config), "--metrics-port", str(admin_port),
                                     "--explain-header-token", "secret"))
    gateway.wait_http(gateway.port, "/ready")
    gateway.admin, gateway.engines = f"127.0.0.1:{admin_port}", engines
    return gateway


def ask(gateway, request_id, **headers):
    reply = requests.post(f"{gateway.url}/v1/completions", json={"model": "m", "prompt": "x" * 600}, timeout=20,
                          headers={"x-request-id": request_id, **headers})
    assert reply.status_code == 200, reply.text
    return reply


def test_decisions_are_listed_newest_first_and_shown_by_id(gateway):
    for request_id in ("one", "two"):
        ask(gateway, request_id)
    listed = requests.get(f"http://{gateway.admin}/debug/decisions?limit=2", timeout=5).json()
    assert [d["request_id"] for d in listed] == ["two", "one"]
    one = requests.get(f"http://{gateway.admin}/debug/decisions/one", timeout=5).json()
    profile = one["profiles"][0]
    assert {"filters", "scores", "totals", "margin", "tied", "picker", "picked"} <= set(profile)
    assert all(len(s["raw"]) == len(s["weighted"]) == 2 for s in profile["scores"])
    assert one["metrics_age_ms"] and one["endpoints"][one["primary"]] == listed[1]["endpoint"]
    assert requests.get(f"http://{gateway.admin}/debug/decisions/none", timeout=5).status_code == 404
    assert requests.get(f"http://{gateway.admin}/debug/decisions?limit=many", timeout=5).status_code == 400
    assert requests.get(f"{gateway.url}/debug/decisions", timeout=5).status_code == 404, "not on the clients' port"


def test_all_tries_of_one_id_are_there(gateway):
    for _ in range(3):
        ask(gateway, "again")
    shown = requests.get(f"http://{gateway.admin}/debug/decisions/again", timeout=5).json()
    tries = [*shown["earlier"], shown]
    assert len(tries) == 3 and [t["unix_nanos"] for t in tries] == sorted(t["unix_nanos"] for t in tries)
    text = subprocess.run([binary("llmd"), "explain", "again", "--admin", gateway.admin], capture_output=True, text=True,
                          timeout=20).stdout
    assert text.startswith("request again was tried 3 times\n  try 1 of 3 at ")


def test_the_command_lists_and_explains(gateway):
    ask(gateway, "for-the-command")
    listed = subprocess.run([binary("llmd"), "explain", "--admin", gateway.admin, "--limit", "3"], capture_output=True,
                            text=True, timeout=20)
    assert listed.returncode == 0 and listed.stdout.splitlines()[0].startswith("for-the-command  m  decode-only -> default/e")
    one = subprocess.run([binary("llmd"), "explain", "for-the-command", "--admin", gateway.admin], capture_output=True,
                         text=True, timeout=20)
    assert "prefix-cache-scorer x2.00" in one.stdout and "margin" in one.stdout and "<- chosen" in one.stdout


def test_the_decision_header_is_for_those_with_the_token(gateway):
    decision = json.loads(ask(gateway, "h1", **{"x-llm-d-explain": "secret"}).headers["x-llm-d-decision"])
    assert decision["profiles"][0]["endpoint"].startswith("default/e")
    for headers in ({}, {"x-llm-d-explain": "true"}):
        assert "x-llm-d-decision" not in ask(gateway, "h2", **headers).headers
    assert all(r.header("x-llm-d-explain") == [] for e in gateway.engines for r in e.requests)


def test_plugins_show_their_state(gateway):
    state = requests.get(f"http://{gateway.admin}/debug/plugins/state", timeout=5).json()
    assert state["approx-prefix-cache-producer"]["state"]["blocks"] > 0
    assert state["load-aware-scorer"] == {"type": "load-aware-scorer"}
