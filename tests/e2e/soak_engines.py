"""Model servers as a scraper may meet them: on one asyncio loop, each port in a mode that can change at any time."""
import asyncio
import random
import threading

# What a page looks like in each lying mode: waiting, running, KV use.
LIES = {
    "nan": ("NaN", "NaN", "NaN"),
    "negative": ("-5", "-1e9", "-0.5"),
    "absurd": ("1e300", "9e99", "4711"),
    "infinite": ("+Inf", "+Inf", "-Inf"),
}
MODES = ["good"] * 8 + ["silent", "closing", "error500", "garbage", "endless", "trickle", "halfpage", "bighead", "empty", *LIES]


def page(waiting, running, kv):
    filler = "".join(f'vllm:filler_bucket{{le="{i}",model_name="m"}} {i}.0\n' for i in range(40))
    return (f'# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{model_name="m"}} {waiting}\n{filler}'
            f'vllm:num_requests_running{{model_name="m"}} {running}\nvllm:kv_cache_usage_perc{{model_name="m"}} {kv}\n'
            'vllm:cache_config_info{block_size="16",num_gpu_blocks="2000"} 1.0\n').encode()


def reply(body, status=200, length=None):
    return (f"HTTP/1.1 {status} X\r\nContent-Type: text/plain\r\nContent-Length: {len(body) if length is None else length}"
            "\r\n\r\n").encode() + body


class Engine:
    """One port. `mode` is read for every request; it is set from other threads."""

    def __init__(self, seed):
        self.mode = "good"
        self.random = random.Random(seed)
        self.port = 0
        self.pages = 0

    async def serve(self, reader, writer):
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                if not await self.answer(writer):
                    return
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, TimeoutError):
            pass
        finally:
            writer.close()

    async def answer(self, writer):
        """Writes an answer; False ends the connection."""
        mode, rng = self.mode, self.random
        self.pages += 1
        if mode in LIES:
            writer.write(reply(page(*LIES[mode])))
        elif mode == "silent":
            await asyncio.sleep(30)
            return False
        elif mode == "closing":
            return False
        elif mode == "error500":
            writer.write(reply(b"oops", 500))
        elif mode == "garbage":
            writer.write(reply(rng.randbytes(rng.randint(1, 4000))))
        elif mode == "empty":
            writer.write(reply(b""))
        elif mode == "halfpage":
            writer.write(reply(page(1, 1, 0.5)[:120], length=5000))
            await writer.drain()
            return False
        elif mode == "bighead":
            writer.write(b"HTTP/1.1 200 OK\r\n" + b"X-Pad: " + b"p" * 300_000 + b"\r\n\r\n")
        elif mode in ("endless", "trickle"):
            await self.without_end(writer, 16_384 if mode == "endless" else 10)
            return False
        else:
            writer.write(reply(page(rng.randint(0, 8), rng.randint(0, 40), round(rng.random(), 3))))
        return True

    async def without_end(self, writer, size):
        mode = self.mode
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
        line = b"vllm:filler 1.0\n"
        piece = (line * (size // len(line) + 1))[:size]
        while self.mode == mode:
            writer.write(f"{size:x}\r\n".encode() + piece + b"\r\n")
            await asyncio.wait_for(writer.drain(), 30)
            await asyncio.sleep(0.05)


class Farm:
    """`count` engines on a thread of their own."""

    def __init__(self, count, seed):
        self.engines = [Engine(seed * 1000 + i) for i in range(count)]
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.servers = [self._run(asyncio.start_server(e.serve, "127.0.0.1", 0)) for e in self.engines]
        for engine, server in zip(self.engines, self.servers):
            engine.port = server.sockets[0].getsockname()[1]

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def close(self):
        async def end():
            for server in self.servers:
                server.close()
            tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._run(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
