"""A model server for SDK tests: what a request's text asks for with `script:NAME[:ARGUMENT]` is what it does.

    text                 an answer of the API that the path names, as a stream where the body says so
    tools                one tool call (chat and messages)
    status:N             that status with the API's error object
    busy:ID              429 with Retry-After: 1 the first time that ID is seen, then text
    reset                breaks off before the first byte
    cut                  two events, then a reset; of a plain answer half of its body
    fin                  the same, but the connection is closed as if nothing had happened
    undone               a stream that ends cleanly without its last event
    hang                 no answer at all
    stall                two events, then nothing

Bodies have blanks, escapes, unknown members and integers above 2^53, so that a gateway that writes them anew is seen.
"""
import asyncio
import base64
import json
import re
import struct

from fake_engine import response

SCRIPT = re.compile(rb"script:([a-z]+)(?::([\w-]+))?")
WORDS = ["One", " two", " três", " four"]
VECTOR = [0.5, -0.25, 1.0]
ODD = '"x_unknown" : {"big":9007199254740993,"esc":"\\u00e9\\/","one":1.0}'


def sse(data, event=None):
    return ((f"event: {event}\n" if event else "") + f"data: {data}\n\n").encode()


def chat_chunk(delta, finish=None, extra=""):
    return sse(f'{{"id":"c-1", "object":"chat.completion.chunk","created":1,"model":"m",{ODD},"choices":[{{"index":0,'
               f'"delta":{json.dumps(delta)},"finish_reason":{json.dumps(finish)}}}]{extra}}}')


USAGE = '{"prompt_tokens":5,"completion_tokens":4,"total_tokens":9}'
ARGUMENTS = ['{"city"', ': "Reykjav', 'ík"}']
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "".join(ARGUMENTS)}}


def chat_plain(tools):
    message = {"role": "assistant", "content": None if tools else "".join(WORDS)} | ({"tool_calls": [CALL]} if tools else {})
    finish = "tool_calls" if tools else "stop"
    return (f'{{ "id":"c-1","object":"chat.completion","created":1,"model":"m",{ODD},"choices":[{{"index":0,"message":'
            f'{json.dumps(message)},"finish_reason":"{finish}"}}],"usage":{USAGE}}}\n').encode()


def chat_stream(tools, usage):
    events = [chat_chunk({"role": "assistant", "content": None if tools else ""})]
    if tools:
        first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
        events.append(chat_chunk({"tool_calls": [first]}))
        events += [chat_chunk({"tool_calls": [{"index": 0, "function": {"arguments": a}}]}) for a in ARGUMENTS]
    else:
        events += [chat_chunk({"content": w}) for w in WORDS]
    events.append(chat_chunk({}, "tool_calls" if tools else "stop"))
    if usage:
        events.append(sse(f'{{"id":"c-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{USAGE}}}'))
    return [*events, b": a comment\n\n", b"data: [DONE]\n\n"]


def completion_plain():
    return (f'{{"id":"c-1","object":"text_completion","created":1,"model":"m",{ODD},"choices":[{{"index":0,"text":'
            f'{json.dumps("".join(WORDS))},"finish_reason":"stop","logprobs":null}}],"usage":{USAGE}}}').encode()


def completion_stream():
    def chunk(text, finish):
        return sse(f'{{"id":"c-1","object":"text_completion","created":1,"model":"m","choices":[{{"index":0,"text":{json.dumps(text)},'
                   f'"finish_reason":{json.dumps(finish)},"logprobs":null}}]}}')
    return [*[chunk(w, None) for w in WORDS], chunk("", "stop"), b"data: [DONE]\n\n"]


def embeddings(body):
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    packed = base64.b64encode(struct.pack(f"<{len(VECTOR)}f", *VECTOR)).decode()
    vector = json.dumps(packed if body.get("encoding_format") == "base64" else VECTOR)
    data = ",".join(f'{{"object":"embedding","index":{i},"embedding":{vector}}}' for i in range(len(inputs)))
    return f'{{"object":"list","data":[{data}],"model":"m",{ODD},"usage":{{"prompt_tokens":2,"total_tokens":2}}}}'.encode()


def response_object(status, text):
    content = [{"type": "output_text", "text": text, "annotations": []}]
    output = [{"type": "message", "id": "msg_1", "status": status, "role": "assistant", "content": content}] if text else []
    return {"id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": "m", "output": output, "tools": [],
            "tool_choice": "auto", "parallel_tool_calls": True, "error": None, "incomplete_details": None, "instructions": None,
            "metadata": {}, "temperature": 1.0, "top_p": 1.0,
            "usage": {"input_tokens": 5, "output_tokens": 4, "total_tokens": 9, "input_tokens_details": {"cached_tokens": 0},
                      "output_tokens_details": {"reasoning_tokens": 0}} if text else None}


def responses_plain():
    return json.dumps(response_object("completed", "".join(WORDS)), indent=1).encode()


