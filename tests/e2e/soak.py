"""The real llmd-epp under load for a long time, among engines that join, leave, fall silent and lie.

    soak.py BUILD_DIR [--minutes M] [--seed S] [--engines N] [--share 0.7]

Finds what the machine takes in a closed loop, then sends `share` of it for M minutes over gRPC ext_proc while the endpoints
file changes every second, members change their manners, and a second client asks for odd things. Checks every answer
against what the file said at that time, and the process for growth. One summary line; exit 1 on any violation, each of
which is printed.
"""
import argparse
import collections
import contextlib
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from ext_proc import POST, GET, Stream  # noqa: E402
from ports import free_port  # noqa: E402
from soak_engines import MODES, Farm  # noqa: E402
from soak_members import GRACE_US, Members, Violations, now_us  # noqa: E402

SETTLE_S = 3.0              # after the load, before descriptors are counted
GROWTH_MB, GROWTH_SHARE = 4, 0.05  # allowed over the measured part, whatever its length
SPARE_FDS = 4

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: queue-scorer}
- {type: kv-cache-utilization-scorer}
- {type: prefix-cache-scorer}
- {type: predicted-latency-producer, parameters: {streamingMode: true}}
- {type: latency-scorer, parameters: {headroomSelectionStrategy: most}}
- {type: latency-slo-admitter}
- {type: file-discovery, parameters: {path: ENDPOINTS, watchFile: true}}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
  - {pluginRef: latency-scorer, weight: 2}
dataLayer: {discovery: {pluginRef: file-discovery}}
"""


class Picker:
    def __init__(self, build, folder):
        self.members = Members(folder / "endpoints.yaml")
        config = folder / "config.yaml"
        config.write_text(CONFIG.replace("ENDPOINTS", str(self.members.path)))
        self.grpc_port, health, admin = free_port(), free_port(), free_port()
        self.admin = f"http://127.0.0.1:{admin}"
        self.log = folder / "epp.log"
        self.argv = [f"{build}/bin/llmd-epp", "--config-file", config, "--grpc-port", self.grpc_port, "--grpc-health-port",
                     health, "--metrics-port", admin, "--secure-serving=false", "-v", "1"]

    def start(self):
        self.child = subprocess.Popen([str(a) for a in self.argv], stdout=self.log.open("wb"), stderr=subprocess.STDOUT)
        for _ in range(200):
            with contextlib.suppress(OSError), urllib.request.urlopen(self.admin + "/readyz", timeout=1) as r:
                if r.status == 200:
                    return
            time.sleep(0.05)
        sys.exit("llmd-epp did not get ready:\n" + self.log.read_text()[-2000:])

    def fds(self):
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def rss_mb(self):
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) * 1024e-6

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def slope_per_minute(samples):
    """Least squares over (seconds, value)."""
    n = len(samples)
    mean_t, mean_v = sum(t for t, _ in samples) / n, sum(v for _, v in samples) / n
    spread = sum((t - mean_t) ** 2 for t, _ in samples)
    return 60 * sum((t - mean_t) * (v - mean_v) for t, v in samples) / spread if spread else 0.0


class Load:
    """soak_load's lines, each checked as it comes."""

    def __init__(self, build, picker, violations):
        self.program, self.picker, self.violations = f"{build}/bench/soak_load", picker, violations
        self.statuses, self.done, self.seconds = collections.Counter(), 0, 0.0

    def run(self, *args, check=True):
        child = subprocess.Popen([self.program, "--port", str(self.picker.grpc_port), *map(str, args)], stdout=subprocess.PIPE, text=True)
        for line in child.stdout:
            fields = line.split()
            if fields[0] == "done":
                self.done, self.seconds = int(fields[1]), float(fields[2])
            elif check:
                self.check(*map(int, fields[:3]), fields[3])
        if child.wait() != 0:
            self.violations.add("the load lost its connection to the picker")
        return self.done / self.seconds if self.seconds else 0

    def check(self, sent, answered, status, destination):
        self.statuses[status] += 1
        members = self.picker.members
        if status == 0:
            port = destination.rpartition(":")[2]
            if not members.check(sent, answered, int(port) if port.isdigit() else 0):
                self.violations.add(f"routed to {destination}, which was no member")
        elif status == 503:
            if all(members.during(sent - GRACE_US, answered)):
                self.violations.add("503 although the pool had members")
        else:
            self.violations.add(f"answer {status}: priority 0, good body" if status > 0 else "a stream broke the protocol")


