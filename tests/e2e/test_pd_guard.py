"""KV of another prompt or another model must never be taken, whatever router and client do."""
import pytest
import requests

from conftest import MODEL, PROMPTS, Engine, Sidecar, complete, kv_pool, metric, transfer_config
from fake_engine import FakeEngine, response
from test_pd import failures, pinned, refused, through, wait_for

LIMIT = ["--max-model-len", "320"]
POOL = [*kv_pool(1440), *LIMIT, "--kv-transfer-config", transfer_config("auto", lease_s=60)]
PROMPT_A = PROMPTS["PROMPT_1"]
PROMPT_B = PROMPTS["PROMPT_3"]


def other_rms_eps(path):
    """The model with another epsilon: same name, same shape, same weights."""
    data = bytearray(MODEL.read_bytes())
    key = b"llama.attention.layer_norm_rms_epsilon"
    at = data.index(key) + len(key) + 4
    data[at:at + 4] = b"\x00\x00\x00\x3f"  # 0.5
    path.write_bytes(data)
    return path


@pytest.fixture
def cluster(started):
    def start(prefill_model=MODEL):
        prefill = started(Engine("prefill", *POOL, model=prefill_model))
        decode = started(Engine("decode", *POOL))
        reference = started(Engine("reference", *kv_pool(1440), *LIMIT))
        for engine in (prefill, decode, reference):
            engine.wait_http(engine.port, "/health")
        sidecar = started(Sidecar("sidecar", decode))
        sidecar.wait_http(sidecar.port, "/ready")
        return prefill, decode, reference, sidecar
    return start


def texts(reply):
    return [choice["text"] for choice in reply["choices"]]


def test_a_list_of_prompts_takes_nothing_and_pins_nothing(cluster):
    prefill, decode, reference, sidecar = cluster()
    prompts = [PROMPT_A, PROMPT_B]
    expected = [complete(reference.url, prompt, 16)["choices"][0]["text"] for prompt in prompts]
    assert texts(through(sidecar, prefill, prompts)) == expected
    two = {"n": 2, "temperature": 1, "seed": 7}
    assert texts(through(sidecar, prefill, PROMPT_A, **two)) == texts(complete(reference.url, PROMPT_A, 16, **two))
    # Nor does the prefix cache hold what is not of the prompt.
    assert texts(complete(decode.url, PROMPT_B, 16)) == [expected[1]]
    assert pinned(prefill) == 0
    assert failures(decode) == 0
    assert metric(f"{decode.url}/metrics", "vllm:prompt_tokens_by_source_total", source="external_kv_transfer") == 0


def test_sides_that_truncate_differently_share_nothing(cluster):
    prefill, decode, reference, sidecar = cluster()
    long = " ".join(f"Line {i} of the list says {i * i}." for i in range(60))
    body = {"truncate_prompt_tokens": -1, "ignore_eos": True}
    expected = texts(complete(reference.url, long, 100, **body))
    assert texts(through(sidecar, prefill, long, 100, **body)) == expected
    assert refused(decode, "prompt_differs") == 1
    assert failures(decode) == 0
    assert wait_for(lambda: pinned(prefill) == 0, 10)


def test_an_engine_of_other_weights_lends_nothing(cluster, tmp_path):
    prefill, decode, reference, sidecar = cluster(other_rms_eps(tmp_path / MODEL.name))
    prompt = "The capital of France is the city of Paris. The capital of Italy is the city of Rome. The capital of Spain is"
    expected = texts(complete(reference.url, prompt, 16))
    assert texts(through(sidecar, prefill, prompt)) == expected
    assert refused(decode, "model_differs") == 1
    assert failures(decode) == 0
    assert wait_for(lambda: pinned(prefill) == 0, 10)
    assert decode.log().count("remote KV is not taken") == 1
    through(sidecar, prefill, prompt + " the")
    assert refused(decode, "model_differs") == 2
    assert decode.log().count("remote KV is not taken") == 1


@pytest.mark.parametrize("status", [400, 429, 503])
def test_a_refused_decode_leg_gives_the_lease_back(started, status):
    async def refuse(request, writer):
        return response(status, b"{}")
    prefill = started(Engine("prefill", *POOL))
    prefill.wait_http(prefill.port, "/health")
    decode = FakeEngine(refuse)
    try:
        sidecar = started(Sidecar("sidecar", decode))
        sidecar.wait_http(sidecar.port, "/health")
        reply = requests.post(f"{sidecar.url}/v1/completions", json={"model": "smol", "prompt": PROMPT_A, "max_tokens": 4},
                              headers={"x-prefiller-host-port": f"127.0.0.1:{prefill.port}"}, timeout=60)
        assert reply.status_code == status
        assert wait_for(lambda: pinned(prefill) == 0, 10)
    finally:
        decode.close()
