"""Tables and JSON of gateway_bench.py: medians, least and most, goals and whether they are met."""
import json
import pathlib
import re
import statistics
import subprocess


def times(base, factor):
    """Goal: at most `factor` times the figure of `base` in the same row."""
    return {"base": base, "factor": factor}


def at_most(value):
    return {"value": value}


def goal_text(goal):
    if goal is None:
        return ""
    return f"≤ {goal['value']:g}" if "value" in goal else f"≤ {goal['factor']:g} × {goal['base']}"


def met(goal, results, name):
    """True, False, or None where there is nothing to compare. Inside the base's own spread counts as met."""
    if goal is None or name not in results or not results[name]:
        return None
    ours = statistics.median(results[name])
    if "value" in goal:
        return ours <= goal["value"]
    base = results.get(goal["base"])
    if not base or name == goal["base"]:
        return None
    return ours <= goal["factor"] * statistics.median(base)


def number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def cell(values):
    if not values:
        return "–"
    if len(values) == 1:
        return number(values[0])
    return f"{number(statistics.median(values))} ({number(min(values))}…{number(max(values))})"


def cpu_model():
    found = re.search(r"^model name\s*:\s*(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    return found.group(1) if found else "unknown"


class Report:
    def __init__(self, bench, loops):
        self.bench, self.rows, self.columns = bench, [], None
        commit = subprocess.run(["git", "-C", str(bench.root), "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
        cores = len(re.findall(r"^processor\s*:", pathlib.Path("/proc/cpuinfo").read_text(), re.M))
        load = pathlib.Path("/proc/loadavg").read_text().split()[0]
        self.head = {"cpu": cpu_model(), "cores": cores, "commit": commit, "loops": loops, "reps": bench.reps, "seconds": bench.seconds, "load_before": float(load)}
        print(f"CPU: {self.head['cpu']}, {cores} cores (load before: {load}); commit {commit}; {loops} loops and workers; {bench.reps} interleaved repetitions "
              f"of {bench.seconds:g} s; median (least…most)", flush=True)

    def row(self, figure, results, goal=None):
        """results: {contestant: [figure of each repetition]}."""
        results = {n: v for n, v in results.items() if v}
        columns = list(results)
        if columns != self.columns:
            self.columns = columns
            print(f"\n| figure | {' | '.join(columns)} | ratio | goal | met |\n|{'---|' * (len(columns) + 4)}", flush=True)
        subject = self.subject(goal, columns)
        ratio = ""
        base = goal["base"] if goal and "base" in goal else "nginx"
        if results.get(base) and results.get(subject) and subject != base and statistics.median(results[base]):
            ratio = f"{statistics.median(results[subject]) / statistics.median(results[base]):.2f}"
        verdict = met(goal, results, subject)
        said = {None: "", True: "yes", False: "NO"}[verdict]
        print(f"| {figure} | {' | '.join(cell(results[c]) for c in columns)} | {ratio} | {goal_text(goal)} | {said} |", flush=True)
        self.rows.append({"figure": figure, "results": results, "goal": goal, "subject": subject, "ratio": float(ratio) if ratio else None, "met": verdict})

    @staticmethod
    def subject(goal, columns):
        """Whose figure the goal is about: the last column where the base is ours, else ours."""
        if goal and goal.get("base") in ("ours", "none ejected"):
            return columns[-1]
        return "ours" if "ours" in columns else columns[0]

    def end(self):
        path = pathlib.Path(self.bench.out or f"{self.bench.build}/bench/gateway.json")
        path.write_text(json.dumps({**self.head, "rows": self.rows}, indent=1) + "\n")
        missed = [r["figure"] for r in self.rows if r["met"] is False]
        print(f"\nJSON: {path}\n" + ("goals missed: " + "; ".join(missed) if missed else "every goal that was measured is met"), flush=True)
