"""Prefill/decode evidence between real processes: what is pinned, what is read, and what happens when a side dies."""
import signal
import time

import pytest
import requests

from conftest import PROMPTS, Engine, Sidecar, complete, kv_pool, metric, transfer_config

PROMPT = PROMPTS["PROMPT_1"]
BLOCK = 16


def prefill_leg(engine, prompt):
    body = {"model": "smol", "prompt": prompt, "max_tokens": 1, "temperature": 0, "stream": False,
            "kv_transfer_params": {"do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None,
                                   "remote_block_ids": None, "remote_host": None, "remote_port": None}}
    reply = requests.post(f"{engine.url}/v1/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


def pinned(engine):
    return metric(f"{engine.url}/metrics", "llmd:kv_blocks_pinned")


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def refused(engine, reason):
    return metric(f"{engine.url}/metrics", "llmd:kv_transfers_refused_total", reason=reason)


def failures(engine):
    return metric(f"{engine.url}/metrics", "llmd:kv_load_failures_total")


def through(sidecar, prefill, prompt, max_tokens=16, **body):
    return complete(sidecar.url, prompt, max_tokens, headers={"x-prefiller-host-port": f"127.0.0.1:{prefill.port}"}, **body)


@pytest.fixture
def pair(started):
    prefill = started(Engine("prefill", *kv_pool(1440), "--kv-transfer-config",
                             transfer_config("auto", lease_s=3)))
    decode = started(Engine("decode", *kv_pool(1440), "--kv-transfer-config",
                            transfer_config("auto")))
    prefill.wait_http(prefill.port, "/health")
    decode.wait_http(decode.port, "/health")
    return prefill, decode


def test_the_prefill_reply_names_blocks_and_engine(pair):
    prefill, _ = pair
    reply = prefill_leg(prefill, PROMPT)
    params = reply["kv_transfer_params"]
    blocks = reply["usage"]["prompt_tokens"] // BLOCK
    assert params["do_remote_prefill"] is True and params["do_remote_decode"] is False
    assert len(params["remote_block_ids"]) == 1 and len(params["remote_block_ids"][0]) == blocks
    assert params["remote_engine_id"] and params["remote_host"] == "127.0.0.1" and params["remote_port"] > 0
    assert pinned(prefill) == blocks


def test_blocks_read_equal_blocks_reported_and_are_released_after_the_read(pair):
    prefill, decode = pair
    params = prefill_leg(prefill, PROMPT)["kv_transfer_params"]
    reported = len(params["remote_block_ids"][0])
    complete(decode.url, PROMPT, 4, kv_transfer_params=params)
    assert metric(f"{decode.url}/metrics", "llmd_kv_transfer_blocks_total") == reported
    assert wait_for(lambda: pinned(prefill) == 0, 5)


def test_a_lease_frees_the_blocks_when_the_reader_dies(pair):
    prefill, decode = pair
    params = prefill_leg(prefill, PROMPT)["kv_transfer_params"]
    assert pinned(prefill) == len(params["remote_block_ids"][0])
    decode.kill(signal.SIGKILL)
    time.sleep(1)
    assert pinned(prefill) > 0, "blocks must stay until the lease ends"
    assert wait_for(lambda: pinned(prefill) == 0, 6)
    assert metric(f"{prefill.url}/metrics", "vllm:kv_cache_usage_perc") == 0


def test_a_dead_prefill_engine_means_local_compute_not_an_error(pair):
    prefill, decode = pair
    expected = complete(decode.url, PROMPT, 16)["choices"][0]["text"]
    requests.post(f"{decode.url}/reset_prefix_cache", timeout=5)
    params = prefill_leg(prefill, PROMPTS["PROMPT_3"])["kv_transfer_params"]
    prefill.kill(signal.SIGKILL)
    reply = complete(decode.url, PROMPTS["PROMPT_3"], 16, kv_transfer_params=params)
    assert reply["choices"][0]["finish_reason"] in ("length", "stop")
    assert complete(decode.url, PROMPT, 16)["choices"][0]["text"] == expected


def test_the_sidecar_logs_both_legs_in_order(pair, started):
    prefill, decode = pair
    sidecar = started(Sidecar("sidecar", decode))
    sidecar.wait_http(sidecar.port, "/ready")
    complete(sidecar.url, PROMPT, 4, headers={"x-prefiller-host-port": f"127.0.0.1:{prefill.port}", "x-request-id": "pd-1"})
    messages = [line["msg"] for line in sidecar.json_lines()]
    wanted = ["running NIXL protocol", "sending request to prefiller", "received prefiller response", "sending request to decoder"]
    positions = [messages.index(m) for m in wanted]
    assert positions == sorted(positions)
