"""`llmd up`: the whole cluster from one command, its logs, its decisions, and a clean end."""
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest
import requests

from conftest import MODEL, PROMPTS, ROOT, Process, binary, free_port


class Up(Process):
    def __init__(self, tmp, *args):
        self.runtime_dir = str(tmp)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__("up", [binary("llmd"), "up", "--model", str(MODEL), "--port", str(self.port), *args],
                         {"XDG_RUNTIME_DIR": self.runtime_dir})

    def wait_ready(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.popen.poll() is None, self.log()
            match = re.search(r"\| ready in (\d+) ms: (\S+) serves (\S+)", self.log())
            if match:
                self.model = match[3]
                return int(match[1])
            time.sleep(0.05)
        raise AssertionError(self.log())

    def lines(self, name):
        """The JSON log lines of one process."""
        out = []
        for line in self.log().splitlines():
            prefix, _, text = line.partition("| ")
            if prefix.strip() == name and text.startswith("{"):
                out.append(json.loads(text))
        return out

    def explain(self, request_id, *args):
        return subprocess.run([binary("llmd"), "explain", request_id, *args], capture_output=True, text=True,
                              env={**os.environ, "XDG_RUNTIME_DIR": self.runtime_dir})


@pytest.fixture(scope="module", params=["gateway", "epp"])
def up(request, started_module, tmp_path_factory):
    """A cluster whose gateway decides, and one with a picker of its own."""
    own = ["--epp"] if request.param == "epp" else []
    cluster = started_module(Up(tmp_path_factory.mktemp("run"), *own))
    cluster.decider = request.param
    cluster.wait_ready()
    return cluster


def ask(up, prompt, request_id, max_tokens=8):
    reply = requests.post(f"{up.url}/v1/completions", timeout=60, headers={"x-request-id": request_id},
                          json={"model": up.model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_the_first_screen_is_for_people(up):
    first = up.log().split("| ready in")[0].splitlines()
    assert first and all(line.startswith("llmd ") and "{" not in line for line in first), first
    assert '"level":"error"' not in up.log()


def listening(pid):
    """The addresses a process and its children listen on."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        sockets = {os.readlink(f) for f in pathlib.Path(f"/proc/{child}/fd").iterdir() if f.is_symlink() and os.path.lexists(f)}
        for family in ("tcp", "tcp6"):
            for row in pathlib.Path(f"/proc/{child}/net/{family}").read_text().splitlines()[1:]:
                fields = row.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                    yield fields[1].split(":")[0]


def test_every_port_is_on_the_loopback(up):
    addresses = set(listening(up.popen.pid))
    assert addresses and addresses <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def test_the_gateways_front_page_says_what_it_is(up):
    page = requests.get(f"{up.url}/", timeout=5)
    assert page.status_code == 200 and page.json()["name"] == "llmd-gateway" and page.json()["version"]
    for link in page.json()["links"].values():
        assert requests.get(up.url + link, timeout=20).status_code in (200, 400, 404, 405), link


def test_every_try_of_a_request_id_is_explained(up):
    for _ in range(2):
        ask(up, "A short prompt.", "up-again")
    text = up.explain("up-again").stdout
    assert text.startswith("request up-again was tried 2 times\n") and "\ntry 2 of 2, request up-again" in text
    decision = json.loads(up.explain("up-again", "--json").stdout)
    assert [d["request_id"] for d in decision["earlier"]] == ["up-again"] and decision["primary"] >= 0


def test_the_log_explains_as_well(up, tmp_path):
    ask(up, "The harbours that nobody else has asked about. " * 20, "up-from-log")
    where = json.loads(up.explain("up-from-log", "--json").stdout)
    endpoint = where["endpoints"][where["primary"]]
    deadline = time.monotonic() + 5
    text = ""
    while time.monotonic() < deadline and "completion tokens" not in text:
        (tmp_path / "up.log").write_text(up.log())
        text = up.explain("up-from-log", "--log", str(tmp_path / "up.log")).stdout
    assert f"-> {endpoint}, answered 200, " in text
    assert "pass 2" in text and "prefix-cache-scorer" in text and "<- chosen" in text


def test_a_long_prompt_is_prefilled_elsewhere_and_explained(up):
    ask(up, PROMPTS["PROMPT_1"], "up-1")
    decision = json.loads(up.explain("up-1", "--json").stdout)
    assert decision["decision_type"] == "prefill-decode"
    assert [p["profile"] for p in decision["profiles"]] == ["decode", "prefill"]
    text = up.explain("up-1").stdout
    assert "prefix-cache-scorer" in text and decision["endpoints"][decision["primary"]] in text


def test_a_shared_prefix_goes_to_the_engine_that_has_it(up):
    ask(up, PROMPTS["PROMPT_1"], "up-2a")
    ask(up, PROMPTS["PROMPT_2"], "up-2b")
    first, second = (json.loads(up.explain(r, "--json").stdout) for r in ("up-2a", "up-2b"))
    assert first["addresses"][first["primary"]] == second["addresses"][second["primary"]]
    decode = second["profiles"][0]
    prefix = next(s for s in decode["scores"] if s["scorer"] == "prefix-cache-scorer")
    assert max(prefix["raw"]) > 0


DECISION_MESSAGES = [
    "LLM request assembled", "Scheduling a request", "Before running filter plugins", "Running filter plugin",
    "Filter plugin result", "After running filter plugins", "Before running scorer plugins", "Running scorer",
    "After running scorer", "After running scorer plugins", "Before running picker plugin",
    "Selecting a pod with the max score from", "After running picker plugin", "Running post-schedule plugin",
    "PostResponse called", "Request handled", "LLM response assembled", "Response generated"]


def test_the_log_of_who_decides_tells_the_documented_story_per_request(up):
    ask(up, "A short prompt.", "up-log")
    deadline = time.monotonic() + 5
    messages = []
    while time.monotonic() < deadline and not any(m.startswith("Response generated") for m in messages):
        messages = [l["msg"] for l in up.lines(up.decider) if l.get("x-request-id") == "up-log"]
    at = 0
    for wanted in DECISION_MESSAGES:
        found = next((i for i in range(at, len(messages)) if messages[i].startswith(wanted)), None)
        assert found is not None, f"{wanted!r} is missing after {messages[:at]}; all: {messages}"
        at = found


def test_every_log_line_is_one_line_behind_its_process(up):
    for line in up.log().splitlines():
        assert re.match(r"[a-z0-9-]+\s*\| ", line), line


def test_plugins_prints_the_page_of_the_docs():
    page = subprocess.run([binary("llmd"), "plugins", "--markdown"], capture_output=True, text=True, check=True).stdout
    assert page == (ROOT / "docs/plugins.md").read_text()
    assert "prefix-cache-scorer" in subprocess.run([binary("llmd"), "plugins"], capture_output=True, text=True).stdout


def test_explain_of_an_unknown_request_says_so(up):
    result = up.explain("never-seen")
    assert result.returncode != 0 and "never-seen" in result.stderr


def test_a_taken_gateway_port_is_named(up, tmp_path):
    result = subprocess.run([binary("llmd"), "up", "--model", str(MODEL), "--port", str(up.port), "--name", "second"],
                            capture_output=True, text=True, timeout=30, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)})
    assert result.returncode != 0 and str(up.port) in result.stderr


def test_a_folder_that_others_may_write_is_refused(tmp_path):
    (tmp_path / "llmd").mkdir()
    (tmp_path / "llmd").chmod(0o777)
    result = subprocess.run([binary("llmd"), "up", "--model", str(MODEL), "--port", "0"], capture_output=True, text=True,
                            timeout=30, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)})
    assert result.returncode != 0 and "can be written by other users" in result.stderr


def test_an_unknown_process_or_command_is_answered_with_the_nearest():
    run = lambda *argv: subprocess.run([binary("llmd"), *argv], capture_output=True, text=True, timeout=30)  # noqa: E731
    only = run("up", "--model", str(MODEL), "--only", "decodde")
    assert only.returncode != 0 and "did you mean 'decode'" in only.stderr
    command = run("plugin")
    assert command.returncode == 2 and "did you mean 'plugins'" in command.stderr
    alone = run()
    assert alone.returncode == 0 and alone.stdout.startswith("usage: llmd COMMAND") and not alone.stderr


def test_what_the_processes_said_is_shown_when_the_start_fails(tmp_path):
    broken = tmp_path / "model.gguf"
    broken.write_bytes(b"GGUF but no model")
    result = subprocess.run([binary("llmd"), "up", "--model", str(broken), "--port", "0"], capture_output=True, text=True,
                            timeout=60, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)})
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("llmd            | starting 3 engines, 2 sidecars")
    assert any(re.match(r"(prefill|decode)-\d +\| ", line) for line in lines), result.stdout


def test_only_shows_the_chosen_roles_and_ctrl_c_leaves_nothing_behind(started, tmp_path):
    cluster = started(Up(tmp_path, "--only", "decode,sidecar"))
    cluster.wait_ready()
    run = json.loads((tmp_path / "llmd/default/run.json").read_text())
    requests.post(f"{cluster.url}/v1/completions", timeout=60,
                  json={"model": cluster.model, "prompt": "Hello", "max_tokens": 4})
    names = {line.partition("| ")[0].strip() for line in cluster.log().splitlines()}
    assert names <= {"llmd", "decode-0", "decode-1", "decode-0-sidecar", "decode-1-sidecar"}
    cluster.popen.send_signal(signal.SIGINT)
    assert cluster.popen.wait(20) == 0
    for process in run["processes"]:
        with pytest.raises(requests.RequestException):
            requests.get(f"http://127.0.0.1:{process['port']}/health", timeout=1)
    assert not (tmp_path / "llmd/default/run.json").exists()


def test_down_stops_a_cluster_in_the_background(started, tmp_path):
    cluster = started(Up(tmp_path, "--name", "back"))
    cluster.wait_ready()
    down = lambda: subprocess.run([binary("llmd"), "down", "--name", "back"], capture_output=True, text=True, timeout=60,  # noqa: E731
                                  env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)})
    first = down()
    assert first.returncode == 0, first.stderr
    assert cluster.popen.wait(5) == 0
    again = down()
    assert again.returncode != 0 and "no cluster called 'back'" in again.stderr


def test_a_killed_parent_takes_its_children_along(started, tmp_path):
    cluster = started(Up(tmp_path))
    cluster.wait_ready()
    run = json.loads((tmp_path / "llmd/default/run.json").read_text())
    cluster.kill()
    time.sleep(0.5)
    for process in run["processes"]:
        with pytest.raises(requests.RequestException):
            requests.get(f"http://127.0.0.1:{process['port']}/health", timeout=1)
