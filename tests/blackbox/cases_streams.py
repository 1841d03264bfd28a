"""Event streams and other answers that take their time; clients that leave; engines that break off."""
import gzip
import json
import time

import wire
from engines import stream_head
from registry import case, family
from runner import answer, error_object, settle

CHAT = "/v1/chat/completions"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"half"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"


def stream(pieces, content_type="text/event-stream", pause=0.0, headers=()):
    """A script that sends the pieces as chunks, one by one, and ends."""
    def run(connection, request):
        connection.send(stream_head(content_type, headers=headers))
        for piece in pieces:
            connection.send(wire.chunk(piece))
            time.sleep(pause)
        connection.send(END)
    return run


FRAMINGS = {
    "usual": EVENT * 3 + DONE, "crlf": EVENT.replace(b"\n", b"\r\n") + DONE.replace(b"\n", b"\r\n"), "cr": EVENT.replace(b"\n", b"\r"),
    "comments": b": keep-alive\n\n" + EVENT + b":\n\n: x\n" + DONE, "no-blank": b'data:{"choices":[]}\n\ndata:[DONE]\n\n',
    "many-lines": b'data: {"choices":\ndata:  []}\n\n' + DONE, "named": b"event: message_start\nid: 7\nretry: 10\n" + EVENT + b"event: ping\ndata: {}\n\n",
    "byte-order-mark": b"\xef\xbb\xbf" + EVENT + DONE, "unknown-field": b"own: x\n" + EVENT, "empty-data": b"data\n\ndata:\n\n" + DONE, "no-end-of-line": EVENT + b"data: [DONE]",
    "utf8": 'data: {"choices":[{"delta":{"content":"日本☃"}}]}\n\n'.encode() + DONE, "big-event": b'data: {"x":"' + b"y" * 300_000 + b'"}\n\n' + DONE,
    "no-json": b"data: hello\n\ndata: {\n\n" + DONE,
}


@family(FRAMINGS, "GW-61")
def stream_passes_unmodified(b, data):
    r = b.post(b.script(stream([data])), stream=True)
    assert r.status == 200 and r.clean and r.body == data, r
    assert r.header("content-type") == "text/event-stream", r


@family({"bytes": 1, "threes": 3, "sevens": 7}, "GW-61")
def stream_split_anywhere_passes(b, size):
    data = FRAMINGS["utf8"] + FRAMINGS["crlf"] + FRAMINGS["comments"]
    r = b.post(b.script(stream([data[i:i + size] for i in range(0, len(data), size)])), stream=True)
    assert r.clean and r.body == data, r


@case("GW-61")
def chunk_extensions_and_trailers_of_an_engine_are_no_data(b):
    s = b.says(stream_head(headers=[("Trailer", "X-Sum")]) + wire.chunk(EVENT, b";x=1") + wire.chunk(DONE, b';y="z"') + b"0\r\nX-Sum: 1\r\n\r\n")
    c = b.client()
    r = b.post(s, client=c)
    assert r.clean and r.body == EVENT + DONE, r
    assert b.post(b.script(), client=c).status == 200


def at_once(b, content_type, pieces, chunks=True):
    """Each piece is with the client while the engine waits for word that it is."""
    arrived = []

    def run(connection, request):
        connection.send(stream_head(content_type, chunks))
        for i, piece in enumerate(pieces):
            connection.send(wire.chunk(piece) if chunks else piece)
            deadline = time.monotonic() + 4
            while len(arrived) <= i and time.monotonic() < deadline:
                time.sleep(0.002)
        if chunks:
            connection.send(END)
        else:
            connection.shut()
    c = b.send(b.script(run), stream=True)
    r = c.read_head()
    for piece in pieces:
        c.read_until(piece, 2)
        arrived.append(piece)
    return r


PIECES = [b"piece-%d-of-it" % i for i in range(4)]


@family({"sse": "text/event-stream", "sse-charset": "text/event-stream; charset=utf-8", "sse-capitals": "Text/Event-Stream", "ndjson": "application/x-ndjson",
         "json": "application/json", "audio": "audio/wav", "text": "text/plain", "octets": "application/octet-stream"}, "GW-62")
def piece_arrives_before_the_next_is_sent(b, content_type):
    pieces = [b"data: " + p + b"\n\n" for p in PIECES] if "vent" in content_type else PIECES
    assert at_once(b, content_type, pieces).status == 200


