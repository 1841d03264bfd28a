"""A small gateway in one process, right enough to pass the cases, that can be made wrong one kind at a time (wrong_gateway.py lists the
kinds). It is there so that each case is seen to fail, and is nothing to be used: slow, and it reads every body whole."""
import asyncio
import collections
import json
import os
import re
import resource
import secrets
import signal
import socket
import sys
import time

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
LINE = re.compile(rb"(" + TOKEN + rb") ([!-~]+) HTTP/(\d)\.(\d)")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*((?:[\t -~\x80-\xff])*?)[ \t]*")
HOST = re.compile(rb"[A-Za-z0-9.:\[\]_-]+")
API = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/rerank", "/v1/score", "/tokenize", "/detokenize")
OWN = ("/health", "/ready", "/metrics", "/v1/models")
HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authorization", "proxy-authenticate", "http2-settings", "expect"}
ROUTING = {"x-gateway-destination-endpoint", "x-prefiller-host-port", "x-prefiller-url", "x-data-parallel-host-port", "x-encoder-hosts-ports", "x-kv-cache-source-host-port"}
TYPES = {400: "invalid_request_error", 404: "not_found_error", 405: "invalid_request_error", 429: "rate_limit_error"}
HEAD_LIMIT = 64 << 10
TRACE = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-9a-f]")


class Refusal(Exception):
    def __init__(self, status, message, close=False, headers=()):
        self.status, self.message, self.close, self.headers = status, message, close, list(headers)


class EngineFailed(Exception):
    pass


class Cut(Exception):
    pass


class Inbox:
    """What a client sends, read ahead so that its leaving is seen."""

    def __init__(self, reader):
        self.reader, self.data, self.ended = reader, bytearray(), asyncio.Event()
        self.more, self.room = asyncio.Event(), asyncio.Event()
        self.task = asyncio.ensure_future(self._pump())

    async def _pump(self):
        try:
            while piece := await self.reader.read(1 << 16):
                self.data += piece
                self.more.set()
                if len(self.data) > 1 << 20:
                    self.room.clear()
                    await self.room.wait()
        except OSError:
            pass
        self.ended.set()
        self.more.set()

    def fill(self):
        """Waits for more than is there now; Cut when none comes."""
        return self._fill(len(self.data))

    async def _fill(self, there):
        while len(self.data) <= there:
            if self.ended.is_set():
                raise Cut
            self.more.clear()
            self.room.set()
            await self.more.wait()

    def take(self, size):
        out = bytes(self.data[:size])
        del self.data[:size]
        self.room.set()
        return out


def fields(lines, error):
    out = []
    for line in lines:
        match = FIELD.fullmatch(line)
        if not match:
            raise error
        out.append((match[1].decode(), match[2].decode("latin-1")))
    return out


def values(headers, name):
    return [v for k, v in headers if k.lower() == name]


def top_level(text):
    """(key, value, begin, end) of each member of a JSON object's text, where it is known to be one."""
    decoder, out = json.JSONDecoder(), []
    at = text.index("{") + 1
    while (match := re.compile(r"[ \t\r\n,]*").match(text, at)) and text[match.end()] != "}":
        key, at = decoder.raw_decode(text, match.end())
        begin = match.end()
        at = re.compile(r"[ \t\r\n]*:[ \t\r\n]*").match(text, at).end()
        value, at = decoder.raw_decode(text, at)
        out.append((key, value, begin, at))
    return out


