"""Chaos: a short one runs here, LLMD_CHAOS_SECONDS=120 or 600 makes it a long one (or run chaos.py by hand). Its own checks can
fail, and single troubles are told apart here by tests of their own."""
import asyncio
import concurrent.futures
import os
import signal
import subprocess
import sys
import time

import pytest
import requests

import chaos
import chaos_clients
from chaos_clients import BROKEN, LEFT, NO_ANSWER, OK, REFUSED, WRONG, Clients, End, judge
from conftest import ROOT, Gateway, Picker, Process, Sidecar, build_dir, endpoints_yaml, free_port, picker_config
from fake_engine import FakeEngine, response

SECONDS = float(os.environ.get("LLMD_CHAOS_SECONDS", 20))

RUNS = {
    "in process": ["--loop-threads", "4"],
    "with a picker": ["--epp"],
    "picker closes": ["--epp", "--picker-chaos", "--failure-mode", "close"],
    "picker opens": ["--epp", "--picker-chaos", "--failure-mode", "open"],
    "long stops": ["--kinds", "stop", "--longest-stop", "14", "--patience", "5"],
    "real engines": ["--real", "--kinds", "kill,stop", "--clients", "2", "--patience", "40"],
}
TOGETHER = list(RUNS)[:-1]  # they wait for most of their time; real engines need the machine


@pytest.fixture(scope="module")
def runs():
    """finished(name) gives the exit code and the output of a run. Those of TOGETHER run at one time."""
    children = {}

    def begin(name):
        argv = [sys.executable, str(ROOT / "tests/e2e/chaos.py"), str(build_dir()), "--seconds", str(SECONDS), *RUNS[name]]
        children[name] = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def finished(name):
        for other in TOGETHER if name in TOGETHER else [name]:
            if other not in children:
                begin(other)
        text, _ = children[name].communicate(timeout=SECONDS + 200)
        print(text)
        return children[name].returncode, text
    yield finished
    for child in children.values():
        if child.poll() is None:
            child.send_signal(signal.SIGINT)  # it ends its own children
            child.wait(60)


@pytest.mark.parametrize("name", list(RUNS))
def test_chaos(runs, name):
    """Nothing lost, wrong or left. While the picker is away: `close` refuses with 503 at once, `open` refuses nothing."""
    code, text = runs(name)
    assert code == 0 and "chaos: 0 violations" in text, text


# One trouble at a time.

def gateway_over(start, tmp, endpoints, *args):
    path = tmp / "endpoints.yaml"
    path.write_text(endpoints_yaml(endpoints))
    config = tmp / "gateway.yaml"
    config.write_text(picker_config(path, disaggregate=False))
    gateway = start(Gateway("--config-file", str(config), *args))
    return gateway.wait_http(gateway.port, "/ready")


def ask(url, number, timeout=20):
    return requests.post(f"{url}/v1/completions", json={"model": "m", "prompt": f"{number} {time.monotonic_ns()}"}, timeout=timeout)


async def well(request, writer):
    if request.method == "GET":
        return response(body=b"vllm:num_requests_waiting 0.0\n", content_type="text/plain")
    return response(body=b'{"choices":[]}')


@pytest.fixture
def engine():
    made = []

    def make(answer):
        made.append(FakeEngine(answer))
        return made[-1]
    yield make
    for e in made:
        e.close()


def test_a_sidecar_whose_engine_goes_does_not_cost_a_request(started, tmp_path, engine):
    goes = FakeEngine(well)
    sidecars = [started(Sidecar(f"sidecar-{i}", e)) for i, e in enumerate([engine(well), goes])]
    for sidecar in sidecars:
        sidecar.wait_http(sidecar.port, "/metrics")
    gateway = gateway_over(started, tmp_path, [(f"s{i}", s.port, "decode") for i, s in enumerate(sidecars)])
    assert wait_for(lambda: ask(gateway.url, 0).status_code == 200 and goes.posts()), "both engines get requests"
    goes.close()
    assert [ask(gateway.url, i).status_code for i in range(1, 21)] == [200] * 20


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_an_engine_whose_page_is_silent_loses_its_requests_without_a_byte(started, tmp_path, engine):
    """A stopped engine accepts connections and answers nothing. Half of the requests would go there."""
    port = free_port()
    stopped = started(Process("engine", [sys.executable, str(ROOT / "tests/e2e/chaos_engine.py"), str(port)]))
    stopped.wait_http(port, "/metrics")
    gateway = gateway_over(started, tmp_path, [("stopped", port, "decode"), ("well", engine(well).port, "decode")])
    stopped.popen.send_signal(signal.SIGSTOP)
    try:
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            replies = list(pool.map(lambda i: ask(gateway.url, i, timeout=10).status_code, range(16)))
    finally:
        stopped.popen.send_signal(signal.SIGCONT)
    assert replies == [200] * 16


def asking_gateway(start, tmp, endpoints):
    picker = start(Picker(tmp, endpoints))
    picker.wait_http(picker.admin_port, "/readyz")
    gateway = start(Gateway("--epp", f"127.0.0.1:{picker.grpc_port}"))
    return gateway.wait_http(gateway.port, "/ready"), picker


