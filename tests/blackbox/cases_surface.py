"""Paths, bodies, models and the gateway's own answers."""
import json
import time

import wire
from registry import case, family
from runner import answer, error_object, settle

API_PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages",
             "embeddings": "/v1/embeddings"}


def members_of(path):
    """What the API of a path asks for beside the model."""
    if path.endswith("/completions") and "chat" not in path:
        return {"prompt": "hello"}
    if path.endswith(("embeddings", "responses")):
        return {"input": "hello"}
    return {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 16}


def untouched(b, script):
    """No engine was asked."""
    time.sleep(0.05)
    assert script.requests == [], "an engine was asked"


@case("GW-1")
def models_are_the_union_of_all_engines(b):
    def right():
        r = b.get("/v1/models")
        ids = [m["id"] for m in r.json()["data"]]
        return r.status == 200 and r.json()["object"] == "list" and sorted(ids) == sorted({"m", *(f"only-{i}" for i in range(len(b.farm.engines)))})
    settle(right, 12, "the list is not the union of the engines' models, each once")


@case("GW-1")
def models_entries_have_the_openai_shape(b):
    r = b.get("/v1/models")
    assert r.status == 200 and (r.header("content-type") or "").startswith("application/json"), r
    assert r.json()["data"] and all({"id", "object", "created", "owned_by"} <= set(m) and m["object"] == "model" for m in r.json()["data"]), r


@family(API_PATHS, "GW-2", "GW-18")
def api_reaches_an_engine(b, path):
    s = b.script()
    body = json.dumps({"model": "m", "user": s.token, **members_of(path)}).encode()
    r = b.post(s, body, path)
    assert r.status == 200 and r.clean and s.one().target == path and s.one().body == body, r


@family(API_PATHS, "GW-2")
def query_string_is_kept(b, path):
    s = b.script()
    target = path + "?api-version=2025-01-01&beta=true&x=%20%2f"
    assert b.post(s, json.dumps({"model": "m", "user": s.token, **members_of(path)}).encode(), target).status == 200
    assert s.one().target == target, s.one().target


@case("GW-2")
def a_model_of_one_engine_goes_to_that_engine(b):
    for index in [*range(len(b.farm.engines))] * 3:
        s = b.script()
        r = b.post(s, model=f"only-{index}")
        assert r.status == 200, r
        assert s.one().engine.index == index, f"only-{index} went to engine {s.one().engine.index}"


@family({"tokenize": "/tokenize", "detokenize": "/detokenize", "rerank": "/v1/rerank", "score": "/v1/score", "rerank-bare": "/rerank"}, "GW-3")
def side_path_is_routed_or_refused(b, path):
    s = b.script()
    r = b.post(s, path=path, query="q", documents=["d"], prompt="p", text_1="a", text_2="b")
    if r.status == 200:
        assert s.one().target == path
    else:
        error_object(r, 404)
        untouched(b, s)


@family({"health": "/health", "ready": "/ready", "metrics": "/metrics"}, "GW-4")
def page_is_the_gateways_own(b, path):
    s = b.script()
    r = b.get(f"{path}?{s.token}")
    assert r.status == 200 and r.clean, r
    untouched(b, s)
    assert b"vllm:num_requests_waiting" not in r.body, "that is an engine's page"


@family({"health": "/health", "metrics": "/metrics", "models": "/v1/models"}, "GW-5", "GW-24", "GW-47")
def head_is_get_without_a_body(b, path):
    c = b.client()
    r = b.get(path, "HEAD", client=c)
    assert r.status == 200, r
    assert b.get(path, client=c).status == 200, "the connection did not go on"


@family(API_PATHS | {"models": "/v1/models"}, "GW-6")
def options_is_answered_here(b, path):
    s = b.script()
    r = b.get(f"{path}?{s.token}", "OPTIONS", [("Origin", "https://app.test"), ("Access-Control-Request-Method", "POST")])
    assert r.status in (200, 204), r
    assert r.header("allow") or r.header("access-control-allow-methods"), r
    untouched(b, s)