class Gateway:
    """`wrong` is a set of kinds of wrongness."""

    def __init__(self, options):
        self.o, self.wrong = options, set(filter(None, options.wrong.split(",")))
        self.engines = [("127.0.0.1", p) for p in options.engines]
        self.out_until, self.turn, self.counts, self.first_bytes = collections.defaultdict(float), 0, collections.Counter(), []
        self.draining, self.busy, self.idle, self.in_flight, self.kept = False, 0, set(), 0, []
        self.models = {}

    # Requests

    async def serve(self, reader, writer):
        if "serial" in self.wrong:
            async with self.lock:
                return await self.connection(reader, writer)
        await self.connection(reader, writer)

    lock, total, open, most, probed = asyncio.Lock(), 0, 0, 0, False

    async def connection(self, reader, writer):
        self.total += 1
        if "few-connections" in self.wrong and self.total > 60:
            return writer.close()
        if self.open >= self.most:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return writer.close()
        self.open += 1
        writer.transport.set_write_buffer_limits(64 << 10 if "buffers-slow-readers" not in self.wrong else 1 << 30)
        writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        inbox = Inbox(reader)
        try:
            go_on = True
            while go_on and not self.draining:
                go_on = await self.one(inbox, writer)
                if "closes-always" in self.wrong:
                    break
        except (Cut, OSError, asyncio.TimeoutError):
            pass
        finally:
            self.open -= 1
            inbox.task.cancel()
            if "never-closes" not in self.wrong:
                writer.close()
            if "leaks-descriptors" in self.wrong:
                self.kept.append(os.dup(2))

    async def timed(self, seconds, what):
        if "no-time-limits" in self.wrong:
            seconds = 3600
        return await asyncio.wait_for(what, seconds)

    async def one(self, inbox, writer):
        me = asyncio.current_task()
        self.idle.add(me)
        try:
            while not inbox.data:
                await self.timed(4, inbox.fill())
        finally:
            self.idle.discard(me)
        self.busy += 1
        x = Exchange(self, inbox, writer)
        try:
            return await x.run()
        finally:
            self.busy -= 1
            self.count(x)

    def count(self, x):
        if not x.status:
            return
        if "does-not-count" not in self.wrong and not (x.framing and "does-not-count-framing" in self.wrong):
            self.counts[x.status] += 1
            if "names-in-metrics" in self.wrong:
                self.counts[f"{x.status}\",model=\"{x.model}"] += 1
        if "logs-nothing" in self.wrong or (x.framing and "logs-no-framing" in self.wrong):
            return
        entry = {"msg": "request", "x-request-id": x.id[:256], "path": x.target[:512], "status": x.status}
        if "logs-bodies" in self.wrong:
            entry["body"], entry["auth"] = x.body.decode("latin-1"), str(x.headers)
        if "logs-long" in self.wrong:
            entry["x-request-id"] = x.id
        text = json.dumps(entry)
        if "logs-raw" in self.wrong:
            text = '{"msg":"request","x-request-id":"%s","path":"%s","status":%d}' % (x.id, x.target, x.status)
        if "log-blocks" in self.wrong:
            sys.stdout.write(text + "\n" + " " * 400)
            sys.stdout.flush()
            return
        try:
            os.write(1, text.encode() + b"\n")
        except OSError:
            pass  # nobody reads it

    # Engines

    def order(self):
        self.turn += 1
        at = self.turn % len(self.engines)
        every = self.engines[at:] + self.engines[:at]
        if "one-engine" in self.wrong:
            return self.engines[:1]
        if "no-ejection" in self.wrong:
            return every
        now = time.monotonic()
        well = [e for e in every if self.out_until[e] <= now]
        if "no-panic" in self.wrong:
            return well
        return well + [e for e in every if e not in well]

    async def probe(self):
        """Reads engines' lists of models; an engine that is out comes back when it serves its page."""
        while True:
            for engine in self.engines:
                try:
                    status, _, body = await asyncio.wait_for(self.page(engine, "/v1/models"), 3)
                    self.models[engine] = [m["id"] for m in json.loads(body)["data"]] if status == 200 else []
                    page = await asyncio.wait_for(self.page(engine, "/metrics"), 3)
                    if page[0] == 200 and "ejects-for-ever" not in self.wrong and self.out_until[engine] > 1e17:
                        self.out_until[engine] = time.monotonic() + 1
                except (OSError, ValueError, EngineFailed, asyncio.TimeoutError, asyncio.IncompleteReadError):
                    pass
            self.probed = True
            await asyncio.sleep(0.3)

    async def page(self, engine, path):
        reader, writer = await asyncio.open_connection(*engine)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            headers = fields(head[:-4].split(b"\r\n")[1:], EngineFailed())
            return int(head[9:12]), headers, await reader.readexactly(int(values(headers, "content-length")[0]))
        finally:
            writer.close()

    def failed(self, engine):
        if "user-probes" in self.wrong:
            self.out_until[engine] = time.monotonic() + 0.5
        else:
            self.out_until[engine] = 1e18

    def check_picker(self):
        """All that is asked of one here is to live."""
        if self.o.picker and "ignores-its-picker" not in self.wrong:
            try:
                state = open(f"/proc/{self.o.picker}/stat").read().rsplit(")", 1)[1].split()[0]
            except OSError:
                state = "X"
            if state in "TXZ":
                raise Refusal(503, "the picker does not answer")

    # Pages

    def metrics_page(self):
        lines = ["# TYPE gateway_requests_total counter"]
        lines += [f'gateway_requests_total{{status="{k}"}} {v}' for k, v in self.counts.items()]
        if "no-histogram" not in self.wrong:
            lines += ["# TYPE gateway_first_byte_seconds histogram", f'gateway_first_byte_seconds_bucket{{le="+Inf"}} {len(self.first_bytes)}']
        if "names-engines" in self.wrong:
            lines += [f'gateway_engine{{engine="127.0.0.1:{p}"}} 1' for _, p in self.engines]
        if "breaks-metrics" in self.wrong:
            lines += ["gateway_odd{name=Jos\u00e9} x"]
        return ("\n".join(lines) + "\n").encode()

    async def main(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if "keeps-descriptor-limit" not in self.wrong:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most = (limit - 20) // 2 if limit > 0 else 1 << 20  # the other half is for engines
        if "log-blocks" not in self.wrong:
            os.set_blocking(1, False)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL if "dies-of-its-log" in self.wrong else signal.SIG_IGN)
        if "ignores-sigterm" in self.wrong:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        if not {"dies-at-once", "ignores-sigterm"} & self.wrong:
            loop.add_signal_handler(signal.SIGTERM, self.stop.set)
        prober = asyncio.ensure_future(self.probe())
        if "spins" in self.wrong:
            spinner = asyncio.ensure_future(self.spin())  # noqa: F841
        server = await asyncio.start_server(self.serve, "127.0.0.1", self.o.port, backlog=100)  # asyncio tries that often when descriptors lack
        await self.stop.wait()
        if "serves-while-draining" not in self.wrong:
            server.close()
            self.draining = True
            for task in list(self.idle):
                if "waits-for-idle" not in self.wrong:
                    task.cancel()
        deadline = time.monotonic() + self.o.drain
        while (self.busy or self.idle) and (time.monotonic() < deadline or "drains-for-ever" in self.wrong):
            await asyncio.sleep(0.02)
        prober.cancel()
        os._exit(0)

    async def spin(self):
        while True:
            await asyncio.sleep(0)


from small_exchange import Exchange  # noqa: E402,F401  (needs what is above)
