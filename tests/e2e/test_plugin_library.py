"""examples/03_custom_scorer as its reader meets it: built against the installed package with both compilers, tested with
the kit, loaded into the real services, and seen to decide."""
import json
import subprocess
import time

import pytest
import requests
from conftest import ROOT, Gateway, Picker, binary, build_dir, free_port
from ext_proc import MetricsEngine, Stream, body_of

EXAMPLE = ROOT / "examples/03_custom_scorer"
PAGE = """vllm:num_requests_waiting 0
vllm:num_requests_running 0
vllm:kv_cache_usage_perc {usage}
vllm:cache_config_info{{block_size="16",num_gpu_blocks="{blocks}"}} 1
"""
CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: kv-headroom-scorer, parameters: {{bytesPerToken: 4, defaultMaxTokens: 512}}}}
- {{type: queue-scorer}}
- {{type: max-score-picker}}
- {{type: file-discovery, parameters: {{path: "{endpoints}"}}}}
schedulingProfiles:
- {{name: default, plugins: [{{pluginRef: kv-headroom-scorer, weight: 2}}, {{pluginRef: queue-scorer}}, {{pluginRef: max-score-picker}}]}}
dataLayer: {{discovery: {{pluginRef: file-discovery}}}}
"""


def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """kv_headroom.so by compiler; each passed its own test."""
    tmp = tmp_path_factory.mktemp("custom")
    run("cmake", "--install", build_dir(), "--prefix", tmp / "prefix", "--component", "dev")
    out = {}
    for compiler in ("clang++-19", "g++"):
        build = tmp / compiler
        run("cmake", "-S", EXAMPLE, "-B", build, "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={compiler}",
            f"-DCMAKE_PREFIX_PATH={tmp / 'prefix'}")
        run("cmake", "--build", build)
        run("ctest", "--test-dir", build, "--output-on-failure")
        out[compiler] = build / "kv_headroom.so"
    return out


def test_the_library_carries_no_llmd_of_its_own(libraries):
    for library in libraries.values():
        defined = run("nm", "-D", "--defined-only", library)
        assert "llmd_plugin_init" in defined
        assert "_ZN4llmd4json5Parse" not in run("nm", "--defined-only", library)


@pytest.fixture
def engines():
    made = []
    for usage, blocks in ((0.1, 64), (0.6, 4096)):
        made.append(MetricsEngine())
        made[-1].page = PAGE.format(usage=usage, blocks=blocks).encode()
    yield made
    for engine in made:
        engine.close()


def decide(picker, request_id, body):
    with Stream(picker) as stream:
        stream.headers([(":method", "POST"), (":path", "/v1/completions"), ("x-request-id", request_id)]).body(json.dumps(body).encode())
        stream.routed()
    return picker.decision(request_id)


def wait_for_gauges(picker):
    deadline = time.monotonic() + 20
    while decide(picker, f"probe-{time.monotonic()}", {"model": "m", "prompt": "x"})["stale"]:
        assert time.monotonic() < deadline, "the gauges never came"


@pytest.mark.parametrize("compiler", ["clang++-19", "g++"])
def test_its_score_decides_over_ext_proc(libraries, started, tmp_path, engines, compiler):
    endpoints = [("small", engines[0].port, "decode"), ("large", engines[1].port, "decode")]
    picker = started(Picker(tmp_path, endpoints, "--plugin-library", str(libraries[compiler]),
                            config=lambda path: CONFIG.format(endpoints=path)))
    picker.wait_http(picker.admin_port, "/readyz")
    wait_for_gauges(picker)
    for max_tokens, chosen in ((4, "default/small"), (900, "default/large")):
        decision = decide(picker, f"{compiler}-{max_tokens}", {"model": "m", "prompt": "x" * 62, "max_tokens": max_tokens})
        profile = decision["profiles"][0]
        scores = {s["scorer"]: s for s in profile["scores"]}
        names = [decision["endpoints"][i] for i in profile["candidates"]]
        blocks = -(-(64 / 4 + max_tokens) // 16)
        assert dict(zip(names, scores["kv-headroom-scorer"]["raw"])) == pytest.approx(
            {"default/small": max(0, 1 - (6.4 + blocks) / 64), "default/large": 1 - (0.6 * 4096 + blocks) / 4096})
        assert scores["kv-headroom-scorer"]["weight"] == 2 and scores["queue-scorer"]["raw"] == [1, 1]
        assert decision["endpoints"][decision["primary"]] == chosen


def test_the_gateway_and_the_list_of_plugins_take_it_too(libraries, started, tmp_path, engines):
    library = str(libraries["g++"])
    listed = run(binary("llmd"), "plugins", "--plugin-library", library)
    assert any(line.startswith("kv-headroom-scorer ") for line in listed.splitlines())
    assert "| `bytesPerToken` | 4 |" in run(binary("llmd"), "plugins", "--markdown", "--plugin-library", library)
    endpoints = tmp_path / "endpoints.yaml"
    endpoints.write_text(f"endpoints: [{{name: small, address: 127.0.0.1, port: '{engines[0].port}'}}]")
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(endpoints=endpoints))
    admin = free_port()
    gateway = started(Gateway("--config-file", str(config), "--plugin-library", library, "--metrics-port", str(admin)))
    gateway.wait_http(admin, "/readyz")
    requests.post(f"{gateway.url}/v1/completions", data=body_of(), headers={"x-request-id": "via-gateway"}, timeout=20)
    decision = requests.get(f"http://127.0.0.1:{admin}/debug/decisions/via-gateway", timeout=5).json()
    assert decision["profiles"][0]["scores"][0]["scorer"] == "kv-headroom-scorer"


@pytest.mark.parametrize("program, flags", [("llmd-epp", ["--secure-serving=false"]), ("llmd-gateway", []), ("llmd", ["plugins"])])
def test_a_bad_library_stops_the_start(program, flags, tmp_path):
    text = tmp_path / "notes.so"
    text.write_text("not a library")
    for path, rule in ((text, "no shared library"), (tmp_path / "absent.so", "no such file")):
        done = subprocess.run([binary(program), *flags, "--plugin-library", str(path)], capture_output=True, text=True, timeout=20)
        assert done.returncode == 1, "as with any other file that cannot be used"
        assert f"--plugin-library: plugin library '{path}': " in done.stderr and rule in done.stderr


def test_without_the_library_the_type_is_unknown(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(endpoints=tmp_path / "endpoints.yaml"))
    done = subprocess.run([binary("llmd-epp"), "--secure-serving=false", "--config-file", str(config)], capture_output=True, text=True,
                          timeout=20)
    assert done.returncode != 0 and "unknown plugin type 'kv-headroom-scorer'" in done.stderr


def test_programs_export_what_the_plugin_headers_declare_and_no_more():
    """Every out-of-line function of the headers a plugin may include leaves the program, or plugins would not load."""
    exported = run("nm", "-D", "--defined-only", "-C", binary("llmd-epp")).replace("[abi:cxx11]", "")
    for function in ("llmd::sched::Params::Finish()", "llmd::config::Node::Get(", "llmd::json::Parse(", "llmd::Logger::Log(",
                     "llmd::MetricsRegistry::AddCounter(", "llmd::Status::ToString()", "llmd::sched::RequestContext::Put(",
                     "llmd::sched::Snapshot::Add(", "llmd::sched::EndpointMetrics::SetAttribute("):
        assert function in exported, function
    for name in ("llmd::sched::DirectorImpl", "llmd::epp::", "llmd::http::", "boost::"):
        assert name not in exported, name
