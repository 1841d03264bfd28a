"""One request through the small gateway: read, judged, sent to an engine, its answer relayed."""
import asyncio
import json
import re
import secrets
import time

from small_gateway import (API, HEAD_LIMIT, HOP, HOST, LINE, OWN, ROUTING, TRACE, TYPES, Cut, EngineFailed, Refusal, fields, top_level, values)

TRICKS = re.compile(r"\.\.|%2e|%2f|%5c|%00|%25|%c0|\\|//|;|#|%(?![0-9a-f]{2})", re.I)


class Exchange:
    def __init__(self, gateway, inbox, writer):
        self.g, self.inbox, self.writer, self.wrong = gateway, inbox, writer, gateway.wrong
        self.status, self.id, self.target, self.body, self.model, self.headers = 0, "", "", b"", "", []
        self.close, self.minor, self.method, self.framing, self.reserved = False, 1, "GET", True, 0

    async def run(self):
        """True when the connection goes on."""
        try:
            await self.read()
            self.framing = False
            await self.route()
        except Refusal as r:
            await self.refuse(r)
        except asyncio.TimeoutError:
            await self.refuse(Refusal(408, "too slow", True))
        finally:
            self.g.in_flight -= self.reserved
        return not self.close

    async def refuse(self, r):
        self.close = self.close or r.close
        status = 200 if "200-for-refusals" in self.wrong else 400 if "400-for-all" in self.wrong else r.status
        theirs = self.target.startswith("/v1/messages") and "openais-errors" not in self.wrong
        body = json.dumps({**({"type": "error"} if theirs else {}), "error": {"message": r.message, "type": TYPES.get(status, "server_error") + ("_own" if self.framing and "types-by-layer" in self.wrong else ""),
                                     "param": None, "code": status}}).encode()
        content = "application/json"
        if "html-errors" in self.wrong:
            body, content = b"<html>no</html>", "text/html"
        if "close-after-refusal" in self.wrong:
            self.close = True
        if "never-closes-framing" in self.wrong and r.close:
            self.close = False
        headers = r.headers if "no-allow" not in self.wrong else []
        await self.answer(status, content, body, headers)

    async def answer(self, status, content, body, headers=()):
        self.status = status
        lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content}", f"Content-Length: {len(body)}", *(f"{k}: {v}" for k, v in headers)]
        if "no-length-for-head" in self.wrong and self.method == "HEAD":
            del lines[2]
        if "no-ids-here" not in self.wrong and not (self.framing and "no-ids-for-framing" in self.wrong):
            self.id = self.id or secrets.token_hex(16)
            lines.append(f"x-request-id: {self.id if self.keeps_id() else secrets.token_hex(8)}")
        await self.send_head(lines, body if self.method != "HEAD" or "body-for-head" in self.wrong else b"")

    def keeps_id(self):
        return "new-ids" not in self.wrong

    async def send_head(self, lines, body=b"", length=True):
        if self.minor == 0 and not self.keep_alive_asked:
            self.close = True
        if "ignores-close" in self.wrong and not self.framing:
            self.close = False
        elif self.close:
            lines.append("Connection: close")
        elif self.minor == 0:
            lines.append("Connection: keep-alive")
        self.writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        await self.writer.drain()

    keep_alive_asked = False

    # Reading

    async def read(self):
        raw = await self.g.timed(3, self.read_head())
        lines = raw.split(b"\r\n")
        lax = "lax-parser" in self.wrong
        match = LINE.fullmatch(lines[0])
        if not match and lax:
            parts = lines[0].split()
            method, target = (parts + [b"/v1/models", b"/v1/models"])[:2]
            self.method, self.target = method.decode("latin-1"), target.decode("latin-1")
            if not self.target.startswith("/"):
                self.target = "/v1/models"
        elif not match or (match[3], match[4]) not in ((b"1", b"0"), (b"1", b"1")):
            raise Refusal(400 if not match else 505, "malformed request line", True)
        else:
            self.method, self.target, self.minor = match[1].decode(), match[2].decode(), int(match[4])
        if lax:
            self.headers = [(k.strip().decode("latin-1"), v.strip().decode("latin-1")) for k, _, v in (line.partition(b":") for line in lines[1:])]
        else:
            self.headers = fields(lines[1:], Refusal(400, "malformed header", True))
        if len(self.headers) > 200 and "no-head-limit" not in self.wrong:
            raise Refusal(431, "too many headers", True)
        given = values(self.headers, "x-request-id")
        if given:
            self.id = given[0]
        if "forgets-given-ids" in self.wrong or (len(self.id) > 1000 and "refuses-long-ids" in self.wrong):
            self.id = ""
        connection = ",".join(values(self.headers, "connection")).lower()
        self.keep_alive_asked = "keep-alive" in connection
        self.close = "close" in [t.strip() for t in connection.split(",")]
        hosts = values(self.headers, "host")
        if not lax and "lax-host" not in self.wrong and ((self.minor == 1 and len(hosts) != 1) or any(not HOST.fullmatch(h.encode("latin-1")) for h in hosts)):
            raise Refusal(400, "Host", True)
        if "upgrades" in self.wrong and values(self.headers, "upgrade"):
            self.close = True
        await self.read_body()

    async def read_head(self):
        if "chokes-on-empty-lines" in self.wrong and self.inbox.data[:2] == b"\r\n":
            self.close = True
            raise Cut
        while self.inbox.data[:2] == b"\r\n":
            self.inbox.take(2)
        while (at := self.inbox.data.find(b"\r\n\r\n")) < 0:
            if len(self.inbox.data) > HEAD_LIMIT and "no-head-limit" not in self.wrong:
                await self.drop_rest()
                raise Refusal(431, "head too large", True)
            await self.inbox.fill()
            while self.inbox.data[:2] == b"\r\n":
                self.inbox.take(2)
        if at > HEAD_LIMIT and "no-head-limit" not in self.wrong:
            raise Refusal(431, "head too large", True)
        return self.inbox.take(at + 4)[:-4]

    async def drop_rest(self):
        """What comes yet, for a moment, so that the answer is not lost to a reset."""
        try:
            async def drop():
                while True:
                    self.inbox.take(len(self.inbox.data))
                    await self.inbox.fill()
            await asyncio.wait_for(drop(), 0.3)
        except (asyncio.TimeoutError, Cut):
            pass

    async def read_body(self):
        codings, lengths = values(self.headers, "transfer-encoding"), values(self.headers, "content-length")
        lax = bool({"lax-framing", "lax-parser"} & self.wrong)
        if codings and not lax:
            if lengths:
                raise Refusal(400, "both lengths", True)
            if [c.lower() for c in codings] != ["chunked"]:
                raise Refusal(501, "transfer coding", True)
        elif lengths and not lax and (len(set(lengths)) > 1 or not re.fullmatch(r"[0-9]{1,18}", lengths[0])):
            raise Refusal(400, "malformed length", True)
        if "ignores-get-bodies" in self.wrong and self.method == "GET":
            return
        if lax and lengths:
            found = re.search(r"[0-9]+", lengths[0])
            length = int(found.group()) if found and int(found.group()) < 1 << 20 else len(self.inbox.data)
        else:
            length = int(lengths[0]) if lengths else 0
        limit = 1 << 60 if "no-body-limit" in self.wrong else self.g.o.max_body
        if length > limit:
            raise Refusal(413, "body too large", True)
        if not codings and "unbounded-bodies" not in self.wrong:
            self.reserved = length
            self.g.in_flight += length
            if self.g.in_flight > 100 << 20:
                raise Refusal(503, "too much in flight", True)
        if "100-continue" in ",".join(values(self.headers, "expect")).lower() and "no-continue" not in self.wrong:
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        async def whole():
            if codings and "no-chunked" not in self.wrong:
                self.body = await self.chunks(limit)
            else:
                while len(self.inbox.data) < length:
                    if self.inbox.ended.is_set() and "passes-cut-uploads" in self.wrong:
                        break
                    await self.more_body()
                self.body = self.inbox.take(length)
        await self.g.timed(8 if length > 1 << 20 or codings else 3, whole())
        if "swallows-the-next" in self.wrong:
            self.body += self.inbox.take(len(self.inbox.data))

    async def more_body(self):
        if "passes-cut-uploads" in self.wrong:
            try:
                await self.inbox.fill()
            except Cut:
                return
        else:
            await self.inbox.fill()

    async def line(self):
        while (at := self.inbox.data.find(b"\r\n")) < 0:
            if len(self.inbox.data) > 16 << 10:
                raise Refusal(400, "chunk line", True)
            await self.inbox.fill()
        if at > 16 << 10:
            raise Refusal(400, "chunk line", True)
        return self.inbox.take(at + 2)[:-2]

    async def chunks(self, limit):
        out, lax = b"", "lax-chunks" in self.wrong
        while True:
            try:
                size = (await self.line()).split(b";")[0]
                if not re.fullmatch(rb"[0-9a-fA-F]{1,15}", size):
                    if lax:
                        return out
                    raise Refusal(400, "chunk size", True)
                size = int(size, 16)
                if len(out) + size > limit:
                    await self.drop_rest()
                    raise Refusal(413, "body too large", True)
                if size == 0:
                    while trailer := await self.line():
                        if "passes-trailers" in self.wrong:
                            self.headers.append(tuple(trailer.decode("latin-1").split(": ", 1)))
                    return out
                while len(self.inbox.data) < size + 2:
                    await self.inbox.fill()
            except Cut:
                if "passes-cut-uploads" in self.wrong:
                    return out
                raise
            out += self.inbox.take(size)
            if self.inbox.take(2) != b"\r\n" and not lax:
                raise Refusal(400, "chunk end", True)

    # Judging

    async def route(self):
        g = self.g
        if "answers-200" in self.wrong:
            return await self.answer(200, "application/json", b'{"well":true}')
        if "calls-the-host" in self.wrong and self.target.lower().startswith(("http://", "https://")):
            host = re.match(r"\w+://([^/]*)", self.target).group(1)
            name, _, port = host.partition(":")
            _, w = await asyncio.open_connection("127.0.0.1" if port else name, int(port or 80))
            w.close()
        if "odd-targets-are-500" in self.wrong and not self.target.startswith("/"):
            raise Refusal(500, "internal error")
        absolute = re.fullmatch(r"(?i)https?://[A-Za-z0-9.:\[\]-]+(/.*)", self.target)
        if absolute:
            self.target = absolute[1]
        path = self.target.partition("?")[0]
        if not path.startswith("/"):
            raise Refusal(400, "target")
        if TRICKS.search(path) and "lax-paths" not in self.wrong:
            raise Refusal(400, "path")
        if "asks-engines-for-all" in self.wrong or ("lax-paths" in self.wrong and TRICKS.search(path)):
            return await self.forward(self.body)
        if path not in API + OWN and not re.fullmatch(r"/v1/models/[^/]+", path):
            if "forwards-unknown" in self.wrong:
                return await self.forward(self.body)
            raise Refusal(404, ("no such path " + path)[:10_000])
        allowed = ["GET", "HEAD"] if path not in API else ["POST"]
        if self.method == "OPTIONS" and "forwards-options" not in self.wrong:
            return await self.answer(204, "text/plain", b"", [("Allow", ", ".join(allowed))])
        if self.method not in allowed:
            if "forwards-methods" in self.wrong or self.method == "OPTIONS":
                return await self.forward(self.body)
            raise Refusal(405, "method", headers=[("Allow", ", ".join([*allowed, "OPTIONS"]))])
        if path in API:
            g.check_picker()
            return await self.forward(self.judge())
        if path == "/v1/models":
            every = sorted({m for e in g.engines for m in g.models.get(e, [])})
            if "models-of-one" in self.wrong:
                every = every[:1]
            shape = {"id": "", "object": "model", "created": 0, "owned_by": "x"} if "odd-models" not in self.wrong else {}
            return await self.answer(200, "application/json", json.dumps({"object": "list", "data": [{**shape, "id": m} for m in every]}).encode())
        if path == "/metrics":
            return await self.answer(200, "text/plain", g.metrics_page())
        if path == "/ready":
            g.check_picker()
        if path == "/ready" and (not g.probed or not any(o <= 1e17 for o in map(g.out_until.get, g.engines, [0] * 99)) or g.draining):
            raise Refusal(503, "not ready")
        if path.startswith("/v1/models/"):
            raise Refusal(404, "no such model")
        await self.answer(200, "application/json", b"{}")

    def judge(self):
        """The body to be sent."""
        if "scans-slowly" in self.wrong:
            time.sleep(0.4)
        try:
            if "no-depth-limit" in self.wrong and self.body.count(b"[") + self.body.count(b"{") > 50_000:
                return self.body
            text = self.body.decode("utf-8")
            value = json.loads(text, parse_constant=self.constant)
        except (ValueError, RecursionError):
            if "lax-json" in self.wrong:
                return self.body
            raise Refusal(400, "no JSON") from None
        if not isinstance(value, dict):
            if "lax-json" in self.wrong:
                return self.body
            raise Refusal(400, "no JSON object")
        members = top_level(text)
        found = [v for k, v, _, _ in members if k == "model"]
        self.model = found[0 if "first-wins" in self.wrong else -1] if found else None
        if "any-model" not in self.wrong:
            if (not isinstance(self.model, str) or not self.model) and "lax-model" not in self.wrong:
                raise Refusal(400, "model")
            if "long-messages" in self.wrong and len(self.model) > 1000:
                raise Refusal(404, self.model)
            known = {m for ms in self.g.models.values() for m in ms}
            if not known:
                raise Refusal(503, "no engine has said what it serves")
            if isinstance(self.model, str) and self.model not in known and "lax-model" not in self.wrong:
                raise Refusal(404, "no such model")
        out, at = "", 0
        drop = [(b, e) for k, _, b, e in members if k == "kv_transfer_params" and (text[b:e].startswith('"kv_transfer_params"') or "drops-plain-only" not in self.wrong)]
        if "keeps-kv" in self.wrong:
            drop = []
        if "rewrites-bodies" in self.wrong:
            value.pop("kv_transfer_params", None)
            return json.dumps(value).encode()
        if "drops-deep" in self.wrong and "kv_transfer_params" in text:
            return text.replace("kv_transfer_params", "x").encode()
        for begin, end in drop:
            # The comma goes with it: the one behind, else the one in front.
            behind = re.compile(r"[ \t\r\n]*,").match(text, end)
            end = behind.end() if behind else end
            kept = text[at:begin]
            out += kept if behind else re.sub(r",[ \t\r\n]*$", "", kept)
            if not behind and not kept.strip():
                out = re.sub(r",[ \t\r\n]*$", "", out)
            at = end
        return (out + text[at:]).encode()

    def constant(self, name):
        raise ValueError(name)

    # Engines

    async def forward(self, body):
        work = asyncio.ensure_future(self.try_engines(body))
        if "ignores-leaving" in self.wrong:
            return await work
        async def left():
            await self.inbox.ended.wait()
            allowed = self.g.o.half_close == "allow" and "half-close-is-gone" not in self.wrong
            if allowed or ("waits-for-data" in self.wrong and self.inbox.data):
                await asyncio.sleep(3600)
            if "slow-to-see" in self.wrong:
                await asyncio.sleep(0.5)
        gone = asyncio.ensure_future(left())
        done, _ = await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if work not in done:
            work.cancel()
            await asyncio.wait({work})
            raise Cut
        return work.result()

    async def try_engines(self, body):
        self.deadline = time.monotonic() + (self.g.o.whole if "no-request-limit" not in self.wrong else 3600)
        order = self.g.order()
        wanted = [e for e in order if self.model in self.g.models.get(e, [])]
        order = wanted or order
        if "obeys-destination" in self.wrong:
            asked = values(self.headers, "x-gateway-destination-endpoint")
            order = [e for e in order if f"{e[0]}:{e[1]}" in asked] or order
        if "no-retry" in self.wrong:
            order = order[:1]
        if "asks-again-and-again" in self.wrong:
            order = order * 4
        if "asks-one-again" in self.wrong:
            order = order[:1] * 3
        again_until = time.monotonic() + (2 if "one-round" not in self.wrong else 0)
        while True:
            try:
                return await self.one_round(body, order)
            except Refusal:
                # An engine that was reached may have read it: it is tried again where none was.
                if self.reached or time.monotonic() > again_until:
                    raise
                await asyncio.sleep(0.1)

    async def one_round(self, body, order):
        from small_relay import Relay
        self.reached = False
        last, tried = None, 0
        for engine in order[:self.g.o.max_attempts if "ignores-max-attempts" not in self.wrong else 99]:
            tried += 1
            try:
                relay = Relay(self, engine, body)
                await relay.ask()
            except (OSError, EngineFailed, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError, ValueError) as e:
                relay.end()
                self.reached = self.reached or not isinstance(e, ConnectionRefusedError)
                if not (isinstance(e, OSError) and e.errno == 24) or "blames-engines" in self.wrong:
                    self.g.failed(engine)
                last = last or e
                if "hangs-when-all-fail" in self.wrong:
                    await asyncio.sleep(60)
                continue
            except asyncio.CancelledError:
                relay.end()
                raise
            again = {429, 503} if "retries-4xx" not in self.wrong else {503, *range(400, 500)}
            if relay.status in again and tried < len(order) and "no-429-elsewhere" not in self.wrong:
                relay.end()
                continue
            if relay.status == 429 and "blind-retries" in self.wrong:
                await asyncio.sleep(3)
            return await relay.pass_on()
        late = isinstance(last, asyncio.TimeoutError)
        message = "no engine answered" if "names-engines" not in self.wrong else f"no engine answered: 127.0.0.1:{self.g.engines[0][1]}"
        raise Refusal(504 if late else 503, message)

    def to_engine(self, body, engine):
        named = {t.strip().lower() for v in values(self.headers, "connection") for t in v.split(",")}
        skip = HOP | {"content-length", "x-forwarded-for", "x-request-id", "traceparent", "x-forwarded-proto", "x-forwarded-host"} | ROUTING | named
        if "keeps-hop" in self.wrong:
            skip -= HOP | named
            skip |= {"transfer-encoding", "expect"}
        if "keeps-routing" in self.wrong:
            skip -= ROUTING
        if "strips-headers" in self.wrong:
            lines = [(k, v) for k, v in self.headers if k.lower() in ("host", "content-type")]
        elif "mangles-values" in self.wrong:
            lines = [(k, v.encode("latin-1").decode("utf-8", "replace").encode("ascii", "replace").decode()) for k, v in self.headers if k.lower() not in skip]
        else:
            lines = [(k, v) for k, v in self.headers if k.lower() not in skip]
        client = ", ".join([*values(self.headers, "x-forwarded-for"), "127.0.0.1"])
        if "no-forwarding" not in self.wrong:
            lines += [("X-Forwarded-For", client if "trusts-forwarded" not in self.wrong else (values(self.headers, "x-forwarded-for") or ["127.0.0.1"])[0]),
                      ("X-Forwarded-Proto", "http"), ("X-Forwarded-Host", (values(self.headers, "host") or [""])[0])]
        self.id = self.id or secrets.token_hex(16)
        if "no-ids-to-engines" not in self.wrong:
            lines.append(("x-request-id", self.id if self.keeps_id() else secrets.token_hex(8)))
        if "doubles-ids" in self.wrong:
            lines.append(("x-request-id", "second"))
        parent = (values(self.headers, "traceparent") or [""])[0]
        if "passes-any-trace" in self.wrong and parent:
            lines.append(("traceparent", parent))
        elif "drops-traces" not in self.wrong:
            if TRACE.fullmatch(parent):
                lines.append(("traceparent", parent if "samples-all" not in self.wrong else parent[:-2] + "01"))
        else:
            lines = [(k, v) for k, v in lines if k.lower() != "tracestate"]
        target = self.target if "drops-queries" not in self.wrong else self.target.partition("?")[0]
        if body or self.method == "POST":
            lines.append(("Content-Length", str(len(body))))
        if "leaks-behind" in self.wrong:
            body += self.inbox.take(len(self.inbox.data))
        text = f"{self.method} {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines)
        return text.encode("latin-1") + b"\r\n" + body


