"""llmd-gateway with pickers of other makes, scripted message by message: those that give bodies back themselves, hold an answer
to its end, name fallbacks, refuse in their own words, heed hints only in part, or break the protocol."""
import concurrent.futures
import contextlib
import json
import time

import grpc
import pytest
import requests

from conftest import Gateway, metric
from ext_proc import DESTINATION, PIECE, PROCESS, SUBSET, chunked, messages
from fake_engine import FakeEngine, response
from test_gateway_epp import ASK, ask, big, engines, peak_kb, pieces_of, plain  # noqa: F401  (engines is a fixture)


class ScriptedPicker:
    """`script(requests)` gets an iterator of ProcessingRequests and yields ProcessingResponses. Knows no gRPC health."""

    def __init__(self, script):
        make = messages()
        request, self.response = (make(f"envoy.service.ext_proc.v3.Processing{x}") for x in ("Request", "Response"))
        self.seen = []

        def serve(requests_in, context):
            def noted():
                for message in requests_in:
                    self.seen.append(message)
                    yield message
            yield from script(self, noted(), context)

        handler = grpc.stream_stream_rpc_method_handler(serve, request_deserializer=request.FromString,
                                                        response_serializer=lambda m: m.SerializeToString())
        service, method = PROCESS[1:].split("/")
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def close(self):
        self.server.stop(0).wait()

    # The parts of a script.
    def routed(self, *addresses, **headers):
        out = self.response()
        mutation = out.request_headers.response.header_mutation
        for name, value in {DESTINATION: ",".join(addresses), **headers}.items():
            option = mutation.set_headers.add()
            option.header.key, option.header.raw_value = name, value.encode()
        return out

    def body(self, piece, end, kind="request_body"):
        out = self.response()
        streamed = getattr(out, kind).response.body_mutation.streamed_response
        streamed.body, streamed.end_of_stream = piece, end
        return out

    def head(self):
        out = self.response()
        out.response_headers.SetInParent()
        return out

    def take_body(self, requests_in):
        """Reads a request whole."""
        text = b""
        for message in requests_in:
            if message.HasField("request_body"):
                text += message.request_body.body
                if message.request_body.end_of_stream:
                    return text
            elif message.request_headers.end_of_stream:
                return None

    def route(self, requests_in, *addresses, change=lambda text: text, **headers):
        """What a picker does of a request: all of it."""
        text = self.take_body(requests_in)
        yield self.routed(*addresses, **headers)
        if text is not None:
            pieces = chunked(change(text), PIECE)
            for i, piece in enumerate(pieces):
                yield self.body(piece, i == len(pieces) - 1)


@pytest.fixture
def picked(started):
    with contextlib.ExitStack() as stack:
        def start(script, *args):
            picker = ScriptedPicker(script)
            stack.callback(picker.close)
            gateway = started(Gateway("--epp", f"127.0.0.1:{picker.port}", *args))
            gateway.wait_http(gateway.port, "/ready")
            return picker, gateway
        yield start


def test_a_picker_that_gives_each_piece_back(picked, engines):
    events = [b'data: {"i":%d}\n\n' % i for i in range(5)]
    engine = engines(pieces_of("text/event-stream", events))

    def script(p, requests_in, _):
        yield from p.route(requests_in, engine.address)
        for m in requests_in:
            yield p.head() if m.HasField("response_headers") else p.body(m.response_body.body, m.response_body.end_of_stream, "response_body")

    _, gateway = picked(script)
    begun, times, got = time.monotonic(), [], b""
    with ask(gateway, stream=True) as reply:
        for chunk in reply.iter_content(None):
            times.append(time.monotonic() - begun)
            got += chunk
    assert got == b"".join(events) and times[0] < 0.5 < times[-1]


def test_a_picker_that_holds_an_answer_to_its_end(picked, engines):
    """As llm-d's does with what is no event stream; longer than the deadline, since it lives."""
    pieces = [b"%04d" % i * 1000 for i in range(12)]
    engine = engines(pieces_of("application/json", pieces, gap=0.1))

    def script(p, requests_in, _):
        yield from p.route(requests_in, engine.address)
        text = b""
        for m in requests_in:
            if m.HasField("response_headers"):
                yield p.head()
                continue
            text += m.response_body.body
            if m.response_body.end_of_stream:
                for i, piece in enumerate(chunked(text, PIECE)):
                    yield p.body(piece, (i + 1) * PIECE >= len(text), "response_body")

    _, gateway = picked(script, "--epp-timeout", "200ms")
    assert ask(gateway).content == b"".join(pieces)