@case("GW-62")
def part_of_an_event_arrives_before_its_end(b):
    at_once(b, "text/event-stream", [b"data: {", b'"choices":', b"[]}", b"\n", b"\n"][:3] + [b"\n\n" + DONE])


@case("GW-62", "GW-64")
def pieces_of_a_body_that_ends_with_its_connection_arrive_at_once(b):
    at_once(b, "text/event-stream", [b"data: " + p + b"\n\n" for p in PIECES], chunks=False)


@case("GW-62")
def the_head_of_an_answer_arrives_before_its_body(b):
    def run(connection, request):
        connection.send(stream_head())
        time.sleep(1.5)
        connection.send(wire.chunk(EVENT) + END)
    c = b.send(b.script(run), stream=True)
    begun = time.monotonic()
    c.read_head(3)
    assert time.monotonic() - begun < 1.2, "it waited for the body"


@family({"gzip": "gzip", "unknown": "br"}, "GW-63")
def encoded_stream_passes(b, coding):
    data = gzip.compress(EVENT * 3 + DONE)
    s = b.script(stream([data[:10], data[10:30], data[30:]], headers=[("Content-Encoding", coding)]))
    r = b.post(s, stream=True, headers=[("Accept-Encoding", coding)])
    assert r.clean and r.body == data and r.header("content-encoding") == coding, r


@case("GW-63", "GW-18")
def an_encoded_plain_answer_passes(b):
    data = gzip.compress(b'{"choices":[]}')
    r = b.post(b.says(answer(body=data, headers=[("Content-Encoding", "gzip")])))
    assert r.body == data and r.header("content-encoding") == "gzip", r


@family({"stream": "text/event-stream", "json": "application/json"}, "GW-64")
def body_to_the_end_of_the_connection_passes(b, content_type):
    def run(connection, request):
        connection.send(stream_head(content_type, chunked=False) + EVENT + DONE)
        connection.shut()
    c = b.client()
    r = b.post(b.script(run), client=c)
    assert r.clean and r.body == EVENT + DONE, r


@case("GW-64")
def an_http_1_0_engine_is_understood(b):
    def run(connection, request):
        connection.send(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}")
        connection.shut()
    r = b.post(b.script(run))
    assert r.status == 200 and r.clean and r.body == b"{}", r


@case("GW-65")
def a_silence_of_seconds_is_no_error(b):
    def run(connection, request):
        connection.send(stream_head() + wire.chunk(EVENT))
        time.sleep(4)
        connection.send(wire.chunk(DONE) + END)
    r = b.post(b.script(run), stream=True)
    assert r.clean and r.body == EVENT + DONE, r


@case("GW-65")
def a_late_first_byte_is_no_error(b):
    def run(connection, request):
        time.sleep(4)
        connection.send(answer())
    r = b.post(b.script(run))
    assert r.status == 200 and r.clean, r


# Clients that leave


def seen_leaving(b, run, leave, tries=5):
    """Seconds from a client's leaving until the engine sees it: the best of some, as other processes share the machine."""
    best = 1e18
    for _ in range(tries):
        def script(connection, request, notes=[]):
            run(connection, request)
            s.note("there", True)
            s.note("gone", connection.wait_gone(3) or 1e18)
            connection.reset()
        s = b.script(script)
        c = b.client()
        c.send(wire.request("POST", CHAT, b.body(s, stream=True)))
        s.wait_note("there")
        c.drain(0.15)  # unread bytes would turn the client's end into a reset
        begun = time.monotonic()
        leave(c)
        gone = s.wait_note("gone", 6) - begun
        assert gone < 3, "the engine was never told"
        best = min(best, gone)
        if best < 0.1:
            return best
    raise AssertionError(f"the engine saw it after {best:.3f} s at best")


def nothing(connection, request):
    pass


def idle_stream(connection, request):
    connection.send(stream_head() + wire.chunk(EVENT))


def half_plain(connection, request):
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")


PHASES = {"before-the-first-byte": nothing, "idle-stream": idle_stream, "half-a-plain-answer": half_plain}


@family(PHASES, "GW-66")
def client_that_closes_is_seen(b, phase):
    seen_leaving(b, phase, lambda c: c.close())


