"""`llmd bench` against servers that write down what they are sent, or stand still when told to."""
import asyncio
import hashlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time
import xml.etree.ElementTree

import pytest
from authority import Authority
from conftest import ROOT, Engine, binary, kv_pool
from fake_engine import FakeEngine, response, send_chunked
from ports import free_port

DATA = ROOT / "tests/data/bench"
TRACES = pathlib.Path(os.environ.get("LLMD_TEST_DATA", ROOT.parent / "shared/data")) / "traces"


def start(*args):
    return subprocess.Popen([binary("llmd"), "bench", "--json=-", "--progress=off", *args], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def bench(*args, code=0, timeout=60):
    """The JSON report of a run."""
    process = start(*args)
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == code, f"{process.returncode}\n{out[-2000:]}\n{err[-4000:]}"
    return json.loads(out)


def target(engine):
    return f"--target=http://{engine.address}"


def tokens_of(request):
    return json.loads(request.body)["max_tokens"]


def event(data):
    return b"data: " + json.dumps(data).encode() + b"\n\n"


async def stream(request, writer, gap=0.0, first=0.0):
    """An OpenAI stream of as many tokens as were asked for."""
    chat = "messages" in json.loads(request.body)
    await asyncio.sleep(first)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def send(data):
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await writer.drain()

    if chat:
        await send(event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}))
    for i in range(tokens_of(request)):
        if i:
            await asyncio.sleep(gap)
        await send(event({"choices": [{"delta": {"content": f"w{i} "}} if chat else {"text": f"w{i} "}]}))
    usage = {"prompt_tokens": 5, "completion_tokens": tokens_of(request), "prompt_tokens_details": {"cached_tokens": 2}}
    await send(event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
    return b"0\r\n\r\n"


@pytest.fixture
def engine():
    made = []

    def make(answer):
        made.append(FakeEngine(answer))
        return made[-1]

    yield make
    for one in made:
        one.close()


MODEL = ["--model=m"]


def test_closed_loop_stream(engine):
    def answer(request, writer):
        return stream(request, writer, gap=0.02, first=0.05)

    fake = engine(answer)
    report = bench(target(fake), *MODEL, "--concurrency=4", "--requests=20", "--output-tokens=4", "--prompt-tokens=9")
    assert report["schema"] == "llmd-bench/1"
    assert report["requests"] == {"sent": 20, "completed": 20, "failed": 0, "interrupted": 0, "e2e_lower_bounds": 0}
    assert report["tokens"] == {"prompt": 100, "output": 80, "cached": 40, "answers_with_usage": 20}
    assert report["generator"]["most_in_flight"] == 4 and report["generator"]["connections"] == 4
    latency = report["latency_ms"]
    assert latency["gap"]["count"] == 60 and latency["ttft"]["count"] == 20
    assert 45 < latency["ttft"]["p50"] < 200
    assert 18 < latency["gap"]["p50"] < 60
    assert 18 < latency["tpot"]["p50"] < 60
    assert latency["e2e"]["min"] >= 100
    bodies = [json.loads(r.body) for r in fake.requests]
    assert all(len(b["messages"][0]["content"].split()) == 9 for b in bodies)
    assert len({b["messages"][0]["content"] for b in bodies}) == 20


def test_completion_without_stream(engine):
    def answer(request, writer):
        body = {"choices": [{"text": "x"}], "usage": {"prompt_tokens": 7, "completion_tokens": tokens_of(request)}}
        return asyncio.sleep(0.01, response(body=json.dumps(body).encode()))

    fake = engine(answer)
    report = bench(target(fake), *MODEL, "--api=completion", "--no-stream", "--concurrency=2", "--requests=10",
                   "--output-tokens=uniform:3:8", "--slo=e2e:10s")
    assert report["requests"]["completed"] == 10
    assert report["tokens"]["prompt"] == 70
    assert report["tokens"]["output"] == sum(tokens_of(r) for r in fake.requests)
    assert report["latency_ms"]["ttft"]["count"] == 0
    assert report["goodput"]["share"] == 1
    assert {r.target for r in fake.requests} == {"/v1/completions"}


def test_the_model_is_asked_for(engine):
    async def answer(request, writer):
        if request.target == "/v1/models":
            return response(body=b'{"data": [{"id": "first"}, {"id": "second"}]}')
        return await stream(request, writer)

    fake = engine(answer)
    report = bench(target(fake), "--concurrency=1", "--requests=2", "--output-tokens=1", "--api-key=sk-1")
    assert report["config"]["model"] == "first"
    assert {json.loads(r.body)["model"] for r in fake.requests if r.body} == {"first"}
    assert all(r.header("Authorization") == ["Bearer sk-1"] for r in fake.requests)


def run_for_bytes(engine, *args):
    """What arrived, as (arrival order is the network's) a sorted list of whole requests."""
    fake = engine(stream)
    bench(target(fake), *MODEL, *args)
    port = str(fake.port)
    return sorted((r.target, str(r.headers).replace(port, "PORT"), r.body) for r in fake.requests)


@pytest.mark.parametrize("args", [
    ["--prompt-tokens=normal:40:10", "--output-tokens=uniform:1:3"],
    ["--prefix-groups=3", "--prefix-tokens=20", "--prompt-tokens=5", "--output-tokens=1"],
    ["--turns=3", "--prompt-tokens=5", "--output-tokens=2"],
    ["--tenant=name=a,weight=2,fairness-id=a", "--tenant=name=b,fairness-id=b", "--output-tokens=1"],
], ids=["lengths", "prefixes", "turns", "tenants"])
def test_the_same_seed_sends_the_same_bytes(engine, args):
    load = ["--concurrency=5", "--requests=30"]
    first = run_for_bytes(engine, *load, "--seed=7", *args)
    again = run_for_bytes(engine, *load, "--seed=7", "--threads=3", *args)
    assert first == again
    assert first != run_for_bytes(engine, *load, "--seed=8", *args)


def test_turns_send_the_answer_back(engine):
    fake = engine(stream)
    began = time.monotonic()
    report = bench(target(fake), *MODEL, "--concurrency=2", "--requests=4", "--turns=3", "--think-time=100ms",
                   "--output-tokens=2", "--prompt-tokens=6")
    assert time.monotonic() - began > 0.4
    assert report["requests"]["completed"] == 12
    conversations = {}
    for request in fake.requests:
        messages = json.loads(request.body)["messages"]
        conversations.setdefault(messages[0]["content"], []).append(messages)
    assert len(conversations) == 4
    for turns in conversations.values():
        assert [len(m) for m in turns] == [1, 3, 5]
        assert [m["role"] for m in turns[2]] == ["user", "assistant", "user", "assistant", "user"]
        assert turns[2][:3] == turns[1] and turns[1][:1] == turns[0]
        assert turns[1][1]["content"] == "w0 w1 " == turns[2][3]["content"]


def test_tenants(engine):
    fake = engine(stream)
    report = bench(target(fake), *MODEL, "--rate=400", "--requests=200", "--output-tokens=1",
                   "--tenant=name=gold,weight=3,fairness-id=g,api-key=k1,model=big", "--tenant=name=free,header=X-Plan: no")
    of = {t["tenant"]: t["requests"]["completed"] for t in report["tenants"]}
    assert sum(of.values()) == 200 and 120 < of["gold"] < 180
    gold = [r for r in fake.requests if r.header("x-llm-d-inference-fairness-id") == ["g"]]
    assert len(gold) == of["gold"]
    assert all(r.header("Authorization") == ["Bearer k1"] and json.loads(r.body)["model"] == "big" for r in gold)
    assert sum(r.header("X-Plan") == ["no"] for r in fake.requests) == of["free"]


def test_targets_are_taken_in_turn(engine):
    fakes = [engine(stream) for _ in range(3)]
    bench(*map(target, fakes), *MODEL, "--concurrency=3", "--requests=30", "--output-tokens=1")
    assert [len(f.requests) for f in fakes] == [10, 10, 10]


# --- when requests are sent, and what is measured ---


class StallingServer:
    """Answers `{}` at once, on threads of its own; once told to, stands still for a second, connections included."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.hold = threading.Event()
        self.hold.set()
        self.arrived = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, connection.makefile("rb") as reader:
            while reader.readline():
                while (line := reader.readline()) not in (b"\r\n", b""):
                    pass
                self.hold.wait()
                self.arrived.append(time.monotonic())
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                del line

    def stall(self, after, seconds):
        def run():
            time.sleep(after)
            self.hold.clear()
            time.sleep(seconds)
            self.hold.set()

        threading.Thread(target=run, daemon=True).start()

    def close(self):
        self.listener.close()


@pytest.mark.parametrize("connections", [1000, 1], ids=["many", "one"])
def test_a_stalled_server_is_seen_in_p99(connections):
    """A server that stands still for 1 s of 5 s keeps a fifth of the requests waiting, for half a second on average.
    With one connection only one request finds it standing still: measured from when requests were really sent, the stall
    would hide in one value of a thousand."""
    server = StallingServer()
    server.stall(after=2.0, seconds=1.0)
    report = bench(f"--target=http://127.0.0.1:{server.port}", "--api=raw", "--rate=200", "--duration=5s",
                   f"--max-connections={connections}")
    server.close()
    assert report["requests"]["completed"] == 1000
    latency = report["latency_ms"]
    assert latency["e2e"]["p99"] > 800, latency["e2e"]
    assert latency["e2e"]["p90"] > 350, latency["e2e"]
    assert latency["e2e"]["p50"] < 100, latency["e2e"]
    if connections == 1:
        # What a closed loop would have seen.
        assert latency["service"]["p99"] < 100, latency["service"]
        assert latency["service"]["max"] > 800
        assert latency["lateness"]["p99"] > 700
    at = [w["at_s"] for w in report["series"]["windows"] if w["e2e_p99_ms"] > 500]
    assert at and min(at) >= 1.5 and max(at) <= 3.5


def arrivals(engine, *args):
    """The report, and when each request came, in seconds from the first, with its body."""
    came = []

    async def answer(request, writer):
        came.append((time.monotonic(), json.loads(request.body)))
        return await stream(request, writer)

    fake = engine(answer)
    report = bench(target(fake), *MODEL, "--stream", *args)
    first = min(at for at, _ in came)
    return report, [(at - first, body) for at, body in came]


def words(body):
    return len(body["messages"][0]["content"].split())


def test_mooncake_traces_are_sent_at_their_times(engine):
    report, came = arrivals(engine, f"--trace={DATA / 'mooncake.jsonl'}", "--trace-block-tokens=8", "--timeout=20s")
    assert report["requests"]["completed"] == 4
    for (at, body), (due, prompt, output) in zip(sorted(came, key=lambda c: (c[0], -words(c[1]))),
                                                 [(0, 20, 3), (0, 16, 2), (0.3, 24, 1), (0.6005, 10, 4)]):
        assert abs(at - due) < 0.08, (at, due)
        assert body["max_tokens"] == output or due == 0
        assert words(body) == prompt or due == 0
    assert sorted(words(b) for _, b in came) == [10, 16, 20, 24]
    assert report["latency_ms"]["lateness"]["max"] < 80


def test_azure_traces_at_twice_the_speed(engine):
    report, came = arrivals(engine, f"--trace={DATA / 'azure.csv'}", "--speed=2")
    assert report["config"]["load"] == "trace"
    assert [words(b) for _, b in came] == [12, 30, 7]
    for (at, _), due in zip(came, [0, 0.15, 0.45]):
        assert abs(at - due) < 0.08, (at, due)


def test_the_published_traces(engine):
    if not TRACES.exists():
        pytest.skip(f"the published traces are absent: {TRACES}")
    report, came = arrivals(engine, f"--trace={TRACES / 'azure_llm_conv_2023.csv'}", "--speed=50", "--duration=2s")
    rows = (TRACES / "azure_llm_conv_2023.csv").read_text().splitlines()[1:]
    assert report["requests"]["completed"] == len(came) > 100
    assert sorted(words(b) for _, b in came) == sorted(int(r.split(",")[1]) for r in rows[:len(came)])
    report, came = arrivals(engine, f"--trace={TRACES / 'mooncake_conversation.jsonl'}", "--requests=40", "--speed=20")
    assert report["requests"]["completed"] == 40
    # All of these conversations begin with the same block.
    heads = {" ".join(b["messages"][0]["content"].split()[:512]) for _, b in came}
    assert len(heads) == 1


def test_open_loop_sends_at_its_rate(engine):
    report, came = arrivals(engine, "--rate=50", "--duration=2s", "--output-tokens=1", "--prompt-tokens=3")
    assert len(came) == 100
    late = sorted(abs(at - i * 0.02) for i, (at, _) in enumerate(sorted(came, key=lambda c: c[0])))
    assert late[50] < 0.02, late
    assert report["latency_ms"]["lateness"]["count"] == 100


def test_stages_and_warm_up(engine):
    report, came = arrivals(engine, "--stage=rate=20,duration=1s", "--stage=rate=100,duration=500ms", "--stage-pause=300ms",
                            "--output-tokens=1", "--warmup=500ms", "--arrivals=constant")
    assert len(came) == 70
    assert report["warmup_requests"] == 10 and report["requests"]["sent"] == 60
    assert [s["requests"]["completed"] for s in report["stages"]] == [10, 50]
    gaps = [b[0] - a[0] for a, b in zip(came, came[1:])]
    assert 0.25 < max(gaps) < 0.6  # 1 s of stage, its last request at 0.95, then the pause


def test_closed_stages_and_duration(engine):
    def answer(request, writer):
        return stream(request, writer, first=0.05)

    fake = engine(answer)
    report = bench(target(fake), *MODEL, "--stage=concurrency=1,duration=500ms", "--stage=concurrency=4,requests=40",
                   "--output-tokens=1")
    first, second = report["stages"]
    assert 4 <= first["requests"]["completed"] <= 10
    assert second["requests"]["completed"] == 40
    assert second["throughput"]["requests_per_s"] > 2 * first["throughput"]["requests_per_s"]


# --- failures ---


def failures(engine, answer, *args):
    fake = engine(answer)
    report = bench(target(fake), *MODEL, "--concurrency=2", "--requests=6", "--output-tokens=2", *args, code=1)
    assert report["requests"]["failed"] == 6
    return report["errors"]


def test_failures_by_kind(engine):
    async def reply(data):
        return data

    async def cut(request, writer):
        await send_chunked(writer, [event({"choices": [{"delta": {"content": "a"}}]})], "text/event-stream")

    async def error(request, writer):
        await send_chunked(writer, [event({"error": {"message": "m"}})], "text/event-stream")

    async def closed(request, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await writer.drain()
        writer.close()

    async def hang(request, writer):
        await asyncio.sleep(30)

    async def reset(request, writer):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    assert failures(engine, lambda r, w: reply(response(429))) == {"http_429": 6}
    assert failures(engine, lambda r, w: reply(response(503))) == {"http_503": 6}
    assert failures(engine, cut) == {"stream_cut": 6}
    assert failures(engine, error) == {"stream_error": 6}
    assert failures(engine, closed) == {"closed": 6}
    assert failures(engine, lambda r, w: reply(b"HELO\r\n\r\n")) == {"protocol": 6}
    assert failures(engine, hang, "--timeout=300ms") == {"timeout": 6}
    assert failures(engine, reset) == {"reset": 6}


def test_refused_connections_are_counted_and_do_not_spin():
    began = time.monotonic()
    report = bench(f"--target=http://127.0.0.1:{free_port()}", *MODEL, "--concurrency=4", "--duration=500ms", code=1)
    assert time.monotonic() - began < 5
    assert set(report["errors"]) == {"refused"}
    # Each of the 4 waits 10 ms after a refusal.
    assert 20 < report["errors"]["refused"] <= 220


def test_a_kept_connection_that_the_server_closed_costs_no_request(engine):
    async def answer(request, writer):
        writer.write(response(body=b"{}"))
        await writer.drain()
        writer.close()

    fake = engine(answer)
    report = bench(target(fake), "--api=raw", "--concurrency=2", "--requests=50")
    assert report["requests"]["completed"] == 50


def test_an_interrupted_run_reports_what_it_has(engine, tmp_path):
    fake = engine(lambda request, writer: stream(request, writer, gap=0.2))
    process = start(target(fake), *MODEL, "--rate=20", "--duration=60s", "--output-tokens=5", f"--svg={tmp_path / 'c.svg'}",
                    "--progress=on")
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=5)
    assert process.returncode == 130, err
    report = json.loads(out)
    assert report["interrupted"] is True
    requests = report["requests"]
    assert requests["completed"] > 10 and requests["interrupted"] > 5
    assert requests["sent"] == requests["completed"] + requests["interrupted"]
    assert "interrupted" in err
    assert re.search(r"[\r\n] +\d s  sent \d+  done \d+  failed 0  in flight \d+  [\d.]+ req/s", err), err
    assert (tmp_path / "c.svg").exists()


def test_tls(tmp_path):
    authority = Authority(tmp_path / "ca", "bench test")
    folder = authority.issue(tmp_path / "server", "server")
    fake = FakeEngine(lambda request, writer: stream(request, writer, gap=0.01), tls=Authority.context(folder))
    try:
        url = f"--target=https://127.0.0.1:{fake.port}"
        load = [*MODEL, "--concurrency=3", "--requests=12", "--output-tokens=3", "--prompt-tokens=20000"]
        report = bench(url, *load, f"--tls-ca={authority.cert}")
        assert report["requests"]["completed"] == 12 and report["tokens"]["output"] == 36
        assert report["generator"]["connections"] == 3 and report["latency_ms"]["gap"]["count"] == 24
        assert bench(url, *load, "--no-tls-verify")["requests"]["completed"] == 12
        refused = bench(url, *load, code=1)
        assert refused["errors"] == {"tls": 12}
    finally:
        fake.close()


@pytest.mark.parametrize("args, said", [
    (["--target=http://127.0.0.1:9"], "what load?"),
    (["--target=http://h:1", "--rate=1", "--requests=1", "--extra-body={"], "--extra-body"),
    (["--target=http://h:1", "--model=m", "--trace=/nowhere.csv"], "/nowhere.csv"),
    (["--target=http://h:1", "--profile=/nowhere.yaml"], "/nowhere.yaml"),
    (["--target=http://h:1", "--rate=1", "--requests=1", "--turns=0"], "--turns"),
])
def test_bad_input_is_named(args, said):
    process = start(*args, *MODEL)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2 and said in err, err


# --- reports ---


def test_chart_and_watched_process(engine, tmp_path):
    fake = engine(lambda request, writer: stream(request, writer, gap=0.005, first=0.01))
    report = bench(target(fake), *MODEL, "--rate=100", "--duration=2s", "--output-tokens=3", f"--svg={tmp_path / 'chart.svg'}",
                   f"--watch-pid=me={os.getpid()}", "--watch-pid=none=4194000", "--slo=ttft:500ms,tpot:200ms")
    me, none = report["watched"]
    assert me["name"] == "me" and me["cpu_s"] > 0.05 and me["cpu_us_per_request"] > 100
    assert none["gone"] is True and "cpu_s" not in none
    assert report["goodput"]["share"] > 0.9
    root = xml.etree.ElementTree.parse(tmp_path / "chart.svg").getroot()
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 4
    assert all(len(line.get("points").split()) >= 6 for line in lines)
    assert root.findall("{http://www.w3.org/2000/svg}rect")


def test_a_profile_is_run(engine):
    fake = engine(stream)
    report = bench(f"--profile={DATA / 'profile.yaml'}", target(fake))
    assert report["config"]["load"] == "poisson" and report["config"]["seed"] == 11
    assert len(report["stages"]) == 2
    assert set(report["latency_ms"]["e2e"]) == {"count", "mean", "min", "p50", "p99", "max"}
    prompts = {json.loads(r.body)["messages"][0]["content"] for r in fake.requests}
    assert 8 <= len(prompts) <= 12  # 3 prefixes with 4 questions each
    assert len({" ".join(p.split()[:40]) for p in prompts}) == 3
    assert all(r.header("x-slo-ttft-ms") == ["500"] for r in fake.requests)


def page_blocks(language):
    text = (ROOT / "docs/load-testing.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def test_the_examples_of_the_page(engine, tmp_path):
    async def answer(request, writer):
        if request.target == "/v1/models":
            return response(body=b'{"data": [{"id": "m"}]}')
        return await stream(request, writer)

    fake = engine(answer)
    (tmp_path / "profile.yaml").write_text(*page_blocks("yaml"))
    (tmp_path / "conversation_trace.jsonl").write_text((DATA / "mooncake.jsonl").read_text())
    (tmp_path / "AzureLLMInferenceTrace_conv.csv").write_text((DATA / "azure.csv").read_text())
    blocks = page_blocks("sh")
    assert len(blocks) >= 9
    env = {**os.environ, "PATH": f"{pathlib.Path(binary('llmd')).parent}:{os.environ['PATH']}", "SERVER_PID": str(os.getpid())}
    for block in blocks:
        # The page's runs are longer than a test has time for.
        quick = re.sub(r"(duration[ =])\d+s", r"\g<1>600ms", block.replace("127.0.0.1:8000", fake.address))
        quick = re.sub(r"(warmup|stage-pause|think-time) \S+", r"\1 100ms", quick)
        run = subprocess.run(["bash", "-ec", quick], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
        assert run.returncode == 0 and ", 0 failed" in run.stdout, f"{block}\n{run.stdout}\n{run.stderr}"
    for name in ("report.json", "report.svg", "steps.json", "profile.json"):
        assert (tmp_path / name).stat().st_size > 500, name
    # The page names every member of the report.
    page = (ROOT / "docs/load-testing.md").read_text()
    report = json.loads((tmp_path / "report.json").read_text())
    steps = json.loads((tmp_path / "steps.json").read_text())
    members = [*report, *report["requests"], *report["throughput"], *report["tokens"], *report["goodput"],
               *report["latency_ms"], *report["generator"], *report["series"], *report["series"]["windows"][0],
               *steps["stages"][0]]
    assert [m for m in members if f"`{m}`" not in page] == []


def test_a_real_engine():
    engine = Engine("bench", *kv_pool(4096))
    try:
        engine.wait_http(engine.port, "/health")
        report = bench(f"--target={engine.url}", "--concurrency=2", "--requests=6", "--prompt-tokens=60", "--output-tokens=8",
                       "--turns=2", f"--watch-pid=engine={engine.popen.pid}", timeout=120)
        assert report["requests"]["completed"] == 12 and report["requests"]["failed"] == 0
        assert report["tokens"]["output"] == 12 * 8  # ignore_eos
        assert report["tokens"]["answers_with_usage"] == 12
        assert report["watched"][0]["cpu_s"] > 0.05
        report = bench(f"--target={engine.url}", "--api=completion", "--concurrency=1", "--requests=3", "--prompt-tokens=100",
                       "--output-tokens=2", timeout=120)
        # A word is a token of this vocabulary too.
        assert report["tokens"]["prompt"] == 300
    finally:
        engine.stop()
