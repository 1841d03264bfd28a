"""Real processes on loopback: engines with the real model, sidecars, picker, gateway, Envoy. Started on free ports, always
stopped. A missing binary or model is a failure, not a skip: scripts/setup.sh and the build provide both."""
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

import pytest
import requests
from ports import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = pathlib.Path(os.environ.get("LLMD_TEST_MODEL", ROOT / ".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
PROMPTS = {p["name"]: p["text"] for p in json.loads((ROOT / "tests/data/prompts.json").read_text())}
READY_TIMEOUT_S = 60


def build_dir():
    if "LLMD_BUILD_DIR" in os.environ:
        return pathlib.Path(os.environ["LLMD_BUILD_DIR"])
    found = sorted((ROOT / "build").glob("*/bin/llmd-engine"), key=lambda p: p.stat().st_mtime)
    assert found, "no build directory with bin/llmd-engine: build first"
    return found[-1].parents[1]


def binary(name):
    path = build_dir() / "bin" / name
    assert path.exists(), f"{path} is not built"
    return str(path)


class Process:
    """One child; its output goes to a file that tests may read."""

    def __init__(self, name, argv, env=None, stdout=None, preexec_fn=None):
        self.name = name
        self.log_path = pathlib.Path(tempfile.mkstemp(prefix=f"llmd-{name}-", suffix=".log")[1])
        self.log_file = self.log_path.open("wb")
        self.popen = subprocess.Popen(argv, stdout=stdout or self.log_file, stderr=self.log_file, stdin=subprocess.DEVNULL,
                                      env={**os.environ, **(env or {})}, preexec_fn=preexec_fn)

    def log(self):
        time.sleep(0.05)  # lines are gathered for some milliseconds before they are written
        return self.log_path.read_text(errors="replace")

    def json_lines(self):
        out = []
        for line in self.log().splitlines():
            with contextlib.suppress(ValueError):
                out.append(json.loads(line))
        return out

    def wait_http(self, port, path, timeout=READY_TIMEOUT_S):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self.popen.poll() is None, f"{self.name} ended with {self.popen.returncode}:\n{self.log()[-4000:]}"
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"http://127.0.0.1:{port}{path}", timeout=2).status_code == 200:
                    return self
            time.sleep(0.05)
        raise AssertionError(f"{self.name} not ready on {path} after {timeout} s:\n{self.log()[-4000:]}")

    def kill(self, number=signal.SIGKILL):
        self.popen.send_signal(number)
        self.popen.wait(20)

    def stop(self):
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(15)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        self.log_file.close()
        self.log_path.unlink(missing_ok=True)


def kv_pool(tokens):
    """The flags of a KV pool of that many tokens: in bytes it would be another size for each KV type."""
    return ["--block-size", "16", "--num-gpu-blocks-override", str(tokens // 16 + 1)]


class Engine(Process):
    def __init__(self, name, *args, model=MODEL, served="smol", threads=1, env=None):
        assert pathlib.Path(model).exists(), f"{model} is absent: run scripts/setup.sh"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(name, [binary("llmd-engine"), "serve", str(model), "--host", "127.0.0.1", "--port", str(self.port),
                                "--served-model-name", served, "--threads", str(threads), *args],
                         {"VLLM_NIXL_SIDE_CHANNEL_PORT": "0", **(env or {})})

    def metric(self, name, **labels):
        return metric(f"{self.url}/metrics", name, **labels)


def metric(url, name, **labels):
    """The sum over the series of that name that carry the labels."""
    total, seen = 0.0, False
    for line in requests.get(url, timeout=5).text.splitlines():
        if line.startswith("#") or not (line.startswith(name + "{") or line.startswith(name + " ")):
            continue
        if all(f'{k}="{v}"' in line for k, v in labels.items()):
            total += float(line.rsplit(" ", 1)[1])
            seen = True
    assert seen, f"{url} has no series {name} {labels}"
    return total


PD_CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: openai-parser}}
- {{type: passthrough-parser}}
- {{type: token-producer}}
- {{type: approx-prefix-cache-producer}}
- {{type: decode-filter}}
- {{type: prefill-filter}}
- {{type: prefix-cache-scorer}}
- {{type: load-aware-scorer}}
- {{type: max-score-picker}}
- type: file-discovery
  parameters: {{path: "{endpoints}", watchFile: true}}
{extra}
schedulingProfiles:
{profiles}
dataLayer:
  discovery: {{pluginRef: file-discovery}}
requestHandler:
  parsers: [{{pluginRef: openai-parser}}, {{pluginRef: passthrough-parser}}]
"""
SCORERS = "{pluginRef: prefix-cache-scorer, weight: 2}, {pluginRef: load-aware-scorer}, {pluginRef: max-score-picker}"


def picker_config(endpoints_path, disaggregate):
    profiles = f"- name: decode\n  plugins: [{{pluginRef: decode-filter}}, {SCORERS}]\n"
    extra = ""
    if disaggregate:
        profiles = f"- name: prefill\n  plugins: [{{pluginRef: prefill-filter}}, {SCORERS}]\n" + profiles
        extra = ("- {type: prefix-based-pd-decider, parameters: {nonCachedTokens: 16}}\n"
                 "- type: disagg-profile-handler\n  parameters: {deciders: {prefill: prefix-based-pd-decider}}")
    return PD_CONFIG.format(endpoints=endpoints_path, extra=extra, profiles=profiles)


def endpoints_yaml(endpoints):
    """endpoints: (name, port, role)."""
    lines = ["endpoints:"] if endpoints else ["endpoints: []"]
    for name, port, role in endpoints:
        lines.append(f"- {{name: {name}, address: 127.0.0.1, port: \"{port}\", labels: {{llm-d.ai/role: {role}}}}}")
    return "\n".join(lines) + "\n"


class Picker(Process):
    def __init__(self, tmp, endpoints, *args, disaggregate=False, config=None, env=None):
        self.grpc_port, self.health_port, self.admin_port = free_port(), free_port(), free_port()
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self.endpoints_path = tmp / f"endpoints-{self.grpc_port}.yaml"
        self.set_endpoints(endpoints)
        config_path = tmp / f"epp-{self.grpc_port}.yaml"
        if callable(config):
            config = config(self.endpoints_path)
        config_path.write_text(config or picker_config(self.endpoints_path, disaggregate))
        super().__init__("epp", [binary("llmd-epp"), "--config-file", str(config_path), "--grpc-port", str(self.grpc_port),
                                 "--grpc-health-port", str(self.health_port), "--metrics-port", str(self.admin_port),
                                 "--secure-serving=false", "--health-checking", "-v", "4", *args], env)

    def set_endpoints(self, endpoints, extra=""):
        new = self.endpoints_path.with_suffix(".new")
        new.write_text(endpoints_yaml(endpoints) + extra)
        new.rename(self.endpoints_path)

    def decision(self, request_id):
        reply = requests.get(f"{self.admin}/debug/decisions/{request_id}", timeout=5)
        assert reply.status_code == 200, reply.text
        return reply.json()


class Sidecar(Process):
    def __init__(self, name, engine, *args, env=None):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(name, [binary("llmd-sidecar"), "--port", str(self.port), "--model-server-port", str(engine.port),
                                "--secure-proxy=false", *args], env)


class Gateway(Process):
    def __init__(self, *args, env=None):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__("gateway", [binary("llmd-gateway"), "--host", "127.0.0.1", "--port", str(self.port), *args], env)


def pytest_terminal_summary(terminalreporter):
    passed = [r for r in terminalreporter.stats.get("passed", []) if "e2e/conformance/" in r.nodeid]
    if passed:
        terminalreporter.write_line(f"ext_proc conformance: {len(passed)} cases passed")


def transfer_config(transport="auto", lease_s=30):
    return json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both",
                       "kv_connector_extra_config": {"transport": transport, "kv_lease_duration": lease_s}})


@pytest.fixture
def started():
    """started(process) registers it; all are stopped in reverse order at the end."""
    with contextlib.ExitStack() as stack:
        def register(process):
            stack.callback(process.stop)
            return process
        yield register


@pytest.fixture(scope="module")
def started_module():
    with contextlib.ExitStack() as stack:
        def register(process):
            stack.callback(process.stop)
            return process
        yield register


def complete(url, prompt, max_tokens=32, stream=False, headers=None, **body):
    payload = {"model": "smol", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, **body}
    if not stream:
        reply = requests.post(f"{url}/v1/completions", json=payload, headers=headers, timeout=120)
        assert reply.status_code == 200, reply.text
        return reply.json()
    text = ""
    with requests.post(f"{url}/v1/completions", json={**payload, "stream": True}, headers=headers, timeout=120,
                       stream=True) as reply:
        assert reply.status_code == 200, reply.text
        done = False
        for line in reply.iter_lines():
            if line == b"data: [DONE]":
                done = True
            elif line.startswith(b"data: "):
                chunk = json.loads(line[6:])
                assert "error" not in chunk, chunk
                text += "".join(c["text"] for c in chunk["choices"])
        assert done
    return text
