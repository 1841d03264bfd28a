"""Engines that refuse, break, lie or are gone, and pickers that do."""
import contextlib
import os
import resource
import signal
import socket
import threading
import time

import wire
from engines import stream_head
from registry import case, family
from runner import Skip, answer, error_object, settle

CHAT = "/v1/chat/completions"
OK = answer(body=b'{"well":true}')


def first_does(first):
    """The engine that is asked first does `first`, the others answer."""
    asked = []
    lock = threading.Lock()

    def run(connection, request):
        with lock:
            asked.append(request.engine.index)
            bad = asked[0] == request.engine.index
        first(connection) if bad else connection.send(OK)
    return run


def reset(connection):
    connection.reset()


def close(connection):
    connection.shut()


def garbage(connection):
    connection.send(b"this is no HTTP\r\n\r\n")
    connection.shut()


def half_line(connection):
    connection.send(b"HTTP/1.1 20")
    connection.shut()


@family({"reset": reset, "close": close}, "GW-81")
def another_engine_is_tried_after(b, failure):
    s = b.script(first_does(failure))
    r = b.post(s)
    assert r.status == 200 and r.body == b'{"well":true}', r
    bodies = {q.body for q in s.requests}
    assert len(s.requests) >= 2 and len(bodies) == 1 and len({q.engine.index for q in s.requests[-2:]}) == 2, "no other engine was asked with the same body"


@case("GW-81", own=True)
def another_engine_is_tried_when_one_refuses(b):
    own = b.own(3)
    own.farm.engines[1].down()
    for i in range(12):
        assert own.post(own.script(), messages=[{"role": "user", "content": f"{i} words"}]).status == 200


@case("GW-81", own=True)
def another_engine_is_tried_for_a_get(b):
    own = b.own(2)
    own.farm.engines[0].down()
    for _ in range(20):
        assert own.get("/v1/models").status == 200


@case("GW-82")
def attempts_are_bounded(b):
    s = b.script(lambda connection, request: connection.reset())
    error_object(b.post(s, client=b.client(timeout=20)), 502, 503, 504)
    time.sleep(0.2)
    assert 1 <= len(s.requests) <= 2 * len(b.farm.engines), f"{len(s.requests)} attempts"


@case("GW-82", "GW-81")
def each_engine_is_asked_once_before_any_twice(b):
    s = b.script(lambda connection, request: connection.reset())
    b.post(s, client=b.client(timeout=20))
    order = [q.engine.index for q in s.requests]
    # A request on a kept connection that was reset may be sent again to the same engine once.
    order = [e for i, e in enumerate(order) if i == 0 or e != order[i - 1]]
    first = order[:len(b.farm.engines)]
    assert len(first) > 1 and len(set(first)) == len(first), f"order of the attempts: {order}"


@case("GW-82", process=True)
def max_attempts_is_kept(b):
    own = b.own(4, flags=["--max-attempts", "2"])
    s = own.script(lambda connection, request: connection.reset())
    error_object(own.post(s), 502, 503)
    # One that a kept connection swallowed is sent once more, to the same engine (GW-85).
    assert len({r.engine.index for r in s.requests}) == 2, f"{[r.engine.index for r in s.requests]}"


@family({"reset": reset, "close": close, "garbage": garbage, "half-a-line": half_line}, "GW-83", "GW-14")
def all_engines_fail_is_an_error_object(b, failure):
    s = b.script(lambda connection, request: failure(connection))
    begun = time.monotonic()
    error_object(b.post(s, client=b.client(timeout=20)), 502, 503, 504)
    assert time.monotonic() - begun < 10


@case("GW-84")
def after_the_first_byte_nothing_is_tried_again(b):
    def run(connection, request):
        connection.send(stream_head() + wire.chunk(b"data: {}\n\n"))
        time.sleep(0.05)
        connection.reset()
    s = b.script(run)
    with contextlib.suppress(wire.Cut):
        b.post(s, stream=True)
    time.sleep(0.2)
    assert len(s.requests) == 1, f"{len(s.requests)} engines were asked"