def responses_stream():
    parts = [("response.created", {"response": response_object("in_progress", "")})]
    parts += [("response.output_text.delta", {"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": w, "logprobs": []})
              for w in WORDS]
    parts.append(("response.completed", {"response": response_object("completed", "".join(WORDS))}))
    return [sse(json.dumps({"type": name, "sequence_number": i, **data}), name) for i, (name, data) in enumerate(parts)]


def message_plain(tools):
    content = [{"type": "tool_use", "id": "call_1", "name": "weather", "input": json.loads("".join(ARGUMENTS))}] if tools else \
        [{"type": "text", "text": "".join(WORDS)}]
    return (f'{{"id":"msg_1","type":"message","role":"assistant","model":"m",{ODD},"content":{json.dumps(content)},"stop_reason":'
            f'"{"tool_use" if tools else "end_turn"}","stop_sequence":null,"usage":{{"input_tokens":5,"output_tokens":4}}}}').encode()


def message_stream(tools):
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
             "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 0}}
    block = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}} if tools else {"type": "text", "text": ""}
    deltas = [{"type": "input_json_delta", "partial_json": a} for a in ARGUMENTS] if tools else \
        [{"type": "text_delta", "text": w} for w in WORDS]
    parts = [("message_start", {"message": start}), ("content_block_start", {"index": 0, "content_block": block})]
    parts += [("content_block_delta", {"index": 0, "delta": d}) for d in deltas]
    parts += [("content_block_stop", {"index": 0}),
              ("message_delta", {"delta": {"stop_reason": "tool_use" if tools else "end_turn", "stop_sequence": None},
                                 "usage": {"output_tokens": 4}}),
              ("message_stop", {})]
    return [b"event: ping\ndata: {\"type\": \"ping\"}\n\n"] + [sse(json.dumps({"type": n, **d}), n) for n, d in parts]


def error_body(path, status):
    kind = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 422: "invalid_request_error",
            429: "rate_limit_error"}.get(status, "api_error" if status >= 500 else "invalid_request_error")
    error = {"message": f"scripted {status}", "type": kind, "param": "prompt", "code": f"code_{status}"}
    if path.endswith("/messages"):
        return json.dumps({"type": "error", "error": {"type": kind, "message": f"scripted {status}"}}).encode()
    return json.dumps({"error": error}).encode()


class Script:
    """`answer` is for FakeEngine. Remembers which busy ids it has seen."""

    def __init__(self):
        self.seen = set()

    def body(self, path, asked, tools):
        """Bytes of a plain answer, or the list of a stream's events."""
        stream = asked.get("stream") is True
        if path.endswith("/chat/completions"):
            usage = (asked.get("stream_options") or {}).get("include_usage")
            return chat_stream(tools, usage) if stream else chat_plain(tools)
        if path.endswith("/completions"):
            return completion_stream() if stream else completion_plain()
        if path.endswith("/embeddings"):
            return embeddings(asked)
        if path.endswith("/responses"):
            return responses_stream() if stream else responses_plain()
        if path.endswith("/messages/count_tokens"):
            return b'{"input_tokens" : 7}'
        if path.endswith("/messages"):
            return message_stream(tools) if stream else message_plain(tools)
        return None

    async def answer(self, request, writer):
        path = request.target.partition("?")[0]
        if path == "/metrics":
            return response(body=b"vllm:num_requests_waiting 0.0\n", content_type="text/plain")
        if path == "/v1/models":
            return response(body=b'{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"script"}]}')
        if request.method != "POST":
            return response(404, error_body(path, 404))
        found = SCRIPT.search(request.body)
        name, argument = (found[1].decode(), (found[2] or b"").decode()) if found else ("text", "")
        body = self.body(path, json.loads(request.body), name == "tools")
        if body is None:
            return response(404, error_body(path, 404))
        return await self.act(name, argument, path, body, writer)

    async def act(self, name, argument, path, body, writer):
        if name == "status":
            return response(int(argument), error_body(path, int(argument)))
        if name == "busy" and argument not in self.seen:
            self.seen.add(argument)
            return response(429, error_body(path, 429), headers=[("Retry-After", "1")])
        if name == "hang":
            await asyncio.sleep(600)
        if name == "reset":
            writer.transport.abort()
            return None
        if isinstance(body, bytes):
            return await plain(name, body, writer)
        return await stream(name, body, writer)


async def plain(name, body, writer):
    if name not in ("cut", "fin"):
        return response(body=body)
    writer.write(response(body=body)[:-len(body) // 2])
    await writer.drain()
    await asyncio.sleep(0.05)  # so that what was written is read before the reset overtakes it
    writer.transport.abort() if name == "cut" else writer.close()
    return None


async def stream(name, events, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    if name in ("cut", "fin", "stall"):
        events = events[:3]
    elif name == "undone":
        events = events[:-1]
    for event in events:
        writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)
    if name == "stall":
        await asyncio.sleep(600)
    if name == "cut":
        writer.transport.abort()
    elif name == "fin":
        writer.close()
    else:
        return b"0\r\n\r\n"
    return None
