"""Both index backends against a model of a few lines that knows nothing of runs, spans or sets."""
import random
import subprocess

import pytest
from conftest import build_dir

ENDPOINTS, OPERATIONS = 8, 100_000
WEIGHTS = {"?": 1.0, 0: 1.0, 1: 0.8, 2: 1.0}  # speculative, gpu, cpu, disk
SPACE = {0: 0, 1: 0, 2: 1}                    # namespaces 0 and 1 are groups of one model


class Model:
    def __init__(self):
        self.held = {}  # (space, key) -> {(endpoint, tier, namespace)}

    def take(self, keys, gone):
        for at in keys:
            self.held.get(at, set()).difference_update(gone(at))

    def play(self, verb, args):
        if verb == "clear":
            self.take(list(self.held), lambda at: {h for h in self.held[at] if h[0] == args[0]})
            return "ok"
        endpoint, tier, ns, keys = args[0], args[1], args[2], args[4]
        places = [(SPACE[ns], k) for k in keys]
        if verb == "store" and args[3] is not None and not self.held.get((SPACE[ns], args[3])):
            return "refused"
        if verb in ("store", "guess"):
            for at in places:
                self.held.setdefault(at, set()).add((endpoint, tier, ns))
        else:  # evict, unguess
            self.take(places, lambda at: {(endpoint, tier, ns)})
        return "ok"

    def query(self, ns, keys):
        blocks, score = [0] * ENDPOINTS, [0.0] * ENDPOINTS
        for place, key in enumerate(keys):
            best = {}
            for endpoint, tier, _ in self.held.get((SPACE[ns], key), ()):
                if blocks[endpoint] == place:
                    best[endpoint] = max(best.get(endpoint, 0), WEIGHTS[tier])
            for endpoint, weight in best.items():
                blocks[endpoint], score[endpoint] = place + 1, score[endpoint] + weight
            if not best:
                break
        return " ".join(f"{b}:{s:.3f}" for b, s in zip(blocks, score))


def scenario(seed):
    """Lines for the program, and what the model answers."""
    rng, model, prompts, lines, want = random.Random(seed), Model(), [], [], []
    tied = set()  # (namespace, engine key) that some store named
    for _ in range(OPERATIONS):
        if len(prompts) < 4 or rng.random() < 0.02:
            old = rng.choice(prompts) if prompts and rng.random() < 0.6 else []
            keys = old[:rng.randrange(len(old) + 1)] + [rng.getrandbits(63) for _ in range(rng.randrange(1, 40))]
            prompts = (prompts + [keys])[-32:]
        prompt = rng.choice(prompts)
        prefix = prompt[:rng.randrange(1, len(prompt) + 1)]
        endpoint, ns = rng.randrange(ENDPOINTS), rng.choice((0, 0, 0, 1, 2))
        tier, verb, dice = rng.choice((0, 0, 0, 1, 2)), "query", rng.random()
        if dice < 0.30:
            first = rng.randrange(len(prefix))
            while first and (endpoint, ns) not in {(e, n) for e, t, n in model.held.get((SPACE[ns], prefix[first - 1]), ()) if t != "?"}:
                first -= 1
            parent, keys = prefix[first - 1] if first else None, prefix[first:]
            lines.append(f"store {endpoint} {tier} {ns} {'-' if parent is None else parent} {' '.join(map(str, keys))}")
            want.append(model.play("store", (endpoint, tier, ns, parent, keys)))
            tied.update((ns, k) for k in keys)
        elif dice < 0.55:
            keys = [k for k in prefix if rng.random() < 0.2] if rng.random() < 0.3 else prefix[::-1][:len(prefix) // 2]
            keys = [k for k in keys if (ns, k) in tied and any((e, n) == (endpoint, ns) for e, t, n in model.held.get((SPACE[ns], k), ()) if t != "?")]
            lines.append(f"evict {endpoint} {tier} {ns} {' '.join(map(str, keys))}")
            want.append(model.play("evict", (endpoint, tier, ns, None, keys)))
        elif dice < 0.60:
            lines.append(f"guess {endpoint} {ns} {' '.join(map(str, prefix))}")
            want.append(model.play("guess", (endpoint, "?", ns, None, prefix)))
        elif dice < 0.63:
            start = rng.randrange(len(prefix))
            lines.append(f"unguess {endpoint} {ns} {start} {' '.join(map(str, prefix))}")
            want.append(model.play("unguess", (endpoint, "?", ns, None, prefix[start:])))
        elif dice < 0.635:
            lines.append(f"clear {endpoint}")
            want.append(model.play("clear", (endpoint,)))
        else:
            lines.append(f"{verb} {ns} {' '.join(map(str, prefix))}")
            want.append(model.query(ns, prefix))
    return lines, want


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    lines, want = scenario(1)
    path = tmp_path_factory.mktemp("kv") / "operations"
    path.write_text("\n".join(lines) + "\n")
    return path, lines, want


@pytest.mark.parametrize("backend", ["run", "flat"])
def test_answers_as_the_model(played, backend):
    path, lines, want = played
    got = subprocess.run([build_dir() / "tests/kv_index_replay", backend, path], capture_output=True, text=True, check=True, timeout=300).stdout.splitlines()
    assert len(got) == len(want)
    for i, (is_, should) in enumerate(zip(got, want)):
        assert is_.strip() == should, f"operation {i}: {lines[i][:200]}"
    assert sum(w.count("0:0.000") < ENDPOINTS for w in want if ":" in w) > OPERATIONS // 10, "queries must find something"