@family(PHASES, "GW-66")
def client_that_resets_is_seen(b, phase):
    seen_leaving(b, phase, lambda c: c.reset())


@family(PHASES, "GW-67")
def client_that_half_closes_is_seen(b, phase):
    seen_leaving(b, phase, lambda c: c.half_close())


@case("GW-76", process=True)
def a_client_that_half_closes_is_served_when_that_is_allowed(b):
    own = b.own(1, flags=["--half-close=allow"])

    def run(connection, request):
        time.sleep(0.5)
        connection.send(answer(body=b'{"late":true}'))
    c = own.send(own.script(run))
    c.half_close()
    r = c.read()
    assert r.status == 200 and r.body == b'{"late":true}', r


@family({"100": 100, "3000": 3000, "6000": 6000, "100000": 100_000}, "GW-67")
def client_that_sent_more_and_closes_is_seen(b, size):
    seen_leaving(b, idle_stream, lambda c: (c.send(wire.request("POST", CHAT, b"x" * size)), c.close()))


@case("GW-66")
def a_client_that_leaves_a_busy_stream_is_seen(b):
    def run(connection, request):
        connection.send(stream_head())
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if not connection.send(wire.chunk(EVENT)) or (wire.readable(connection.socket, 0.01) and not connection.fill()):
                s.note("gone", time.monotonic())
                return
    s = b.script(run)
    c = b.send(s, stream=True)
    c.read_until(EVENT)
    c.close()
    left = time.monotonic()
    assert s.wait_note("gone", 6) - left < 2, "the engine went on for seconds"


# Engines that break off


def breaks_off(data, content_type="text/event-stream", headers=(), reset=False):
    def run(connection, request):
        connection.send(stream_head(content_type, headers=headers))
        for piece in data if isinstance(data, list) else [data]:
            connection.send(wire.chunk(piece))
        time.sleep(0.05)
        connection.reset() if reset else connection.shut()
    return run


def events_of(body):
    """The events of a stream as a client's parser sees them: their data, comments left out."""
    out, lines = [], []
    for line in body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        if line == b"":
            if lines:
                out.append(b"\n".join(lines))
            lines = []
        elif line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
    return out


TAILS = {
    "between-events": (EVENT, 1), "in-json": (EVENT + b'data: {"choices":[{"te', 1), "after-one-line-end": (EVENT + EVENT[:-1], 2), "in-comment": (EVENT + b": keep-al", 1),
    "in-field-name": (EVENT + b"dat", 1), "after-cr": (EVENT + EVENT[:-2] + b"\r", 2), "after-crlf": (EVENT + EVENT[:-2] + b"\r\n", 2), "in-event-name": (EVENT + b"event: mess", 1),
    "nothing-yet": (b": hello\n\n", 0), "in-utf8": (EVENT + b'data: {"x":"\xe6\x97', 1),
}


