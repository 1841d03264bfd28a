"""Same prompt, same greedy text, exactly, whichever way the request takes; each way also proves that it was taken."""
import concurrent.futures

import pytest
import requests

from conftest import PROMPTS, Engine, Gateway, Picker, Sidecar, complete, kv_pool, metric, transfer_config

PROMPT = PROMPTS["PROMPT_1"]
TOKENS = 48
BLOCK = 16


@pytest.fixture(scope="module")
def direct(started_module):
    engine = started_module(Engine("direct", *kv_pool(2896), "--enable-prompt-tokens-details"))
    engine.wait_http(engine.port, "/health")
    return engine


@pytest.fixture(scope="module")
def reference(direct):
    reply = complete(direct.url, PROMPT, TOKENS)
    assert reply["usage"]["completion_tokens"] == TOKENS or reply["choices"][0]["finish_reason"] == "stop"
    return reply["choices"][0]["text"]


def test_prefix_cache_hit_gives_the_same_text(direct, reference):
    before = metric(f"{direct.url}/metrics", "vllm:prefix_cache_hits_total")
    reply = complete(direct.url, PROMPT, TOKENS)
    assert reply["choices"][0]["text"] == reference
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert metric(f"{direct.url}/metrics", "vllm:prefix_cache_hits_total") > before


def test_streamed_text_equals_plain_text(direct, reference):
    assert complete(direct.url, PROMPT, TOKENS, stream=True) == reference


def test_batched_with_fifteen_others_gives_the_same_text(direct, reference):
    others = [f"{PROMPTS['PROMPT_3']} Variation number {i}." for i in range(15)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        jobs = [pool.submit(complete, direct.url, text, 96) for text in others]
        mine = pool.submit(complete, direct.url, PROMPT, TOKENS)
        assert mine.result()["choices"][0]["text"] == reference
        for job in jobs:
            job.result()
    assert metric(f"{direct.url}/metrics", "llmd:max_rows_in_step") == 16


@pytest.mark.parametrize("transport", ["memfd", "tcp"])
def test_prefill_elsewhere_gives_the_same_text(started, reference, transport):
    prefill = started(Engine("prefill", *kv_pool(1440), "--kv-transfer-config",
                             transfer_config(transport)))
    decode = started(Engine("decode", *kv_pool(1440), "--enable-prompt-tokens-details",
                            "--kv-transfer-config", transfer_config(transport)))
    sidecar = started(Sidecar("sidecar", decode))
    for process, port in ((prefill, prefill.port), (decode, decode.port)):
        process.wait_http(port, "/health")
    sidecar.wait_http(sidecar.port, "/ready")

    reply = complete(sidecar.url, PROMPT, TOKENS, headers={"x-prefiller-host-port": f"127.0.0.1:{prefill.port}"})
    assert reply["choices"][0]["text"] == reference

    prompt_tokens = reply["usage"]["prompt_tokens"]
    blocks = prompt_tokens // BLOCK
    remote = metric(f"{decode.url}/metrics", "vllm:prompt_tokens_by_source_total", source="external_kv_transfer")
    assert remote == blocks * BLOCK
    assert metric(f"{decode.url}/metrics", "llmd_kv_transfer_blocks_total", lane=transport) == blocks
    assert metric(f"{prefill.url}/metrics", "llmd_kv_leases") == 0
    assert metric(f"{prefill.url}/metrics", "vllm:kv_cache_usage_perc") == 0


@pytest.mark.parametrize("mode", ["in-process", "ext_proc"])
def test_through_the_gateway_gives_the_same_text(started, tmp_path, direct, reference, mode):
    endpoints = [("decode-0", direct.port, "decode")]
    if mode == "ext_proc":
        picker = started(Picker(tmp_path, endpoints))
        picker.wait_http(picker.admin_port, "/readyz")
        gateway = started(Gateway("--epp", f"127.0.0.1:{picker.grpc_port}"))
    else:
        picker = Picker.__new__(Picker)
        config = tmp_path / "gateway.yaml"
        endpoints_path = tmp_path / "endpoints.yaml"
        from conftest import endpoints_yaml, picker_config
        endpoints_path.write_text(endpoints_yaml(endpoints))
        config.write_text(picker_config(endpoints_path, disaggregate=False))
        gateway = started(Gateway("--no-epp", "--config-file", str(config)))
    gateway.wait_http(gateway.port, "/ready")
    assert complete(gateway.url, PROMPT, TOKENS)["choices"][0]["text"] == reference
    assert complete(gateway.url, PROMPT, TOKENS, stream=True) == reference
    models = requests.get(f"{gateway.url}/v1/models", timeout=10).json()
    assert models["data"][0]["id"] == "smol"
