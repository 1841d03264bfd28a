"""examples/05_server.cc as its reader meets it: built against the installed package, before two engines."""
import signal
import subprocess

import pytest
import requests
from conftest import ROOT, build_dir, endpoints_yaml
from fake_engine import FakeEngine, response


async def answer(request, _writer):
    return response(body=b'{"id":"x","choices":[{"text":"hi"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}')


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("example")
    run = lambda *argv: subprocess.run(argv, check=True, capture_output=True)  # noqa: E731
    run("cmake", "--install", build_dir(), "--prefix", tmp / "prefix", "--component", "dev")
    run("cmake", "-S", ROOT / "examples", "-B", tmp / "build", "-G", "Ninja", "-DCMAKE_CXX_COMPILER=clang++-19",
        f"-DCMAKE_PREFIX_PATH={tmp / 'prefix'}")
    run("cmake", "--build", tmp / "build", "--target", "05_server")
    return tmp / "build/05_server"


@pytest.fixture
def server(program, tmp_path):
    engines = [FakeEngine(answer) for _ in range(2)]
    endpoints = tmp_path / "endpoints.yaml"
    endpoints.write_text(endpoints_yaml([(f"e{i}", e.port, "decode") for i, e in enumerate(engines)]))
    popen = subprocess.Popen([program, endpoints, "0"], stdout=subprocess.PIPE, text=True)
    line = popen.stdout.readline()
    assert line.startswith("listening on http://127.0.0.1:"), line
    yield line.split()[-1], engines
    popen.send_signal(signal.SIGTERM)
    assert popen.wait(20) == 0


def posts(engine):
    return [r for r in engine.requests if r.method == "POST"]


def test_it_relays_answers_and_sends_a_known_prompt_to_the_engine_that_has_it(server):
    url, engines = server
    for _ in range(4):
        reply = requests.post(f"{url}/v1/completions", json={"model": "m", "prompt": "once upon a time " * 100}, timeout=20)
        assert reply.status_code == 200 and reply.json()["choices"][0]["text"] == "hi"
    assert sorted(len(posts(e)) for e in engines) == [0, 4]


def test_it_says_why_it_refuses(server):
    url, engines = server
    reply = requests.post(f"{url}/v1/completions", data="{broken", timeout=20)
    assert reply.status_code == 400 and reply.text.strip()
    assert not any(posts(e) for e in engines)
