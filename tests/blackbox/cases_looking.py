"""Ids, traces, metrics and logs."""
import json
import re
import time

import wire
from registry import case, family
from runner import Skip, answer, settle

CHAT = "/v1/chat/completions"


@case("GW-131")
def an_id_is_made_and_the_same_on_both_sides(b):
    s = b.script()
    r = b.post(s)
    made = r.header("x-request-id")
    assert made and len(made) >= 8 and s.one().header("x-request-id") == made, (r.headers, s.one().headers)


@case("GW-131")
def made_ids_differ(b):
    c = b.client()
    ids = [b.post(b.script(), client=c).header("x-request-id") for _ in range(20)]
    assert None not in ids and len(set(ids)) == 20, ids


@case("GW-131", "GW-81")
def tries_of_one_request_have_one_id(b):
    s = b.script(lambda connection, request: connection.reset())
    b.post(s, client=b.client(timeout=20))
    assert len({q.header("x-request-id") for q in s.requests}) == 1 and s.requests[0].header("x-request-id"), "they differ"


@family({"word": "my-id-1", "uuid": "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9", "odd": "a b/c=d;e,f", "long": "i" * 200}, "GW-132")
def given_id_is_kept(b, value):
    s = b.script()
    r = b.post(s, headers=[("X-Request-ID", value)])
    assert r.header("x-request-id") == value and s.one().header("x-request-id") == value, (r.headers, s.one().headers)


@case("GW-132")
def an_id_of_the_engine_does_not_double_it(b):
    r = b.post(b.says(answer(headers=[("X-Request-Id", "the-engines-own")])), headers=[("X-Request-Id", "mine")])
    assert r.header("x-request-id") == "mine", r


REFUSALS = {
    "400-json": wire.request("POST", CHAT, b"{"), "400-framing": wire.request("POST", CHAT, b"{}", [("Content-Length", "x")]), "400-host": b"GET / HTTP/1.1\r\n\r\n",
    "400-line": b"GET /\r\n\r\n", "404-path": wire.request("GET", "/nowhere"), "404-model": wire.request("POST", CHAT, b'{"model":"nobody","messages":[]}'),
    "405": wire.request("DELETE", CHAT), "413": wire.request("POST", CHAT, None, [("Content-Length", 1 << 40)]), "431": wire.request("GET", "/", None, [("X-A", "y" * 300_000)]),
}


@family(REFUSALS, "GW-133")
def refusal_has_an_id(b, data):
    r = b.exchange(data)
    assert r.status >= 400 and r.header("x-request-id"), r


@case("GW-133", "GW-132")
def a_refusal_keeps_the_given_id(b):
    for data in (wire.request("POST", CHAT, b"{", [("x-request-id", "mine")]), wire.request("GET", "/nowhere", None, [("x-request-id", "mine")])):
        assert b.exchange(data).header("x-request-id") == "mine"


@case("GW-133")
def own_pages_have_an_id(b):
    for path in ("/health", "/v1/models"):
        assert b.get(path).header("x-request-id"), path


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@case("GW-134")
def a_trace_is_continued(b):
    s = b.script()
    b.post(s, headers=[("traceparent", PARENT), ("tracestate", "own=1,other=2")])
    got = s.one().header("traceparent")
    assert got and re.fullmatch(r"00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-0[0-9a-f]", got), got
    assert s.one().header("tracestate") == "own=1,other=2", s.one().headers


@case("GW-134")
def a_trace_that_is_not_sampled_stays_so(b):
    s = b.script()
    b.post(s, headers=[("traceparent", PARENT[:-1] + "0")])
    assert s.one().header("traceparent").endswith("-00"), s.one().headers


@family({"word": "not-a-trace", "short": PARENT[:-5], "zero-trace": f"00-{'0' * 32}-b7ad6b7169203331-01", "zero-span": f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
         "upper": PARENT.upper(), "version": "ff" + PARENT[2:]}, "GW-134")
def bad_traceparent_is_not_passed_on(b, value):
    s = b.script()
    assert b.post(s, headers=[("traceparent", value)]).status == 200
    got = s.one().header("traceparent")
    assert got is None or re.fullmatch(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-9a-f]", got), got


def tells(b, data):
    """True when bytes name an engine."""
    return any(str(e.port).encode() in data or f"engine-{e.index}".encode() in data for e in b.farm.engines)


@case("GW-135")
def answers_do_not_name_engines(b):
    c = b.send(b.script())
    raw = c.read_until(b"\r\n\r\n")
    assert not tells(b, raw), raw
    names = [line.split(b":")[0].lower() for line in raw.split(b"\r\n")[1:] if line]
    assert not [n for n in names if n.startswith((b"x-gateway", b"x-went", b"x-prefill", b"x-envoy", b"x-upstream"))], raw


@case("GW-135")
def errors_do_not_name_engines(b):
    c = b.send(b.script(lambda connection, request: connection.reset()), client=b.client(timeout=20))
    r = c.read()
    assert r.status >= 500 and not tells(b, r.body + repr(r.headers).encode()), r


@case("GW-135")
def broken_streams_do_not_name_engines(b):
    def run(connection, request):
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + wire.chunk(b"data: {}\n\n"))
        time.sleep(0.05)
        connection.reset()
    r = b.post(b.script(run), stream=True)
    assert not tells(b, r.body), r


@case("GW-135", "GW-4")
def the_metrics_page_of_clients_names_no_engine(b):
    b.well()
    page = b.get("/metrics")
    assert page.status == 200 and b"# TYPE" in page.body and not tells(b, page.body), "it names engines"