@family({"bare": "/nowhere", "v1": "/v1/nowhere", "below": "/v1/chat/completions/below", "v3": "/v3/x", "html": "/index.html", "dot": "/.env"}, "GW-7", "GW-14")
def unknown_path_is_404(b, path):
    s = b.script()
    error_object(b.post(s, path=path), 404)
    untouched(b, s)


@family({"get-chat": ("GET", "/v1/chat/completions"), "delete-chat": ("DELETE", "/v1/chat/completions"), "put-completions": ("PUT", "/v1/completions"),
         "post-models": ("POST", "/v1/models"), "post-health": ("POST", "/health"), "trace": ("TRACE", "/v1/completions"),
         "own": ("BREW", "/v1/completions")}, "GW-8", "GW-14")
def wrong_method_is_405(b, what):
    method, path = what
    s = b.script()
    r = b.exchange(wire.request(method, f"{path}?{s.token}", b"{}" if method in ("PUT", "POST") else None), method)
    error_object(r, 405, *((501,) if method == "BREW" else ()))
    assert r.status == 501 or (r.header("allow") and method not in r.header("allow")), r
    untouched(b, s)


def bad_json(s):
    t = f'"user":"{s.token}"'
    return {"no-json": f"tok {s.token}", "cut": f'{{"model":"m",{t},"messages":[', "trailing-comma": f'{{"model":"m",{t},}}', "single-quotes": f"{{'model':'m',{t}}}",
            "array": f'[{{"model":"m",{t}}}]', "string": f'"{s.token}"', "number": "17", "null": "null", "empty": "", "blank": "  \r\n",
            "two": f'{{"model":"m",{t}}}{{"model":"m",{t}}}', "garbage-behind": f'{{"model":"m",{t}}} x', "nan": f'{{"model":"m",{t},"temperature":NaN}}',
            "raw-newline": f'{{"model":"m\n",{t}}}', "lone-utf8": None}


class _Names:
    token = "x"


@family({k: k for k in bad_json(_Names)}, "GW-9", "GW-14")
def no_json_object_is_400(b, name):
    s = b.script()
    text = bad_json(s)[name]
    body = text.encode() if text is not None else b'{"model":"m\xff","user":"' + s.token.encode() + b'"}'
    error_object(b.post(s, body), 400)
    untouched(b, s)


@family({"missing": {}, "number": {"model": 17}, "null": {"model": None}, "list": {"model": ["m"]}, "object": {"model": {"id": "m"}}, "bool": {"model": True},
         "empty": {"model": ""}}, "GW-10", "GW-14")
def model_must_be_a_string(b, members):
    s = b.script()
    body = json.dumps({**members, "user": s.token, "messages": [{"role": "user", "content": "x"}]}).encode()
    error_object(b.post(s, body), 400)
    untouched(b, s)


@family(API_PATHS, "GW-11", "GW-14")
def unknown_model_is_404(b, path):
    s = b.script()
    error_object(b.post(s, json.dumps({"model": "nobody-has-this", "user": s.token, **members_of(path)}).encode(), path), 404)
    untouched(b, s)


@family({"arrays": (b"[", b"]"), "objects": (b'{"a":', b"}"), "unclosed": (b"[", b"")}, "GW-12")
def deep_nesting_is_400(b, brackets):
    opened, closed = brackets
    s = b.script()
    depth = 100_000
    body = b'{"model":"m","user":"' + s.token.encode() + b'","x":' + opened * depth + b"1" + closed * depth + b"}"
    error_object(b.post(s, body), 400)
    untouched(b, s)
    b.well()


@family({"10GB": 10_000_000_000, "just-over": (16 << 20) + 1, "1TB": 1 << 40}, "GW-13", "GW-14")
def declared_size_is_refused_at_once(b, size):
    s = b.script()
    begun = time.monotonic()
    head = wire.request("POST", "/v1/chat/completions", None, [("Content-Length", size), ("Content-Type", "application/json"), ("X-Case", s.token)])
    error_object(b.client().send(head).read(), 413)
    assert time.monotonic() - begun < 2, "it was read first"
    untouched(b, s)