class OddClient(threading.Thread):
    """Asks for what few clients ask for, and checks the answers."""

    def __init__(self, picker, violations, seed):
        super().__init__(daemon=True)
        self.picker, self.violations, self.random = picker, violations, random.Random(seed)
        self.stop, self.asked = threading.Event(), 0
        self.channel = grpc.insecure_channel(f"127.0.0.1:{picker.grpc_port}")

    def run(self):
        kinds = [self.bad_json, self.no_model, self.sheddable, self.subset_of_nobody, self.subset_of_one, self.get, self.leave,
                 self.pages]
        while not self.stop.wait(0.1):
            kind = self.random.choice(kinds)
            begin = now_us()
            try:
                kind(begin)
            except Exception as error:  # noqa: BLE001  a violation like any other; the run goes on
                self.violations.add(f"{kind.__name__}: {type(error).__name__}: {error}")
            self.asked += 1
        self.channel.close()

    def ask(self, body=b'{"model":"m","prompt":"x"}', headers=(), subset=None):
        """(status, reason or destination); status 0 = routed."""
        with Stream(self.picker, self.channel) as s:
            s.headers(POST + list(headers), subset=subset).body(body, subset=subset)
            answer = s.next()
            if answer.WhichOneof("response") == "immediate_response":
                mutation = answer.immediate_response.headers.set_headers
                reasons = [o.header.raw_value.decode() for o in mutation if o.header.key == "x-llm-d-request-dropped-reason"]
                return answer.immediate_response.status.code, (reasons or [""])[0]
            options = {o.header.key: o.header.raw_value.decode()
                       for o in answer.request_headers.response.header_mutation.set_headers}
            return 0, options["x-gateway-destination-endpoint"]

    def expect(self, begin, answer, *allowed):
        empty = not all(self.picker.members.during(begin - GRACE_US, now_us()))
        if answer not in allowed and not (empty and answer == (503, "rejected-no-endpoints")):
            self.violations.add(f"{answer} where {allowed} was due")

    def routed_or(self, begin, answer, *allowed):
        if answer[0] != 0:
            return self.expect(begin, answer, *allowed)
        if not self.picker.members.check(begin, now_us(), int(answer[1].rpartition(":")[2])):
            self.violations.add(f"routed to {answer[1]}, which was no member")

    def bad_json(self, begin):
        self.expect(begin, self.ask(b'{"model":'), (400, ""))

    def no_model(self, begin):
        self.expect(begin, self.ask(b'{"prompt":"x"}'), (400, ""))

    def sheddable(self, begin):
        headers = [("x-llm-d-inference-objective", "batch"), ("x-llm-d-slo-ttft-ms", str(self.random.choice([1, 10, 10_000])))]
        self.routed_or(begin, self.ask(headers=headers), (429, "rejected-saturated"))

    def subset_of_nobody(self, begin):
        self.expect(begin, self.ask(subset=["203.0.113.9:1"]), (503, "rejected-no-endpoints"))

    def subset_of_one(self, begin):
        members = sorted(self.picker.members.now)
        if not members:
            return
        port = self.random.choice(members)
        answer = self.ask(subset=[f"127.0.0.1:{port}"])
        always = all(port in s for s in self.picker.members.during(begin - GRACE_US, now_us()))
        self.expect(begin, answer, (0, f"127.0.0.1:{port}"), *([] if always else [(503, "rejected-no-endpoints")]))

    def get(self, begin):
        with Stream(self.picker, self.channel) as s:
            answer = s.headers(GET, end=True).next()
        if answer.WhichOneof("response") == "immediate_response":
            return self.expect(begin, (answer.immediate_response.status.code, "rejected-no-endpoints"))

    def leave(self, _):
        with Stream(self.picker, self.channel) as s:
            s.headers().body(b'{"model":"m",', end=False)

    def pages(self, _):
        for path in ("/metrics", "/healthz"):
            with urllib.request.urlopen(self.picker.admin + path, timeout=5) as r:
                if r.status != 200 or (path == "/metrics" and b"llm_d_epp_request_total" not in r.read()):
                    self.violations.add(f"{path} answered {r.status} or lacks its series")


