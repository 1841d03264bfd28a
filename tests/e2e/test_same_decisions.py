"""One workload, one seed, three ways in: llmd-gateway that decides itself, llmd-gateway that asks llmd-epp, Envoy that asks
llmd-epp. Requests come one after another over engines whose gauges stand still; every decision and what the engines got are
equal, whoever carried the request."""
import http.client
import itertools
import json
import random
import time

import pytest

from conftest import Gateway, Picker, free_port
from envoy_process import Envoy
from fake_engine import FakeEngine, response, send_chunked

SEED, REQUESTS = 7, 1000
CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: openai-parser}}
- {{type: passthrough-parser}}
- {{type: token-producer}}
- {{type: approx-prefix-cache-producer}}
- {{type: inflight-load-producer}}
- {{type: decode-filter}}
- {{type: prefill-filter}}
- {{type: prefix-cache-scorer}}
- {{type: queue-scorer}}
- {{type: kv-cache-utilization-scorer}}
- {{type: running-requests-size-scorer}}
- {{type: lora-affinity-scorer}}
- {{type: active-request-scorer}}
- {{type: token-load-scorer}}
- {{type: no-hit-lru-scorer}}
- {{type: session-affinity-scorer, parameters: {{strategy: session_id}}}}
- {{type: max-score-picker}}
- {{type: weighted-random-picker}}
- {{type: prefix-based-pd-decider, parameters: {{nonCachedTokens: 128}}}}
- type: disagg-profile-handler
  parameters: {{deciders: {{prefill: prefix-based-pd-decider}}}}
- type: file-discovery
  parameters: {{path: "{endpoints}", watchFile: true}}
schedulingProfiles:
- name: decode
  plugins:
  - {{pluginRef: decode-filter}}
  - {{pluginRef: prefix-cache-scorer, weight: 3}}
  - {{pluginRef: queue-scorer, weight: 1}}
  - {{pluginRef: kv-cache-utilization-scorer, weight: 1}}
  - {{pluginRef: running-requests-size-scorer, weight: 0.5}}
  - {{pluginRef: lora-affinity-scorer, weight: 2}}
  - {{pluginRef: active-request-scorer, weight: 1}}
  - {{pluginRef: token-load-scorer, weight: 1}}
  - {{pluginRef: no-hit-lru-scorer, weight: 1.5}}
  - {{pluginRef: session-affinity-scorer, weight: 2}}
  - {{pluginRef: max-score-picker}}
- name: prefill
  plugins:
  - {{pluginRef: prefill-filter}}
  - {{pluginRef: prefix-cache-scorer, weight: 2}}
  - {{pluginRef: queue-scorer, weight: 1}}
  - {{pluginRef: weighted-random-picker}}
dataLayer: {{discovery: {{pluginRef: file-discovery}}}}
requestHandler:
  parsers: [{{pluginRef: openai-parser}}, {{pluginRef: passthrough-parser}}]
"""
EXTRA = """objectives: [{name: chat, priority: 10}]
rewrites:
- name: canary
  rules:
  - matches: [{model: {type: Exact, value: alias}}]
    targets: [{modelRewrite: base, weight: 3}, {modelRewrite: sql-lora, weight: 2}, {modelRewrite: chat-lora, weight: 1}]