def test_with_a_picker_an_endpoint_that_goes_is_passed_over(started, tmp_path, engine):
    goes = FakeEngine(well)
    gateway, _ = asking_gateway(started, tmp_path, [("goes", goes.port, "decode"), ("well", engine(well).port, "decode")])
    assert wait_for(lambda: ask(gateway.url, 0).status_code == 200 and goes.posts()), "both engines get requests"
    goes.close()
    assert [ask(gateway.url, i).status_code for i in range(1, 21)] == [200] * 20


def test_a_picker_that_dies_with_an_answers_bytes_cuts_the_answer(started, tmp_path, engine):
    killed = []

    async def slow(request, writer):
        if request.method == "GET":
            return await well(request, writer)
        body = b'{"choices":[{"text":"' + b"x" * 1000 + b'"}]}'
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:900])
        await writer.drain()
        await asyncio.sleep(0.3)
        await asyncio.to_thread(killed[0].kill)
        writer.write(body[900:])
        return b""
    gateway, picker = asking_gateway(started, tmp_path, [("e0", engine(slow).port, "decode")])
    killed.append(picker)
    try:
        reply = ask(gateway.url, 0)
    except requests.RequestException:
        return  # cut, as it should be
    assert reply.status_code >= 500 or len(reply.json()["choices"][0]["text"]) == 1000, (reply.status_code, reply.content[:80])


def test_a_stopped_picker_means_503_within_the_deadline(started, tmp_path, engine):
    gateway, picker = asking_gateway(started, tmp_path, [("e0", engine(well).port, "decode")])
    assert ask(gateway.url, 0).status_code == 200
    picker.popen.send_signal(signal.SIGSTOP)
    try:
        assert ask(gateway.url, 1, timeout=5).status_code == 503
    finally:
        picker.popen.send_signal(signal.SIGCONT)


# The checks themselves.

def end_of(what, **fields):
    end = End("id1-0", 10.0)
    end.what, end.ended = what, 11.0
    end.__dict__.update(fields)
    return end


@pytest.mark.parametrize("end, complaint", [
    (end_of(OK), None), (end_of(LEFT), None), (end_of(BROKEN, port="7"), None), (end_of(WRONG), "wrong"),
    (end_of(BROKEN, port="9"), "broken on the engine that was well"), (end_of(REFUSED, status=503), "lost"),
    (end_of(NO_ANSWER), "lost")])
def test_what_is_lost(end, complaint):
    _, violations = judge([end], "9")
    assert len(violations) == (complaint is not None) and all(v.startswith(complaint) for v in violations)


def test_only_a_503_is_excused_while_the_picker_is_away():
    def excused(_):
        return True
    assert judge([end_of(REFUSED, status=503)], "9", excused)[1] == []
    assert len(judge([end_of(REFUSED, status=502)], "9", excused)[1]) == 1
    assert len(judge([end_of(NO_ANSWER)], "9", excused)[1]) == 1, "nothing may hang"


def test_the_picker_is_away_from_its_kill_until_shortly_after_it_is_back():
    trouble = chaos.Trouble(1, [], 1, (1, 1))
    trouble.spans = [(20.0, 25.0)]
    assert not trouble.excused(end_of(REFUSED, begun=10.0, ended=19.0))
    assert trouble.excused(end_of(REFUSED, begun=10.0, ended=20.5)) and trouble.excused(end_of(REFUSED, begun=26.0, ended=26.1))
    assert not trouble.excused(end_of(REFUSED, begun=27.0, ended=27.1))


def test_growth_counts_in_the_second_half_only():
    growth = chaos.Growth("gateway", type("C", (), {"starts": 1}))
    growth.samples = [(t, 20.0 + min(t, 50)) for t in range(100)]
    assert growth.violations() == []
    growth.samples = [(t, 20.0 + t) for t in range(100)]
    assert len(growth.violations()) == 1


def test_without_a_gateway_requests_are_lost_and_streams_break(started):
    """The engine alone: half of its POSTs are reset, and the SDK raises for each."""
    port = free_port()
    engine = started(Process("engine", [sys.executable, str(ROOT / "tests/e2e/chaos_engine.py"), str(port), "--reset", "0.5"]))
    engine.wait_http(port, "/metrics")
    clients = Clients(f"http://127.0.0.1:{port}", 8, 1)
    counts, deadline = {}, time.monotonic() + 60
    while not (counts.get(OK) and counts.get("lost") and counts.get(BROKEN)):
        assert time.monotonic() < deadline, counts
        asyncio.run(clients.run(1))
        counts, violations = judge(clients.ends, "0")
    assert counts[WRONG] == 0
    assert len(violations) == counts["lost"]


@pytest.mark.parametrize("text, finish, what", [("p" + chaos_clients.TAIL, "stop", OK), ("p" + chaos_clients.TAIL, None, WRONG),
                                                ("p 1 3", "stop", WRONG), ("q" + chaos_clients.TAIL, "stop", WRONG)])
def test_a_stream_is_whole_or_wrong(text, finish, what):
    end = End("id1-0", 0.0)
    Clients("", 1, 1)._whole(text, "p" + chaos_clients.TAIL, finish, end)
    assert end.what == what
