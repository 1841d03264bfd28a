"""Holds open streams over TLS, since http_load speaks clear text only: each request is answered to its first event."""
import contextlib
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import bodies


@contextlib.contextmanager
def held(port, count):
    (body, *_), target = bodies.make("held")
    request = f"POST {target} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def begin(_):
        stream = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=60))
        stream.sendall(request)
        seen = b""
        while b"data: " not in seen:
            more = stream.recv(65536)
            if not more:
                raise ConnectionError(f"no event in {seen!r}")
            seen += more
        return stream

    with ThreadPoolExecutor(16) as pool, contextlib.ExitStack() as open_streams:
        for stream in pool.map(begin, range(count)):
            open_streams.enter_context(stream)
        yield
