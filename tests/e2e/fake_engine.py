"""A scripted model server on loopback: each request is recorded and answered by a function of the test."""
import asyncio
import threading


class Request:
    def __init__(self, method, target, headers, body):
        self.method, self.target, self.headers, self.body = method, target, headers, body

    def header(self, name):
        """All values of a header, in order."""
        return [v for k, v in self.headers if k.lower() == name.lower()]


def response(status=200, body=b"", content_type="application/json", headers=()):
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    if content_type:
        head.append(f"Content-Type: {content_type}")
    head += [f"{k}: {v}" for k, v in headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def send_chunked(writer, pieces, content_type):
    """A chunked answer; `pieces` is a list or an async iterator of bytes."""
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for piece in pieces:
        writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


class FakeEngine:
    """`answer(request, writer)` is a coroutine that writes the whole reply, or returns bytes to be written."""

    def __init__(self, answer, tls=None):
        self.answer = answer
        self.requests = []
        self.disconnected = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls))
        self.port = self.server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def _read(self, reader, first):
        head = first + await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = [tuple(line.split(": ", 1)) for line in lines[1:] if line]
        return Request(method, target, headers, await self._body(reader, {k.lower(): v for k, v in headers}))

    async def _body(self, reader, headers):
        """By length or chunked (as Envoy uploads)."""
        if headers.get("transfer-encoding") != "chunked":
            length = int(headers.get("content-length", 0))
            return await reader.readexactly(length) if length else b""
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return body

    async def _serve(self, reader, writer):
        first = b""
        try:
            while True:
                request = await self._read(reader, first)
                self.requests.append(request)
                # An end while the answer is due means that the client has left; a byte begins its next request.
                gone = asyncio.ensure_future(reader.read(1))
                task = asyncio.ensure_future(self.answer(request, writer))
                done, _ = await asyncio.wait({gone, task}, return_when=asyncio.FIRST_COMPLETED)
                if gone in done and task not in done:
                    task.cancel()
                    self.disconnected.set()
                    return
                reply = task.result()
                if reply is None:
                    return
                writer.write(reply)
                await writer.drain()
                first = await gone
                if first == b"":
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def posts(self):
        return [r for r in self.requests if r.method == "POST"]

    async def _end(self):
        self.server.close()  # on the loop's own thread: asyncio's servers are not thread-safe
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close(self):
        self._run(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()