@case("GW-135")
def debug_pages_are_not_for_clients(b):
    for path in ("/debug/decisions", "/debug/pprof", "/server-info", "/config_dump"):
        assert b.get(path).status in (401, 403, 404, 405), path


LINE = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_][a-zA-Z0-9_]*="(\\[\\n"]|[^"\\\n])*",?)*\})? [-+]?([0-9.]+([eE][-+]?[0-9]+)?|Inf|NaN)')


def metrics(b):
    """{series: value} of the page, checked line by line."""
    r = b.get("/metrics")
    assert r.status == 200, r
    out = {}
    for line in r.body.decode("utf-8").splitlines():
        if line and not line.startswith("#"):
            assert LINE.fullmatch(line), f"no line of the format: {line!r}"
            out[line.rpartition(" ")[0]] = float(line.rpartition(" ")[2])
    return out


@case("GW-136")
def metrics_are_valid_text(b):
    assert metrics(b)


@family({"fairness": "x-llm-d-inference-fairness-id", "rewrite": "x-llm-d-model-name-rewrite", "objective": "x-llm-d-inference-objective", "id": "x-request-id", "agent": "user-agent"}, "GW-136", "GW-48")
def metrics_stay_valid_after_odd_header(b, name):
    for value in (b"Jos\xe9", b"n\xc3(", b'quote"back\\slash', b"x" * 3000):
        b.post(b.script(), headers=[(name, value)])
    assert metrics(b)
    assert len(b.get("/metrics").body) < 2_000_000


def counted(b, status):
    """Requests counted with a status: series of a gateway whose labels say so."""
    return sum(v for k, v in metrics(b).items() if "request" in k and re.search(rf'(status|code)="{status}"', k))


@family({"200": 200, "404": 404, "400": 400}, "GW-136", own=True)
def requests_are_counted_by_status(b, status):
    b = b.own(1)  # others' requests would be counted with them
    before = counted(b, status)
    body = {200: None, 404: b'{"model":"nobody","messages":[]}', 400: b"[]"}[status]
    for _ in range(3):
        assert b.post(b.script(), body).status == status
    settle(lambda: counted(b, status) >= before + 3, 3, "they are not counted")


@family({"413": (413, REFUSALS["413"]), "400": (400, REFUSALS["400-framing"]), "431": (431, REFUSALS["431"]), "405": (405, REFUSALS["405"])}, "GW-136", own=True)
def refusals_of_the_http_layer_are_counted(b, what):
    b = b.own(1)
    status, data = what
    before = counted(b, status)
    for _ in range(3):
        c = b.client()
        assert c.send(data, quiet=True).read().status == status
    settle(lambda: counted(b, status) >= before + 3, 3, "they are not counted")


@case("GW-136")
def times_to_the_first_byte_are_a_histogram(b):
    b.well()
    found = [k for k in metrics(b) if re.search(r"(first_byte|first_token|ttft)\w*_bucket", k)]
    assert found, "no histogram of it"


def lines_of(b, own, request_id):
    out = []
    for line in own.gateway.log().splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            raise AssertionError(f"no JSON: {line[:200]!r}") from None
        if request_id in json.dumps(value):
            out.append(value)
    return out


def with_log(b):
    if not b.gateway.has_process:
        raise Skip("its log is not here")
    return b.own(1)


@case("GW-137", process=True)
def a_request_is_one_line_of_the_log(b):
    own = with_log(b)
    assert own.post(own.script(), headers=[("x-request-id", "look-for-me")]).status == 200
    line = settle(lambda: [x for x in lines_of(b, own, "look-for-me") if x.get("status") == 200], 3, "there is no line with id and status")
    assert len(line) == 1 and CHAT in json.dumps(line[0]), line


@case("GW-137", process=True)
def prompts_are_never_logged(b):
    own = with_log(b)
    for stream in (False, True):
        own.post(own.script(), messages=[{"role": "user", "content": "my-secret-prompt"}], stream=stream)
    own.post(own.script(), b'{"model":"m","messages":[{"content":"my-secret-prompt"')
    own.post(own.script(), model="nobody", messages=[{"role": "user", "content": "my-secret-prompt"}])
    own.post(own.script(lambda connection, request: connection.reset()), messages=[{"role": "user", "content": "my-secret-prompt"}], client=own.client(timeout=20))
    time.sleep(0.3)
    assert "my-secret-prompt" not in own.gateway.log()


@case("GW-137", process=True)
def authorization_is_never_logged(b):
    own = with_log(b)
    own.post(own.script(), headers=[("Authorization", "Bearer sk-very-secret")])
    own.get("/nowhere", headers=[("Authorization", "Bearer sk-very-secret")])
    time.sleep(0.2)
    assert "sk-very-secret" not in own.gateway.log()


@case("GW-137", "GW-133", process=True)
def a_refusal_of_the_http_layer_is_one_line_of_the_log(b):
    own = with_log(b)
    r = own.exchange(REFUSALS["413"])
    request_id = r.header("x-request-id")
    assert request_id, r
    settle(lambda: [x for x in lines_of(b, own, request_id) if x.get("status") == 413], 3, "there is no line of it")


@case("GW-137", "GW-118", process=True)
def values_of_clients_do_not_break_the_log(b):
    own = with_log(b)
    own.post(own.script(), headers=[("x-request-id", b'a"\\\xe9,"status":1')])
    own.get('/nowhere?"x\\')
    time.sleep(0.2)
    lines_of(b, own, "nothing")
