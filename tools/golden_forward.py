#!/usr/bin/env python3
"""Golden files for the engine's arithmetic: an independent float64 NumPy forward pass of a Llama GGUF.

Reads the GGUF with a parser of its own, dequantises the weights to float64, tokenises the prompts with PyPI `tokenizers`
built from the file's vocabulary, and decodes greedily. Written per step: the reference's token, the gap between its two
largest logits, and the log-probability of that token. The C++ test walks the same path teacher-forced.

  golden_forward.py MODEL.gguf OUT.txt [--steps 64]

Needs numpy and tokenizers. Takes about a minute per hundred million parameters.
"""
import argparse
import hashlib
import struct
import sys

import numpy as np

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TYPES = {0: (4, 1), 1: (2, 1), 2: (18, 32), 3: (20, 32), 8: (34, 32), 30: (2, 1)}  # bytes, elements of a block


class Gguf:
    def __init__(self, path):
        self.raw = np.memmap(path, dtype=np.uint8, mode="r")
        self.at = 0
        if bytes(self.raw[:4]) != b"GGUF":
            sys.exit(f"{path} is no GGUF file")
        self.at = 8
        tensors, keys = self.scalar("Q"), self.scalar("Q")
        self.keys = {}
        for _ in range(keys):
            name = self.string()
            self.keys[name] = self.value(self.scalar("I"))
        self.tensors = {}
        for _ in range(tensors):
            name = self.string()
            dims = [self.scalar("Q") for _ in range(self.scalar("I"))]
            self.tensors[name] = (dims, self.scalar("I"), self.scalar("Q"))
        alignment = self.keys.get("general.alignment", 32)
        self.data = (self.at + alignment - 1) // alignment * alignment

    def scalar(self, code):
        size = struct.calcsize("<" + code)
        value = struct.unpack("<" + code, bytes(self.raw[self.at:self.at + size]))[0]
        self.at += size
        return value

    def string(self):
        length = self.scalar("Q")
        text = bytes(self.raw[self.at:self.at + length])
        self.at += length
        return text.decode("utf-8", "surrogateescape")

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            element, count = self.scalar("I"), self.scalar("Q")
            return [self.value(element) for _ in range(count)]
        return self.scalar(SCALARS[kind])

    def tensor(self, name):
        dims, kind, offset = self.tensors[name]
        block, elements = TYPES[kind]
        count = int(np.prod(dims))
        begin = self.data + offset
        raw = np.asarray(self.raw[begin:begin + count // elements * block]).reshape(-1, block)
        return dequantise(kind, raw).reshape(list(reversed(dims)))


def half(raw, at):
    return raw[:, at:at + 2].copy().view(np.float16).astype(np.float64)


def nibbles(raw, at):
    q = raw[:, at:at + 16]
    return np.concatenate([q & 15, q >> 4], axis=1).astype(np.float64)


def dequantise(kind, raw):
    if kind == 0:
        return raw.copy().view(np.float32).astype(np.float64)
    if kind == 1:
        return half(raw, 0)
    if kind == 2:
        return (nibbles(raw, 2) - 8) * half(raw, 0)
    if kind == 3:
        return nibbles(raw, 4) * half(raw, 0) + half(raw, 2)
    if kind == 8:
        return raw[:, 2:].copy().view(np.int8).astype(np.float64) * half(raw, 0)
    return (raw.copy().view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)


class Llama:
    """One sequence at a time for prompts, all sequences side by side for decoding."""

    def __init__(self, gguf):
        arch = gguf.keys["general.architecture"]
        key = lambda name, default=None: gguf.keys.get(f"{arch}.{name}", default)
        self.layers, self.heads = key("block_count"), key("attention.head_count")
        self.kv_heads = key("attention.head_count_kv", self.heads)
        self.dim = key("attention.key_length", key("embedding_length") // self.heads)
        self.eps, theta = key("attention.layer_norm_rms_epsilon"), key("rope.freq_base", 10000.0)
        self.frequency = float(theta) ** (-2.0 * np.arange(self.dim // 2) / self.dim)
        if "rope_freqs.weight" in gguf.tensors:
            self.frequency /= gguf.tensor("rope_freqs.weight")
        self.w = {name: gguf.tensor(name) for name in gguf.tensors}
        if "output.weight" not in self.w:
            self.w["output.weight"] = self.w["token_embd.weight"]

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.eps) * self.w[name]

    def rope(self, x, positions):
        # GGUF keeps the rows of Q and K in the order of interleaved rotation: pairs are neighbours.
        angle = positions[:, None, None] * self.frequency
        cos, sin = np.cos(angle), np.sin(angle)
        even, odd = x[..., 0::2], x[..., 1::2]
        out = np.empty_like(x)
        out[..., 0::2], out[..., 1::2] = even * cos - odd * sin, odd * cos + even * sin
        return out

    def attend(self, q, k, v, positions):
        group = self.heads // self.kv_heads
        out = np.empty_like(q)
        hidden = np.arange(k.shape[0])[None, :] > positions[:, None]
        for h in range(self.heads):
            scores = q[:, h] @ k[:, h // group].T / np.sqrt(self.dim)
            scores[hidden] = -np.inf
            p = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[:, h] = p / p.sum(axis=1, keepdims=True) @ v[:, h // group]
        return out

    def forward(self, rows, wanted):
        """rows: (tokens, first position, cache) per sequence; returns logits of the last row of each."""
        tokens = np.concatenate([np.asarray(r[0]) for r in rows])
        positions = np.concatenate([np.arange(len(r[0])) + r[1] for r in rows])
        bounds = np.cumsum([0] + [len(r[0]) for r in rows])
        x = self.w["token_embd.weight"][tokens]
        for layer in range(self.layers):
            p = f"blk.{layer}."
            h = self.norm(x, p + "attn_norm.weight")
            q = self.rope((h @ self.w[p + "attn_q.weight"].T).reshape(-1, self.heads, self.dim), positions)
            k = self.rope((h @ self.w[p + "attn_k.weight"].T).reshape(-1, self.kv_heads, self.dim), positions)
            v = (h @ self.w[p + "attn_v.weight"].T).reshape(-1, self.kv_heads, self.dim)
            out = np.empty_like(q)
            for s, (_, _, cache) in enumerate(rows):
                a, b = bounds[s], bounds[s + 1]
                old = cache.get(layer)
                ks = k[a:b] if old is None else np.concatenate([old[0], k[a:b]])
                vs = v[a:b] if old is None else np.concatenate([old[1], v[a:b]])
                cache[layer] = (ks, vs)
                out[a:b] = self.attend(q[a:b], ks, vs, positions[a:b])
            x = x + out.reshape(len(tokens), -1) @ self.w[p + "attn_output.weight"].T
            h = self.norm(x, p + "ffn_norm.weight")
            gate = h @ self.w[p + "ffn_gate.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ self.w[p + "ffn_up.weight"].T)) @ self.w[p + "ffn_down.weight"].T
        return self.norm(x[wanted], "output_norm.weight") @ self.w["output.weight"].T


def tokenizer_of(gguf):
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    tokens, kinds = gguf.keys["tokenizer.ggml.tokens"], gguf.keys["tokenizer.ggml.token_type"]
    merges = [tuple(m.split(" ", 1)) for m in gguf.keys["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.add_special_tokens([AddedToken(t, special=True) for t, k in zip(tokens, kinds) if k == 3])
    return made


def chat(text):
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def prompts():
    ledger = "".join(f"Entry {i}: on day {i * 7 % 30 + 1} the harbour of {town} received {i * 13 % 97} crates of {goods}. "
                     for i, (town, goods) in enumerate(
                         (t, g) for t in ["Oslo", "Porto", "Genoa", "Tallinn", "Cadiz", "Malmo", "Rijeka", "Bergen", "Split"]
                         for g in ["salt", "cork", "tin", "wool", "tea", "slate", "amber", "rope"]))
    return [
        ("capital", "The capital of France is"),
        ("story", "Once upon a time, in a village between two rivers, there lived"),
        ("physics", "Water boils at a lower temperature on a mountain because"),
        ("list", "Here are five tips for learning to cook:\n1."),
        ("chat-sky", chat("Why is the sky blue? Answer in two sentences.")),
        ("chat-sum", chat("Add 17 and 25, then explain the steps.")),
        ("chat-mail", chat("Write a short, polite email that moves a meeting from Monday to Thursday.")),
        ("chat-poem", chat("Write a short poem about the sea in winter.")),
        ("german", "Die Hauptstadt von Deutschland ist Berlin. Die Stadt liegt an der Spree und"),
        ("french", "La cuisine française est connue dans le monde entier parce que"),
        ("spanish", "El ciclo del agua comienza cuando el sol calienta los océanos y"),
        ("italian", "Il Rinascimento nacque a Firenze nel quindicesimo secolo, quando"),
        ("portuguese", "O Brasil é o maior país da América do Sul e"),
        ("russian", "Москва — столица России. Город расположен на реке"),
        ("chinese", "北京是中国的首都,也是"),
        ("japanese", "東京は日本の首都であり、"),
        ("code-python", "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n"),
        ("code-c", "#include <stdio.h>\n\nint main(void) {\n    for (int i = 0; i < 10; ++i) {\n"),
        ("code-sql", "SELECT customer_id, COUNT(*) AS orders\nFROM orders\nWHERE"),
        ("json", "{\"name\": \"Ada Lovelace\", \"born\": 1815, \"occupation\":"),
        ("digits", "1, 1, 2, 3, 5, 8, 13, 21, 34,"),
        ("long", "The following is the ledger of a trading company.\n" + ledger + "\nIn summary, the ledger shows that"),
    ]


def decode(model, encoded, steps):
    caches = [{} for _ in encoded]
    logits = []
    for i, ids in enumerate(encoded):
        logits.append(model.forward([(ids, 0, caches[i])], [len(ids) - 1])[0])
        print(f"prompt {i + 1} of {len(encoded)}: {len(ids)} tokens", file=sys.stderr)
    results = [[] for _ in encoded]
    for step in range(steps):
        chosen = []
        for i, row in enumerate(logits):
            first, second = np.argsort(row)[-1:-3:-1]
            top = row[first]
            results[i].append((int(first), top - row[second], -np.log(np.exp(row - top).sum())))
            chosen.append(int(first))
        if step + 1 < steps:
            rows = [([t], len(encoded[i]) + step, caches[i]) for i, t in enumerate(chosen)]
            logits = model.forward(rows, list(range(len(rows))))
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=64)
    args = parser.parse_args()
    gguf = Gguf(args.model)
    tokenizer = tokenizer_of(gguf)
    named = prompts()
    encoded = [tokenizer.encode(text, add_special_tokens=False).ids for _, text in named]
    results = decode(Llama(gguf), encoded, args.steps)
    digest = hashlib.sha256(open(args.model, "rb").read()).hexdigest()
    with open(args.out, "w") as out:
        out.write(f"golden 1 model {digest} prompts {len(named)} steps {args.steps}\n")
        for (name, _), ids, steps in zip(named, encoded, results):
            out.write(f"prompt {name} {len(ids)}\n{' '.join(map(str, ids))}\n")
            for token, gap, logprob in steps:
                out.write(f"{token} {gap:.6f} {logprob:.6f}\n")


if __name__ == "__main__":
    main()
