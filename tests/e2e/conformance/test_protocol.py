"""Peers that break the rules, and what the picker does when it is asked for its health or told to leave."""
import asyncio
import contextlib
import pathlib
import signal
import threading
import time

import grpc
import pytest

from conftest import Picker, metric
from ext_proc import BUFFERED, FULL_DUPLEX, NONE, PROCESS, STREAMED, MetricsEngine, Stream, body_of, call, config_of, messages

ORDERS = {
    "body-first": lambda s: s.body(body_of()),
    "trailers-first": lambda s: s.trailers(),
    "response-body-first": lambda s: s.response_body(b"x"),
    "response-trailers-first": lambda s: s.response_trailers(),
    "nothing": lambda s: s.send(s.request()),
    "second-headers": lambda s: s.headers().headers(),
    "second-headers-after-the-answer": lambda s: (s.headers().body(body_of()).routed(), s.headers()),
    "response-body-before-its-headers": lambda s: (s.headers().body(body_of()).routed(), s.response_body(b"x")),
    "second-response-headers": lambda s: (s.headers().body(body_of()).routed(), s.answered(), s.response_headers()),
    "trailers-after-the-end": lambda s: (s.headers().body(body_of()).routed(), s.answered(), s.passed(b"x", 1), s.response_trailers()),
}


