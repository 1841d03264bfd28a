"""One engine's answer through the small gateway."""
import asyncio
import json
import re
import secrets
import socket
import time

from small_gateway import HOP, EngineFailed, fields, values

POOL = {}  # kind "keeps-connections": connections as the last answer left them


class Relay:
    def __init__(self, exchange, engine, body):
        self.x, self.engine, self.wrong = exchange, engine, exchange.wrong
        self.request = exchange.to_engine(body, engine)
        self.writer, self.status = None, 0

    def end(self):
        if self.writer is not None:
            self.writer.transport.abort()
            self.writer = None

    async def ask(self):
        """Reads the final answer's head. Whatever is wrong with it counts as no answer."""
        x = self.x
        if "keeps-connections" in self.wrong and POOL.get(self.engine):
            self.reader, self.writer = POOL[self.engine].pop()
        else:
            self.reader, self.writer = await asyncio.open_connection(*self.engine, limit=64 << 10)
        self.writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.writer.write(self.request)
        limit = x.g.o.first_byte if "no-first-byte-limit" not in self.wrong else 3600
        if "impatient" in self.wrong:
            limit = 1.5
        began = time.monotonic()
        limit = max(0, min(limit, x.deadline - began))
        for _ in range(20):
            raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), limit)
            lines = raw[:-4].split(b"\r\n")
            match = re.fullmatch(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])( .*)?", lines[0])
            if not match:
                if "believes-all" in self.wrong:
                    self.status, self.headers, self.minor, self.reason = 200, [], 1, "X"
                    return
                raise EngineFailed
            self.minor, self.status, self.reason = int(match[1]), int(match[2]), (match[3] or b" X")[1:].decode("latin-1")
            self.headers = fields(lines[1:], EngineFailed()) if "believes-all" not in self.wrong else [
                (k.decode("latin-1"), v.strip().decode("latin-1").replace("\0", "")) for k, _, v in (line.partition(b":") for line in lines[1:])]
            if self.status == 101 or len(self.headers) > 200:
                raise EngineFailed
            if self.status >= 200 or "interim-is-final" in self.wrong:
                break
        else:
            if "believes-interim" in self.wrong:
                self.status = 200
                return
            raise EngineFailed
        x.g.first_bytes.append(time.monotonic() - began)
        codings, lengths = values(self.headers, "transfer-encoding"), values(self.headers, "content-length")
        if "believes-all" in self.wrong:
            return
        if len(set(lengths)) > 1 or (codings and lengths) or (codings and codings != ["chunked"]) or any(not v.isdigit() for v in lengths):
            raise EngineFailed

    # The body: pieces as they come, by whatever says where it ends.

    async def some(self, size=1 << 16):
        data = await self.reader.read(size)
        if not data:
            raise EngineFailed
        return data

    async def pieces(self):
        codings, lengths = values(self.headers, "transfer-encoding"), values(self.headers, "content-length")
        if self.x.method == "HEAD" or self.status in (204, 304) or self.status < 200:
            return
        if codings:
            while True:
                line = (await self.reader.readuntil(b"\r\n"))[:-2].split(b";")[0]
                if not re.fullmatch(rb"[0-9a-fA-F]+", line):
                    raise EngineFailed
                left = int(line, 16)
                if left == 0:
                    while await self.reader.readuntil(b"\r\n") != b"\r\n":
                        pass
                    return
                while left:
                    data = await self.some(min(left, 1 << 16))
                    left -= len(data)
                    yield data
                if await self.reader.readexactly(2) != b"\r\n":
                    raise EngineFailed
        elif lengths and lengths[0].isdigit():
            left = int(lengths[0])
            while left:
                data = await self.some(min(left, 1 << 16))
                left -= len(data)
                yield data
        else:
            while data := await self.reader.read(1 << 16):
                yield data

    def to_client(self, length):
        x = self.x
        named = {t.strip().lower() for v in values(self.headers, "connection") for t in v.split(",")}
        skip = HOP | named | {"content-length", "x-request-id"}
        if "keeps-hop-back" in self.wrong:
            skip -= (HOP | named) - {"transfer-encoding", "connection"}
        lines = [f"HTTP/1.1 {self.status} {self.reason}"]
        kept = [(k, v) for k, v in self.headers if k.lower() not in skip]
        if "strips-headers-back" in self.wrong:
            kept = []
        if "merges-headers-back" in self.wrong:
            kept = list({k.lower(): (k, v) for k, v in kept}.values())
        if "names-engines" in self.wrong:
            kept.append(("x-upstream", f"127.0.0.1:{self.engine[1]}"))
        lines += [f"{k}: {v}" for k, v in kept]
        if "no-ids-to-clients" not in self.wrong:
            lines.append(f"x-request-id: {x.id if x.keeps_id() else secrets.token_hex(8)}")
        if "keeps-engines-ids" in self.wrong:
            lines += [f"x-request-id: {v}" for v in values(self.headers, "x-request-id")]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        return lines

    async def pass_on(self):
        x = self.x
        x.status = self.status
        lengths = values(self.headers, "content-length")
        length = lengths[0] if lengths and "drops-lengths" not in self.wrong else None
        bare = self.status in (204, 304)
        chunked = length is None and (x.minor == 1 or "chunks-for-all" in self.wrong) and not bare
        if length is None and not chunked and not bare:
            x.close = True
        if "engines-close-is-ours" in self.wrong and "close" in ",".join(values(self.headers, "connection")):
            x.close = True
        lines = self.to_client(length)
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        sse = (values(self.headers, "content-type") or [""])[0].lower().startswith("text/event-stream")
        if "late-heads" in self.wrong:
            await asyncio.sleep(2)
        await x.send_head(lines)
        tail, held, held_bytes = b"", [], 0
        silent = 1.5 if "impatient" in self.wrong else 600
        it = self.pieces()
        try:
            while True:
                try:
                    left = max(0, min(silent, x.deadline - time.monotonic()))
                    piece = await asyncio.wait_for(self.next_piece(it, sse, tail, chunked), left)
                except StopAsyncIteration:
                    break
                tail = (tail + piece)[-4:]
                if "edits-streams" in self.wrong:
                    piece = piece.replace(b"\r", b"").replace(b": ", b":")
                held.append(piece)
                held_bytes += len(piece)
                whole = "buffers" in self.wrong or ("buffers-odd-types" in self.wrong and not sse) or ("whole-events" in self.wrong and not tail.endswith(b"\n\n"))
                if "adds-up" in self.wrong:
                    x.g.kept.append(piece)
                if not whole:
                    await self.write(held, chunked)
                    held = []
            await self.write(held, chunked)
            if "adds-done" in self.wrong and sse:
                await self.write([b"data: [DONE]\n\n"], chunked)
            if chunked:
                x.writer.write(b"0\r\n\r\n")
                await x.writer.drain()
        except (OSError, EngineFailed, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            x.close = "stays-open-after-cuts" not in self.wrong
            await self.broke_off(sse, tail, held, chunked, length)
        finally:
            if "never-tells-engines" in self.wrong:
                x.g.kept.append(self.writer)
                self.writer = None
            elif "keeps-connections" in self.wrong and not x.close:
                POOL.setdefault(self.engine, []).append((self.reader, self.writer))
                self.writer = None
            self.end()

    async def next_piece(self, it, sse, tail, chunked):
        """The next one; while there is none, comments between two events."""
        every, task = self.x.g.o.heartbeat, asyncio.ensure_future(it.__anext__())
        try:
            while every and sse and "no-heartbeat" not in self.wrong and not (await asyncio.wait({task}, timeout=every))[0]:
                if tail[-2:] in (b"", b"\n\n") or "heartbeat-anywhere" in self.wrong:
                    await self.write([b":\n\n"], chunked)
            return await task
        finally:
            task.cancel()

    async def write(self, pieces, chunked):
        data = b"".join(pieces)
        if not data:
            return
        if "cuts-answers" in self.wrong:
            data = data[:100]
        self.x.writer.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
        await self.x.writer.drain()

    async def broke_off(self, sse, tail, held, chunked, length):
        x = self.x
        if "retries-begun" in self.wrong:
            await Relay(x, self.engine, x.body).ask()
        encoded = values(self.headers, "content-encoding") and "appends-to-encoded" not in self.wrong
        if "done-for-cuts" in self.wrong and sse:
            await self.write([*held, b"data: [DONE]\n\n"], chunked)
        elif sse and not encoded and "cuts-streams" not in self.wrong:
            ends = re.search(rb"(\n\n|\r\r|\r\n\r\n)$", tail) or tail == b""
            theirs = x.target.startswith("/v1/messages") and "openais-errors" not in self.wrong
            error = json.dumps({**({"type": "error"} if theirs else {}),
                                "error": {"message": "the engine broke off" + (f" 127.0.0.1:{self.engine[1]}" if "names-engines" in self.wrong else ""),
                                          "type": "server_error", "param": None, "code": 502}}).encode()
            # Two line ends close what was open, whatever it was; what is left of it is for the client's parser to drop.
            gap = b"" if ends or "glues-errors" in self.wrong else b"\n\n"
            await self.write([*held, gap + (b"event: error\n" if theirs else b"") + b"data: " + error + b"\n\n"], chunked)
        elif "ends-cuts-cleanly" not in self.wrong and not sse or encoded or "cuts-streams" in self.wrong:
            await self.write(held, chunked)
            x.writer.transport.close() if "ends-cuts-cleanly" in self.wrong else x.writer.close()
            return
        if chunked:
            x.writer.write(b"0\r\n\r\n")
        elif length is not None and "ends-cuts-cleanly" in self.wrong:
            x.writer.write(b" " * int(length))
        await x.writer.drain()