@case("GW-13", "GW-14")
def chunked_body_over_the_limit_is_413(b):
    s = b.script()
    c = b.client(timeout=15)
    c.send(wire.request("POST", "/v1/chat/completions", None, [("Transfer-Encoding", "chunked"), ("Content-Type", "application/json")]))
    piece = wire.chunk(b'{"model":"m","user":"' + s.token.encode() + b'","x":"') + wire.chunk(b"y" * (1 << 20)) * 20
    for at in range(0, len(piece), 1 << 18):
        c.send(piece[at:at + (1 << 18)], quiet=True)
    error_object(c.read(), 413)
    untouched(b, s)


@case("GW-13")
def a_body_of_the_limit_passes(b):
    s = b.script()
    body = b.body(s, x="")
    body = body[:-2] + b"y" * ((16 << 20) - len(body)) + b'"}'
    assert b.post(s, body, client=b.client(timeout=20)).status == 200
    assert s.one().body == body


@case("GW-14")
def refusals_of_all_layers_have_one_type_for_a_status(b):
    head = wire.request("POST", "/v1/chat/completions", None, [("Content-Length", 1 << 40)])
    bad_framing = wire.request("POST", "/v1/chat/completions", b"{}", [("Content-Length", "x")])
    seen = {}
    for data in (bad_framing, wire.request("POST", "/v1/chat/completions", b"[1]"), wire.request("POST", "/v1/completions", b"{}"), head,
                 b"GET /v1/models HTTP/1.1\r\n\r\n"):
        r = b.exchange(data)
        seen.setdefault(r.status, set()).add(error_object(r, 400, 413)["type"])
    assert all(len(types) == 1 for types in seen.values()), seen


BODIES = {
    "order": '{"zeta":1,"user":"@","model":"m","alpha":2,"messages":[{"role":"user","content":"x"}]}',
    "blanks": '{ "model" :\t"m" ,\r\n "user":"@",  "messages" : [ {"role" :"user","content":"x" } ] }\n\n',
    "escapes": '{"model":"m","user":"@","messages":[{"role":"user","content":"\\u00e9\\/\\ud83d\\ude00\\u0041"}]}',
    "unknown-members": '{"model":"m","user":"@","messages":[{"role":"user","content":"x"}],"x_own":{"deep":[1,{"a":null}]}}',
    "big-integers": '{"model":"m","user":"@","messages":[{"role":"user","content":"x"}],"seed":9007199254740993,"n2":123456789012345678901234567890}',
    "float-forms": '{"model":"m","user":"@","messages":[{"role":"user","content":"x"}],"temperature":1.0,"top_p":1e0,"x":-0.0,"y":1E+2}',
    "utf8": '{"model":"m","user":"@","messages":[{"role":"user","content":"日本語 ☃ é"}]}',
    "duplicates": '{"model":"m","user":"@","messages":[{"role":"user","content":"x"}],"temperature":0,"temperature":1,"model":"m"}',
    "bool-and-null": '{"stream":false,"model":"m","user":"@","messages":[{"role":"user","content":"x"}],"stop":null,"logprobs":false}',
    "empty-members": '{"model":"m","user":"@","messages":[{"role":"user","content":"x"}],"":"","a":{},"b":[]}',
}


@family(BODIES, "GW-15")
def body_passes_byte_for_byte(b, text):
    s = b.script()
    body = text.replace("@", s.token).encode()
    r = b.post(s, body)
    assert r.status == 200, r
    assert s.one().body == body, s.one().body


@family({"plain": '"model":"nobody","model":"m"', "escaped": '"model":"nobody","mo\\u0064el":"m"'}, "GW-16")
def last_of_two_models_counts(b, pair):
    s = b.script()
    r = b.post(s, f'{{{pair},"user":"{s.token}","messages":[{{"role":"user","content":"x"}}]}}'.encode())
    assert r.status == 200, r
    t = b.script()
    swapped = pair.replace('"nobody"', '"?"').replace('"m"', '"nobody"').replace('"?"', '"m"')
    error_object(b.post(t, f'{{{swapped},"user":"{t.token}","messages":[{{"role":"user","content":"x"}}]}}'.encode()), 404)


@case("GW-16", "GW-15")
def an_escaped_model_name_is_the_same_model(b):
    s = b.script()
    body = f'{{"model":"\\u006d","user":"{s.token}","messages":[{{"role":"user","content":"x"}}]}}'.encode()
    assert b.post(s, body).status == 200
    assert s.one().body == body


