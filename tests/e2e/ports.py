"""Ports for processes that must be told theirs before they start (Envoy's configuration and an endpoints file name them).

They come from below the kernel's range for outgoing connections: a port the kernel hands out by bind(0) may be taken by any
client between the question and the start of the process."""
import pathlib
import random
import socket

FIRST = 10240
_END = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
_given = set()


def free_port():
    """A port that nothing uses on any IPv4 address, never given twice by this process."""
    assert _END - FIRST >= 1000, f"the kernel's outgoing ports start at {_END}: too few below them to choose from"
    for _ in range(1000):
        port = random.randrange(FIRST, _END)
        if port in _given:
            continue
        with socket.socket() as s:
            try:
                s.bind(("", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise AssertionError(f"no free port from {FIRST} to {_END}")
