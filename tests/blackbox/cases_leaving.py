"""A gateway that is told to leave."""
import signal
import time

import wire
from engines import stream_head
from registry import case


def draining_stream(b):
    def run(connection, request):
        connection.send(stream_head())
        for i in range(20):
            connection.send(wire.chunk(b"data: %d\n\n" % i))
            time.sleep(0.1)
        connection.send(wire.chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    return b.script(run)


@case("GW-95", process=True)
def on_sigterm_streams_end_whole(b):
    own = b.own(1)
    c = own.send(draining_stream(own), stream=True)
    c.read_until(b"data: 1\n\n")
    own.gateway.process.send_signal(signal.SIGTERM)
    assert b"data: [DONE]" in c.read_until(b"[DONE]", 6)
    assert own.gateway.process.wait(5) == 0


@case("GW-95", process=True)
def on_sigterm_new_connections_are_refused(b):
    own = b.own(1)
    c = own.send(draining_stream(own), stream=True)
    c.read_until(b"data: 1\n\n")
    own.gateway.process.send_signal(signal.SIGTERM)
    time.sleep(0.4)
    try:
        r = own.get("/ready")
        assert r.status == 503, r
    except (OSError, wire.Cut):
        pass
    assert b"data: [DONE]" in c.read_until(b"[DONE]", 6)


@case("GW-95", process=True)
def on_sigterm_idle_connections_do_not_hold_it(b):
    own = b.own(1)
    idle = [own.client() for _ in range(5)]
    kept = own.client()
    own.get("/health", client=kept)
    own.gateway.process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert own.gateway.process.wait(10) == 0
    assert time.monotonic() - begun < 4, "it waited for connections without a request"
    assert all(c.closed_after(2) for c in idle)


@case("GW-95", process=True)
def on_sigterm_an_endless_stream_is_cut_at_the_limit(b):
    own = b.own(1, flags=["--drain-timeout", "1s"])

    def run(connection, request):
        connection.send(stream_head())
        while connection.send(wire.chunk(b"data: {}\n\n")):
            time.sleep(0.05)
    c = own.send(own.script(run), stream=True)
    c.read_until(b"data: {}\n\n")
    own.gateway.process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    own.gateway.process.wait(8)
    assert 0.7 < time.monotonic() - begun < 6
    rest = c.read_all(3)
    assert not rest.endswith(b"0\r\n\r\n") or b"error" in rest, "it looks as if it had ended whole"
