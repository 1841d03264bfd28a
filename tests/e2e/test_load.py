"""64 concurrent streaming clients: no error, nothing leaks, every text equals the text of its run alone."""
import concurrent.futures
import json
import os
import time

import requests

from conftest import Engine, Gateway, complete, endpoints_yaml, kv_pool, metric, picker_config

CLIENTS = 64
# A minute is the acceptance run; the short one keeps everyday test runs short.
SECONDS = float(os.environ.get("LLMD_LOAD_SECONDS", "15"))


def rss_kib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def stream(session, url, prompt, max_tokens):
    body = {"model": "smol", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": True}
    text, done = "", False
    with session.post(f"{url}/v1/completions", json=body, stream=True, timeout=120) as reply:
        assert reply.status_code == 200, reply.text
        for line in reply.iter_lines():
            if line == b"data: [DONE]":
                done = True
            elif line.startswith(b"data: "):
                chunk = json.loads(line[6:])
                assert "error" not in chunk, chunk
                text += "".join(c["text"] for c in chunk["choices"])
    assert done, "the stream ended without [DONE]"
    return text


def test_sixty_four_streaming_clients(started, tmp_path):
    engines = [started(Engine(f"decode-{i}", *kv_pool(2896))) for i in range(2)]
    for engine in engines:
        engine.wait_http(engine.port, "/health")
    endpoints_path, config = tmp_path / "endpoints.yaml", tmp_path / "gateway.yaml"
    endpoints_path.write_text(endpoints_yaml([(e.name, e.port, "decode") for e in engines]))
    config.write_text(picker_config(endpoints_path, disaggregate=False))
    gateway = started(Gateway("--config-file", str(config)))
    gateway.wait_http(gateway.port, "/ready")

    jobs = [(f"Story number {i}. Once upon a time in town {i * 7 % 13},", 8 + i % 17) for i in range(CLIENTS)]
    alone = [complete(engines[0].url, prompt, n)["choices"][0]["text"] for prompt, n in jobs]

    def client(index):
        runs, session = 0, requests.Session()
        while time.monotonic() < deadline or runs == 0:
            prompt, n = jobs[(index + runs) % CLIENTS]
            assert stream(session, gateway.url, prompt, n) == alone[(index + runs) % CLIENTS]
            runs += 1
        return runs

    processes = [*engines, gateway]

    def round_of(seconds):
        nonlocal deadline
        deadline = time.monotonic() + seconds
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            return sum(pool.map(client, range(CLIENTS)))

    deadline = 0.0
    round_of(SECONDS / 3)  # pools and caches grow to their working size
    before = [rss_kib(p.popen.pid) for p in processes]
    runs = round_of(SECONDS)
    after = [rss_kib(p.popen.pid) for p in processes]
    print(f"\n{runs} streams in {SECONDS:.0f} s by {CLIENTS} clients; RSS KiB before {before}, after {after}")
    assert runs >= CLIENTS
    for process, first, last in zip(processes, before, after):
        assert last <= first * 1.05 + 8192, f"{process.name} grew from {first} to {last} KiB"
    settle = time.monotonic() + 5
    while time.monotonic() < settle and any(metric(f"{e.url}/metrics", "vllm:num_requests_running") for e in engines):
        time.sleep(0.05)
    for engine in engines:
        assert metric(f"{engine.url}/metrics", "vllm:num_requests_running") == 0
        assert metric(f"{engine.url}/metrics", "vllm:kv_cache_usage_perc") == 0
