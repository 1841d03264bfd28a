"""What is set, removed and left alone on a request's headers, and where it goes."""
import re
import time

import grpc
import pytest
import requests

from conftest import Picker
from ext_proc import DESTINATION, GET, POST, SUBSET, MetricsEngine, Stream, body_of, config_of

CONTROL = ["x-gateway-destination-endpoint-subset", "x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id",
           "x-llm-d-inference-objective", "x-gateway-inference-objective", "x-llm-d-model-name-rewrite",
           "x-gateway-model-name-rewrite", "x-llm-d-slo-ttft-ms", "x-slo-ttft-ms", "x-llm-d-slo-tpot-ms", "x-slo-tpot-ms",
           "x-llm-d-video-fps", "x-llm-d-request-dropped-reason", "x-gateway-destination-endpoint-served",
           "x-gateway-destination-endpoint-scores"]
ROUTING = ["x-prefiller-host-port", "x-prefiller-url", "x-encoder-hosts-ports", "x-kv-cache-source-host-port",
           "x-data-parallel-host-port"]


@pytest.fixture(scope="module")
def engines():
    busy = [MetricsEngine(waiting=w) for w in (0, 3, 9)]
    yield busy
    for engine in busy:
        engine.close()


def make(started, tmp, engines, *args, config):
    rows = [(f"e{i}", engine.port, "decode") for i, engine in enumerate(engines)]
    process = started(Picker(tmp, rows + [("p", 7003, "prefill")], *args, config=config))
    process.wait_http(process.admin_port, "/readyz")
    wait_for_scores(process)
    return process