@family(TAILS, "GW-68")
def broken_stream_ends_with_an_error_event(b, tail):
    data, whole = tail
    c = b.client()
    r = b.post(b.script(breaks_off(data)), stream=True, client=c)
    assert r.status == 200 and r.body.startswith(EVENT if whole else data), r
    assert b"[DONE]" not in r.body, r
    events = events_of(r.body)
    try:
        error = json.loads(events[-1])["error"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise AssertionError(f"the last event is no error object: {r.body!r}") from None
    assert {"message", "type", "code"} <= set(error), error
    for event in events[:-1]:
        assert "error" not in json.loads(event) if event.endswith(b"}") else True, r.body
    assert c.ends(3), "the connection goes on"


@case("GW-68")
def a_stream_that_is_reset_ends_with_an_error_event(b):
    r = b.post(b.script(breaks_off([EVENT, EVENT], reset=True)), stream=True)
    assert "error" in json.loads(events_of(r.body)[-1]) and b"[DONE]" not in r.body, r


@case("GW-68")
def a_stream_of_odd_case_that_breaks_off_ends_with_an_error_event(b):
    r = b.post(b.script(breaks_off(EVENT, "Text/Event-Stream; charset=UTF-8")), stream=True)
    assert "error" in json.loads(events_of(r.body)[-1]) and b"[DONE]" not in r.body, r


@case("GW-68")
def a_chunk_that_breaks_off_passes_nothing_of_the_framing(b):
    def run(connection, request):
        connection.send(stream_head() + wire.chunk(EVENT) + b"40\r\ndata: {")
        time.sleep(0.05)
        connection.shut()
    r = b.post(b.script(run), stream=True)
    assert b"40" not in r.body.replace(EVENT, b"")[:10] and "error" in json.loads(events_of(r.body)[-1]), r


@family({"between-events": EVENT, "within-an-event": b"event: content_block_delta\n" + EVENT[:-1]}, "GW-74")
def a_broken_message_stream_ends_with_anthropics_error_event(b, data):
    r = b.post(b.script(breaks_off(data)), path="/v1/messages", stream=True, max_tokens=5)
    name, _, last = r.body.rstrip(b"\n").rpartition(b"\n\n")[2].partition(b"\n")
    event = json.loads(last.removeprefix(b"data: "))
    assert name == b"event: error" and event["type"] == "error" and event["error"]["type"] and event["error"]["message"], r


@case("GW-74", "GW-14")
def refusals_of_messages_are_anthropics_objects(b):
    error_object(r := b.post(b.script(), path="/v1/messages", body=b"{no json"), 400)
    assert r.json()["type"] == "error", r


def two_events(rest):
    """One event and the beginning of another, a silence, and the rest of it."""
    def run(connection, request):
        connection.send(stream_head() + wire.chunk(EVENT))
        time.sleep(1)
        connection.send(wire.chunk(DONE[:rest]))
        time.sleep(1)
        connection.send(wire.chunk(DONE[rest:]) + END)
    return run


@case("GW-75", process=True)
def a_silent_stream_is_kept_alive_between_events_when_asked_for(b):
    own = b.own(1, flags=["--sse-heartbeat", "300ms"])
    r = own.post(own.script(two_events(6)), stream=True)
    before, _, after = r.body.partition(DONE)
    assert r.clean and after == b"" and before.startswith(EVENT), r
    comments = before[len(EVENT):]
    assert comments and all(line.startswith(b":") for line in comments.split(b"\n") if line), r


@case("GW-75", process=True)
def nothing_stands_within_an_event_of_a_silent_stream(b):
    own = b.own(1, flags=["--sse-heartbeat", "200ms"])

    def run(connection, request):
        connection.send(stream_head() + wire.chunk(EVENT + DONE[:8]))
        time.sleep(1)
        connection.send(wire.chunk(DONE[8:]) + END)
    r = own.post(own.script(run), stream=True)
    assert r.clean and r.body == EVENT + DONE, r


@case("GW-69")
def a_whole_stream_without_done_gets_none(b):
    r = b.post(b.script(stream([EVENT, EVENT])), stream=True)
    assert r.clean and r.body == EVENT * 2, r


@case("GW-69")
def an_empty_stream_stays_empty(b):
    r = b.post(b.script(stream([])), stream=True)
    assert r.status == 200 and r.clean and r.body == b"", r


@case("GW-69", "GW-61")
def an_engines_own_error_event_passes(b):
    data = b'data: {"error":{"message":"out of memory","type":"server_error","code":500}}\n\n'
    r = b.post(b.script(stream([EVENT, data])), stream=True)
    assert r.clean and r.body == EVENT + data, r


@case("GW-70")
def an_encoded_stream_that_breaks_off_is_cut(b):
    data = gzip.compress(EVENT * 50)[:40]
    r = b.post(b.script(breaks_off(data, headers=[("Content-Encoding", "gzip")])), stream=True)
    assert not r.clean and r.body == data, r


def plain_cut(head, body=b'{"half":'):
    def run(connection, request):
        connection.send(head + body)
        time.sleep(0.05)
        connection.shut()
    return run


@family({"length": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n",
         "chunks": stream_head("application/json") + wire.chunk(b"x"), "ndjson": stream_head("application/x-ndjson") + wire.chunk(b"{}\n"),
         "audio": b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: 1000000\r\n\r\n"}, "GW-71", "GW-84")
def broken_plain_answer_is_cut(b, head):
    s = b.script(plain_cut(head, b"" if b"chunked" in head else b'{"half":'))
    try:
        r = b.post(s)
    except wire.Cut:
        return
    assert not r.clean or r.status >= 500, f"it ends as if it were whole: {r}"
    assert r.status >= 500 or len(s.requests) == 1, "it was tried again after the first byte"


@case("GW-71", "GW-24")
def a_broken_answer_of_a_large_body_is_cut(b):
    def run(connection, request):
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 200000\r\n\r\n" + b"y" * 150_000)
        time.sleep(0.05)
        connection.reset()
    try:
        assert not b.post(b.script(run)).clean
    except wire.Cut:
        pass


@case("GW-72")
def a_slow_reader_holds_its_engine_back(b):
    sent = []

    def run(connection, request):
        connection.send(stream_head())
        connection.socket.settimeout(1)
        piece = wire.chunk(b"data: " + b"y" * 65_000 + b"\n\n")
        for _ in range(1000):
            if not connection.send(piece):
                break
            sent.append(len(piece))
        s.note("stopped", True)
        connection.reset()
    s = b.script(run)
    c = b.client(receive_buffer=4096)
    b.send(s, stream=True, client=c)
    s.wait_note("stopped")
    assert sum(sent) < 24 << 20, f"{sum(sent) >> 20} MB were taken for a client that reads nothing"


@case("GW-72", "GW-114")
def a_slow_reader_holds_nobody_else_back(b):
    def run(connection, request):
        connection.send(stream_head())
        connection.socket.settimeout(2)
        while connection.send(wire.chunk(b"data: " + b"y" * 65_000 + b"\n\n")):
            pass
        connection.reset()
    for _ in range(8):  # on every loop, if it has several
        b.send(b.script(run), stream=True, client=b.client(receive_buffer=4096))
    time.sleep(0.3)
    for _ in range(8):
        begun = time.monotonic()
        b.well()
        assert time.monotonic() - begun < 1.5


@case("GW-72", "GW-61")
def a_slow_reader_gets_every_byte(b):
    pieces = [b"data: " + b"%06d" % i + b"y" * 2000 + b"\n\n" for i in range(500)]
    s = b.script(stream(pieces))
    c = b.client(receive_buffer=8192, timeout=20)
    b.send(s, stream=True, client=c)
    time.sleep(0.5)
    r = c.read()
    assert r.clean and r.body == b"".join(pieces)


@case("GW-72", process=True)
def memory_stays_flat_for_readers_of_nothing(b):
    own = b.own(1)
    own.well()

    def run(connection, request):
        connection.send(stream_head())
        connection.socket.settimeout(1)
        while connection.send(wire.chunk(b"data: " + b"y" * 65_000 + b"\n\n")):
            pass
        s.note("stopped", True)
        connection.reset()
    before = own.gateway.rss_kb()
    scripts = []
    for _ in range(10):
        s = own.script(run)
        scripts.append(s)
        own.send(s, stream=True, client=own.client(receive_buffer=4096))
    time.sleep(1)
    grown = own.gateway.rss_kb() - before
    assert grown < 40 * 1024, f"{grown} KB for ten clients that read nothing"


@case("GW-73", process=True)
def a_large_answer_does_not_stay_in_memory(b):
    own = b.own(1)
    own.well()
    size = 150 << 20

    def run(connection, request):
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: %d\r\n\r\n" % size)
        block = b"z" * (1 << 20)
        for _ in range(size >> 20):
            connection.send(block)
    before = own.gateway.rss_kb()
    c = own.send(own.script(run), client=own.client(timeout=60))
    r = c.read_head()
    assert r.status == 200, r
    # A client slower than the engine: what comes is counted, not kept.
    got = len(c.buffer)
    c.socket.settimeout(20)
    while got < size and (data := c.socket.recv(1 << 16)):
        got += len(data)
        if got < 20 << 20:
            time.sleep(0.002)
    grown = own.gateway.peak_kb() - before
    assert grown < 40 * 1024, f"{grown >> 10} MB for one answer"


@case("GW-73", process=True)
def large_uploads_leave_memory_again(b):
    own = b.own(1)
    own.well()
    for _ in range(3):
        s = own.script()
        body = own.body(s, x="y" * (10 << 20))
        assert own.post(s, body, client=own.client(timeout=20)).status == 200
    assert own.gateway.peak_kb() < 200 * 1024, f"{own.gateway.peak_kb() >> 10} MB for three bodies of 10 MB one after another"
    settle(lambda: own.gateway.rss_kb() < 110 * 1024, 5, lambda: f"{own.gateway.rss_kb() >> 10} MB are kept afterwards")