@pytest.fixture(scope="module")
def picker(started_module, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("protocol")
    process = started_module(Picker(tmp, [("a", 7001, "decode")], config=config_of()))
    return process.wait_http(process.admin_port, "/readyz")


@pytest.fixture(scope="module")
def channel(picker):
    with grpc.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel:
        yield channel


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def inflight(picker):
    return metric(f"{picker.admin}/metrics", "llm_d_epp_extproc_streams_inflight")


@pytest.mark.parametrize("name", ORDERS)
def test_messages_out_of_order_end_the_stream_with_a_reason(picker, channel, name):
    with Stream(picker, channel) as stream:
        ORDERS[name](stream)
        code, details = stream.end()
        assert code == grpc.StatusCode.INVALID_ARGUMENT and details.startswith("ext_proc: ")
    wait_for(lambda: inflight(picker) == 0)


@pytest.mark.parametrize("more", [b"", b"x", body_of()], ids=["empty", "some", "again"])
@pytest.mark.parametrize("end", [True, False])
def test_a_body_message_after_the_end_is_passed_over(picker, channel, more, end):
    """As some Envoys send the last message of a large body twice."""
    with Stream(picker, channel) as stream:
        stream.headers().body(body_of(200_000)).body(more, end=end)
        assert len(stream.routed()[1]) == len(body_of(200_000))
        stream.body(more, end=end)
        stream.answered()
        assert stream.passed(b"abc", 2) == b"abc"
        stream.response_body(more, end)
        stream.half_close()
        assert stream.end()[0] == grpc.StatusCode.OK
    assert sum("after a body's end" in line["msg"] for line in picker.json_lines()) == 1, "told once"


@pytest.mark.parametrize("mode", [NONE, STREAMED, BUFFERED])
def test_a_request_body_mode_that_cannot_work_is_named(picker, channel, mode):
    with Stream(picker, channel) as stream:
        stream.protocol = (mode, FULL_DUPLEX)
        code, details = stream.headers().end()
        assert code == grpc.StatusCode.INVALID_ARGUMENT and "FULL_DUPLEX_STREAMED" in details


@pytest.mark.parametrize("when", ["before-the-body", "mid-body"])
def test_what_the_proxy_answers_by_itself_passes(picker, channel, when):
    with Stream(picker, channel) as stream:
        stream.headers()
        if when == "mid-body":
            stream.body(b'{"mod', end=False)
        added, removed, answer = stream.answered(((":status", "408"),))
        assert not added and not removed and not answer.HasField("mode_override")
        assert stream.passed(b"timeout", 3) == b"timeout"


def test_a_half_closed_stream_gets_its_answers_and_a_clean_end(picker, channel):
    with Stream(picker, channel) as stream:
        stream.headers().body(body_of(200_000))
        assert len(stream.routed()[1]) == len(body_of(200_000))
        stream.half_close()
        assert stream.end()[0] == grpc.StatusCode.OK


def test_a_stream_closed_before_its_first_message_ends_cleanly(picker, channel):
    with Stream(picker, channel) as stream:
        stream.half_close()
        assert stream.end()[0] == grpc.StatusCode.OK


def resident(picker):
    lines = pathlib.Path(f"/proc/{picker.popen.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024


def test_a_peer_that_never_reads_is_held_back(picker):
    """Response bodies are answered with the same bytes; nobody takes them, so the picker must stop reading."""
    before = resident(picker)
    taken = []

    def flood():
        request = messages()("envoy.service.ext_proc.v3.ProcessingRequest")
        for first in (Stream.headers, lambda s: s.body(body_of()), Stream.response_headers):
            yield recorded(first)
        while True:
            taken.append(1)
            message = request()
            message.response_body.body = b"y" * 300_000
            yield message
    with grpc.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel:
        process = channel.stream_stream(PROCESS, request_serializer=lambda m: m.SerializeToString(), response_deserializer=bytes)
        flooding = process(flood(), timeout=60)
        last = -1
        while len(taken) != last:  # until flow control holds the sender
            last = len(taken)
            time.sleep(0.5)
        assert 3 < last < 700, "all was taken though nobody read"
        assert resident(picker) - before < 120 << 20
        with Stream(picker) as other:
            other.headers().body(body_of()).routed()
        flooding.cancel()
    wait_for(lambda: inflight(picker) == 0)


def recorded(send):
    """The message that a step of Stream would send."""
    class Recorder(Stream):
        def __init__(self):
            self.request, self.protocol = messages()("envoy.service.ext_proc.v3.ProcessingRequest"), None

        def send(self, message, subset=None, exclude=()):
            self.message = message
    recorder = Recorder()
    send(recorder)
    return recorder.message


def test_ten_thousand_idle_streams_cost_little_and_stop_nobody(started, tmp_path):
    picker = started(Picker(tmp_path, [("a", 7001, "decode")], "-v", "2", config=config_of()))
    picker.wait_http(picker.admin_port, "/readyz")
    before = resident(picker)
    release = threading.Event()
    idle = open_idle(picker.grpc_port, 10_000, recorded(Stream.headers).SerializeToString(), release)
    try:
        wait_for(lambda: inflight(picker) == 10_000, 60)
        each = (resident(picker) - before) / 10_000
        print(f"{each:.0f} bytes a stream")
        assert each < 40_000
        with Stream(picker) as other:
            other.headers().body(body_of()).routed()
    finally:
        release.set()
        idle.join(60)
    wait_for(lambda: inflight(picker) == 0, 60)


def open_idle(port, streams, first, release):
    """Streams from one thread over asyncio: a thread a stream would test Python."""
    async def main():
        channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(10)]
        open_calls = []
        for i in range(streams):
            open_calls.append(channels[i % 10].stream_stream(PROCESS)())
            await open_calls[-1].write(first)
        while not release.is_set():
            await asyncio.sleep(0.1)
        for open_call in open_calls:
            open_call.cancel()
        for channel in channels:
            await channel.close()
    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    return thread


# Health.
SERVICES = ["", "liveness", "readiness", "inference-extension", "envoy.service.ext_proc.v3.ExternalProcessor", "any-name"]


def health(port, service):
    request, reply = messages()("grpc.health.v1.HealthCheckRequest"), messages()("grpc.health.v1.HealthCheckResponse")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return call(channel, "/grpc.health.v1.Health/Check", request(service=service), reply).status


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("port", ["health_port", "grpc_port"])
def test_health_answers_every_name_that_manifests_probe(picker, port, service):
    assert health(getattr(picker, port), service) == 1


@pytest.mark.parametrize("service", ["", "liveness", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor"])
def test_a_pool_without_endpoints_is_served(empty, service):
    assert health(empty.health_port, service) == 1


def test_a_pool_without_endpoints_is_503_by_the_picker_itself(empty):
    with Stream(empty) as stream:
        refusal = stream.headers().body(body_of()).refused()
        assert (refusal.status, refusal.reason) == (503, "rejected-no-endpoints")


@pytest.fixture(scope="module")
def empty(started_module, tmp_path_factory):
    process = started_module(Picker(tmp_path_factory.mktemp("empty"), [], config=config_of()))
    return process.wait_http(process.admin_port, "/readyz")


def test_health_lists_its_services(picker):
    request, reply = messages()("grpc.health.v1.HealthListRequest"), messages()("grpc.health.v1.HealthListResponse")
    with grpc.insecure_channel(f"127.0.0.1:{picker.health_port}") as channel:
        statuses = call(channel, "/grpc.health.v1.Health/List", request(), reply).statuses
    assert {name: entry.status for name, entry in statuses.items()} == dict.fromkeys(SERVICES[:5], 1)


def test_watch_is_unimplemented(picker):
    request = messages()("grpc.health.v1.HealthCheckRequest")
    with grpc.insecure_channel(f"127.0.0.1:{picker.health_port}") as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch", request_serializer=lambda m: m.SerializeToString())
        with pytest.raises(grpc.RpcError) as error:
            next(watch(request(), timeout=10))
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_health_is_on_the_ext_proc_port_only_when_asked_for(started, tmp_path):
    process = started(Picker(tmp_path, [("a", 7001, "decode")], "--health-checking=false", config=config_of()))
    process.wait_http(process.admin_port, "/readyz")
    assert health(process.health_port, "") == 1
    with pytest.raises(grpc.RpcError) as error:
        health(process.grpc_port, "")
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


# Leaving, in file mode too.
def leaving(started, tmp_path, *args, config=None, port=7001):
    picker = started(Picker(tmp_path, [("a", port, "decode")], *args, config=config or config_of()))
    picker.wait_http(picker.admin_port, "/readyz")
    return picker


def test_an_idle_picker_leaves_at_once(started, tmp_path):
    picker = leaving(started, tmp_path)
    begun = time.monotonic()
    picker.popen.send_signal(signal.SIGTERM)
    assert picker.popen.wait(10) == 0 and time.monotonic() - begun < 5


def test_open_streams_run_on_and_new_ones_are_served_until_they_have_ended(started, tmp_path):
    picker = leaving(started, tmp_path)
    with grpc.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel, Stream(picker, channel) as stream:
        stream.headers().body(body_of()).routed()
        picker.popen.send_signal(signal.SIGTERM)
        wait_for(lambda: health(picker.health_port, "readiness") == 2)
        assert health(picker.grpc_port, "envoy.service.ext_proc.v3.ExternalProcessor") == 2
        assert health(picker.health_port, "liveness") == 1
        with Stream(picker) as late:
            late.headers().body(body_of()).routed()
        stream.answered()
        assert stream.passed(b"abc", 1) == b"abc"
        assert picker.popen.poll() is None
        stream.half_close()
        assert stream.end()[0] == grpc.StatusCode.OK
    assert picker.popen.wait(10) == 0


def test_after_the_drain_time_the_rest_is_cut(started, tmp_path):
    picker = leaving(started, tmp_path, "--drain-timeout", "500ms")
    with Stream(picker) as stream:
        stream.headers().body(body_of()).routed()
        begun = time.monotonic()
        picker.popen.send_signal(signal.SIGTERM)
        assert picker.popen.wait(10) == 0
        assert 0.4 < time.monotonic() - begun < 5
        assert stream.end()[0] in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


def test_many_streams_are_cut_at_once_and_the_picker_ends_well(started, tmp_path):
    picker = leaving(started, tmp_path, "--drain-timeout", "10ms")
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(Stream(picker)) for _ in range(100)]
        for stream in streams:
            stream.headers().body(body_of()).routed()
        picker.popen.send_signal(signal.SIGTERM)
        assert picker.popen.wait(10) == 0
        assert all(s.end()[0] in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE) for s in streams)


def test_what_still_waits_after_the_drain_time_is_told_why(started, tmp_path):
    engine = MetricsEngine(waiting=500, kv=0.99)
    config = config_of(gates="flowControl", rest="flowControl: {defaultRequestTTL: 60s}")
    picker = leaving(started, tmp_path, "--drain-timeout", "300ms", config=config, port=engine.port)
    wait_for(lambda: len(engine.requests) > 1)
    with Stream(picker) as stream:
        stream.headers().body(body_of())
        time.sleep(0.1)
        picker.popen.send_signal(signal.SIGTERM)
        refusal = stream.refused()
        assert (refusal.status, refusal.reason) == (503, "rejected-shutting-down")
    assert picker.popen.wait(10) == 0
    engine.close()
