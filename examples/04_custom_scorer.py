"""The scorer of 03_custom_scorer in Python: same YAML, same formula, same decisions.

usage: 04_custom_scorer.py      (prints the choice for each case of 03_custom_scorer/golden.json)
"""
import json
import pathlib

import numpy

import llmd

EXAMPLE = pathlib.Path(__file__).parent / "03_custom_scorer"


class KvHeadroom:
    """Prefers the endpoint that keeps the most free KV cache after this request."""

    def __init__(self, *, bytesPerToken=4.0, defaultMaxTokens=256.0):  # the keys of the YAML
        self.bytes_per_token, self.default_max_tokens = bytesPerToken, defaultMaxTokens

    def __call__(self, request, candidates):
        answer = self.default_max_tokens if request.max_tokens is None else request.max_tokens
        tokens = request.prompt_bytes / self.bytes_per_token + answer
        usage, size, blocks = candidates.kv_usage, candidates.block_size, candidates.num_blocks
        scores = numpy.full(len(candidates), numpy.nan)  # NaN = not scored
        known = ~numpy.isnan(usage) & (size > 0) & (blocks > 0)
        needed = numpy.ceil(tokens / size[known])
        scores[known] = numpy.maximum(0, 1 - (usage[known] * blocks[known] + needed) / blocks[known])
        return scores


def endpoint(case):
    unknown = float("nan")  # what the file writes as null
    gauge = lambda key: unknown if case.get(key, 0) is None else case.get(key, 0)  # noqa: E731
    return llmd.Endpoint(case["name"], waiting=gauge("waiting"), running=gauge("running"), kv_usage=gauge("kvUsage"),
                         block_size=case.get("blockSize", 16), num_blocks=case.get("numBlocks", 0))


def decisions(scheduler, cases):
    for case in cases:
        request = case["request"]
        yield case, scheduler.schedule(request["body"], [endpoint(e) for e in case["endpoints"]],
                                       path=request.get("path", "/v1/completions"))


def main():
    scheduler = llmd.Scheduler.from_yaml((EXAMPLE / "scheduler.yaml").read_text(), scorers={"kv-headroom-scorer": KvHeadroom})
    for case, decision in decisions(scheduler, json.loads((EXAMPLE / "golden.json").read_text())):
        print(f"{case['name']}: {decision.endpoint}")


if __name__ == "__main__":
    main()
