"""A model server that misbehaves on purpose, as a process that can be killed and stopped.

    chaos_engine.py PORT [--reset SHARE] [--seed N]

Answers each prompt with itself, so that a mixed-up answer is seen, under its port as the answer's id. --reset is the share of
POSTs it resets, half of them before the first byte. SIGUSR1 begins a time in which half of its answers are garbage, SIGUSR2
ends it.
"""
import argparse
import asyncio
import json
import random
import signal
import socket
import struct

EVENTS, GAP_S = 12, 0.02


def head(length=None, status="200 OK", kind="application/json"):
    framing = f"Content-Length: {length}" if length is not None else "Transfer-Encoding: chunked"
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n".encode()


def plain(asked, port):
    message = {"role": "assistant", "content": asked["messages"][-1]["content"]}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return json.dumps({"id": str(port), "object": "chat.completion", "created": 1, "model": asked["model"], "usage": usage,
                       "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()


def events(asked, port):
    """One event says the prompt, the others count."""
    words = [asked["messages"][-1]["content"], *[f" {i}" for i in range(1, EVENTS)]]
    for i, word in enumerate(words):
        finish = "stop" if i == len(words) - 1 else None
        chunk = {"id": str(port), "object": "chat.completion.chunk", "created": 1, "model": asked["model"],
                 "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": finish}]}
        yield f"data: {json.dumps(chunk)}\n\n".encode()
    yield b"data: [DONE]\n\n"


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


class Ended(Exception):
    """This connection is done for."""


class Server:
    def __init__(self, args):
        self.port = args.port
        self.reset, self.random = args.reset, random.Random(args.seed)
        self.garbage, self.running = False, 0

    async def serve(self, reader, writer):
        first = b""
        try:
            while True:
                text = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                fields = dict(line.lower().split(": ", 1) for line in text.split("\r\n")[1:] if ": " in line)
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                first = await self.watched(text.split(" ", 1)[0], body, reader, writer)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, Ended):
            pass
        finally:
            writer.close()

    async def watched(self, method, body, reader, writer):
        """Answers, or gives up when the peer leaves. Returns the first byte of its next request."""
        gone = asyncio.ensure_future(reader.read(1))
        task = asyncio.ensure_future(self.answer(method, body, writer))
        try:
            await asyncio.wait({gone, task}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not task.done():
                raise Ended
            await task
            await writer.drain()
            first = await gone
            if not first:
                raise Ended
            return first
        finally:
            for f in (gone, task):
                f.cancel()
            await asyncio.gather(gone, task, return_exceptions=True)

    async def answer(self, method, body, writer):
        if method == "GET":
            page = (f"vllm:num_requests_waiting 0.0\nvllm:num_requests_running {self.running}.0\n"
                    "vllm:kv_cache_usage_perc 0.1\n").encode()
            writer.write(head(len(page), kind="text/plain") + page)
            return
        self.running += 1
        try:
            await self.generate(json.loads(body), writer)
        finally:
            self.running -= 1

    async def generate(self, asked, writer):
        stream = asked.get("stream") is True
        await asyncio.sleep(self.random.uniform(0.001, 0.02))
        ill = self.random.random() < self.reset
        if ill and (not stream or self.random.random() < 0.5):
            self.abort(writer)
        if self.garbage and self.random.random() < 0.5:
            await self.nonsense(asked, stream, writer)
        if not stream:
            answer = plain(asked, self.port)
            writer.write(head(len(answer)) + answer)
            return
        writer.write(head(kind="text/event-stream"))
        at = self.random.randrange(EVENTS) if ill else None
        for i, event in enumerate(events(asked, self.port)):
            if i == at:
                self.abort(writer)
            writer.write(chunk(event))
            await writer.drain()
            await asyncio.sleep(GAP_S)
        writer.write(b"0\r\n\r\n")

    def abort(self, writer):
        """A true reset."""
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        raise Ended

    async def nonsense(self, asked, stream, writer):
        """Something that is no answer, or looks like one at its beginning only."""
        answer = plain(asked, self.port)
        early = [b"\x00\xff garbage \r\n\r\n" * 40, b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nX-Pad: " + b"p" * 100_000 + b"\r\n\r\n",
                 b"HTTP/1.1 999999 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\n"]
        late = [head(len(answer) + 500) + answer, head() + b"zz\r\n{}\r\n", head() + chunk(answer[:20]) + b"ffffffffffffffffff\r\n"]
        if stream:
            late.append(head(kind="text/event-stream") + chunk(next(events(asked, self.port))))
        # Whole, and more behind it: the next request on this connection must not get that.
        burst = head(len(answer)) + answer + head(7) + b"\"stray\""
        kind = self.random.choice(["early", "late", "burst"] if not stream else ["early", "late"])
        writer.write(burst if kind == "burst" else self.random.choice(early if kind == "early" else late))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        raise Ended


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--reset", type=float, default=0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    server = Server(args)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, setattr, server, "garbage", True)
    loop.add_signal_handler(signal.SIGUSR2, setattr, server, "garbage", False)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", args.port, reuse_address=True)
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
