"""The installed Python package: scheduling, tokenisation, inference, errors, stubs."""
import json
import os
import pathlib
import subprocess
import sys

import numpy
import pytest

import llmd

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = os.environ.get("LLMD_TEST_MODEL", str(ROOT / ".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
YAML = (ROOT / "examples/data/schedule.yaml").read_text()


def endpoints():
    return [llmd.Endpoint("a", port=1, waiting=4, kv_usage=0.5), llmd.Endpoint("b", port=2, waiting=0, kv_usage=0.25)]


def test_every_score_is_a_numpy_array():
    decision = llmd.Scheduler.from_yaml(YAML).schedule({"model": "m", "prompt": "hello"}, endpoints())
    profile = decision.profiles["default"]
    assert profile["candidates"] == ["default/a", "default/b"]
    assert profile["scores"]["queue-scorer"].dtype == numpy.float64
    numpy.testing.assert_array_equal(profile["scores"]["queue-scorer"], [0.0, 1.0])
    numpy.testing.assert_array_equal(profile["scores"]["kv-cache-utilization-scorer"], [0.5, 0.75])
    total = sum(profile["weights"][s] * v for s, v in profile["scores"].items())
    numpy.testing.assert_allclose(profile["totals"], total)
    assert decision.endpoint == "default/b" and decision.picked[0][1] == "127.0.0.1:2"
    assert json.loads(decision.to_json())["primary"] == 1
    assert "queue-scorer" in str(decision)


def test_bodies_may_be_text_and_bad_ones_are_value_errors():
    scheduler = llmd.Scheduler.from_yaml(YAML)
    assert scheduler.schedule('{"model":"m","prompt":"x"}', endpoints()).ok
    with pytest.raises(ValueError) as error:
        scheduler.schedule("{nope", endpoints())
    assert isinstance(error.value, llmd.Error) and error.value.code == "INVALID_ARGUMENT"


def test_no_endpoints_is_a_refusal_not_an_exception():
    decision = llmd.Scheduler.from_yaml(YAML).schedule({"model": "m", "prompt": "x"}, [])
    assert not decision.ok and decision.denied_status == 503 and decision.endpoint is None


def test_a_bad_configuration_names_line_and_key():
    with pytest.raises(llmd.errors.InvalidArgumentError, match="shedulingProfiles"):
        llmd.Scheduler.from_yaml(YAML.replace("schedulingProfiles", "shedulingProfiles"))


def test_the_tokenizer_round_trips():
    tokenizer = llmd.Tokenizer(MODEL)
    text = "Straße, 東京 and 🦙 — 3.14"
    ids = tokenizer.encode(text)
    assert ids.dtype == numpy.int32 and ids.ndim == 1
    assert tokenizer.decode(list(ids)) == text
    with pytest.raises(IndexError):
        tokenizer.decode([10**6])


def test_a_missing_model_is_a_lookup_error():
    with pytest.raises(LookupError, match="/no/such.gguf"):
        llmd.Engine("/no/such.gguf")


@pytest.fixture(scope="module")
def engine():
    return llmd.Engine(MODEL, kv_cache_bytes=64 << 20, threads=1)


def test_generate_is_greedy_and_repeats(engine):
    text = engine.generate("The capital of France is", max_tokens=8)
    assert "Paris" in text
    assert engine.generate("The capital of France is", max_tokens=8) == text


def test_seeded_sampling_repeats_and_seeds_differ(engine):
    draw = lambda seed: engine.generate("Once upon a time", max_tokens=24, temperature=1.2, seed=seed)  # noqa: E731
    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(4)}) > 1


def test_openai_bodies_in_and_out(engine):
    reply = engine.complete({"prompt": "One two three", "max_tokens": "4", "logprobs": 1})
    assert reply["usage"]["completion_tokens"] == 4 and len(reply["choices"][0]["logprobs"]["tokens"]) == 4
    chat = engine.chat({"messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 4, "temperature": 0})
    assert chat["choices"][0]["message"]["role"] == "assistant"
    with pytest.raises(ValueError, match="temperature"):
        engine.complete({"prompt": "x", "temperature": -1})


@pytest.mark.parametrize("module", ["llmd._core", "llmd.testing", "llmd"])
def test_the_stubs_are_what_the_package_has(module, tmp_path):
    """Signatures, members and annotations, with nothing allowed to differ."""
    pytest.importorskip("mypy")
    run = subprocess.run([sys.executable, "-m", "mypy.stubtest", module], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr


def test_both_examples_print_the_same_decision(tmp_path):
    """The C++ one is built as a stranger would: install, find_package, with clang and with g++."""
    python = subprocess.run([sys.executable, ROOT / "examples/02_schedule.py"], capture_output=True, text=True, check=True).stdout
    assert python.count("chosen") == 2 and "prefill-0" not in python
    build = pathlib.Path(os.environ.get("LLMD_BUILD_DIR", ROOT / "build/release"))
    prefix = tmp_path / "prefix"
    subprocess.run(["cmake", "--install", build, "--prefix", prefix, "--component", "dev"], check=True, capture_output=True)
    for compiler in ("clang++-19", "g++"):
        out = tmp_path / compiler
        subprocess.run(["cmake", "-S", ROOT / "examples", "-B", out, "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={compiler}",
                        f"-DCMAKE_PREFIX_PATH={prefix}"], check=True, capture_output=True)
        subprocess.run(["cmake", "--build", out], check=True, capture_output=True)
        printed = subprocess.run([out / "01_schedule", ROOT / "examples/data/schedule.yaml"], capture_output=True, text=True,
                                 check=True).stdout
        assert printed == python, compiler


def test_endpoints_carry_attributes():
    text = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: core-metrics-extractor, parameters: {customMetrics: [{attributeKey: heat, metricSpec: heat}]}}
- {type: endpoint-attribute-filter, parameters: {attribute: heat, algorithm: {type: threshold, threshold: {operator: LessThan, value: 9}}}}
- {type: endpoint-attribute-scorer, parameters: {attributeKey: heat, algorithm: {type: linear_lower_is_better}}}
"""
    made = llmd.Scheduler.from_yaml(text)
    pool = [llmd.Endpoint(f"e{i}", port=i + 1, attributes={"heat": heat}) for i, heat in enumerate((4, 9.5, 2, 3))]
    profile = made.schedule({"model": "m", "prompt": "x"}, pool).profiles["default"]
    assert profile["candidates"] == ["default/e0", "default/e2", "default/e3"]
    assert list(profile["scores"]["endpoint-attribute-scorer"]) == [0, 1, 0.5]
    pool[2].attributes = {"heat": 8}
    assert pool[2].attributes == {"heat": 8.0}
    assert made.schedule({"model": "m", "prompt": "x"}, pool).endpoint == "default/e3"
    with pytest.raises(llmd.errors.InvalidArgumentError, match="'cold'"):
        made.schedule({"model": "m", "prompt": "x"}, [llmd.Endpoint("a", attributes={"cold": 1})])