"""
# (role, waiting, running, KV use, adapters): two pairs alike, so that ties are drawn.
ENGINES = [("decode", 0, 1, 0.1, "sql-lora"), ("decode", 0, 1, 0.1, "sql-lora"), ("decode", 1, 2, 0.2, "chat-lora"),
           ("both", 1, 0, 0.25, ""), ("prefill", 0, 0, 0.0, ""), ("prefill", 0, 0, 0.0, "")]


def page(waiting, running, kv, adapters):
    labels = f'max_lora="2",running_lora_adapters="{adapters}",waiting_lora_adapters=""'
    return (f"vllm:num_requests_waiting {waiting}.0\nvllm:num_requests_running {running}.0\nvllm:kv_cache_usage_perc {kv}\n"
            f"vllm:lora_requests_info{{{labels}}} 1.0\n"
            'vllm:cache_config_info{block_size="16",num_gpu_blocks="4000"} 1.0\n').encode()


class PinnedEngine(FakeEngine):
    """Its page never changes; it answers with usage, as a stream where asked for one."""

    def __init__(self, role, *gauges):
        self.role, self.page, self.scrapes = role, page(*gauges), 0
        super().__init__(self.reply)

    async def reply(self, request, writer):
        if request.method == "GET":
            self.scrapes += request.target == "/metrics"
            return response(body=self.page, content_type="text/plain")
        usage = '"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}'
        if not json.loads(request.body).get("stream"):
            return response(body=f'{{"choices":[{{"text":"ab"}}],{usage}}}'.encode())
        events = [b'data: {"choices":[{"text":"a"}]}\n\n', b'data: {"choices":[{"text":"b"}]}\n\n',
                  f'data: {{"choices":[],{usage}}}\n\n'.encode(), b"data: [DONE]\n\n"]
        await send_chunked(writer, events, "text/event-stream")
        return b""


def workload():
    """(headers, path, body) of each request: documents shared by several, of four models, chats that grow, token ids."""
    rng = random.Random(SEED)
    words = [f"w{i:03d}" for i in range(400)]
    documents = [" ".join(rng.choices(words, k=rng.choice([40, 200, 600, 1500]))) for _ in range(12)]
    chats = {}
    for i in range(REQUESTS):
        model = rng.choices(["base", "sql-lora", "chat-lora", "alias", "unlisted"], [4, 2, 2, 2, 1])[0]
        headers = {"x-request-id": f"same-{i:04d}"}
        if rng.random() < 0.2:
            headers["x-session-id"] = f"s{rng.randrange(8)}"
        if rng.random() < 0.2:
            headers["x-llm-d-inference-objective"] = rng.choice(["chat", "unknown"])
        if rng.random() < 0.1:  # none of these may steer or pass
            headers["x-prefiller-host-port"] = headers["x-gateway-destination-endpoint"] = "127.0.0.1:1"
        body = {"model": model, "max_tokens": rng.randrange(1, 400)}
        kind = rng.random()
        if kind < 0.5:
            path, tail = "/v1/completions", " ".join(rng.choices(words, k=rng.randrange(30)))
            body["prompt"] = rng.choice(documents) + f" [é€😀\"\\ {tail}]"
        elif kind < 0.6:
            path, body["prompt"] = "/v1/completions", [rng.randrange(50_000) for _ in range(rng.choice([10, 700]))]
        else:
            path = "/v1/chat/completions"
            turns = chats.setdefault(rng.randrange(20), [{"role": "system", "content": rng.choice(documents)}])
            turns.append({"role": "user", "content": " ".join(rng.choices(words, k=rng.randrange(5, 60)))})
            body["messages"] = list(turns[:40])
        if rng.random() < 0.5:
            body["stream"] = True
        yield headers, path, json.dumps(body, ensure_ascii=rng.random() < 0.5).encode()


FLAGS = ["--refresh-metrics-interval", "500ms", "--metrics-staleness-threshold", "1h",
         "--deprecated-metric-names=false"]


class InProcess:
    """llmd-gateway decides itself."""
    open_requests = "llmd_gateway_requests_inflight"

    def __init__(self, start, tmp, endpoints, seed=SEED):
        endpoints_path = tmp / "endpoints.yaml"
        endpoints_path.write_text(endpoints)
        config = tmp / "gateway.yaml"
        config.write_text(CONFIG.format(endpoints=endpoints_path))
        admin_port = free_port()
        front = start(Gateway("--config-file", str(config), "--metrics-port", str(admin_port), "--seed", str(seed), *FLAGS))
        front.wait_http(front.port, "/ready")
        self.port, self.admin = front.port, admin_port


class Asking:
    """Something that asks llmd-epp."""
    open_requests = "llm_d_epp_extproc_streams_inflight"

    def __init__(self, start, tmp, endpoints):
        picker = Picker(tmp, [], "--seed", str(SEED), *FLAGS,
                        config=lambda path: (path.write_text(endpoints), CONFIG.format(endpoints=path))[1])
        start(picker).wait_http(picker.admin_port, "/readyz")
        self.admin = picker.admin_port
        self.port = self.front(start, tmp, picker).port


class WithPicker(Asking):
    def front(self, start, tmp, picker):
        front = start(Gateway("--epp", f"127.0.0.1:{picker.grpc_port}"))
        return front.wait_http(front.port, "/ready")


class WithEnvoy(Asking):
    def front(self, start, tmp, picker):
        front = start(Envoy(tmp, picker))
        front.wait_http(front.admin_port, "/ready")
        return front


FRONTS = {"in-process": InProcess, "epp": WithPicker, "envoy": WithEnvoy}
OWN = ["unix_nanos", "decision_ns", "metrics_age_ms", "pool"]  # of a decision: times, and what the pool is called


class Seen:
    """What one front's run came to, by request: the decision, and what an engine got."""

    def __init__(self):
        self.decisions, self.arrived, self.statuses = [], [], []


