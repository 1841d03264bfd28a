"""llmd-sidecar between scripted engines: the process, the usual answers, and the fixture that ends them all."""
import asyncio
import http.client
import json
import os
import signal
import subprocess
import threading
import time

import pytest
from conftest import binary
from fake_engine import FakeEngine, response


class Sidecar:
    """In clear text, or with `tls`, the context of the clients, over TLS."""

    def __init__(self, engine_port, *flags, wait=True, tls=None, env=None):
        self.lines, self.tls = [], tls
        self.process = subprocess.Popen(
            [binary("llmd-sidecar"), "--host=127.0.0.1", "--port=0", f"--model-server-port={engine_port}",
             *(() if tls else ("--secure-proxy=false",)), *flags],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(env or {})})
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        if wait:
            self.port = self.wait_for("starting")["port"]

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line) if line.startswith("{") else {"msg": line})

    def logged(self, msg):
        return [line for line in list(self.lines) if line["msg"] == msg]

    def wait_for(self, msg, count=1, seconds=10):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.logged(msg)
            if len(found) >= count:
                return found[count - 1]
            time.sleep(0.01)
        raise AssertionError(f"no line {msg!r} in {list(self.lines)}")

    def connect(self):
        if self.tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=self.tls)

    def post(self, path, body, headers=None):
        connection = self.connect()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, data, {"Content-Type": "application/json", **(headers or {})})
        reply = connection.getresponse()
        reply.data = reply.read()
        connection.close()
        return reply

    def get(self, path):
        connection = self.connect()
        connection.request("GET", path)
        reply = connection.getresponse()
        reply.data = reply.read()
        connection.close()
        return reply

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self.thread.join(5)
        return code


PARAMS = ('{"do_remote_prefill":true,"remote_block_ids":[[3,4]],"remote_engine_id":"e-1","remote_host":"127.0.0.1",'
          '"remote_port":5557,"remote_request_id":"r-1","big":18446744073709551615,"one":1.0,"html":"<a&b>","huge":1e400}')


def prefill_reply(cached=32):
    return response(body=(f'{{"id":"p","usage":{{"prompt_tokens_details":{{"cached_tokens":{cached}}}}},'
                          f'"kv_transfer_params":{PARAMS}}}').encode())


async def answer_prefill(request, writer):
    return prefill_reply()


async def answer_decode(request, writer):
    if request.method == "GET":
        return response(body=b'{"engine":"decode"}')
    return response(body=b'{"id":"d","choices":[{"text":"hi"}]}')


class TwoEvents:
    """An engine whose second event waits until the first was read at the other end."""

    def __init__(self):
        self.release = threading.Event()

    async def answer(self, request, writer):
        if request.method == "GET":
            return response()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"b\r\ndata: one\n\n\r\n")
        await writer.drain()
        while not self.release.is_set():
            await asyncio.sleep(0.005)
        return b"b\r\ndata: two\n\n\r\n0\r\n\r\n"

    def check(self, sidecar, prefiller):
        connection = sidecar.connect()
        connection.request("POST", "/v1/completions", b'{"stream":true}', {"x-prefiller-host-port": prefiller.address})
        reply = connection.getresponse()
        assert reply.readline() == b"data: one\n"
        self.release.set()
        assert reply.read() == b"\ndata: two\n\n"


@pytest.fixture
def make():
    made = []

    def engine(answer, tls=None):
        made.append(FakeEngine(answer, tls))
        return made[-1]

    def sidecar(engine_port, *flags, **kw):
        made.append(Sidecar(engine_port, *flags, **kw))
        return made[-1]

    engine.sidecar = sidecar
    yield engine
    for thing in reversed(made):
        thing.stop() if isinstance(thing, Sidecar) and thing.process.poll() is None else getattr(thing, "close", lambda: 0)()
