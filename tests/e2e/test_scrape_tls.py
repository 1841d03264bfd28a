"""Engines whose metrics are served over TLS, as vLLM does with --ssl-certfile, and mTLS."""
import ssl
import time

import pytest

from authority import Authority
from conftest import Picker, metric
from fake_engine import FakeEngine, response

PAGE = b"vllm:num_requests_waiting 7.0\nvllm:num_requests_running 1.0\nvllm:kv_cache_usage_perc 0.5\n"


async def answer(request, _writer):
    return response(body=PAGE, content_type="text/plain")


def config_of(source):
    def config(endpoints):
        return f"""apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: file-discovery, parameters: {{path: {endpoints}}}}}
- {{type: queue-scorer}}
- {{type: metrics-data-source, parameters: {{{source}}}}}
- {{type: core-metrics-extractor}}
dataLayer:
  discovery: {{pluginRef: file-discovery}}
  sources: [{{pluginRef: metrics-data-source, extractors: [{{pluginRef: core-metrics-extractor}}]}}]
"""
    return config


def picker_reading(started, tmp_path, engine, source):
    picker = started(Picker(tmp_path, [("a", engine.port, "decode")], "-v", "2", config=config_of(source)))
    return picker.wait_http(picker.admin_port, "/readyz")


def queue_size(picker):
    """None while the endpoint was never read."""
    try:
        return metric(picker.admin + "/metrics", "llm_d_epp_per_endpoint_queue_size", model_server_endpoint="a")
    except AssertionError:
        return None


def errors(picker):
    return metric(picker.admin + "/metrics", "llm_d_epp_datalayer_poll_errors_total", source_type="metrics-data-source")


def wait_until(condition, what):
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority") / "ours", "ours")


@pytest.fixture(scope="module")
def server(authority, tmp_path_factory):
    return authority.context(authority.issue(tmp_path_factory.mktemp("engine"), "engine"))


def test_metrics_are_read_over_tls(started, tmp_path, authority, server):
    engine = FakeEngine(answer, tls=server)
    for source in ("scheme: https", f"scheme: https, insecureSkipVerify: false, caCertPath: {authority.cert}"):
        picker = picker_reading(started, tmp_path, engine, source)
        wait_until(lambda: queue_size(picker) == 7, "the gauge is seen")
        assert errors(picker) == 0
        picker.stop()


def test_an_engine_that_is_not_believed_is_not_read(started, tmp_path, server):
    engine = FakeEngine(answer, tls=server)
    other = Authority(tmp_path / "other", "other")
    picker = picker_reading(started, tmp_path, engine, f"scheme: https, insecureSkipVerify: false, caCertPath: {other.cert}")
    wait_until(lambda: errors(picker) >= 3, "reads fail")
    assert not engine.requests
    assert "certificate" in picker.log()


def test_an_engine_that_asks_for_a_certificate_gets_it(started, tmp_path, authority):
    context = authority.context(authority.issue(tmp_path / "engine", "engine"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.cert)
    engine = FakeEngine(answer, tls=context)
    ours = authority.issue(tmp_path / "picker", "picker")
    picker = picker_reading(started, tmp_path, engine, f"scheme: https, clientCertPath: {ours}/tls.crt, clientKeyPath: {ours}/tls.key")
    wait_until(lambda: queue_size(picker) == 7, "the gauge is seen")
    picker.stop()
    bare = picker_reading(started, tmp_path, engine, "scheme: https")
    wait_until(lambda: errors(bare) >= 3, "reads fail without a certificate")
