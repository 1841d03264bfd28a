"""HTTP/1.1 as RFC 9112 and 9110 have it, and what is refused."""
import socket
import time

import wire
from engines import stream_head
from registry import case, family
from runner import answer, error_object

CHAT = "/v1/chat/completions"


def chunked(b, s, pieces, trailer=b"", extension=b""):
    head = wire.request("POST", CHAT, None, [("Transfer-Encoding", "chunked"), ("Content-Type", "application/json")])
    return head + b"".join(wire.chunk(p, extension) for p in pieces) + b"0\r\n" + trailer + b"\r\n"


def never_asked(s, seconds=0.1):
    time.sleep(seconds)
    assert s.requests == [], "it reached an engine as a whole request"


def refused(b, s, data, *statuses, close=True):
    """Refused with one of the statuses and the connection's end; no engine saw it."""
    c = b.client()
    r = c.send(data, quiet=True).read()
    error_object(r, *statuses)
    if close:
        assert c.ends(3), "the connection goes on"
    never_asked(s)


# Bodies


@family({"one": lambda d: [d], "bytes": lambda d: [d[i:i + 1] for i in range(len(d))], "uneven": lambda d: [d[:1], d[1:50], d[50:]]}, "GW-21")
def chunked_upload_arrives(b, cut):
    s = b.script()
    body = b.body(s)
    r = b.exchange(chunked(b, s, cut(body)))
    assert r.status == 200 and s.one().body == body, r


@family({"extension": (b";name=value;x", b""), "quoted": (b';q="a;b\\"c"', b""), "trailer": (b"", b"X-Sum: 1\r\nX-Other: 2\r\n"), "both": (b";a", b"X-Sum: 1\r\n")}, "GW-21")
def chunk_extras_are_dropped(b, extras):
    s = b.script()
    body = b.body(s)
    c = b.client()
    r = c.send(chunked(b, s, [body[:9], body[9:]], extras[1], extras[0])).read()
    assert r.status == 200 and s.one().body == body, r
    assert s.one().header("x-sum") is None, "a trailer became a header"
    assert b.post(b.script(), client=c).status == 200


@case("GW-21")
def chunked_upload_in_single_byte_segments(b):
    s = b.script()
    c = b.client()
    for byte in chunked(b, s, [b.body(s)]):
        c.send(bytes([byte]))
    assert c.read().status == 200
    assert s.one().body == b.body(s)


@case("GW-22")
def expect_continue_is_answered_before_the_body(b):
    s = b.script()
    body = b.body(s)
    c = b.client()
    c.send(wire.request("POST", CHAT, None, [("Content-Length", len(body)), ("Expect", "100-continue"), ("Content-Type", "application/json")]))
    assert c.read_head(3).status == 100
    r = c.send(body).read()
    assert r.status == 200 and s.one().body == body and s.one().header("expect") is None, r


@case("GW-22", "GW-13")
def expect_continue_with_too_much_is_refused_without_the_body(b):
    c = b.client()
    c.send(wire.request("POST", CHAT, None, [("Content-Length", 1 << 36), ("Expect", "100-continue")]))
    error_object(c.read(), 413, 417)


@case("GW-22")
def a_client_that_does_not_wait_for_100_is_served(b):
    s = b.script()
    r = b.exchange(wire.request("POST", CHAT, b.body(s), [("Expect", "100-continue")]))
    assert r.status == 200 and s.one().body == b.body(s), r


# Connections


@case("GW-23")
def pipelined_requests_are_answered_in_order(b):
    def slow_first(n):
        def run(connection, request):
            time.sleep(0.3 if n == 0 else 0)
            connection.send(answer(body=b'{"n":%d}' % n))
        return run
    scripts = [b.script(slow_first(n)) for n in range(5)]
    c = b.client()
    c.send(b"".join(wire.request("POST", CHAT, b.body(s)) for s in scripts))
    assert [c.read().json()["n"] for _ in scripts] == [0, 1, 2, 3, 4]