KV = '{"do_remote_prefill":true,"remote_host":"10.9.8.7","remote_port":4321,"remote_engine_id":"evil"}'
KV_FORMS = {
    "plain": f'"kv_transfer_params":{KV}', "escaped": f'"kv_transfer_param\\u0073":{KV}', "all-escaped": '"' + "".join(f"\\u{ord(c):04x}" for c in "kv_transfer_params") + f'":{KV}',
    "twice": f'"kv_transfer_params":{{}},"kv_transfer_params":{KV}', "both": f'"kv_transfer_params":{{}},"kv\\u005ftransfer_params":{KV}',
    "blanks": f'"kv_transfer_params" \t: {KV} ',
}


@family(KV_FORMS, "GW-17")
def kv_transfer_params_never_pass(b, member):
    for place in (f'{{{member},"model":"m","user":"@","messages":[{{"role":"user","content":"x"}}]}}', f'{{"model":"m","user":"@",{member},"messages":[{{"role":"user","content":"x"}}]}}', f'{{"model":"m","user":"@","messages":[{{"role":"user","content":"x"}}],{member}}}'):
        s = b.script()
        r = b.post(s, place.replace("@", s.token).encode())
        if r.status == 200:
            value = json.loads(s.one().body)
            assert "kv_transfer_params" not in value and b"10.9.8.7" not in s.one().body, s.one().body
            assert {"model", "user", "messages"} <= set(value), value
        else:
            error_object(r, 400)


@family({**API_PATHS, "slash": "/v1/chat/completions/", "rerank": "/v1/rerank", "score": "/v1/score", "tokenize": "/tokenize", "generate": "/inference/v1/generate",
         "unknown": "/v1/nowhere"}, "GW-17")
def kv_transfer_params_never_pass_on(b, path):
    s = b.script()
    body = f'{{"model":"m","user":"{s.token}","kv_transfer_param\\u0073":{KV},"prompt":"x","input":"x","messages":[{{"role":"user","content":"x"}}]}}'.encode()
    r = b.post(s, body, path)
    assert r.status in (200, 400, 404), r
    assert all(b"10.9.8.7" not in q.body for q in s.requests), "it reached an engine"


@case("GW-15", "GW-17")
def a_member_of_that_name_deeper_down_stays(b):
    s = b.script()
    body = f'{{"model":"m","user":"{s.token}","messages":[{{"role":"user","content":"x"}}],"metadata":{{"kv_transfer_params":"mine"}}}}'.encode()
    assert b.post(s, body).status == 200
    assert s.one().body == body


@family({"200": (200, "OK"), "201": (201, "Created"), "418": (418, "I'm a teapot"), "299": (299, "Odd")}, "GW-18")
def answer_passes_as_it_is(b, status):
    code, reason = status
    payload = b'{ "x":1.0,\n"y" : "\\u00e9" }\n'
    s = b.says(answer(code, payload, "application/vnd.own+json; charset=utf-8", reason=reason))
    r = b.post(s)
    assert (r.status, r.body, r.header("content-type"), r.clean) == (code, payload, "application/vnd.own+json; charset=utf-8", True), r


@case("GW-18")
def an_empty_answer_passes(b):
    r = b.post(b.says(b"HTTP/1.1 204 No Content\r\n\r\n"))
    assert r.status == 204 and r.body == b"" and r.framing == "none", r


@case("GW-18")
def binary_answers_pass(b):
    payload = bytes(range(256)) * 500
    r = b.post(b.says(answer(body=payload, content_type="audio/wav")))
    assert r.body == payload and r.header("content-type") == "audio/wav", r


@case("GW-12", "GW-119")
def a_body_of_many_members_is_no_trouble(b):
    s = b.script()
    members = ",".join(f'"k{i}":{i}' for i in range(100_000))
    body = f'{{"model":"m","user":"{s.token}","messages":[{{"role":"user","content":"x"}}],{members}}}'.encode()
    begun = time.monotonic()
    r = b.post(s, body)
    assert r.status in (200, 400) and time.monotonic() - begun < 5, r
    if r.status == 200:
        assert s.one().body == body


