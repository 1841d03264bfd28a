"""The picker's metrics page against the field's table: names, types, labels, buckets, and the older names."""
import pathlib
import re
import time

import pytest
import requests

from conftest import ROOT, Gateway, endpoints_yaml, free_port
from fake_engine import FakeEngine, response

LAT = [.005, .025, .05, .1, .2, .4, .6, .8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480,
       600, 900, 1200, 1800, 2700, 3600]
TOK = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32778, 65536, 131072, 262144, 524288, 1048576]
FAST = [.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1]
L = {"model_name", "target_model_name", "fairness_id", "priority"}
POOL = {"name"}

# name: (type, labels, buckets), without the prefix llm_d_epp_.
TABLE = {
    "request_total": ("counter", L, None),
    "request_error_total": ("counter", L | {"error_code"}, None),
    "request_duration_seconds": ("histogram", L, LAT),
    "request_size_bytes": ("histogram", L, [64 * 2 ** n for n in range(25)]),
    "response_size_bytes": ("histogram", L, TOK[:15]),
    "request_input_tokens": ("histogram", L, TOK),
    "request_cached_tokens": ("histogram", L, TOK),
    "request_output_tokens": ("histogram", L, TOK[:12]),
    "request_running": ("gauge", L, None),
    "request_ntpot_seconds": ("histogram", L, [.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10]),
    "request_ttft_seconds": ("histogram", L | {"streaming"}, LAT[:24]),
    "request_streaming_tpot_seconds": ("histogram", L, [.0005, .00205, .005, .01, .02, .04, .06, .08, .1, .125, .15, .2, .3, .4,
                                                        .5, .6, .8, 1, 2]),
    "request_streaming_itl_seconds": ("histogram", L, [.001, .005, .01, .02, .04, .06, .08, .1, .15, .2, .3, .5, .75, 1, 2]),
    "average_kv_cache_utilization": ("gauge", POOL, None),
    "average_queue_size": ("gauge", POOL, None),
    "average_running_requests": ("gauge", POOL, None),
    "std_dev_kv_cache_utilization": ("gauge", POOL, None),
    "std_dev_queue_size": ("gauge", POOL, None),
    "std_dev_running_requests": ("gauge", POOL, None),
    "ready_endpoints": ("gauge", POOL, None),
    "per_endpoint_queue_size": ("gauge", {"name", "model_server_endpoint"}, None),
    "scheduler_e2e_duration_seconds": ("histogram", set(), FAST),
    "scheduler_attempts_total": ("counter", {"status", "target_model_name", "endpoint_name", "namespace", "port"}, None),
    "plugin_duration_seconds": ("histogram", {"extension_point", "plugin_type", "plugin_name"}, FAST),
    "plugin_data_scope_violations_total": ("counter", {"extension_point", "plugin_type", "plugin_name", "access"}, None),
    "request_processing_duration_seconds": ("histogram", set(), [.0005, .001, .002, .005, .01, .015, .025, .04, .06, .1, .25, .5,
                                                                 1, 2.5, 5, 10]),
    "response_processing_duration_seconds": ("histogram", set(), [.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1,
                                                                  .25, .5, 1, 2.5, 5]),
    "info": ("gauge", {"commit", "build_ref"}, None),
    "model_rewrite_decisions_total": ("counter", {"model_rewrite_name", "model_name", "target_model"}, None),
    "disagg_decision_total": ("counter", {"plugin_name", "plugin_type", "model_name", "decision_type"}, None),
    "pd_decision_total": ("counter", {"plugin_name", "plugin_type", "model_name", "decision_type"}, None),
    "prefix_indexer_size": ("gauge", {"plugin_name", "plugin_type"}, None),
    "prefix_indexer_hit_ratio": ("histogram", {"plugin_name", "plugin_type"}, None),
    "prefix_indexer_hit_bytes": ("histogram", {"plugin_name", "plugin_type"}, [0] + [2 ** n for n in range(4, 17)]),
    "config_reloads_total": ("counter", {"name", "result"}, None),
}
# Older names of the same series, where a label may have been called otherwise.
OLD = {
    **{f"inference_{old}_{name}": new for old in ("model", "objective") for name, new in {
        "request_total": "request_total", "request_error_total": "request_error_total",
        "request_duration_seconds": "request_duration_seconds", "request_sizes": "request_size_bytes",
        "response_sizes": "response_size_bytes", "input_tokens": "request_input_tokens",
        "output_tokens": "request_output_tokens", "running_requests": "request_running",
        "normalized_time_per_output_token_seconds": "request_ntpot_seconds"}.items()},
    "inference_objective_prompt_cached_tokens": "request_cached_tokens",
    "inference_pool_average_kv_cache_utilization": "average_kv_cache_utilization",
    "inference_pool_average_queue_size": "average_queue_size",
    "inference_pool_ready_pods": "ready_endpoints",
    "inference_extension_scheduler_e2e_duration_seconds": "scheduler_e2e_duration_seconds",
    "inference_extension_plugin_duration_seconds": "plugin_duration_seconds",
    "inference_extension_prefix_indexer_size": "prefix_indexer_size",
    "inference_extension_prefix_indexer_hit_ratio": "prefix_indexer_hit_ratio",
    "inference_extension_prefix_indexer_hit_bytes": "prefix_indexer_hit_bytes",
    "inference_extension_info": "info",
    "llm_d_inference_scheduler_pd_decision_total": "disagg_decision_total",
    "llm_d_inference_scheduler_disagg_decision_total": "disagg_decision_total",
}
RENAMED = {
    "inference_pool_per_pod_queue_size": ("gauge", {"name", "model_server_pod"}),
    "inference_extension_scheduler_attempts_total": ("counter", {"status", "target_model_name", "pod_name", "namespace", "port"}),
}
CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: prefix-cache-scorer}}
- {{type: queue-scorer}}
- {{type: file-discovery, parameters: {{path: "{endpoints}"}}}}
dataLayer: {{discovery: {{pluginRef: file-discovery}}}}
"""


class Page:
    """A Prometheus page by family: type, label names of each series, bucket bounds."""

    def __init__(self, text):
        self.types, self.labels, self.bounds, self.values = {}, {}, {}, {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                assert name not in self.types, f"{name} stands twice"
                self.types[name] = kind
            elif line and not line.startswith("#"):
                self.sample(line)

    def sample(self, line):
        name, labels, value = re.fullmatch(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)", line).groups()
        pairs = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or ""))
        family = name
        for suffix in ("_bucket", "_count", "_sum"):
            if name.endswith(suffix) and self.types.get(name.removesuffix(suffix)) == "histogram":
                family = name.removesuffix(suffix)
        bound = pairs.pop("le", None)
        self.labels.setdefault(family, []).append(frozenset(pairs))
        if bound not in (None, "+Inf"):
            bounds = self.bounds.setdefault(family, {}).setdefault(tuple(sorted(pairs.items())), [])
            bounds.append(float(bound))
        self.values[(name, frozenset(pairs.items()))] = float(value)


async def answer(request, _writer):
    if request.method == "GET":
        return response(body=b"vllm:num_requests_waiting 2.0\nvllm:num_requests_running 1.0\n", content_type="text/plain")
    return response(body=b'{"id":"x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}')


@pytest.fixture(scope="module")
def gateway(started_module, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("metrics")
    engine = FakeEngine(answer)
    endpoints = tmp / "endpoints.yaml"
    endpoints.write_text(endpoints_yaml([("e", engine.port, "decode")]))
    config = tmp / "gateway.yaml"
    config.write_text(CONFIG.format(endpoints=endpoints))
    admin = free_port()
    gateway = started_module(Gateway("--config-file", str(config), "--metrics-port", str(admin), "--metrics-endpoint-auth=false"))
    gateway.wait_http(gateway.port, "/ready")
    gateway.admin = f"http://127.0.0.1:{admin}"
    return gateway


@pytest.fixture(scope="module")
def pages(gateway):
    """Before and after one request."""
    before = requests.get(f"{gateway.admin}/metrics", timeout=5).text
    body = {"model": "m", "prompt": "hello"}
    assert requests.post(f"{gateway.url}/v1/completions", json=body, timeout=20).status_code == 200
    assert requests.post(f"{gateway.url}/v1/completions", json={"prompt": "x"}, timeout=20).status_code == 400
    deadline = time.monotonic() + 10  # loops hand over what they count a few times a second
    while True:
        after = Page(requests.get(f"{gateway.admin}/metrics", timeout=5).text)
        counted = [v for (name, labels), v in after.values.items() if name == "llmd_gateway_requests_total" and ("route", "/v1/completions") in labels]
        if sum(counted) == 2:
            return Page(before), after
        assert time.monotonic() < deadline, "requests are not counted"
        time.sleep(0.05)


@pytest.mark.parametrize("when", [0, 1], ids=["before-traffic", "after-traffic"])
@pytest.mark.parametrize("name", TABLE)
def test_each_family_has_its_type_labels_and_buckets(pages, name, when):
    kind, labels, buckets = TABLE[name]
    page, full = pages[when], f"llm_d_epp_{name}"
    assert page.types.get(full) == kind
    if name == "per_endpoint_queue_size" and when == 0 and full not in page.labels:
        return  # nothing was scraped yet
    assert page.labels[full], "a series from the start"
    assert all(of_one == labels for of_one in page.labels[full])
    if buckets is not None:
        assert all(bounds == buckets for bounds in page.bounds[full].values())


@pytest.mark.parametrize("old", OLD)
def test_old_names_show_the_same_series(pages, old):
    page, new = pages[1], f"llm_d_epp_{OLD[old]}"
    assert page.types[old] == page.types[new]
    for (name, labels), value in page.values.items():
        if name == new or re.fullmatch(re.escape(new) + "_(bucket|sum|count)", name):
            assert page.values[(old + name[len(new):], labels)] == value


@pytest.mark.parametrize("old", RENAMED)
def test_labels_are_called_as_they_were_under_old_names(pages, old):
    kind, labels = RENAMED[old]
    assert pages[1].types[old] == kind
    assert all(of_one == labels for of_one in pages[1].labels[old])


def test_one_request_counts_once(pages):
    labels = frozenset({"model_name": "m", "target_model_name": "m", "fairness_id": "default-flow", "priority": "0"}.items())
    for name in ("llm_d_epp_request_total", "inference_model_request_total", "llm_d_epp_request_duration_seconds_count",
                 "llm_d_epp_request_output_tokens_count"):
        assert pages[1].values[(name, labels)] == 1
    assert pages[1].values[("llm_d_epp_request_output_tokens_sum", labels)] == 5
    assert pages[1].values[("llm_d_epp_request_running", labels)] == 0


def test_every_family_is_documented(pages):
    pages_of = ("docs/metrics.md", "docs/reference/gateway-doors.md")  # the first refers to the second
    text = "".join(pathlib.Path(ROOT / page).read_text() for page in pages_of)
    named = set(re.findall(r"`([a-z0-9_]+)`", text))
    missing = [n for n in pages[1].types if n.startswith(("llm_d_epp_", "llmd_gateway_")) and n.removeprefix("llm_d_epp_") not in named]
    assert missing == []


G = {"route", "model", "endpoint"}
GATEWAY = {
    "requests_total": ("counter", G | {"status"}), "request_duration_seconds": ("histogram", G), "queue_seconds": ("histogram", G),
    "ttft_seconds": ("histogram", G), "event_gap_seconds": ("histogram", G), "tokens_total": ("counter", G | {"type"}),
    "request_body_bytes_total": ("counter", G), "answer_body_bytes_total": ("counter", G),
    "refusals_total": ("counter", {"reason"}), "requests_inflight": ("gauge", set()),
}


@pytest.mark.parametrize("name", GATEWAY)
def test_the_gateways_own_families_have_their_labels(pages, name):
    kind, labels = GATEWAY[name]
    assert pages[1].types[f"llmd_gateway_{name}"] == kind
    assert all(of_one == labels for of_one in pages[1].labels[f"llmd_gateway_{name}"])
    if kind == "histogram":
        assert pages[0].labels[f"llmd_gateway_{name}"], "a series from the start"


def test_the_gateway_counts_by_route_model_endpoint_and_status(pages):
    labels = {"route": "/v1/completions", "model": "m", "endpoint": "default/e"}
    values = pages[1].values
    assert values[("llmd_gateway_requests_total", frozenset({**labels, "status": "200"}.items()))] == 1
    assert values[("llmd_gateway_tokens_total", frozenset({**labels, "type": "completion"}.items()))] == 5
    assert values[("llmd_gateway_ttft_seconds_count", frozenset(labels.items()))] == 1
    refused = {"route": "/v1/completions", "model": "", "endpoint": "", "status": "400"}
    assert values[("llmd_gateway_requests_total", frozenset(refused.items()))] == 1


def test_the_page_for_clients_has_the_same_families_and_names_no_engine(gateway, pages):
    text = requests.get(f"{gateway.url}/metrics", timeout=5).text
    page = Page(text)
    assert page.types == pages[1].types
    assert not [labels for of in page.labels.values() for labels in of if labels & {"endpoint", "endpoint_name", "model_server_endpoint"}]
    assert "default/e" not in text
    assert page.values[("llmd_gateway_requests_total", frozenset({"route": "/v1/completions", "model": "m", "status": "200"}.items()))] == 1


def test_old_names_can_be_left_out(started, tmp_path):
    config = tmp_path / "gateway.yaml"
    config.write_text(CONFIG.format(endpoints=tmp_path / "endpoints.yaml"))
    (tmp_path / "endpoints.yaml").write_text("endpoints: []")
    gateway = started(Gateway("--config-file", str(config), "--metrics-port", "0", "--deprecated-metric-names=false"))
    gateway.wait_http(gateway.port, "/health")
    page = requests.get(f"{gateway.url}/metrics", timeout=5).text
    assert "llm_d_epp_request_total" in page and "inference_" not in page.replace("inference_pool=", "")