def test_a_large_answer_held_to_its_end_costs_the_gateway_nothing(picked, engines):
    engine = engines(big(40))

    def script(p, requests_in, _):
        yield from p.route(requests_in, engine.address)
        text = []
        for m in requests_in:
            if m.HasField("response_headers"):
                yield p.head()
                continue
            text.append(m.response_body.body)
            if m.response_body.end_of_stream:
                pieces = chunked(b"".join(text), PIECE)
                for i, piece in enumerate(pieces):
                    yield p.body(piece, i == len(pieces) - 1, "response_body")

    _, gateway = picked(script)
    before = peak_kb(gateway)
    assert len(ask(gateway, timeout=60).content) == 40 << 20
    assert peak_kb(gateway) - before < 24 << 10


def test_a_picker_that_answers_each_piece_with_nothing(picked, engines):
    """As lwepp does: every piece passes as it is."""
    engine = engines(pieces_of("application/json", [b"a" * 50_000, b"b" * 10], gap=0.05))

    def script(p, requests_in, _):
        for m in requests_in:
            out = p.response()
            if m.HasField("request_headers"):
                yield p.routed(engine.address)
            elif m.HasField("request_body"):
                out.request_body.SetInParent()
                yield out
            elif m.HasField("response_headers"):
                yield p.head()
            else:
                out.response_body.SetInParent()
                yield out

    _, gateway = picked(script)
    assert ask(gateway).content == b"a" * 50_000 + b"b" * 10
    assert json.loads(engine.posts()[-1].body) == ASK


def test_a_picker_that_changes_both_bodies(picked, engines):
    engine = engines(pieces_of("application/json", [b"one ", b"two "], gap=0.05))

    def script(p, requests_in, _):
        yield from p.route(requests_in, engine.address, change=lambda text: text.replace(b"hello", b"good morning"))
        for m in requests_in:
            if m.HasField("response_headers"):
                yield p.head()
            else:
                yield p.body(m.response_body.body.upper() * 2, m.response_body.end_of_stream, "response_body")

    _, gateway = picked(script)
    assert ask(gateway).content == b"ONE ONE TWO TWO "
    assert json.loads(engine.posts()[-1].body)["prompt"] == "good morning"


def test_fallbacks_are_tried_in_order_without_asking_again(picked, engines):
    dead = [FakeEngine(plain), FakeEngine(plain)]
    for engine in dead:
        engine.close()
    good, other = engines(plain), engines(plain)

    def script(p, requests_in, _):
        yield from p.route(requests_in, dead[0].address, dead[1].address, good.address, other.address)
        for m in requests_in:
            out = p.head() if m.HasField("response_headers") else p.response()
            if not m.HasField("response_headers"):
                out.response_body.SetInParent()
            yield out

    picker, gateway = picked(script)
    assert ask(gateway).status_code == 200
    assert len(good.posts()) == 1 and not other.posts()
    assert sum(m.HasField("request_headers") for m in picker.seen) == 1
    assert metric(f"{gateway.url}/metrics", "llmd_gateway_retries_total") == 2
    served = [m for m in picker.seen if m.HasField("response_headers")][-1].metadata_context.filter_metadata["envoy.lb"]
    assert served.fields[f"{DESTINATION}-served"].string_value == good.address


def test_the_hint_names_who_is_left_and_who_is_not(picked, engines):
    """Asked again after a failure, the picker is told whom to leave out, and whom it has named before."""
    bad = FakeEngine(plain)
    bad.close()
    good = engines(plain)

    def script(p, requests_in, _):
        hints = []

        def noted():
            for m in requests_in:
                if m.HasField("request_headers"):
                    hints.append(hint_of(m))
                yield m
        text = p.take_body(noted())
        address = bad.address if bad.address not in hints[-1][1] else good.address
        yield p.routed(address)
        yield p.body(text, True)
        for m in requests_in:
            out = p.head() if m.HasField("response_headers") else p.response()
            if not m.HasField("response_headers"):
                out.response_body.SetInParent()
            yield out

    picker, gateway = picked(script)
    assert [ask(gateway).status_code for _ in range(3)] == [200] * 3
    heads = [hint_of(m) for m in picker.seen if m.HasField("request_headers")]
    # The first request learned that it is dead; while it is out it is not named, but where the pick is known it is offered.
    assert heads[0] == ([], []) and heads[1] == ([], [bad.address])
    assert heads[2:] == [([good.address], [bad.address])] * 2