@case("GW-23", "GW-24")
def pipelining_mixes_own_and_engines_answers(b):
    s = b.says(answer(body=b'{"n":1}'))
    c = b.client()
    c.send(wire.request("GET", "/health") + wire.request("POST", CHAT, b.body(s)) + wire.request("POST", CHAT, b"[]") + wire.request("GET", "/nowhere"))
    assert [c.read().status for _ in range(4)] == [200, 200, 400, 404]


@case("GW-24")
def a_connection_serves_many_requests(b):
    c = b.client()
    for _ in range(20):
        assert b.post(b.script(), client=c).status == 200


@family({"bad-json": (CHAT, b"{"), "no-model": (CHAT, b"{}"), "unknown-model": (CHAT, b'{"model":"nobody","messages":[]}'), "unknown-path": ("/nowhere", b"{}")}, "GW-24")
def a_refusal_keeps_the_connection(b, what):
    c = b.client()
    assert c.send(wire.request("POST", what[0], what[1])).read().status in (400, 404)
    assert b.post(b.script(), client=c).status == 200


@family({"length": lambda: answer(), "chunks": lambda: stream_head("application/json") + wire.chunk(b"{}") + b"0\r\n\r\n",
         "end": lambda: b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}"}, "GW-25")
def http_1_0_gets_no_chunks(b, made):
    def run(connection, request):
        connection.send(made())
        if b"close" in made():
            connection.shut()
    s = b.script(run)
    c = b.client()
    r = c.send(wire.request("POST", CHAT, b.body(s), version="HTTP/1.0")).read()
    assert r.status == 200 and r.framing != "chunked" and r.clean, r
    assert c.ends(3), "the connection goes on though nobody asked"


@case("GW-25", "GW-47")
def http_1_0_keep_alive_with_a_length(b):
    c = b.client()
    for _ in range(2):
        r = c.send(wire.request("POST", CHAT, b.body(b.script()), [("Connection", "keep-alive")], version="HTTP/1.0")).read()
        assert r.status == 200 and r.framing == "length", r
        assert (r.header("connection") or "").lower() == "keep-alive", r


@family({"plain": "close", "capitals": "Close", "list": "keep-alive, close"}, "GW-26")
def connection_close_is_honoured(b, value):
    c = b.client()
    r = b.post(b.script(), headers=[("Connection", value)], client=c)
    assert r.status == 200 and (r.header("connection") or "").lower() == "close", r
    assert c.ends(3)


@case("GW-26")
def connection_close_of_a_stream_is_honoured(b):
    s = b.says(stream_head() + wire.chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    c = b.client()
    assert b.post(s, headers=[("Connection", "close")], client=c).body == b"data: [DONE]\n\n"
    assert c.ends(3)


# What is refused


def framed(s, lines, body=None):
    """A POST with raw header lines."""
    body = b'{"model":"m","user":"' + s.token.encode() + b'","messages":[{"role":"user","content":"x"}]}' if body is None else body
    return b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + lines(body) + b"\r\n" + body


def length_of(body):
    return b"Content-Length: %d\r\n" % len(body)


@family({
    "cl-te": lambda n: b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % n, "te-cl": lambda n: b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n" % n,
    "te-identity-cl": lambda n: b"Transfer-Encoding: identity\r\nContent-Length: %d\r\n" % n, "zero-cl-te": lambda n: b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
}, "GW-27", "GW-39")
def length_with_coding_is_400(b, lines):
    s, smuggled = b.script(), b.script()
    inner = wire.request("POST", CHAT, b.body(smuggled))
    body = wire.chunk(b.body(s)) + b"0\r\n\r\n" + inner
    refused(b, s, framed(s, lambda _: lines(len(body)), body), 400, 501)
    never_asked(smuggled)


@family({
    "differing": lambda n: b"Content-Length: %d\r\nContent-Length: %d\r\n" % (n, n + 1), "list": lambda n: b"Content-Length: %d, %d\r\n" % (n, n + 1),
    "plus": lambda n: b"Content-Length: +%d\r\n" % n, "minus": lambda n: b"Content-Length: -%d\r\n" % n, "hex": lambda n: b"Content-Length: 0x%x\r\n" % n,
    "inner-blank": lambda n: b"Content-Length: 1 %d\r\n" % n, "empty": lambda n: b"Content-Length: \r\n", "word": lambda n: b"Content-Length: many\r\n",
    "beyond-64-bits": lambda n: b"Content-Length: 184467440737095516%d\r\n" % (16 + n), "decimal": lambda n: b"Content-Length: %d.0\r\n" % n,
    "underscore": lambda n: b"Content-Length: 1_0\r\n", "comma": lambda n: b"Content-Length: %d,\r\n" % n,
}, "GW-28", "GW-14")
def bad_length_is_400(b, lines):
    s = b.script()
    refused(b, s, framed(s, lambda body: lines(len(body))), 400, 413)


@family({"space": b" ", "tab": b"\t"}, "GW-29")
def folded_line_is_refused_or_unfolded(b, blank):
    s = b.script()
    r = b.exchange(framed(s, lambda body: b"X-Folded: one\r\n" + blank + b"two\r\n" + length_of(body)))
    if r.status == 200:
        assert s.one().header("x-folded") in ("one two", "one  two", "one \ttwo"), s.one().headers
    else:
        error_object(r, 400)
        never_asked(s)


@family({
    "blank-before-colon": b"X-A : 1\r\n", "tab-before-colon": b"X-A\t: 1\r\n", "empty-name": b": 1\r\n", "no-colon": b"X-A\r\n", "blank-in-name": b"X A: 1\r\n",
    "umlaut-in-name": b"X-\xc3\xa4: 1\r\n", "brackets": b"X[a]: 1\r\n", "nul-in-name": b"X\0A: 1\r\n", "leading-blank": b" X-A: 1\r\n", "blank-in-length": b"Content-Length : 5\r\n",
    "blank-in-coding": b"Transfer-Encoding : chunked\r\n",
}, "GW-30", "GW-14")
def bad_header_line_is_400(b, line):
    s = b.script()
    # In front: a line that begins with a blank would otherwise be a folded one.
    body = b.body(s)
    data = b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + line + b"Host: x\r\n" + length_of(body) + b"\r\n" + body
    refused(b, s, data, 400)


@family({
    "unknown": b"Transfer-Encoding: magic\r\n", "gzip": b"Transfer-Encoding: gzip\r\n", "not-last": b"Transfer-Encoding: chunked, gzip\r\n",
    "twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "twice-in-one": b"Transfer-Encoding: chunked, chunked\r\n", "x-prefix": b"Transfer-Encoding: xchunked\r\n",
    "quoted": b'Transfer-Encoding: "chunked"\r\n', "vertical-tab": b"Transfer-Encoding: \x0bchunked\r\n", "identity-first": b"Transfer-Encoding: identity, chunked\r\n",
    "empty": b"Transfer-Encoding: \r\n", "parameter": b"Transfer-Encoding: chunked;q=1\r\n",
}, "GW-31", "GW-39", "GW-14")
def bad_transfer_coding_is_refused(b, line):
    s = b.script()
    refused(b, s, framed(s, lambda _: line, wire.chunk(b.body(s)) + b"0\r\n\r\n"), 400, 501)


@family({
    "word": b"xyz\r\n", "minus": b"-5\r\n", "plus": b"+5\r\n", "0x": b"0x5\r\n", "beyond-64-bits": b"fffffffffffffffff\r\n", "largest": b"ffffffffffffffff\r\n", "empty": b"\r\n",
    "blank-inside": b"5 5\r\n", "bare-lf": b"5\nhello\r\n", "no-end": None, "long-extension": b"5;" + b"x" * 100_000 + b"\r\n",
}, "GW-32")
def bad_chunk_is_never_a_request(b, line):
    s = b.script()
    head = wire.request("POST", CHAT, None, [("Transfer-Encoding", "chunked"), ("Content-Type", "application/json")])
    body = b.body(s)
    broken = (b"%x\r\n" % len(body)) + body + b"XX0\r\n\r\n" if line is None else wire.chunk(body) + line + b"hello\r\n0\r\n\r\n"
    c = b.client()
    c.send(head + broken, quiet=True)
    try:
        error_object(c.read(timeout=4), 400, 413)
    except wire.Cut:
        pass
    assert c.closed_after(3), "the connection goes on"
    never_asked(s)


@family({"nul": b"a\0b", "bare-cr": b"a\rb", "escape": b"a\x1bb", "delete": b"a\x7fb", "bell": b"\x07"}, "GW-33", "GW-14")
def control_byte_in_a_value_is_400(b, value):
    s = b.script()
    refused(b, s, framed(s, lambda body: b"X-A: " + value + b"\r\n" + length_of(body)), 400)


@family({"none": [], "two": [("Host", "a"), ("Host", "b")], "same-twice": [("Host", "a"), ("Host", "a")], "blank": [("Host", "a b")], "path": [("Host", "a/b")],
         "at": [("Host", "user@a")]}, "GW-34", "GW-14")
def bad_host_is_400(b, headers):
    s = b.script()
    c = b.client()
    error_object(c.send(wire.request("POST", CHAT, b.body(s), headers, host=None)).read(), 400)
    never_asked(s)


@family({"one-huge": [("X-Huge", "x" * 300_000)], "many-bytes": [(f"X-{i}", "y" * 4000) for i in range(80)], "many-lines": [(f"X-{i}", "y") for i in range(5000)]},
        "GW-35", "GW-14")
def oversized_head_is_431(b, headers):
    s = b.script()
    c = b.client()
    c.send(wire.request("POST", CHAT, b.body(s), headers), quiet=True)
    error_object(c.read(), 431)
    never_asked(s)


@case("GW-35", "GW-14")
def oversized_target_is_414_or_431(b):
    c = b.client()
    c.send(wire.request("GET", "/v1/models?" + "x" * 300_000), quiet=True)
    error_object(c.read("GET"), 414, 431)


@family({
    "no-version": b"GET /v1/models\r\nHost: x\r\n\r\n", "two-blanks": b"GET  /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", "http-2": b"GET /v1/models HTTP/2.0\r\nHost: x\r\n\r\n",
    "http-0.9": b"GET /v1/models HTTP/0.9\r\nHost: x\r\n\r\n", "http-1.10": b"GET /v1/models HTTP/1.10\r\nHost: x\r\n\r\n", "lower": b"GET /v1/models http/1.1\r\nHost: x\r\n\r\n",
    "blank-in-target": b"GET /v1/ models HTTP/1.1\r\nHost: x\r\n\r\n", "bad-method": b"G(T /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", "no-slash": b"GET v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "control-in-target": b"GET /v1/mod\x01els HTTP/1.1\r\nHost: x\r\n\r\n",
    "preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}, "GW-36")
def bad_request_line_is_refused(b, data):
    c = b.client()
    error_object(c.send(data, quiet=True).read("GET"), 400, 505, 404, 405)
    b.well()


@case("GW-36", "GW-24")
def empty_lines_before_a_request_are_skipped(b):
    s = b.script()
    assert b.exchange(b"\r\n" + wire.request("POST", CHAT, b.body(s))).status in (200, 400)


# Targets


@family({"http": "http://", "https": "https://", "capitals": "HTTP://"}, "GW-37")
def absolute_target_never_leaves(b, scheme):
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.3)
        host = f"127.0.0.1:{other.getsockname()[1]}"
        s = b.script()
        r = b.exchange(wire.request("POST", f"{scheme}{host}{CHAT}", b.body(s), host=host))
        assert r.status in (200, 400, 421), r
        if r.status == 200:
            assert s.one().target == CHAT, s.one().target
        try:
            other.accept()
            raise AssertionError("its host was called")
        except TimeoutError:
            pass


@family({"authority": "127.0.0.1:80", "userinfo": "http://a@b/v1/models", "asterisk": "*", "ftp": "ftp://x/v1/models", "two-hosts": "http://a//b/v1/models"}, "GW-37", "GW-36")
def odd_target_is_refused_or_own(b, target):
    method = "CONNECT" if target == "127.0.0.1:80" else "GET"
    c = b.client()
    r = c.send(wire.request(method, target)).read("GET")
    assert r.status in (400, 404, 405, 501) or (target.endswith("/v1/models") and r.status == 200), r
    b.well()


HIDDEN = {
    "dots": "/v1/../{}", "encoded-dots": "/v1/%2e%2e/{}", "half-encoded": "/v1/.%2e/{}", "encoded-slash": "/v1/..%2f{}", "encoded-slash-capital": "/v1/..%2F{}",
    "semicolon": "/v1/..;/{}", "backslash": "/v1/..\\{}", "encoded-backslash": "/v1/..%5c{}", "double-slash": "//{}", "double-slash-inside": "/v1//../{}",
    "double-encoded": "/v1/%252e%252e/{}", "single-dot": "/v1/./../{}", "deep": "/v1/chat/completions/../../../{}", "overlong": "/v1/%c0%ae%c0%ae/{}", "nul": "/v1/%00/../{}",
    "bad-escape": "/v1/%zz/../{}", "fragment": "/v1/models#/../{}",
}


@family(HIDDEN, "GW-38")
def path_trick_opens_no_other_path(b, form):
    s = b.script()
    target = form.format("update_weights") + f"?{s.token}"
    for method, body in (("POST", b.body(s)), ("GET", None)):
        r = b.exchange(wire.request(method, target, body), method)
        assert r.status in (400, 404, 405), f"{method} {target}: {r}"
    never_asked(s)


# Bytes that do not belong


@case("GW-39")
def bytes_behind_a_body_are_not_part_of_it(b):
    s = b.script()
    c = b.client()
    r = c.send(wire.request("POST", CHAT, b.body(s)) + b"GARBAGE-BEHIND").read()
    assert r.status == 200 and s.one().body == b.body(s), r
    time.sleep(0.1)
    assert not b.farm.saw(b"GARBAGE-BEHIND"), "they reached an engine"


@case("GW-39")
def bytes_behind_a_chunked_body_are_not_part_of_it(b):
    s = b.script()
    c = b.client()
    r = c.send(chunked(b, s, [b.body(s)]) + b"GARBAGE-BEHIND").read()
    assert r.status == 200 and s.one().body == b.body(s), r
    time.sleep(0.1)
    assert not b.farm.saw(b"GARBAGE-BEHIND"), "they reached an engine"


@case("GW-39", "GW-46")
def a_request_behind_a_body_is_judged_as_one(b):
    s, hidden = b.script(), b.script()
    inner = wire.request("POST", "/v1/../update_weights", b.body(hidden), [("x-prefiller-host-port", "10.9.8.7:1")])
    c = b.client()
    c.send(wire.request("POST", CHAT, b.body(s)) + inner)
    assert c.read().status == 200
    error_object(c.read(), 400, 404, 405)
    never_asked(hidden)


@case("GW-39")
def a_get_with_a_body_smuggles_nothing(b):
    hidden = b.script()
    inner = wire.request("POST", CHAT, b.body(hidden))
    c = b.client()
    r = c.send(wire.request("GET", "/v1/models", inner)).read("GET")
    assert r.status in (200, 400), r
    time.sleep(0.1)
    # The GET itself may go on with its body; what is in it is no request.
    assert not [q for q in hidden.requests if q.method == "POST"], "it reached an engine as a request"


@family({"length": False, "chunks": True}, "GW-40")
def cut_upload_never_becomes_a_request(b, in_chunks):
    s = b.script()
    body = b.body(s)
    c = b.client()
    if in_chunks:
        c.send(chunked(b, s, [body])[:-5])
    else:
        c.send(wire.request("POST", CHAT, body, [("Content-Length", len(body) + 1), ("X-Case", s.token)]))
    time.sleep(0.1)
    c.close()
    never_asked(s, 0.3)


@case("GW-40")
def an_upload_reset_in_the_middle_never_becomes_a_request(b):
    s = b.script()
    c = b.client()
    c.send(wire.request("POST", CHAT, b.body(s), [("Content-Length", 5000), ("X-Case", s.token)]))
    time.sleep(0.1)
    c.reset()
    never_asked(s, 0.3)


# Headers


HOP = {"keep-alive": ("Keep-Alive", "timeout=5"), "proxy-connection": ("Proxy-Connection", "keep-alive"), "te": ("TE", "trailers"), "trailer": ("Trailer", "X-Sum"),
       "upgrade": ("Upgrade", "h2c"), "named": ("X-Named", "secret"), "proxy-authorization": ("Proxy-Authorization", "Basic eDp5")}


@family(HOP, "GW-41")
def hop_by_hop_header_stays_here(b, header):
    s = b.script()
    r = b.post(s, headers=[("Connection", f"keep-alive, {header[0]}"), header])
    assert r.status == 200, r
    assert s.one().header(header[0]) is None, s.one().headers
    assert header[0].lower() not in ", ".join(s.one().all("connection")).lower(), s.one().headers


@family({k: v for k, v in HOP.items() if k not in ("te", "proxy-authorization")} | {"proxy-authenticate": ("Proxy-Authenticate", "Basic")}, "GW-42")
def hop_by_hop_header_of_an_answer_stays_there(b, header):
    s = b.says(answer(headers=[("Connection", f"keep-alive, {header[0]}"), header]))
    c = b.client()
    r = b.post(s, client=c)
    assert r.status == 200 and r.header(header[0]) is None, r
    assert header[0].lower() not in ", ".join(r.all("connection")).lower(), r
    assert b.post(b.script(), client=c).status == 200


@case("GW-42", "GW-24")
def an_engines_connection_close_is_not_the_clients(b):
    def run(connection, request):
        connection.send(answer(headers=[("Connection", "close")]))
        connection.shut()
    c = b.client()
    r = b.post(b.script(run), client=c)
    assert r.status == 200 and r.clean, r
    assert b.post(b.script(), client=c).status == 200


@case("GW-43")
def end_to_end_headers_of_a_request_pass(b):
    s = b.script()
    sent = [("X-Own", "one"), ("X-Own", "two"), ("Accept", "text/event-stream, */*;q=0.1"), ("User-Agent", "own/1.0 (x; y)"), ("Cookie", "a=b; c=d"), ("X-Empty", ""),
            ("Accept-Encoding", "gzip, br"), ("x-stainless-lang", "python"), ("OpenAI-Organization", "org-1"), ("anthropic-version", "2023-06-01")]
    assert b.post(s, headers=sent).status == 200
    for name in {k for k, _ in sent}:
        assert s.one().all(name) == [v for k, v in sent if k == name], (name, s.one().headers)


@case("GW-43")
def end_to_end_headers_of_an_answer_pass(b):
    sent = [("Set-Cookie", "a=b"), ("Set-Cookie", "c=d"), ("X-Own", "x"), ("X-Empty", ""), ("Cache-Control", "no-store"), ("Content-Language", "de"), ("openai-processing-ms", "12"),
            ("x-ratelimit-remaining-tokens", "7"), ("Retry-After-Ms", "5")]
    r = b.post(b.says(answer(headers=sent)))
    for name in {k for k, _ in sent}:
        assert r.all(name) == [v for k, v in sent if k == name], (name, r)


@case("GW-43")
def a_header_of_20_kb_passes_or_is_431(b):
    s = b.script()
    r = b.post(s, headers=[("X-Long", "y" * 20_000)])
    if r.status == 200:
        assert s.one().header("x-long") == "y" * 20_000
    else:
        error_object(r, 431)


@family({"websocket": [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Sec-WebSocket-Version", "13")],
         "h2c": [("Upgrade", "h2c"), ("Connection", "Upgrade, HTTP2-Settings"), ("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA")]}, "GW-44", "GW-41")
def upgrade_is_not_passed_on(b, headers):
    s = b.script()
    r = b.post(s, headers=headers)
    assert r.status == 200 and s.one().header("upgrade") is None and s.one().header("http2-settings") is None, (r, s.requests and s.one().headers)


@case("GW-44")
def an_engine_that_switches_protocols_is_not_believed(b):
    r = b.post(b.says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), headers=[("Upgrade", "x"), ("Connection", "upgrade")])
    assert r.status >= 500, r


@case("GW-45")
def the_client_address_is_told(b):
    s = b.script()
    b.post(s)
    assert (s.one().header("x-forwarded-for") or "").rsplit(",", 1)[-1].strip() == "127.0.0.1", s.one().headers


@case("GW-45")
def scheme_and_host_are_told(b):
    s = b.script()
    b.post(s)
    assert s.one().header("x-forwarded-proto") == "http" and s.one().header("x-forwarded-host") == "gateway.test", s.one().headers


@case("GW-45")
def a_forged_client_address_does_not_hide_the_real_one(b):
    s = b.script()
    b.post(s, headers=[("X-Forwarded-For", "1.2.3.4")])
    assert ", ".join(s.one().all("x-forwarded-for")).rsplit(",", 1)[-1].strip() == "127.0.0.1", s.one().headers


ROUTING = ("x-gateway-destination-endpoint", "x-prefiller-host-port", "x-prefiller-url", "x-data-parallel-host-port", "x-encoder-hosts-ports", "x-kv-cache-source-host-port")


@family({n: n for n in ROUTING}, "GW-46")
def routing_header_neither_steers_nor_passes(b, name):
    address = b.farm.engines[0].address
    for form in (name, name.title(), name.upper()):
        s = b.script()
        r = b.post(s, headers=[(form, "10.9.8.7:4321"), (form, address)])
        assert r.status == 200, r
        # The gateway may set the first one itself, to the engine that it chose.
        own = {s.one().engine.address} if name == "x-gateway-destination-endpoint" else set()
        assert set(s.one().all(name)) <= own, s.one().headers


@case("GW-46", "GW-41")
def a_routing_header_named_in_connection_does_not_pass(b):
    s = b.script()
    assert b.post(s, headers=[("Connection", "x-prefiller-host-port"), ("x-prefiller-host-port", "10.9.8.7:4321")]).status == 200
    assert s.one().header("x-prefiller-host-port") is None


@case("GW-46")
def a_client_cannot_choose_its_engine(b):
    followed = []
    for engine in b.farm.engines:
        used = set()
        for i in range(8):
            s = b.script()
            b.post(s, headers=[("x-gateway-destination-endpoint", engine.address)], messages=[{"role": "user", "content": f"{i} other words"}])
            used.add(s.one().engine)
        followed.append(used == {engine})
    assert not all(followed), "all went where the client said"


@case("GW-47")
def an_answers_length_stays(b):
    r = b.post(b.says(answer(body=b'{"x":"' + b"y" * 5000 + b'"}')))
    assert r.framing == "length" and r.clean and len(r.body) == 5008, r


@case("GW-47")
def an_empty_answers_length_stays(b):
    r = b.post(b.says(answer(body=b"")))
    assert r.status == 200 and r.framing == "length" and r.body == b"", r


@case("GW-47", "GW-5")
def head_of_models_has_the_length_of_get(b):
    r = b.get("/v1/models", "HEAD")
    assert r.status == 200 and r.header("content-length") == b.get("/v1/models").header("content-length"), r


@family({"latin-1": b"Jos\xe9", "cut-utf8": b"n\xc3(", "utf8": "日本".encode(), "high": bytes(range(128, 256))}, "GW-48")
def value_that_is_not_ascii_passes_or_is_400(b, value):
    s = b.script()
    r = b.post(s, headers=[("X-Name", value)])
    if r.status == 200:
        assert s.one().header("x-name") == value.decode("latin-1"), s.one().headers
    else:
        error_object(r, 400)
        never_asked(s)