class Chaos(threading.Thread):
    """Changes the endpoints file and the engines' manners once a second."""

    def __init__(self, farm, members, seed):
        super().__init__(daemon=True)
        self.farm, self.members, self.random = farm, members, random.Random(seed)
        self.stop = threading.Event()
        self.counts = collections.Counter()

    def run(self):
        every = [e.port for e in self.farm.engines]
        second = 0
        while not self.stop.wait(1.0):
            second += 1
            engine = self.random.choice(self.farm.engines)
            engine.mode = self.random.choice(MODES)
            self.counts["manners"] += engine.mode != "good"
            current = set(self.members.now)
            if second % 40 == 20:
                self.members.write(set())
                self.counts["empty"] += 1
                continue
            if second % 7 == 0:
                self.members.write_nonsense()
                self.counts["bad files"] += 1
                continue
            gone = [p for p in every if p not in current]
            if gone and (len(current) < len(every) // 2 or self.random.random() < 0.5):
                current |= set(self.random.sample(gone, min(len(gone), 3)))
                self.counts["joins"] += 1
            elif len(current) > 3:
                current -= set(self.random.sample(sorted(current), 2))
                self.counts["leaves"] += 1
            self.members.write(current)

    def calm(self):
        """Everybody is a member and well."""
        self.stop.set()
        self.join()
        for engine in self.farm.engines:
            engine.mode = "good"
        self.members.write({e.port for e in self.farm.engines})


class Growth:
    """Samples RSS twice a second; what comes first is the filling of caches and does not count."""

    def __init__(self, picker, violations):
        self.picker, self.violations = picker, violations
        self.samples, self.stop = [], threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        begin = time.monotonic()
        while not self.stop.wait(0.5):
            if self.picker.child.poll() is not None:
                return self.violations.add(f"llmd-epp ended with {self.picker.child.returncode}")
            self.samples.append((time.monotonic() - begin, self.picker.rss_mb()))

    def report(self):
        """(MB now, MB a minute)."""
        self.stop.set()
        self.thread.join()
        measured = self.samples[len(self.samples) // 3:]
        if len(measured) < 10:
            return self.picker.rss_mb(), 0.0
        slope = slope_per_minute(measured)
        grown = slope * (measured[-1][0] - measured[0][0]) / 60
        if grown > GROWTH_MB + GROWTH_SHARE * measured[0][1]:
            self.violations.add(f"RSS grew by {grown:.1f} MB from {measured[0][1]:.1f} MB")
        return measured[-1][1], slope


def soak(args, folder):
    violations = Violations()
    farm = Farm(args.engines, args.seed)
    picker = Picker(args.build, folder)
    picker.members.write({e.port for e in farm.engines})
    picker.start()
    load = Load(args.build, picker, violations)
    load.run("--seconds", 2, check=False)  # fills connection pools and thread caches
    most = load.run("--seconds", 5, check=False)
    time.sleep(SETTLE_S)
    fds = picker.fds()
    odd, chaos, growth = OddClient(picker, violations, args.seed), Chaos(farm, picker.members, args.seed), Growth(picker, violations)
    cpu = picker.cpu_s()
    for thread in (odd, chaos, growth.thread):
        thread.start()
    rate = load.run("--rate", args.share * most, "--seconds", args.minutes * 60)
    cpu = (picker.cpu_s() - cpu) / (args.minutes * 60) if picker.child.poll() is None else 0
    odd.stop.set()
    odd.join()
    chaos.calm()
    rss, slope = growth.report() if picker.child.poll() is None else (0, 0)
    time.sleep(SETTLE_S)
    if picker.child.poll() is None:
        fds_after = picker.fds()
        if fds_after > fds + SPARE_FDS:
            violations.add(f"{fds_after} descriptors where {fds} were open before")
        picker.child.send_signal(signal.SIGTERM)
        if picker.child.wait(timeout=60) != 0:
            violations.add(f"llmd-epp exited with {picker.child.returncode} on SIGTERM")
    else:
        fds_after = -1
        violations.add(f"llmd-epp had ended with {picker.child.returncode}")
    farm.close()
    names = {0: "routed", -1: "broken"}
    told = ", ".join(f"{n} {names.get(s, s)}" for s, n in sorted(load.statuses.items()))
    events = ", ".join(f"{n} {k}" for k, n in sorted(chaos.counts.items()))
    print(f"soak: {violations.count} violations in {args.minutes:g} min; {load.done} exchanges at {rate:.0f}/s of {most:.0f}/s ({told}), "
          f"{odd.asked} odd ones; {events}; file acts within {picker.members.lag_us / 1000:.0f} ms; "
          f"rss {rss:.1f} MB {slope:+.2f} MB/min; descriptors {fds} -> {fds_after}; {cpu:.2f} cores")
    if load.done == 0 or not load.statuses[0]:
        violations.add("nothing was routed")
    return 1 if violations.count else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engines", type=int, default=16)
    parser.add_argument("--share", type=float, default=0.7, help="of what the closed loop reaches")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmd-soak-") as folder:
        code = soak(args, pathlib.Path(folder))
        if code:
            print("the end of the picker's log:\n" + (pathlib.Path(folder) / "epp.log").read_text(errors="replace")[-2000:])
    sys.exit(code)


if __name__ == "__main__":
    main()