def settled(admin, name):
    """Waits until the answer before is accounted for. Its end reaches a picker beside the bytes that the client gets."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        admin.request("GET", "/metrics")
        page = admin.getresponse().read()
        at = page.find(f"\n{name} ".encode())
        assert at >= 0, f"no {name}"
        if float(page[at:page.index(b"\n", at + 1)].split()[1]) == 0:
            return
        time.sleep(0.001)
    raise AssertionError(f"{name} did not fall to 0")


def run(front, engines, requests_sent=REQUESTS):
    seen = Seen()
    known = {e: e.scrapes for e in engines}
    deadline = time.monotonic() + 20
    while not all(e.scrapes >= known[e] + 2 for e in engines):
        assert time.monotonic() < deadline, "an engine's page is not read"
        time.sleep(0.02)
    client, admin = (http.client.HTTPConnection("127.0.0.1", port, timeout=20) for port in (front.port, front.admin))
    for headers, path, body in itertools.islice(workload(), requests_sent):
        for engine in engines:
            engine.requests.clear()
        client.request("POST", path, body, {"content-type": "application/json", **headers})
        answer = client.getresponse()
        answer.read()
        seen.statuses.append(answer.status)
        settled(admin, front.open_requests)
        admin.request("GET", "/debug/decisions/" + headers["x-request-id"])
        decision = json.loads(admin.getresponse().read())
        seen.decisions.append({k: v for k, v in decision.items() if k not in OWN})
        seen.arrived.append([(e.address, r) for e in engines for r in e.posts()])
    client.close()
    admin.close()
    return seen


@pytest.fixture(scope="module")
def engines():
    made = [PinnedEngine(*e) for e in ENGINES]
    yield made
    for engine in made:
        engine.close()


def endpoints_file(engines):
    lines = [f"- {{name: e{i}, address: 127.0.0.1, port: \"{e.port}\", labels: {{llm-d.ai/role: {e.role}}}}}"
             for i, e in enumerate(engines)]
    return "endpoints:\n" + "\n".join(lines) + "\n" + EXTRA


@pytest.fixture(scope="module")
def runs(engines, tmp_path_factory):
    """Each front runs alone; the engines, their addresses and the requests are the same."""
    endpoints = endpoints_file(engines)
    out = {}
    for name, front in FRONTS.items():
        running = []
        try:
            out[name] = run(front(lambda p: running.append(p) or p, tmp_path_factory.mktemp(name), endpoints), engines)
        finally:
            for process in reversed(running):
                process.stop()
    return out


PAIRS = list(itertools.combinations(FRONTS, 2))


def first_difference(left, right):
    return next(((i, a, b) for i, (a, b) in enumerate(zip(left, right, strict=True)) if a != b), None)


def profiles(run, *fields):
    return [[{f: p[f] for f in fields} for p in d["profiles"]] for d in run.decisions]


def check(runs, pair, what):
    left, right = (what(runs[name]) for name in pair)
    assert len(left) == REQUESTS
    assert first_difference(left, right) is None


def test_the_workload_is_worth_comparing(runs):
    """Prefixes are found, prompts are prefilled elsewhere, ties are drawn, every endpoint is chosen, models rewritten."""
    run = runs["in-process"]
    assert run.statuses == [200] * REQUESTS
    decode = [d["profiles"][0] for d in run.decisions]
    assert sum(max(s["raw"]) > 0 for p in decode for s in p["scores"] if s["scorer"] == "prefix-cache-scorer") > REQUESTS / 5
    assert sum(p["tied"] > 1 for p in decode) > REQUESTS / 50
    assert REQUESTS / 20 < sum(d["decision_type"] == "prefill-decode" for d in run.decisions) < REQUESTS * 0.95
    assert len({p["picked"][0] for p in decode}) == 4
    sent = {json.loads(r.body)["model"] for a in run.arrived for _, r in a}
    assert {"base", "sql-lora", "chat-lora", "unlisted"} == sent


def test_another_seed_would_be_seen(runs, engines, started, tmp_path):
    other = run(InProcess(started, tmp_path, endpoints_file(engines), seed=SEED + 1), engines, 200)
    same = runs["in-process"]
    assert first_difference(other.arrived, same.arrived[:200]) and first_difference(other.decisions, same.decisions[:200])


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
class TestEqual:
    def test_statuses(self, runs, pair):
        check(runs, pair, lambda r: r.statuses)

    def test_candidates(self, runs, pair):
        check(runs, pair, lambda r: profiles(r, "profile", "filters", "candidates"))

    def test_raw_scores(self, runs, pair):
        check(runs, pair, lambda r: profiles(r, "scores"))

    def test_totals(self, runs, pair):
        check(runs, pair, lambda r: profiles(r, "totals", "tied", "margin"))

    def test_picks(self, runs, pair):
        check(runs, pair, lambda r: [(d["primary"], d["decision_type"], [p["picked"] for p in d["profiles"]]) for d in r.decisions])

    def test_everything_else_of_the_decision(self, runs, pair):
        check(runs, pair, lambda r: r.decisions)

    def test_the_engine_that_got_it(self, runs, pair):
        check(runs, pair, lambda r: [[address for address, _ in a] for a in r.arrived])

    def test_bodies(self, runs, pair):
        check(runs, pair, lambda r: [[q.body for _, q in a] for a in r.arrived])

    def test_set_headers(self, runs, pair):
        check(runs, pair, lambda r: [[picker_headers(q) for _, q in a] for a in r.arrived])

    def test_other_headers(self, runs, pair):
        check(runs, pair, lambda r: [[other_headers(q) for _, q in a] for a in r.arrived])


SET = ["x-gateway-destination-endpoint", "x-prefiller-host-port", "x-encoder-hosts-ports", "x-data-parallel-host-port",
       "x-kv-cache-source-host-port", "x-request-id", "x-llm-d-inference-objective", "x-session-id"]
# A proxy's own: how the message is framed, by whom and for whom it was sent on; spans have ids of their own.
PROXYS = ["host", "content-length", "transfer-encoding", "connection", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
          "x-envoy-external-address", "x-envoy-expected-rq-timeout-ms", "via", "traceparent"]


def picker_headers(request):
    return {name: request.header(name) for name in SET if request.header(name)}


def other_headers(request):
    return sorted((k.lower(), v) for k, v in request.headers if k.lower() not in SET + PROXYS)
