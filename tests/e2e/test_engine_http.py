"""llmd-engine with the real model, over HTTP: shapes, coercion, streaming, disconnects, the openai client."""

import json
import signal
import socket
import subprocess
import time

import openai
import pytest
import requests

from conftest import MODEL, binary, kv_pool

START_LIMIT_S = 60


def log_lines(path):
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


class Engine:
    def __init__(self, log, *flags):
        self.log = log
        self.output = open(log, "w")
        self.process = subprocess.Popen(
            [binary("llmd-engine"), "serve", MODEL, "--host", "127.0.0.1", "--port", "0", "--served-model-name", "smol", "alias",
             "--max-model-len", "2048", *kv_pool(2896), *flags],
            stdout=self.output, stderr=subprocess.STDOUT)
        self.url = f"http://127.0.0.1:{self.wait_for('listening')['port']}"

    def wait_for(self, message):
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            for line in log_lines(self.log):
                if line.get("msg") == message:
                    return line
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"no '{message}' within {START_LIMIT_S} s: {self.log.read_text()}")

    def post(self, path, body, **kwargs):
        return requests.post(self.url + path, json=body, timeout=120, **kwargs)

    def metric(self, name):
        page = requests.get(self.url + "/metrics", timeout=10).text
        values = [float(line.rsplit(" ", 1)[1]) for line in page.splitlines()
                  if line.startswith(name + "{") or line.startswith(name + " ")]
        assert values, name
        return sum(values)

    def wait_metric(self, name, value):
        deadline = time.monotonic() + 30
        while self.metric(name) != value:
            assert time.monotonic() < deadline, f"{name} is {self.metric(name)}, not {value}"
            time.sleep(0.05)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self.output.close()
        return code


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    running = Engine(tmp_path_factory.mktemp("engine") / "log", "--enable-prompt-tokens-details")
    yield running
    assert running.stop() == 0


def frames(response):
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    data = [line[6:] for line in response.text.split("\n\n") if line]
    assert data[-1] == "[DONE]"
    return [json.loads(d) for d in data[:-1]]


PROMPT = "The capital of France is"


def test_models_health_version(engine):
    cards = requests.get(engine.url + "/v1/models", timeout=10).json()
    assert [c["id"] for c in cards["data"]] == ["smol", "alias"]
    assert cards["data"][0]["max_model_len"] == 2048
    assert requests.get(engine.url + "/health", timeout=10).status_code == 200
    assert requests.get(engine.url + "/health/ready", timeout=10).status_code == 200
    assert "version" in requests.get(engine.url + "/version", timeout=10).json()
    assert requests.get(engine.url + "/load", timeout=10).json() == {"server_load": 0}


def test_completion_coerces_strings(engine):
    body = {"model": "smol", "prompt": PROMPT, "max_tokens": "4", "temperature": "0", "seed": "00042"}
    reply = engine.post("/v1/completions", body).json()
    assert reply["object"] == "text_completion"
    assert reply["model"] == "smol"
    assert reply["usage"]["completion_tokens"] == 4
    assert "Paris" in reply["choices"][0]["text"]


