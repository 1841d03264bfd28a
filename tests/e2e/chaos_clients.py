"""The clients of a chaos run: the official `openai` SDK in a closed loop, and what became of each request."""
import asyncio
import collections
import contextlib
import contextvars
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
        self.what, self.why, self.port = WRONG, "", 0
        self.status = 0  # of the answer's head, 0 while there was none


under_way = contextvars.ContextVar("the request of this client that is under way")


async def note_head(response):
    under_way.get().status = response.status_code


class Clients:
    """`count` at a time, each with a wait of up to `think_s` between requests. `patience_s` is the SDK's timeout, for an answer
    to begin and between two of its bytes."""

    def __init__(self, url, count, seed, patience_s=8.0, think_s=0.03, model="m", max_tokens=16, echoes=True):
        self.url, self.count, self.seed, self.patience_s, self.think_s = url, count, seed, patience_s, think_s
        self.model, self.max_tokens, self.echoes = model, max_tokens, echoes  # echoes: a scripted engine answers the prompt
        self.ends, self.number = [], 0

    async def run(self, seconds):
        """One HTTP client for all: each has its own certificates' store, which takes longer to load than many requests."""
        async with httpx2.AsyncClient(timeout=self.patience_s, event_hooks={"response": [note_head]}) as http, \
                openai.AsyncOpenAI(base_url=self.url + "/v1", api_key="k", max_retries=0, timeout=self.patience_s,
                                   http_client=http) as sdk:
            until = time.monotonic() + seconds
            await asyncio.gather(*[self._client(sdk, i, until) for i in range(self.count)])

    async def _client(self, sdk, index, until):
        rng = random.Random(self.seed * 1000 + index)
        while time.monotonic() < until:
            self.number += 1
            end = End(f"id{self.number}-{index}", time.monotonic())
            under_way.set(end)
            await self._one(sdk, rng, end)
            self.ends.append(end)
            await asyncio.sleep(rng.uniform(0, self.think_s))

    async def _one(self, sdk, rng, end):
        shared = " ".join(f"w{rng.randrange(8)}" for _ in range(rng.randrange(1, 40)))
        prompt = f"{end.id} {shared}"
        stream = rng.random() < 0.5
        leave = rng.randrange(1, EVENTS - 2) if stream and rng.random() < 0.2 else None
        try:
            await self._exchange(sdk, prompt, stream, leave, end)
        except openai.APIStatusError as error:
            end.what, end.why = (REFUSED if end.status >= 500 else WRONG), f"{error.status_code} {error.message[:160]}"
        except openai.APIError as error:
            end.what, end.why = (BROKEN if end.status else NO_ANSWER), f"{type(error).__name__}: {str(error)[:160]}"
        except (httpx2.HTTPError, ValueError, AttributeError) as error:
            end.what, end.why = WRONG, f"raised outside the SDK's classes: {type(error).__name__}: {str(error)[:160]}"
        end.ended = time.monotonic()

    async def _exchange(self, sdk, prompt, stream, leave, end):
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}], "max_tokens": self.max_tokens}
        if not stream:
            answer = await sdk.chat.completions.create(**body)
            end.port, text = answer.id, answer.choices[0].message.content
            return self._whole(text, prompt, answer.choices[0].finish_reason, end)
        answer = await sdk.chat.completions.create(stream=True, **body)
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


def judge(ends, well, excused=lambda end: False):
    """(counts, violations). `well`: the id of the engine that was well the whole time. `excused(end)`: whether a 503 or a break was
    due then."""
    counts, violations = collections.Counter(), []
    for end in ends:
        what = end.what
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
