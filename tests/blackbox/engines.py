"""Scripted model servers: they do on the wire whatever a case wants and keep every byte they were sent. A request finds its script by
a token that it carries anywhere, so that cases that run side by side can share the engines of one gateway."""
import itertools
import json
import re
import secrets
import socket
import struct
import threading
import time

from wire import readable

TOKEN = re.compile(rb"tok-[0-9a-f]{16}")
KEEP_BYTES = 256 << 10  # of what came over one connection


class Received:
    def __init__(self, raw_head, engine, connection):
        self.raw_head, self.engine, self.connection = raw_head, engine, connection
        lines = raw_head[:-4].split(b"\r\n")
        self.line = lines[0]
        self.method, _, rest = lines[0].decode("latin-1").partition(" ")
        self.target = rest.rpartition(" ")[0]
        self.headers = []
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            self.headers.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))
        self.body, self.at = b"", time.monotonic()

    def all(self, name):
        return [v for k, v in self.headers if k.lower() == name.lower()]

    def header(self, name):
        values = self.all(name)
        assert len(values) <= 1, f"the engine got {name} {len(values)} times: {values}"
        return values[0] if values else None


class Connection:
    """The engine's side of one connection."""
    numbers = itertools.count(1)

    def __init__(self, sock, engine):
        self.socket, self.engine, self.number = sock, engine, next(self.numbers)
        self.buffer, self.raw, self.open = b"", b"", True
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fill(self):
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            return False
        if len(self.raw) < KEEP_BYTES:
            self.raw += data
        self.buffer += data
        return bool(data)

    def send(self, data):
        """False when the peer has gone."""
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def close(self):
        if self.open:
            self.open = False
            self.socket.close()

    def shut(self):
        """The end of what is sent; the peer may still be heard."""
        self.open = False
        try:
            self.socket.shutdown(socket.SHUT_WR)
            self.socket.settimeout(2)
            while self.socket.recv(65536):
                pass
        except OSError:
            pass
        self.socket.close()

    def kill(self):
        """The end of both directions, called from another thread than the one that serves (which a close alone would not wake)."""
        self.open = False
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def reset(self):
        self.open = False
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass  # closed already
        self.socket.close()

    def wait_gone(self, timeout):
        """When the peer was seen to have left (time.monotonic), None if it stays."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if readable(self.socket, left):
                try:
                    if not self.socket.recv(65536):
                        return time.monotonic()
                except OSError:
                    return time.monotonic()
        return None


def answer(status=200, body=b'{"object":"chat.completion","choices":[]}', content_type="application/json", headers=(), reason="OK"):
    """The bytes of an answer with a length."""
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}"]
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{k}: {v}" for k, v in headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def stream_head(content_type="text/event-stream", chunked=True, headers=()):
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {content_type}"]
    lines += ["Transfer-Encoding: chunked"] if chunked else ["Connection: close"]
    lines += [f"{k}: {v}" for k, v in headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class Script:
    """What the engines do with the requests that carry its token. `run(connection, request)` writes the answer; `on_head` is called
    when the head is there and the body is not."""

    def __init__(self, run=None, on_head=None):
        self.token = "tok-" + secrets.token_hex(8)
        self.run = run or (lambda connection, request: connection.send(answer()))
        self.on_head = on_head
        self.requests, self.begun, self.notes = [], [], {}
        self.changed = threading.Condition()

    def note(self, name, value):
        with self.changed:
            self.notes.setdefault(name, value)
            self.changed.notify_all()

    def wait_note(self, name, timeout=8):
        with self.changed:
            assert self.changed.wait_for(lambda: name in self.notes, timeout), f"the engine did not get to '{name}'"
            return self.notes[name]

    def wait_requests(self, count=1, timeout=8):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= count, timeout), f"{len(self.requests)} requests reached an engine, not {count}"
            return self.requests

    def one(self):
        """The request, which came exactly once."""
        self.wait_requests()
        assert len(self.requests) == 1, f"{len(self.requests)} requests reached the engines"
        return self.requests[0]


class Engine:
    """One listening port. `down()` closes it and all its connections, `up()` opens the same port again."""

    def __init__(self, farm, index, port=0):
        self.farm, self.index, self.port = farm, index, port
        self.connections, self.untold, self.partial = [], [], []
        self.waiting = 0
        self.models = ["m", f"only-{index}"]
        self.pages = True  # False: the metrics page hangs up
        self.page_requests = 0
        self.listener = None
        self.up()

    def up(self):
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def down(self):
        listener, self.listener = self.listener, None
        if listener is not None:
            try:
                listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
            except OSError:
                pass
            listener.close()
        for connection in list(self.connections):
            connection.kill()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            connection = Connection(sock, self)
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            while connection.open and self._one(connection):
                pass
        except (OSError, ValueError):
            pass
        finally:
            self.connections.remove(connection)
            self.farm.keep_raw(connection.raw)
            connection.open = True
            connection.close()

    def _one(self, connection):
        while b"\r\n\r\n" not in connection.buffer:
            if not connection.fill():
                return False
        at = connection.buffer.index(b"\r\n\r\n") + 4
        request = Received(connection.buffer[:at], self, connection.number)
        connection.buffer = connection.buffer[at:]
        script = self.farm.script_of(request.raw_head)
        if script is not None and script.on_head is not None:
            script.begun.append(request)
            script.on_head(connection, request)
            if not connection.open:
                return False
        if not self._body(connection, request):
            self.partial.append(request)
            return False
        script = script or self.farm.script_of(request.body)
        if script is None:
            self._default(connection, request)
            return True
        with script.changed:
            script.requests.append(request)
            script.changed.notify_all()
        script.run(connection, request)
        return True

    def _exactly(self, connection, size):
        parts, got = [connection.buffer], len(connection.buffer)
        while got < size:
            connection.buffer = b""
            if not connection.fill():
                return None
            parts.append(connection.buffer)
            got += len(connection.buffer)
        whole = b"".join(parts)
        connection.buffer = whole[size:]
        return whole[:size]

    def _line(self, connection):
        while b"\r\n" not in connection.buffer:
            if not connection.fill():
                return None
        line, connection.buffer = connection.buffer.split(b"\r\n", 1)
        return line

    def _body(self, connection, request):
        if request.all("transfer-encoding"):
            while (line := self._line(connection)) is not None:
                size = int(line.split(b";")[0], 16)
                if size == 0:
                    while (line := self._line(connection)) is not None:
                        if line == b"":
                            return True
                    return False
                data = self._exactly(connection, size + 2)
                if data is None:
                    return False
                request.body += data[:-2]
            return False
        length = int((request.all("content-length") or ["0"])[0])
        body = self._exactly(connection, length)
        request.body = body if body is not None else b""
        return body is not None

    def _default(self, connection, request):
        path = request.target.partition("?")[0]
        if path == "/metrics":
            self.page_requests += 1
            if not self.pages:
                connection.reset()
                return
            text = (f'vllm:num_requests_waiting{{model_name="m"}} {self.waiting}\nvllm:num_requests_running{{model_name="m"}} 1\n'
                    'vllm:kv_cache_usage_perc{model_name="m"} 0.1\nvllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1\n')
            connection.send(answer(body=text.encode(), content_type="text/plain; version=0.0.4"))
        elif path == "/v1/models":
            data = [{"id": m, "object": "model", "created": 1, "owned_by": "x"} for m in self.models]
            connection.send(answer(body=json.dumps({"object": "list", "data": data}).encode()))
        elif path == "/health":
            connection.send(answer(body=b""))
        else:
            self.untold.append(request)
            connection.send(answer(body=b'{"untold":true}'))


class Farm:
    """The engines of one gateway."""

    def __init__(self, count=3, ports=None):
        self.scripts, self.raws, self.lock = {}, [], threading.Lock()
        self.engines = [Engine(self, i, port) for i, port in enumerate(ports or [0] * count)]

    @property
    def ports(self):
        return [e.port for e in self.engines]

    def add(self, script):
        self.scripts[script.token.encode()] = script
        return script

    def script_of(self, data):
        found = TOKEN.search(data)
        return self.scripts.get(found.group()) if found else None

    def keep_raw(self, raw):
        with self.lock:
            self.raws.append(raw)
            del self.raws[:-2000]

    def saw(self, marker):
        """True when any engine was sent these bytes, on whatever connection, lately."""
        open_now = [c.raw for e in self.engines for c in list(e.connections)]
        return any(marker in raw for raw in [*self.raws, *open_now])

    def close(self):
        for engine in self.engines:
            engine.down()