def test_stream_equals_whole(engine):
    body = {"prompt": PROMPT, "max_tokens": 24, "temperature": 0}
    whole = engine.post("/v1/completions", body).json()
    chunks = frames(engine.post("/v1/completions", {**body, "stream": True, "stream_options": {"include_usage": True}}))
    assert "".join(c["choices"][0]["text"] for c in chunks[:-1]) == whole["choices"][0]["text"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


def test_chat_stream_equals_whole(engine):
    body = {"messages": [{"role": "user", "content": "Name three colours."}], "max_tokens": 24, "temperature": 0}
    whole = engine.post("/v1/chat/completions", body).json()
    chunks = frames(engine.post("/v1/chat/completions", {**body, "stream": True}))
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
    assert text == whole["choices"][0]["message"]["content"] != ""


def test_stop_string_and_logprobs(engine):
    body = {"prompt": "1, 2, 3, 4,", "max_tokens": 40, "temperature": 0, "stop": ["8"], "logprobs": 3}
    choice = engine.post("/v1/completions", body).json()["choices"][0]
    assert choice["finish_reason"] == "stop" and choice["stop_reason"] == "8"
    assert "8" not in choice["text"]
    logprobs = choice["logprobs"]
    assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == len(logprobs["text_offset"])
    assert all(p <= 0 for p in logprobs["token_logprobs"])
    assert all(3 <= len(top) <= 4 for top in logprobs["top_logprobs"])


def test_echo_scores_the_prompt(engine):
    body = {"prompt": PROMPT, "max_tokens": 0, "echo": True, "logprobs": 1}
    reply = engine.post("/v1/completions", body).json()
    choice = reply["choices"][0]
    assert choice["text"] == PROMPT
    assert choice["logprobs"]["token_logprobs"][0] is None
    assert len(choice["logprobs"]["tokens"]) == reply["usage"]["prompt_tokens"]


def test_seed_repeats_and_children_differ(engine):
    body = {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 1.5, "seed": 5, "n": 3}
    first, second = (engine.post("/v1/completions", body).json()["choices"] for _ in range(2))
    texts = [c["text"] for c in first]
    assert texts == [c["text"] for c in second]
    assert [c["index"] for c in first] == [0, 1, 2]
    assert len(set(texts)) > 1


def test_prefix_cache_is_reported(engine):
    prompt = "cache " * 100
    for _ in range(2):
        usage = engine.post("/v1/completions", {"prompt": prompt, "max_tokens": 1}).json()["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert cached > 0 and cached % 16 == 0


@pytest.mark.parametrize("path,body,status,param", [
    ("/v1/completions", {"prompt": "x", "model": "nope"}, 404, "model"),
    ("/v1/completions", {"prompt": "x", "max_tokens": "abc"}, 400, "body.max_tokens"),
    ("/v1/completions", {"prompt": "x", "max_tokens": 5000}, 400, "max_tokens"),
    ("/v1/completions", {"prompt": "x " * 3000}, 400, "input_tokens"),
    ("/v1/completions", {"prompt": "x", "temperature": -1}, 400, "temperature"),
    ("/v1/completions", {"prompt": "x", "suffix": "y"}, 400, "suffix"),
    ("/v1/completions", {"prompt": "x", "guided_regex": "a"}, 501, "guided_regex"),
    ("/v1/chat/completions", {"messages": []}, 400, "messages"),
    ("/v1/chat/completions", {}, 400, "body.messages"),
])
def test_errors(engine, path, body, status, param):
    reply = engine.post(path, body)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (status, status, param)


def test_unknown_route_and_bad_json(engine):
    reply = requests.get(engine.url + "/nope", timeout=10)
    assert (reply.status_code, reply.json()) == (404, {"detail": "Not Found"})
    reply = requests.post(engine.url + "/v1/completions", data="{", timeout=10,
                          headers={"Content-Type": "application/json"})
    assert reply.status_code == 400


def test_tokenize_round_trip(engine):
    text = "Grüße aus 東京! 🚀"
    tokens = engine.post("/tokenize", {"prompt": text}).json()
    assert tokens["count"] == len(tokens["tokens"])
    assert engine.post("/detokenize", {"tokens": tokens["tokens"]}).json() == {"prompt": text}
    body = {"prompt": tokens["tokens"], "max_tokens": 1}
    assert engine.post("/v1/completions", body).json()["usage"]["prompt_tokens"] == tokens["count"]


def test_a_client_that_leaves_frees_its_blocks(engine):
    engine.wait_metric("vllm:num_requests_running", 0)
    body = json.dumps({"prompt": PROMPT, "max_tokens": 2000, "ignore_eos": True, "stream": True})
    host, port = engine.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                           f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
        assert b"200" in connection.recv(1024)
        engine.wait_metric("vllm:num_requests_running", 1)
    engine.wait_metric("vllm:num_requests_running", 0)
    assert engine.metric("vllm:kv_cache_usage_perc") == 0
    assert engine.metric("vllm:gpu_cache_usage_perc") == 0


def test_metrics_count_tokens(engine):
    before = engine.metric("vllm:generation_tokens_total")
    engine.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 3, "ignore_eos": True})
    engine.wait_metric("vllm:generation_tokens_total", before + 3)
    page = requests.get(engine.url + "/metrics", timeout=10).text
    for name in ("vllm:time_to_first_token_seconds_bucket", "vllm:request_success_total", "vllm:cache_config_info"):
        assert name in page


def test_log_lines(engine):
    engine.post("/v1/completions", {"prompt": "log me", "max_tokens": 1}, headers={"X-Request-Id": "log-test"})
    messages = [line["msg"] for line in log_lines(engine.log)]
    assert any(m.startswith("Received request cmpl-log-test-0: prompt: 'log me', params: SamplingParams(n=1,")
               for m in messages)
    assert "Added request cmpl-log-test-0." in messages
    assert any(m.startswith("INFO:     127.0.0.1:") and m.endswith('"POST /v1/completions HTTP/1.1" 200 OK')
               for m in messages)


def test_openai_client(engine):
    client = openai.OpenAI(base_url=engine.url + "/v1", api_key="none")
    reply = client.completions.create(model="smol", prompt=PROMPT, max_tokens=8, temperature=0)
    assert "Paris" in reply.choices[0].text
    messages = [{"role": "user", "content": "Say hello."}]
    whole = client.chat.completions.create(model="alias", messages=messages, max_tokens=16, temperature=0,
                                           logprobs=True, top_logprobs=2)
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    stream = client.chat.completions.create(model="smol", messages=messages, max_tokens=16, temperature=0, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == whole.choices[0].message.content
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="nope", prompt="x")
    assert [m.id for m in client.models.list()] == ["smol", "alias"]


def test_start_errors_name_the_cause(engine, tmp_path):
    port = engine.url.rsplit(":", 1)[1]
    busy = subprocess.run([binary("llmd-engine"), "serve", MODEL, "--host", "127.0.0.1", "--port", port, *kv_pool(720),
                           "--max-model-len", "128"], capture_output=True, text=True, timeout=60)
    assert busy.returncode != 0 and port in busy.stderr
    missing = subprocess.run([binary("llmd-engine"), "serve", tmp_path / "none.gguf"], capture_output=True, text=True, timeout=60)
    assert missing.returncode != 0 and "none.gguf" in missing.stderr
    unknown = subprocess.run([binary("llmd-engine"), "serve", MODEL, "--prot", "1"], capture_output=True, text=True, timeout=60)
    assert unknown.returncode == 2 and "--port" in unknown.stderr
