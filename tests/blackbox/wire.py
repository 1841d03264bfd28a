"""A client that says exactly the bytes it is told to and reads answers strictly: what a lenient library would repair is seen."""
import json
import select
import socket
import struct
import time

TIMEOUT_S = 8


def readable(sock, seconds):
    """True when there is something to read, or the end, in time."""
    poll = select.poll()  # select() knows no descriptor above 1023
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


class Cut(AssertionError):
    """The connection ended where an answer was due."""


class Response:
    def __init__(self, version, status, headers):
        self.version, self.status, self.headers = version, status, headers
        self.body, self.raw_body, self.framing, self.clean, self.interim = b"", b"", "none", True, []

    def all(self, name):
        return [v for k, v in self.headers if k.lower() == name.lower()]

    def header(self, name):
        """The value, None when absent; a second one is an error."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} is there {len(values)} times: {values}"
        return values[0] if values else None

    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            raise AssertionError(f"status {self.status}: the body is no JSON: {self.body[:200]!r}") from None

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:200]!r} ({self.framing}, {'clean' if self.clean else 'cut'})"


def request(method, target, body=None, headers=(), host="gateway.test", version="HTTP/1.1"):
    """The bytes of a request; a length is added when there is a body and no framing is given."""
    lines = [f"{method} {target} {version}".encode()]
    if host is not None:
        lines.append(f"Host: {host}".encode())
    given = {k.lower() for k, _ in headers}
    if body is not None and not given & {"content-length", "transfer-encoding"}:
        headers = [*headers, ("Content-Length", len(body))]
    if body is not None and "content-type" not in given:
        headers = [*headers, ("Content-Type", "application/json")]
    for k, v in headers:
        k = k.encode() if isinstance(k, str) else k
        v = v if isinstance(v, bytes) else str(v).encode()
        lines.append(k + b": " + v)
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def chunk(data, extension=b""):
    return b"%x" % len(data) + extension + b"\r\n" + data + b"\r\n"


class Client:
    def __init__(self, host, port, timeout=TIMEOUT_S, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeout, self.buffer, self.ended = timeout, b"", False

    # What the test does.
    def send(self, data, quiet=False):
        """`quiet`: a peer that has closed is no error."""
        try:
            self.socket.sendall(data)
        except OSError:
            if not quiet:
                raise
        return self

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def close(self):
        self.socket.close()

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # What the peer did.
    def _fill(self, deadline):
        """One more read into the buffer; False at the end of the connection."""
        if self.ended:
            return False
        left = deadline - time.monotonic()
        if left <= 0 or not readable(self.socket, left):
            raise AssertionError(f"nothing came in time; so far: {self.buffer[-300:]!r}")
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError:
            data = b""
            self.was_reset = True
        if not data:
            self.ended = True
            return False
        self.buffer += data
        return True

    was_reset = False

    def read_until(self, marker, timeout=None):
        """All bytes up to and with the marker."""
        deadline = time.monotonic() + (timeout or self.timeout)
        while marker not in self.buffer:
            if not self._fill(deadline):
                raise Cut(f"the connection ended before {marker!r}: {self.buffer[-300:]!r}")
        at = self.buffer.index(marker) + len(marker)
        out, self.buffer = self.buffer[:at], self.buffer[at:]
        return out

    def read_all(self, timeout=None):
        """Everything until the connection ends."""
        deadline = time.monotonic() + (timeout or self.timeout)
        while self._fill(deadline):
            pass
        out, self.buffer = self.buffer, b""
        return out

    def drain(self, seconds):
        """Takes in what comes for that long."""
        deadline = time.monotonic() + seconds
        try:
            while self._fill(deadline):
                pass
        except AssertionError:
            pass

    def ends(self, timeout=None):
        """True when the peer ends the connection in time and says nothing more."""
        try:
            return self.read_all(timeout) == b""
        except AssertionError:
            return False

    def closed_after(self, seconds):
        """True when the connection ends in time, whatever is said before."""
        try:
            self.read_all(seconds)
            return True
        except AssertionError:
            return False

    def read_head(self, timeout=None):
        raw = self.read_until(b"\r\n\r\n", timeout)
        lines = raw[:-4].decode("latin-1").split("\r\n")
        version, _, rest = lines[0].partition(" ")
        assert version in ("HTTP/1.1", "HTTP/1.0") and rest[:3].isdigit(), f"no status line: {lines[0]!r}"
        headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            assert colon and name and name == name.strip(), f"bad header line {line!r}"
            headers.append((name, value.strip(" \t")))
        return Response(version, int(rest[:3]), headers)

    def read(self, method="POST", timeout=None):
        """One whole answer; interim ones are kept in `interim`. A body that ends early has `clean` False."""
        deadline = time.monotonic() + (timeout or self.timeout)
        interim = []
        while (response := self.read_head(deadline - time.monotonic())).status // 100 == 1:
            interim.append(response)
        response.interim = interim
        self.read_body(response, method, deadline)
        return response

    def read_body(self, response, method, deadline):
        if method == "HEAD" or response.status in (204, 304):
            return
        codings = response.all("transfer-encoding")
        if codings:
            assert codings == ["chunked"] and not response.all("content-length"), response.headers
            response.framing = "chunked"
            self._chunks(response, deadline)
        elif (length := response.header("content-length")) is not None:
            response.framing = "length"
            while len(self.buffer) < int(length) and self._fill(deadline):
                pass
            response.body, self.buffer = self.buffer[:int(length)], self.buffer[int(length):]
            response.clean = len(response.body) == int(length)
        else:
            response.framing = "close"
            while self._fill(deadline):
                pass
            response.body, self.buffer = self.buffer, b""
            response.clean = not self.was_reset

    def _line(self, deadline):
        while b"\r\n" not in self.buffer:
            if not self._fill(deadline):
                raise Cut("within the chunks")
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def _chunks(self, response, deadline):
        try:
            while size := int(self._line(deadline).split(b";")[0], 16):
                while len(self.buffer) < size + 2:
                    if not self._fill(deadline):
                        response.body += self.buffer[:size]
                        raise Cut("within a chunk")
                assert self.buffer[size:size + 2] == b"\r\n", "a chunk without its line end"
                response.body += self.buffer[:size]
                self.buffer = self.buffer[size + 2:]
            while self._line(deadline):
                pass
        except Cut:
            response.clean = False