@case("GW-84", "GW-71")
def after_the_head_nothing_is_tried_again(b):
    def run(connection, request):
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        time.sleep(0.1)
        connection.reset()
    s = b.script(run)
    try:
        r = b.post(s)
        assert r.status >= 500 or not r.clean, r
    except wire.Cut:
        pass
    time.sleep(0.2)
    assert len(s.requests) == 1, f"{len(s.requests)} engines were asked"


@case("GW-85", own=True)
def a_post_on_a_kept_connection_that_was_closed_is_sent_again(b):
    own = b.own(1)
    for _ in range(6):
        for _ in range(4):
            assert own.post(own.script()).status == 200
        for connection in list(own.farm.engines[0].connections):
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        s = own.script()
        r = own.post(s)
        assert r.status == 200 and len(s.requests) == 1, r


@case("GW-85", own=True)
def a_kept_connection_that_closes_as_the_request_comes_is_replaced(b):
    own = b.own(1)
    served = set()

    def run(connection, request):
        if request.connection in served:
            connection.reset()
            return
        served.add(request.connection)
        connection.send(OK)
    for _ in range(8):
        r = own.post(own.script(run))
        assert r.status == 200, r


BROKEN = {
    "half-a-status-line": half_line, "no-http": garbage, "bare-status": lambda c: (c.send(b"HTTP/1.1 200 OK\r\n"), c.shut()),
    "head-without-end": lambda c: (c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"), c.shut()), "status-word": lambda c: (c.send(b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\n{}"), c.shut()),
    "status-four-digits": lambda c: (c.send(b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\n{}"), c.shut()),
    "endless-header": lambda c: (c.send(b"HTTP/1.1 200 OK\r\nX-A: " + b"y" * 1_000_000), c.shut()), "many-headers": lambda c: (c.send(b"HTTP/1.1 200 OK\r\n" + b"X-A: y\r\n" * 100_000), c.shut()),
    "two-lengths": lambda c: (c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), c.shut()),
    "bad-length": lambda c: (c.send(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}"), c.shut()),
    "length-and-chunks": lambda c: (c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"), c.shut()),
    "bad-chunk": lambda c: (c.send(stream_head("application/json") + b"zz\r\n{}\r\n0\r\n\r\n"), c.shut()),
    "negative-chunk": lambda c: (c.send(stream_head("application/json") + b"-2\r\n{}\r\n0\r\n\r\n"), c.shut()), "unknown-coding": lambda c: (c.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: magic\r\n\r\n{}"), c.shut()),
    "no-colon": lambda c: (c.send(b"HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 2\r\n\r\n{}"), c.shut()), "tls": lambda c: (c.send(b"\x15\x03\x03\x00\x02\x02\x28"), c.shut()),
    "nul-in-value": lambda c: (c.send(b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\n{}"), c.shut()),
}


@family(BROKEN, "GW-86")
def broken_answer_is_never_a_clean_200(b, broken):
    c = b.client(timeout=20)
    s = b.script(lambda connection, request: broken(connection))
    try:
        r = b.post(s, client=c)
        assert r.status >= 500 or not r.clean, r
        if r.status >= 500:
            error_object(r, 502, 503, 504)
    except wire.Cut:
        return
    if r.clean and not (r.header("connection") or "").lower() == "close":
        again = b.post(b.says(OK), client=c)
        assert again.body == b'{"well":true}', again


@case("GW-87", own=True)
def several_answers_in_one_burst_stay_apart(b):
    own = b.own(1)
    c = own.client()
    s = own.says(answer(body=b'{"n":1}') + answer(body=b'{"n":"leaked"}') * 3)
    assert own.post(s, client=c).json() == {"n": 1}
    for i in range(10):
        r = own.post(own.says(answer(body=b'{"n":%d}' % i)), client=c)
        assert r.json() == {"n": i}, r


@family({"length": answer(body=b'{"n":1}') + b"EXTRA", "chunks": stream_head("application/json") + wire.chunk(b'{"n":1}') + b"0\r\n\r\nEXTRA",
         "no-content": b"HTTP/1.1 204 No Content\r\n\r\nEXTRA"}, "GW-87", own=True)
def bytes_behind_an_answer_are_dropped(b, data):
    own = b.own(1)
    c = own.client()
    r = own.post(own.says(data), client=c)
    assert r.clean and b"EXTRA" not in r.body, r
    for _ in range(6):
        r = own.post(own.says(OK), client=c)
        assert r.body == b'{"well":true}', r


@case("GW-87", own=True)
def an_answer_that_nobody_asked_for_is_not_used(b):
    own = b.own(1)

    def run(connection, request):
        connection.send(OK)
        time.sleep(0.1)
        connection.send(answer(body=b'{"n":"leaked"}'))
    for _ in range(4):
        own.post(own.script(run))
        time.sleep(0.3)
        for _ in range(4):
            assert own.post(own.says(OK)).body == b'{"well":true}'


@case("GW-87", "GW-47")
def an_answer_to_head_has_no_body_to_leak(b):
    s = b.says(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n")
    c = b.client(timeout=5)
    r = c.send(wire.request("HEAD", f"/v1/models/m?{s.token}")).read("HEAD")
    assert r.status in (200, 404, 405), r
    assert b.post(b.says(OK), client=c).body == b'{"well":true}'


@family({"100": [100], "103": [103], "several": [100, 102, 103], "many": [103] * 5}, "GW-88")
def interim_answers_do_not_hide_the_final_one(b, codes):
    data = b"".join(b"HTTP/1.1 %d Interim\r\nLink: </x>; rel=preload\r\n\r\n" % code for code in codes) + OK
    c = b.client()
    r = b.post(b.says(data), client=c)
    assert r.status == 200 and r.body == b'{"well":true}' and len(r.interim) <= len(codes), r
    assert b.post(b.says(OK), client=c).body == b'{"well":true}'


@case("GW-88")
def endless_interim_answers_are_no_answer(b):
    def run(connection, request):
        for _ in range(20):
            if not connection.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100):
                break
        connection.wait_gone(1)
        connection.reset()
    c = b.send(b.script(run), headers=[("Connection", "close")], client=b.client(timeout=20))
    data = c.read_all(15)
    assert data.count(b"Early Hints") < 200, "all of them are passed on"
    final = data.rpartition(b"HTTP/1.1 ")[2][:3]
    assert data == b"" or final[:1] in (b"5", b"1"), data[:300]
    b.well()


@family({str(code): code for code in (400, 401, 403, 404, 409, 413, 422)}, "GW-89", "GW-18")
def engines_4xx_passes_word_for_word(b, code):
    payload = b'{"error":{"message":"the engine says \\u0022no\\u0022","type":"BadRequestError","param":"x","code":%d}, "own":1.0}' % code
    s = b.says(answer(code, payload, reason="No", headers=[("X-Own", "y")]))
    r = b.post(s)
    assert (r.status, r.body, r.header("x-own")) == (code, payload, "y"), r
    s.one()


BUSY = answer(429, b'{"error":{"message":"busy","type":"rate_limit_error","param":null,"code":429}}', reason="Too Many Requests", headers=[("Retry-After", "7")])


@case("GW-90")
def a_429_of_all_passes_with_retry_after(b):
    s = b.says(BUSY)
    begun = time.monotonic()
    r = b.post(s)
    assert r.status == 429 and r.header("retry-after") == "7" and r.body.startswith(b'{"error":{"message":"busy"'), r
    assert time.monotonic() - begun < 2, "it was retried blindly"
    assert len(s.requests) <= len(b.farm.engines), f"{len(s.requests)} attempts"


@case("GW-90")
def a_429_is_tried_elsewhere(b):
    s = b.script(first_does(lambda connection: connection.send(BUSY)))
    r = b.post(s)
    assert r.status == 200 and len(s.requests) == 2, r


LOADING = answer(503, b'{"error":{"message":"loading","type":"x","param":null,"code":503}}', reason="Loading", headers=[("X-Own", "y")])


@case("GW-90")
def a_503_is_tried_elsewhere(b):
    s = b.script(first_does(lambda connection: connection.send(LOADING)))
    r = b.post(s)
    assert r.status == 200 and len(s.requests) == 2, r


@case("GW-90")
def a_503_of_all_passes_as_it_came(b):
    r = b.post(b.says(LOADING))
    assert r.status == 503 and r.body == LOADING.partition(b"\r\n\r\n")[2] and r.header("x-own") == "y", r


@case("GW-91")
def a_500_passes_or_another_engine_answers(b):
    payload = b'{"error":{"message":"CUDA","type":"server_error","param":null,"code":500}}'
    r = b.post(b.says(answer(500, payload, reason="Oops")))
    assert r.status == 500 and r.body == payload, r
    s = b.script(first_does(lambda connection: connection.send(answer(500, payload, reason="Oops"))))
    assert b.post(s).status in (200, 500)


@case("GW-91")
def a_503_of_an_engine_stays_an_error(b):
    r = b.post(b.says(answer(503, b'{"error":{"message":"loading","type":"x","param":null,"code":503}}', reason="Loading")))
    assert r.status == 503 and r.json()["error"]["message"], r


def asked_share(own, engine, count=20):
    """How many of `count` requests of different prompts reach the engine."""
    hits = 0
    for i in range(count):
        s = own.script()
        r = own.post(s, messages=[{"role": "user", "content": f"{i}-{time.monotonic()} words"}])
        assert r.status == 200, r
        hits += any(q.engine is engine for q in s.requests)
    return hits


@case("GW-92", own=True)
def an_engine_that_resets_is_left_out(b):
    own = b.own(3)
    bad = own.farm.engines[0]
    tried = []

    def run(connection, request):
        if request.engine is bad:
            tried.append(1)
            connection.reset()
        else:
            connection.send(OK)
    for i in range(40):
        r = own.post(own.script(run), messages=[{"role": "user", "content": f"{i} words"}])
        assert r.status == 200, r
    assert len(tried) <= 8, f"{len(tried)} of 40 requests went to it all the same"


@case("GW-92", own=True)
def an_engine_that_returns_gets_requests_within_10_s(b):
    own = b.own(2)
    engine = own.farm.engines[0]
    asked_share(own, engine, 6)
    engine.down()
    time.sleep(0.2)
    asked_share(own, engine, 10)
    engine.up()
    back = time.monotonic()
    settle(lambda: asked_share(own, engine, 4) > 0, 10, "it got none")
    assert time.monotonic() - back < 10


@case("GW-92", own=True)
def an_engine_that_is_out_is_tried_by_the_gateway_itself(b):
    own = b.own(2)
    bad = own.farm.engines[0]
    lost = []

    def run(connection, request):
        if request.engine is bad:
            lost.append(time.monotonic())
            connection.reset()
        else:
            connection.send(OK)
    begun = time.monotonic()
    # Its page goes too: whoever asks whether it is back learns that it is not.
    bad.down()
    bad.up()
    bad.pages = False
    while time.monotonic() - begun < 7:
        assert own.post(own.script(run), messages=[{"role": "user", "content": str(time.monotonic())}]).status == 200
        time.sleep(0.02)
    late = [t for t in lost if t - begun > 2.5]
    assert not late, f"{len(late)} requests of clients were used to try it"


@family({"1": 1, "3": 3}, "GW-93", own=True)
def one_bad_exchange_does_not_take_the_pool_down(b, count):
    own = b.own(count)
    for failure in (reset, close, garbage):
        own.post(own.script(lambda connection, request, failure=failure: failure(connection)), client=own.client(timeout=20))
        for i in range(10):
            assert own.post(own.script(), messages=[{"role": "user", "content": f"{i} words"}]).status == 200


@case("GW-93", own=True)
def engines_that_reset_a_few_requests_cost_none(b):
    own = b.own(3)
    counter = iter(range(10**9))

    def run(connection, request):
        connection.reset() if next(counter) % 20 == 0 else connection.send(OK)
    bad = [r.status for i in range(200) if (r := own.post(own.script(run), messages=[{"role": "user", "content": f"{i} words"}])).status != 200]
    assert not bad, f"{len(bad)} of 200 failed"


@case("GW-94", "GW-83", own=True)
def all_engines_down_is_503_and_passes(b):
    own = b.own(2)
    own.well()
    for engine in own.farm.engines:
        engine.down()
    begun = time.monotonic()
    error_object(own.post(own.script(), client=own.client(timeout=20)), 502, 503)
    assert time.monotonic() - begun < 10
    for engine in own.farm.engines:
        engine.up()
    settle(lambda: own.post(own.script(), client=own.client(timeout=20)).status == 200, 10, "no service after their return")


@case("GW-94", process=True)
def engines_that_come_late_are_found(b):
    own = b.own(2, ready=False)
    for engine in own.farm.engines:
        engine.down()
    settle(lambda: alive(own), 10, "the gateway did not start")
    error_object(own.post(own.script(), client=own.client(timeout=20)), 502, 503)
    for engine in own.farm.engines:
        engine.up()
    settle(lambda: own.post(own.script(), client=own.client(timeout=20)).status == 200, 10, "no service after their coming")


def alive(own):
    with contextlib.suppress(OSError, AssertionError):
        return own.get("/health").status == 200
    return False


# Our own lacks; time limits


@case("GW-96", process=True)
def a_lack_of_descriptors_is_held_against_no_engine(b):
    own = b.own(3)
    kept = own.client()
    assert own.get("/health", client=kept).status == 200
    pid = own.gateway.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")), hard))
    for _ in range(3):
        r = own.post(own.script(), client=kept)
        assert r.status in (200, 503), r
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
    used, begun = set(), time.monotonic()
    # Their pages were not read meanwhile either: as long as it may be until they are known again.
    while len(used) < 3 and time.monotonic() - begun < 1.5:
        s = own.script()
        assert own.post(s, client=kept, messages=[{"role": "user", "content": f"{time.monotonic()} words"}]).status == 200
        used.add(s.one().engine.index)
    assert len(used) == 3, f"only engines {used} were asked afterwards"


@case("GW-97", process=True)
def a_silent_engine_is_504(b):
    own = b.own(1, flags=["--first-byte-timeout", "500ms"])
    begun = time.monotonic()
    error_object(own.post(own.script(lambda connection, request: connection.wait_gone(10)), client=own.client(timeout=15)), 504, 503)
    assert time.monotonic() - begun < 8


@case("GW-97", "GW-81", process=True)
def a_silent_engine_is_replaced(b):
    own = b.own(3, flags=["--first-byte-timeout", "500ms"])
    s = own.script(first_does(lambda connection: connection.wait_gone(10)))
    r = own.post(s, client=own.client(timeout=15))
    assert r.status in (200, 504), r


@case("GW-99", own=True)
def an_engine_that_comes_back_at_once_costs_no_request(b):
    own = b.own(1)
    engine = own.farm.engines[0]
    engine.down()
    c = own.send(own.script(), client=own.client(timeout=15))
    time.sleep(0.4)
    engine.up()
    r = c.read()
    assert r.status == 200, r


@case("GW-100", process=True)
def a_request_that_takes_longer_than_it_may_is_504(b):
    own = b.own(2, flags=["--request-timeout", "1s"])
    begun = time.monotonic()
    error_object(own.post(own.script(lambda connection, request: connection.wait_gone(10)), client=own.client(timeout=15)), 504)
    assert 0.9 < time.monotonic() - begun < 4


@case("GW-100", "GW-71", process=True)
def a_stream_that_takes_longer_than_it_may_is_cut(b):
    own = b.own(1, flags=["--request-timeout", "1s"])

    def run(connection, request):
        connection.send(stream_head())
        for _ in range(80):
            if not connection.send(wire.chunk(b"data: {}\n\n")):
                return
            time.sleep(0.05)
        connection.send(wire.chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    r = own.post(own.script(run), stream=True, client=own.client(timeout=15))
    assert b'"error"' in r.body and b"[DONE]" not in r.body, r


# The picker


def with_picker(b, **options):
    if not hasattr(type(b.gateway), "picker"):
        raise Skip("there is no picker")
    return b.own(2, **options)


@case("GW-98", process=True)
def a_picker_that_hangs_costs_503(b):
    own = with_picker(b)
    own.well()
    own.gateway.picker.send_signal(signal.SIGSTOP)
    settle(lambda: " T " in open(f"/proc/{own.gateway.picker.pid}/stat").read())
    c = own.client(timeout=12)
    try:
        error_object(own.post(own.script(), client=c), 503)
    finally:
        own.gateway.picker.send_signal(signal.SIGCONT)
    settle(lambda: own.post(own.script(), client=own.client(timeout=20)).status == 200, 10, "no service after its return")


@case("GW-98", process=True)
def a_picker_that_dies_costs_503(b):
    own = with_picker(b)
    own.well()
    own.gateway.picker.kill()
    own.gateway.picker.wait()
    begun = time.monotonic()
    error_object(own.post(own.script(), client=own.client(timeout=20)), 503)
    assert time.monotonic() - begun < 10
    settle(lambda: own.get("/ready").status == 503, 5, "it says that it is ready")


@case("GW-98", "GW-71", process=True)
def a_picker_that_dies_during_an_answer_does_not_end_it_cleanly(b):
    own = with_picker(b)
    payload = b'{"x":"' + b"y" * 200_000 + b'"}'

    def run(connection, request):
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(payload) + payload[:100_000])
        time.sleep(0.5)
        own.gateway.picker.kill()
        time.sleep(0.5)
        connection.send(payload[100_000:])
    try:
        r = own.post(own.script(run), client=own.client(timeout=15))
        assert not r.clean or r.body == payload, f"{len(r.body)} bytes of {len(payload)}, and a clean end"
    except wire.Cut:
        pass


@case("GW-98", "GW-66", process=True)
def a_client_that_leaves_while_the_picker_hangs_is_seen(b):
    own = with_picker(b)

    def run(connection, request):
        own.gateway.picker.send_signal(signal.SIGSTOP)
        connection.send(stream_head() + wire.chunk(b"data: {}\n\n"))
        s.note("gone", connection.wait_gone(5))
    s = own.script(run)
    c = own.send(s)
    s.wait_requests()
    time.sleep(0.5)
    c.close()
    gone = s.wait_note("gone", 8)
    own.gateway.picker.send_signal(signal.SIGCONT)
    assert gone is not None, "the engine was never told"


@case("GW-92", "GW-81", own=True)
def a_dead_engine_costs_no_request(b):
    own = b.own(3)
    dying = own.farm.engines[2]

    def run(connection, request):
        # It dies of the first request that it gets, with all its connections.
        dying.down() if request.engine is dying else connection.send(OK)
    bad, left = [], 30
    for i in range(600):
        bad += [r.status for r in [own.post(own.script(run), messages=[{"role": "user", "content": f"{i} words"}])] if r.status != 200]
        left -= dying.listener is None
        if left == 0:
            break
    assert left == 0, "it was never asked"
    assert not bad, f"{len(bad)} requests were refused with one of three engines gone"


@case("GW-84", "GW-62", own=True)
def streams_of_other_engines_go_on_when_one_dies(b):
    own = b.own(2)

    def run(connection, request):
        s.note("engine", request.engine)
        connection.send(stream_head())
        for i in range(15):
            connection.send(wire.chunk(b"data: %d\n\n" % i))
            time.sleep(0.1)
        connection.send(wire.chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    s = own.script(run)
    c = own.send(s, stream=True)
    c.read_until(b"data: 1\n\n")
    other = next(e for e in own.farm.engines if e is not s.notes["engine"])
    other.down()
    assert own.post(own.script()).status == 200
    assert b"[DONE]" in c.read_until(b"0\r\n\r\n")


