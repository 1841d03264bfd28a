"""The real llmd-epp as a process: its flags, its ports, and what its log of decisions says of a wire request. The wire itself is
under conformance/."""
import json
import subprocess
import time

import pytest
import requests

from conftest import Gateway, Picker, binary, metric
from ext_proc import POST, Stream, config_of
from fake_engine import FakeEngine, send_chunked


@pytest.fixture(scope="module")
def picker(started_module, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("picker")
    process = started_module(Picker(tmp, [("a", 7001, "decode"), ("b", 7002, "decode"), ("p", 7003, "prefill")]))
    return process.wait_http(process.admin_port, "/readyz")


def test_prefill_endpoints_never_get_a_request(picker):
    seen = set()
    for i in range(40):  # no two prompts alike, or the prefix would decide
        with Stream(picker) as stream:
            stream.headers().body(json.dumps({"model": "m", "prompt": f"{i} {i * i}"}).encode())
            seen.add(stream.routed()[0].destination)
    assert seen == {"127.0.0.1:7001", "127.0.0.1:7002"}


def test_two_model_keys_mean_the_last(picker):
    with Stream(picker) as stream:
        stream.headers(POST + [("x-request-id", "two-models")])
        stream.body(b'{"model":"first","prompt":"x","model":"second"}').routed()
    assert picker.decision("two-models")["model"] == "second"


def test_a_port_in_use_is_named(picker):
    result = subprocess.run([binary("llmd-epp"), "--config-file", str(picker.endpoints_path.with_name(f"epp-{picker.grpc_port}.yaml")),
                             "--grpc-port", str(picker.grpc_port), "--metrics-port", "0", "--grpc-health-port", "0",
                             "--secure-serving=false"], capture_output=True, text=True, timeout=20)
    assert result.returncode == 1
    assert "--grpc-port" in result.stderr and str(picker.grpc_port) in result.stderr


@pytest.mark.parametrize("flag,code,word", [
    (["--no-such-flag"], 2, "no-such-flag"),
    (["--secure-serving=false", "--pools-file", "x", "--config-file", "y"], 2, "--pools-file"),
    (["--ha-enable-leader-election"], 2, "leader")])
def test_flags_that_cannot_be_honoured_exit_2_and_say_why(flag, code, word):
    result = subprocess.run([binary("llmd-epp"), *flag], capture_output=True, text=True, timeout=20)
    assert result.returncode == code and word in result.stderr


async def stream_answer(request, writer):
    await send_chunked(writer, [b"data: %d\n\n" % i for i in range(20)] + [b"data: [DONE]\n\n"], "text/event-stream")


def test_the_gateway_keeps_bodies_that_the_picker_does_not_read(started, tmp_path):
    engine = FakeEngine(stream_answer)
    picker = started(Picker(tmp_path, [("a", engine.port, "decode")], "--token-metrics=false", config=config_of()))
    picker.wait_http(picker.admin_port, "/readyz")
    gateway = started(Gateway("--epp", f"127.0.0.1:{picker.grpc_port}"))
    gateway.wait_http(gateway.port, "/ready")
    body = requests.post(f"{gateway.url}/v1/completions", json={"model": "m", "prompt": "x", "stream": True}, timeout=10).content
    assert body.count(b"data: ") == 21 and body.endswith(b"[DONE]\n\n")

    def series(name):
        return metric(f"{picker.admin}/metrics", f"llm_d_epp_{name}", model_name="m")
    deadline = time.monotonic() + 5
    while series("request_running") != 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert series("request_duration_seconds_count") == 1
    assert series("response_size_bytes_count") == 0, "no chunk came here"
    engine.close()