def wait_for_scores(picker):
    """Until the metrics of every engine have been read."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if " 4.0" in "".join(line for line in requests.get(f"{picker.admin}/metrics", timeout=5).text.splitlines()
                             if line.startswith("llm_d_epp_average_queue_size{")):
            return
        time.sleep(0.02)
    raise AssertionError("the metrics of the engines were not read")


@pytest.fixture(scope="module")
def picker(started_module, tmp_path_factory, engines):
    config = config_of(("queue-scorer", "max-score-picker"), parameters={"max-score-picker": "{maxNumOfEndpoints: 5}"})
    return make(started_module, tmp_path_factory.mktemp("several"), engines, "--emit-endpoint-scores", config=config)


@pytest.fixture(scope="module")
def channel(picker):
    with grpc.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel:
        yield channel


def routed(picker, channel, headers=(), **kwargs):
    with Stream(picker, channel) as stream:
        return stream.headers(POST + list(headers)).body(body_of(), **kwargs).routed()[0]


@pytest.mark.parametrize("name", CONTROL + ROUTING)
def test_control_and_routing_headers_of_the_client_are_removed(picker, channel, name):
    head = routed(picker, channel, [(name, "1"), (name, "2")])
    assert head.removed == [name]
    assert name not in head.set


def test_names_are_lower_cased_before_they_are_compared(picker, channel):
    assert routed(picker, channel, [("X-Prefiller-Host-Port", "evil:1")]).removed == ["x-prefiller-host-port"]


def test_a_clients_destination_is_overwritten(picker, channel):
    head = routed(picker, channel, [(DESTINATION, "evil:1"), (DESTINATION, "evil:2")])
    assert "evil" not in head.destination and DESTINATION not in head.removed
    assert [o.append_action for o in head.options if o.header.key == DESTINATION] == [2]


def test_every_set_header_overwrites_and_stands_in_raw_value(picker, channel):
    for option in routed(picker, channel).options:
        assert option.append_action == 2 and option.header.value == "" and option.header.raw_value


def test_other_headers_are_left_alone_so_repeats_survive(picker, channel):
    head = routed(picker, channel, [("cookie", "a"), ("cookie", "b"), ("authorization", "Bearer x"), ("x-mine", "1")])
    assert not {"cookie", "authorization", "x-mine", ":path", ":authority"} & (set(head.set) | set(head.removed))


def test_several_endpoints_come_in_the_order_of_their_scores(picker, channel, engines):
    assert routed(picker, channel).destination.split(",") == [e.address for e in engines]


def test_scores_of_every_candidate_are_in_the_metadata(picker, channel, engines):
    scores = routed(picker, channel).scores
    assert set(scores) == {e.address for e in engines}
    assert scores[engines[0].address] == 1 and scores[engines[2].address] == 0
    assert scores[engines[1].address] == pytest.approx(2 / 3)


def test_metadata_is_under_envoy_lb_alone(picker, channel):
    assert routed(picker, channel).namespaces == {"envoy.lb"}


def test_a_missing_request_id_is_made(picker, channel):
    made = routed(picker, channel).set["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made)
    assert picker.decision(made)["request_id"] == made


def test_a_request_id_that_is_there_stays(picker, channel):
    head = routed(picker, channel, [("x-request-id", "mine-1")])
    assert "x-request-id" not in head.set
    assert picker.decision("mine-1")["request_id"] == "mine-1"


def test_traceparent_is_set_once_and_is_a_child(picker, channel):
    theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    head = routed(picker, channel, [("traceparent", theirs)])
    ours = [o.header.raw_value.decode() for o in head.options if o.header.key == "traceparent"]
    assert len(ours) == 1 and ours[0] != theirs
    assert ours[0].split("-")[1] == theirs.split("-")[1], "the same trace"
    assert ours[0].split("-")[2] != theirs.split("-")[2] and ours[0].endswith("-01")


@pytest.mark.parametrize("bad", ["", "garbage", "00-00000000000000000000000000000000-b7ad6b7169203331-01"])
def test_a_traceparent_that_is_none_starts_a_trace(picker, channel, bad):
    head = routed(picker, channel, [("traceparent", bad)] if bad else [])
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", head.set["traceparent"])
    assert "0" * 32 not in head.set["traceparent"]


# Subset hints. e0 is the least busy, so what is chosen shows what was allowed.
def subset_cases(engines):
    e0, e1, e2 = (e.address for e in engines)
    return [([e1], [e1]), ([e2, e1], [e1, e2]), (e2, [e2]), (f"{e1},{e2}", [e1, e2]), (f" {e1} , {e2} ", [e1, e2]),
            ([f"{e1},{e2}"], [e1, e2]), (["127.0.0.1"], [e0, e1, e2]), ([e1, "127.0.0.1:1"], [e1]), (["", e2], [e2])]


@pytest.mark.parametrize("case", range(9))
@pytest.mark.parametrize("where", ["headers", "body", "both"])
def test_a_subset_limits_the_choice(picker, channel, engines, case, where):
    subset, expected = subset_cases(engines)[case]
    with Stream(picker, channel) as stream:
        stream.headers(subset={"headers": subset, "body": None, "both": [engines[0].address]}[where])
        stream.body(body_of(), subset=None if where == "headers" else subset)
        assert stream.routed()[0].destination.split(",") == expected


def test_the_subset_of_the_last_body_message_counts(picker, channel, engines):
    data = body_of()
    with Stream(picker, channel) as stream:
        stream.headers(subset=[engines[0].address]).body(data[:5], False, subset=[engines[1].address])
        stream.body(data[5:], True, subset=[engines[2].address])
        assert stream.routed()[0].destination == engines[2].address


@pytest.mark.parametrize("subset", [[], "", ["127.0.0.1:1"], ["10.9.9.9"], "127.0.0.1:1,10.1.1.1:2", ["127.0.0.1:7003"]],
                         ids=["empty-list", "empty-string", "another-port", "another-address", "string", "a-prefill-endpoint"])
def test_a_subset_without_a_match_is_503(picker, channel, subset):
    with Stream(picker, channel) as stream:
        refusal = stream.headers().body(body_of(), subset=subset).refused()
        assert (refusal.status, refusal.reason) == (503, "rejected-no-endpoints")
        assert int(refusal.headers["retry-after"]) > 0


# Requests that end with their headers.
@pytest.mark.parametrize("subset", [None, 1], ids=["alone", "a-subset-beside-it"])
def test_excluded_endpoints_are_not_picked(picker, channel, engines, subset):
    left = {e.address for e in engines[1:]}
    with Stream(picker, channel) as stream:
        stream.headers(exclude=[engines[0].address], subset=subset and [engines[1].address]).body(body_of())
        assert set(stream.routed()[0].destination.split(",")) == left


def test_nobody_left_is_503(picker, channel, engines):
    with Stream(picker, channel) as stream:
        refusal = stream.headers(exclude=[e.address for e in engines]).body(body_of()).refused()
        assert (refusal.status, refusal.reason) == (503, "rejected-no-endpoints")


def test_a_get_is_scheduled_through_the_profile(picker, channel, engines):
    with Stream(picker, channel) as stream:
        head = stream.headers(GET, end=True).routed(has_body=False)[0]
        assert head.destination.split(",") == [e.address for e in engines], "by score, and no prefill endpoint"
        assert "content-length" not in head.set


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
def test_a_bodiless_request_keeps_to_its_subset(picker, channel, engines, method):
    with Stream(picker, channel) as stream:
        stream.headers([(":method", method), *GET[1:]], end=True, subset=[engines[2].address])
        assert stream.routed(has_body=False)[0].destination == engines[2].address


def test_a_bodiless_request_without_a_match_is_503(picker, channel):
    with Stream(picker, channel) as stream:
        refusal = stream.headers(GET, end=True, subset=[]).refused()
        assert (refusal.status, refusal.reason) == (503, "rejected-no-endpoints")


# Configurations of their own.
def test_the_subset_filter_can_be_switched_off(started, tmp_path, engines):
    picker = make(started, tmp_path, engines, "--disable-endpoint-subset-filter", config=config_of())
    with Stream(picker) as stream:
        stream.headers().body(body_of(), subset=[engines[2].address])
        assert stream.routed()[0].destination == engines[0].address


@pytest.mark.parametrize("plugins", [("random-picker",), ("weighted-random-picker",), ("max-score-picker",)])
def test_without_scorers_every_candidate_has_score_0(started, tmp_path, engines, plugins):
    picker = make(started, tmp_path, engines, "--emit-endpoint-scores", config=config_of(plugins))
    with Stream(picker) as stream:
        assert stream.headers().body(body_of()).routed()[0].scores == {e.address: 0 for e in engines}


def test_scores_are_not_written_unasked(started, tmp_path, engines):
    picker = make(started, tmp_path, engines, config=config_of())
    with Stream(picker) as stream:
        assert stream.headers().body(body_of()).routed()[0].scores is None


def test_the_subset_header_of_a_client_is_no_hint(picker, channel, engines):
    assert routed(picker, channel, [(SUBSET, engines[2].address)]).destination.split(",")[0] == engines[0].address
