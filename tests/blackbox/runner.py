"""Runs cases against a gateway, many at a time: most of what they do is wait."""
import concurrent.futures
import contextlib
import json
import time

import wire
from engines import Script, answer

WORKERS, OWN_WORKERS = 8, 3


class Skip(Exception):
    """The case does not apply to this gateway; says why."""


class Bench:
    """What a case works with: a gateway, its engines, and what it opened."""

    def __init__(self, gateway):
        self.gateway, self.farm = gateway, gateway.farm
        self.stack = contextlib.ExitStack()
        self.owned = []

    def script(self, run=None, on_head=None):
        return self.farm.add(Script(run, on_head))

    def says(self, data):
        """A script that answers with these bytes."""
        return self.script(lambda connection, request: connection.send(data))

    def client(self, **options):
        client = wire.Client(self.gateway.host, self.gateway.port, **options)
        self.stack.callback(client.close)
        return client

    @staticmethod
    def body(script, **members):
        return json.dumps({"model": "m", "user": script.token, "messages": [{"role": "user", "content": "hello"}], **members}).encode()

    def send(self, script, body=None, path="/v1/chat/completions", headers=(), client=None, **members):
        """Sends a POST; returns the client."""
        client = client or self.client()
        return client.send(wire.request("POST", path, self.body(script, **members) if body is None else body, headers))

    def post(self, script, body=None, path="/v1/chat/completions", headers=(), client=None, **members):
        return self.send(script, body, path, headers, client, **members).read()

    def get(self, path, method="GET", headers=(), client=None):
        return (client or self.client()).send(wire.request(method, path, None, headers)).read(method)

    def exchange(self, data, method="POST", **options):
        return self.client(**options).send(data, quiet=True).read(method)

    def well(self):
        """The gateway serves; used after an attack."""
        script = self.script()
        r = self.post(script)
        assert r.status == 200 and r.clean, r
        return r

    def own(self, engines=2, **options):
        """A bench with a gateway of the case's own; both end with the case."""
        bench = Bench(self.stack.enter_context(self.gateway.another(engines, **options)))
        self.stack.callback(bench.stack.close)
        self.owned.append(bench)
        return bench

    def ended(self):
        """Says which gateway's process has ended, "" when none has."""
        for bench in [self, *self.owned]:
            if bench.gateway.has_process and (code := bench.gateway.process.poll()) is not None:
                return f"the gateway's process has ended ({code}): "
        return ""


def settle(condition, timeout=5, what="it did not happen"):
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.01)
    return value


def stays(condition, seconds, what):
    """The condition holds all the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), what
        time.sleep(0.02)


def error_object(r, *statuses):
    """An answer of the gateway's own: an error object with one of these statuses."""
    assert r.status in statuses, f"expected {statuses}: {r}"
    assert (r.header("content-type") or "").partition(";")[0].strip() == "application/json", r
    error = r.json().get("error") if isinstance(r.json(), dict) else None
    assert isinstance(error, dict) and {"message", "type", "param", "code"} <= set(error), r
    assert isinstance(error["message"], str) and error["message"] and isinstance(error["type"], str) and r.clean, r
    return error


def attempt(case, gateway):
    """None when it holds, else what went wrong."""
    bench = Bench(gateway)
    try:
        if case.process and not gateway.has_process:
            raise Skip("needs llmd-gateway's process")
        case.run(bench)
        return None
    except Skip as e:
        return e
    except AssertionError as e:
        return bench.ended() + (str(e) or "an assertion failed")
    except Exception as e:  # whatever a broken peer makes of the case is the peer's failure
        return f"{bench.ended()}{type(e).__name__}: {e}"
    finally:
        try:
            bench.stack.close()
        except OSError:
            pass  # what the case broke itself


def run(cases, gateway, workers=WORKERS, own_workers=OWN_WORKERS):
    """{name: None, a text or a Skip}; those that start gateways of their own come second, few at a time."""
    out = {}
    for own, count in ((False, workers), (True, own_workers)):
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            some = [c for c in cases if c.own == own]
            out.update(zip([c.name for c in some], pool.map(lambda c: attempt(c, gateway), some)))
    return out


__all__ = ["Bench", "Skip", "answer", "attempt", "error_object", "run", "settle", "stays"]