def hint_of(message):
    fields = message.metadata_context.filter_metadata["envoy.lb.subset_hint"].fields
    return tuple([v.string_value for v in fields[key].list_value.values] for key in (SUBSET, f"{DESTINATION}-exclude"))


def test_a_picker_that_heeds_no_hint_is_not_asked_for_ever(picked, engines):
    dead = FakeEngine(plain)
    dead.close()

    def script(p, requests_in, _):
        yield from p.route(requests_in, dead.address)

    picker, gateway = picked(script)
    assert ask(gateway).status_code == 503
    # Thrice, then once a round: the back-offs let no more than seven into --retry-timeout.
    assert sum(m.HasField("request_headers") for m in picker.seen) <= 10


@pytest.mark.parametrize("stage", ["request", "head", "body"])
def test_an_immediate_answer_at_any_stage(picked, engines, stage):
    engine = engines(pieces_of("text/event-stream", [b'data: {"i":1}\n\n'] * 20, gap=0.1))

    def script(p, requests_in, _):
        no = p.response()
        no.immediate_response.status.code = 429
        no.immediate_response.body = b"not now"
        option = no.immediate_response.headers.set_headers.add()
        option.header.key, option.header.raw_value = "x-llm-d-request-dropped-reason", b"evicted-priority"
        if stage == "request":
            p.take_body(requests_in)
            yield no
            return
        yield from p.route(requests_in, engine.address)
        for m in requests_in:
            if stage == "head":
                yield no
                return
            if m.HasField("response_headers"):
                yield p.head()
            else:
                out = p.response()
                out.response_body.SetInParent()
                yield out
                yield no
                return

    _, gateway = picked(script)
    reply = ask(gateway)
    if stage == "body":
        events = [json.loads(e[6:]) for e in reply.text.strip().split("\n\n")]
        assert events[-1]["error"]["code"] == 429 and len(events) < 20
        return
    assert reply.status_code == 429 and reply.json()["error"]["message"] == "not now"
    assert reply.headers["x-llm-d-request-dropped-reason"] == "evicted-priority"


def test_a_refusal_in_json_passes_as_it_is(picked):
    def script(p, requests_in, _):
        p.take_body(requests_in)
        no = p.response()
        no.immediate_response.status.code = 403
        no.immediate_response.body = b'{"why":"closed"}'
        option = no.immediate_response.headers.set_headers.add()
        option.header.key, option.header.raw_value = "content-type", b"application/json"
        yield no

    _, gateway = picked(script)
    reply = ask(gateway)
    assert (reply.status_code, reply.json(), reply.headers["content-type"]) == (403, {"why": "closed"}, "application/json")


def test_a_picker_that_needs_nothing_of_the_answer_ends_the_stream(picked, engines):
    engine = engines(plain)

    def script(p, requests_in, _):
        yield from p.route(requests_in, engine.address, **{"x-added": "yes"})

    _, gateway = picked(script)
    assert ask(gateway).status_code == 200
    assert engine.posts()[-1].header("x-added") == ["yes"]


@pytest.mark.parametrize("fault", ["nothing named", "a name", "unasked pieces", "breaks off"])
def test_pickers_that_break_the_rules_are_503_and_hurt_nobody_else(picked, engines, fault):
    engine = engines(plain)

    def script(p, requests_in, context):
        text = p.take_body(requests_in)
        if fault == "breaks off":
            context.abort(grpc.StatusCode.INTERNAL, "no")
        yield p.routed({"nothing named": "", "a name": "engine:80"}.get(fault, engine.address))
        yield p.body(text, True)
        for m in requests_in:
            if m.HasField("response_headers"):
                yield p.head()
            if fault == "unasked pieces":
                for _ in range(3):
                    out = p.response()
                    out.response_body.SetInParent()
                    yield out

    _, gateway = picked(script)
    if fault == "unasked pieces":
        with contextlib.suppress(requests.RequestException):
            assert ask(gateway).json() == {"got": len(json.dumps(ASK))}
    else:
        reply = ask(gateway)
        assert reply.status_code == 503 and reply.json()["error"]["code"] == 503
    assert requests.get(f"{gateway.url}/health", timeout=5).status_code == 200
