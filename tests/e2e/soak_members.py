"""What the endpoints file of a soak said, and when; and what was wrong."""
import bisect
import threading
import time

GRACE_US = 1_000_000  # a changed file must act within this
SHOWN = 20


def now_us():
    return time.monotonic_ns() // 1000


class Violations:
    def __init__(self):
        self.count, self.lock = 0, threading.Lock()

    def add(self, text):
        with self.lock:
            self.count += 1
            if self.count <= SHOWN:
                print(f"violation: {text}", flush=True)


class Members:
    """What the endpoints file said, and when. Written by one thread, read by all."""

    def __init__(self, path):
        self.path, self.times, self.sets = path, [], []
        self.lag_us = 0  # the latest decision for a port that had left, after it left

    def write(self, ports):
        lines = [f"- {{name: e{p}, address: 127.0.0.1, port: {p}}}" for p in sorted(ports)]
        text = "endpoints:\n" + "\n".join(lines) if lines else "endpoints: []"
        # Stamped before the file is there: nothing may be seen earlier than it is allowed.
        self.sets.append(frozenset(ports))
        self.times.append(now_us())
        self._replace(text + "\nobjectives: [{name: batch, priority: -1}]\n")

    def write_nonsense(self):
        self._replace("endpoints: [{name: e0, address: not an address, port: 0}, {]")

    def _replace(self, text):
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.rename(self.path)

    @property
    def now(self):
        return self.sets[-1]

    def during(self, begin_us, end_us):
        """All that was said at some moment of the time, in order."""
        first = max(bisect.bisect_right(self.times, begin_us) - 1, 0)
        return self.sets[first:bisect.bisect_right(self.times, end_us)]

    def check(self, sent, answered, port):
        """Whether `port` may have been chosen then."""
        if any(port in s for s in self.during(sent, answered)):
            return True
        for i in range(bisect.bisect_right(self.times, sent) - 1, 0, -1):
            if self.times[i] < sent - GRACE_US:
                return False
            if port in self.sets[i - 1]:
                self.lag_us = max(self.lag_us, sent - self.times[i])
                return True
        return False
