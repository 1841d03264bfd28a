"""The request bodies of gateway_bench.py: seeded, so that two runs send the same bytes."""
import json
import random
import struct

WORDS = ("the of and a to in is you that it he was for on are as with his they at be this have from or one had by word but not "
         "what all were we when your can said there use an each which she do how their if will up other about out many then them "
         "these so some her would make like him into time has look two more write go see number no way could people my than first "
         "water been call who oil its now find long down day did get come made may part over new sound take only little work know "
         "place year live me back give most very after thing our just name good sentence man think say great where help through "
         "much before line right too mean old any same tell boy follow came want show also around form three small set put end").split()
KANA = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわをん日本語文章東京都市人間生活時間世界問題社会経済"


def english(rng, size):
    """About `size` bytes of sentences."""
    out, length = [], 0
    while length < size:
        words = [rng.choice(WORDS) for _ in range(rng.randint(6, 18))]
        sentence = " ".join(words).capitalize() + rng.choice([". ", ". ", "? ", ", and so on. ", ".\n\n"])
        out.append(sentence)
        length += len(sentence)
    return "".join(out)


def chat(text, **extra):
    return {"model": "m", **extra, "messages": [{"role": "system", "content": "You are a helpful assistant."},
                                                {"role": "user", "content": text}], "max_tokens": 64, "temperature": 0.7}


def encode(value, ascii_only=True):
    return json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":")).encode()


def small(rng):
    return [encode(chat(english(rng, 150))) for _ in range(64)]


def large(rng, size):
    return [encode(chat(english(rng, size))) for _ in range(16)]


def many_messages(rng):
    """Conversations of 6,000 short turns."""
    return [encode({"model": "m", "messages": [{"role": "user" if i % 2 == 0 else "assistant", "content": english(rng, 30)}
                                               for i in range(6000)]}) for _ in range(8)]


def token_ids(rng):
    return [encode({"model": "m", "prompt": [rng.randrange(128_000) for _ in range(75_000)], "max_tokens": 8}) for _ in range(8)]


def japanese(rng):
    """220 KB of UTF-8, not escaped."""
    return [encode(chat("".join(rng.choice(KANA) for _ in range(73_000))), ascii_only=False) for _ in range(16)]


def stream(rng, pace_us=0, hold=False):
    extra = {"stream": True, "bench_pace_us": pace_us}
    if hold:
        extra["bench_hold"] = True
    out = []
    for body in small(rng):
        # Where the engine looks for them: at the front.
        out.append(encode({**extra, **json.loads(body)}))
    return out


def make(kind):
    """The bodies of a row and the path they go to."""
    rng = random.Random(kind)
    makers = {
        "small": lambda: small(rng), "220KB": lambda: large(rng, 220_000), "450KB": lambda: large(rng, 450_000),
        "6000 messages": lambda: many_messages(rng), "75000 ids": lambda: token_ids(rng), "japanese": lambda: japanese(rng),
        "sse": lambda: stream(rng), "paced": lambda: stream(rng, 5000), "held": lambda: stream(rng, hold=True),
    }
    return makers[kind](), "/v1/completions" if kind == "75000 ids" else "/v1/chat/completions"


def write(kind, path):
    """Writes the bodies as http_load reads them; returns the target."""
    bodies, target = make(kind)
    with open(path, "wb") as out:
        for body in bodies:
            out.write(struct.pack("<I", len(body)) + body)
    return target
