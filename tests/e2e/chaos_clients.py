"""The clients of a chaos run: the official `openai` SDK in a closed loop, and what became of each request."""
import asyncio
import collections
import contextlib
import random
import time

import httpx2
import openai

from chaos_engine import EVENTS

TAIL = "".join(f" {i}" for i in range(1, EVENTS))

# Ends of a request.
OK, LEFT, BROKEN = "ok", "left", "broken"       # whole; closed by the client; raised after it had begun
REFUSED, NO_ANSWER = "refused", "no answer"     # a status of 500 or more; nothing came
WRONG = "wrong"                                 # another's answer, a hole, an end that looks like success


class End:
    """One request's: what, why, when (monotonic seconds), and the engine's port where an event had named it."""

    def __init__(self, request_id, begun):
        self.id, self.begun, self.ended = request_id, begun, begun
        self.what, self.why, self.port, self.stream, self.status = WRONG, "", 0, False, 0


class Clients:
    """`count` at a time, each with a wait of up to `think_s` between requests. `patience_s` is the SDK's timeout, for an answer
    to begin and between two of its bytes."""

    def __init__(self, url, count, seed, patience_s=8.0, think_s=0.03, model="m", max_tokens=16, echoes=True):
        self.url, self.count, self.seed, self.patience_s, self.think_s = url, count, seed, patience_s, think_s
        self.model, self.max_tokens, self.echoes = model, max_tokens, echoes  # echoes: a scripted engine answers the prompt
        self.ends, self.number = [], 0

    async def run(self, seconds):
        until = time.monotonic() + seconds
        await asyncio.gather(*[self._client(i, until) for i in range(self.count)])

    async def _client(self, index, until):
        rng = random.Random(self.seed * 1000 + index)
        timeout = openai.Timeout(self.patience_s)
        async with openai.AsyncOpenAI(base_url=self.url + "/v1", api_key="k", max_retries=0, timeout=timeout) as sdk:
            while time.monotonic() < until:
                self.number += 1
                self.ends.append(await self._one(sdk, rng, f"id{self.number}-{index}"))
                await asyncio.sleep(rng.uniform(0, self.think_s))

    async def _one(self, sdk, rng, request_id):
        end = End(request_id, time.monotonic())
        shared = " ".join(f"w{rng.randrange(8)}" for _ in range(rng.randrange(1, 40)))
        prompt = f"{request_id} {shared}"
        end.stream = rng.random() < 0.5
        leave = rng.randrange(1, EVENTS - 2) if end.stream and rng.random() < 0.2 else None
        try:
            await self._exchange(sdk, prompt, leave, end)
        except openai.APIStatusError as error:
            end.status = error.status_code
            end.what, end.why = (REFUSED if end.status >= 500 else WRONG), f"{error.status_code} {error.message[:160]}"
        except openai.APIError as error:
            end.what, end.why = (BROKEN if end.status else NO_ANSWER), f"{type(error).__name__}: {str(error)[:160]}"
        except (httpx2.HTTPError, ValueError, AttributeError) as error:
            end.what, end.why = WRONG, f"raised outside the SDK's classes: {type(error).__name__}: {str(error)[:160]}"
        end.ended = time.monotonic()
        return end

    async def _exchange(self, sdk, prompt, leave, end):
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}], "max_tokens": self.max_tokens}
        if not end.stream:
            answer = await sdk.chat.completions.create(**body)
            end.port, text = answer.id, answer.choices[0].message.content
            return self._whole(text, prompt, answer.choices[0].finish_reason, end)
        answer = await sdk.chat.completions.create(stream=True, **body)
        end.status = 200  # from here on it may break
        text, finish, number = "", None, 0
        async with contextlib.aclosing(answer):
            async for event in answer:
                end.port, number = event.id, number + 1
                if event.choices:
                    text += event.choices[0].delta.content or ""
                    finish = event.choices[0].finish_reason or finish
                if number == leave:
                    end.what = LEFT
                    return
        self._whole(text, prompt + TAIL, finish, end)

    def _whole(self, text, expected, finish, end):
        if finish not in ("stop", "length"):
            end.why = f"ended as if whole after {text[:80]!r}"
        elif self.echoes and text != expected:
            end.why = f"got {text[:80]!r} for {expected[:80]!r}"
        else:
            end.what = OK


def judge(ends, cuts, well, excused=lambda end: False):
    """(counts, violations). `cuts`: ids that an engine says it broke off after their first byte. `well`: the id of the engine
    that was well the whole time. `excused(end)`: whether a refusal or a break was due then."""
    counts, violations = collections.Counter(), []
    for end in ends:
        what = end.what
        if what == NO_ANSWER and end.id in cuts and not end.stream:
            what = BROKEN  # a plain answer that was cut: the SDK raises, and nobody could have sent it anew
        counts[what] += 1
        if what == WRONG:
            violations.append(f"wrong: {end.id}: {end.why}")
        elif what == BROKEN and end.port == well and not excused(end):
            violations.append(f"broken on the engine that was well: {end.id}: {end.why}")
        elif what == REFUSED and not (excused(end) and end.status == 503):
            counts["lost"] += 1
            violations.append(f"lost: {end.id}: {end.why} after {end.ended - end.begun:.2f} s")
        elif what == NO_ANSWER:
            counts["lost"] += 1
            violations.append(f"lost: {end.id}: {end.why} after {end.ended - end.begun:.2f} s")
    return counts, violations
