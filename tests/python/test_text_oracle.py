"""Tokenizer against Hugging Face `tokenizers`, chat templates against `jinja2`, through the text_probe binary."""

import collections
import json
import os
import pathlib
import random
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))
from gguf_meta import read_metadata  # noqa: E402

sys.path.insert(0, str(ROOT / "tools"))
import template_fuzz  # noqa: E402
import tokenizers  # noqa: E402

MODEL = pathlib.Path(os.environ.get("LLMD_TEST_MODEL", ROOT / ".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf"))


def probe_path():
    if "LLMD_BUILD_DIR" in os.environ:
        return pathlib.Path(os.environ["LLMD_BUILD_DIR"]) / "tests" / "text_probe"
    found = sorted(ROOT.glob("build/*/tests/text_probe"), key=lambda p: p.stat().st_mtime)
    return found[-1] if found else None


class Probe:
    def __init__(self, path):
        self._process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, request):
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=10)


@pytest.fixture(scope="module")
def probe():
    path = probe_path()
    assert path is not None and path.exists(), "text_probe is not built"
    made = Probe(path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def meta():
    assert MODEL.exists(), f"{MODEL} is absent: run scripts/setup.sh"
    return read_metadata(MODEL)


COMMON = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def hf_pre_tokenizer(pre):
    from tokenizers import Regex, pre_tokenizers as p
    if pre == "smollm":
        return p.Sequence([p.Digits(individual_digits=True), p.ByteLevel(add_prefix_space=False)])
    if pre == "gpt-2":
        return p.ByteLevel(add_prefix_space=False)
    pattern = COMMON % ("{1,3}" if pre == "llama-bpe" else "")
    return p.Sequence([p.Split(Regex(pattern), "isolated"), p.ByteLevel(add_prefix_space=False, use_regex=False)])


def hf_tokenizer(meta, pre):
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    tokens = meta["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ", 1)) for m in meta["tokenizer.ggml.merges"]]
    model = models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, ignore_merges=pre == "llama-bpe")
    made = Tokenizer(model)
    made.pre_tokenizer = hf_pre_tokenizer(pre)
    if pre == "qwen2":
        made.normalizer = normalizers.NFC()
    made.decoder = decoders.ByteLevel()
    types = meta["tokenizer.ggml.token_type"]
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, types) if k == 3])
    return made


PIECES = [
    "Hello", " world", "the quick brown fox", "don't", "I'LL", "it'ſ", "we've", "'s", "''", "naïve café", "Straße", "ÅÄÖ",
    "中文分词", "日本語のテキスト", "カタカナ", "한국어 문장", "Привет, мир", "Ελληνικά", "עברית", "العربية", "हिन्दी", "ไทย", "ქართული",
    "😀", "👩‍👩‍👧‍👦", "🇩🇪", "✨🚀", "e\u0301", "a\u0315\u0300\u05ae\u0300b", "\u1112\u1161\u11ab", "\u212b", "\u0301", "\u0958", "\u200d", "\u200b", "\ufeff", "\u00a0", "\u2003", "\u3000", "\u2028",
    "0", "42", "1234567", "3.14", "½", "Ⅷ", "٣٤٥", "①", "²", "1,000", "0x1F", "𝟙𝟚",
    " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n ", "\t\t  ", "\n   \n", "\x0b", "\x0c", "\x85", "\x1f", "\x04", "\x00", "\x7f",
    "def f(x):\n    return x**2\n", "for (int i = 0; i < n; ++i) {", "a->b::c", "#include <x>", "==", "!!!", "...", "—", "“q”",
    "https://example.com/a?b=c&d=%20", "user@host", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "|>", "<repo_name>",
    "{\"k\": [1, 2]}", "\\n", "a" * 70, "=" * 100, " " * 60, "ab" * 40, "é" * 50, "\U00010348", "\U0001F1E6", "ﬁ", "ǅ", "ʰ",
]


def random_strings(count):
    rng = random.Random(7)
    strings = list(PIECES)
    while len(strings) < count * 3 // 4:
        strings.append("".join(rng.choice(PIECES) for _ in range(rng.randint(1, 12))))
    while len(strings) < count:
        codes = [rng.choice([rng.randint(0, 0x7F), rng.randint(0, 0x2FFF), rng.randint(0, 0xD7FF), rng.randint(0xE000, 0x1FFFF)])
                 for _ in range(rng.randint(1, 30))]
        strings.append("".join(map(chr, codes)))
    return strings


@pytest.mark.parametrize("pre,count", [("smollm", 3000), ("gpt-2", 1500), ("llama-bpe", 1500), ("qwen2", 1500)])
def test_ids_and_text_equal_hf(probe, meta, pre, count):
    spec = {"pre": pre, "tokens": meta["tokenizer.ggml.tokens"], "types": meta["tokenizer.ggml.token_type"],
            "merges": meta["tokenizer.ggml.merges"]}
    assert probe.ask({"spec": spec}) == {"ok": True}
    oracle = hf_tokenizer(meta, pre)
    wrong = []
    for text in random_strings(count):
        ids = oracle.encode(text, add_special_tokens=False).ids
        want = {"ids": ids, "text": oracle.decode(ids, skip_special_tokens=True)}
        got = probe.ask({"encode": text})
        if got != want:
            wrong.append((text, got, want))
    assert not wrong, f"{len(wrong)} differ, first: {wrong[:3]}"


def test_qwen2_text_is_in_form_c(probe, meta):
    """Every character alone, after a mark of low rank and between marks: what may move or join."""
    spec = {"pre": "qwen2", "tokens": meta["tokenizer.ggml.tokens"], "types": meta["tokenizer.ggml.token_type"],
            "merges": meta["tokenizer.ggml.merges"]}
    assert probe.ask({"spec": spec}) == {"ok": True}
    oracle = hf_tokenizer(meta, "qwen2")
    codes = [c for c in (*range(0xD800), *range(0xE000, 0x30000))]
    wrong = []
    for at in range(0, len(codes), 512):
        text = "".join(f"{chr(c)}x\u09bc{chr(c)}\u0328xa\u0301{chr(c)}\u0328x" for c in codes[at:at + 512])
        if probe.ask({"encode": text})["ids"] != oracle.encode(text, add_special_tokens=False).ids:
            wrong.append(f"U+{codes[at]:04X}")
    assert not wrong, f"512 characters from each of {wrong[:20]}"


ENV = template_fuzz.environment()


def check(probe, source, variables):
    got = probe.ask({"template": source, "variables": variables})
    try:
        want = ENV.from_string(source).render(**variables)
    except Exception as error:  # any failure of the oracle: ours must fail too
        assert "error" in got, f"oracle fails with {error!r}, ours gives {got}"
        return
    assert got == {"text": want}


CHATML = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}<|im_start|>system
You are helpful<|im_end|>
{% endif %}{{ '<|im_start|>' + message['role'] + '\n' + (message['content'] or '') | trim + '<|im_end|>' + '\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

LLAMA3 = """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" ~ date_string ~ "\\n" }}
{%- if tools is not none and tools is defined %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if message.tool_calls is defined and message.tool_calls %}
        {%- if message.tool_calls | length != 1 %}{{- raise_exception("one call only") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- "}" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|ipython|>" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}
    {%- else %}
        {{- '<|' + message['role'] + '|>' + (message['content'] | default('', true) | trim) + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"""

QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "<|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|' ~ message.role ~ '|' ~ (loop.last or loop.index0 > ns.last_query_index) ~ reasoning ~ '|' ~ content }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<tools>' }}{%- endif %}
        {{- content }}
        {%- if loop.last or loop.nextitem.role != 'tool' %}{{- '</tools>' }}{%- endif %}
    {%- else %}{{- message.role + ':' + content + '\\n' }}{%- endif %}
{%- endfor %}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think></think>' }}{%- endif %}"""

MISTRAL = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}
{%- elif message['role'] == 'system' %}{% set sys = message['content'] %}{%- elif message['role'] == 'assistant' %}{% generation %}{{ message['content'] ~ eos_token }}{% endgeneration %}
{%- else %}{{ raise_exception('Only user and assistant roles are supported, not ' ~ message['role']) }}{% endif %}{% endfor %}"""

GEMMA = """{{ bos_token }}{% macro turn(role, text='') %}<start_of_turn>{{ role }}
{{ text | trim }}<end_of_turn>
{% endmacro %}
{%- for message in messages %}
    {%- if (message['role'] == 'assistant') -%}{%- set role = "model" -%}{%- else -%}{%- set role = message['role'] -%}{%- endif -%}
    {%- if message['content'] is string -%}{{ turn(role, message['content']) }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}{%- if item['type'] == 'text' -%}{{ turn(role, text=item['text']) }}{%- endif -%}{%- endfor -%}
    {%- else -%}{{ raise_exception("Invalid content type") }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"""

CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1, "y": "ü<&>'", "z": [1.5, None, True]}}}
USER = {"role": "user", "content": " Hi there!\n"}
SYSTEM = {"role": "system", "content": "Be brief."}
BOT = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello."}
MESSAGE_SETS = [
    [USER], [SYSTEM, USER], [USER, BOT, USER], [SYSTEM, USER, BOT], [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}],
    [USER, BOT, {"role": "tool", "content": "7"}, {"role": "tool", "content": "8"}, BOT], [{"role": "other", "content": "x"}],
    [{"role": "user", "content": [{"type": "text", "text": "part"}, {"type": "image"}]}], [{"role": "user", "content": "日本語 😀"}],
]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d \"q\" </s>", "parameters": {"type": "object", "properties": {}}}}]
OPTIONS = [{}, {"add_generation_prompt": True}, {"tools": TOOLS, "add_generation_prompt": True}, {"tools": None, "enable_thinking": False}]
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "qwen": QWEN, "mistral": MISTRAL, "gemma": GEMMA, "smollm2": None}


@pytest.mark.parametrize("options", range(len(OPTIONS)))
@pytest.mark.parametrize("messages", range(len(MESSAGE_SETS)))
@pytest.mark.parametrize("name", TEMPLATES)
def test_model_templates_equal_jinja(probe, meta, name, messages, options):
    source = TEMPLATES[name] or meta["tokenizer.chat_template"]
    variables = {"messages": MESSAGE_SETS[messages], "bos_token": "<s>", "eos_token": "</s>", **OPTIONS[options]}
    check(probe, source, variables)


FEATURES = """{{ 1 + 2 * 3 - 4 // 3 % 2 }}|{{ 7 / 2 }}|{{ -7 // 2 }}|{{ -7 % 3 }}|{{ 2 ** 10 }}|{{ 1e20 }}|{{ 1.5e-7 }}|{{ 0.1 + 0.2 }}|{{ 100.0 }}
{{ 'a' ~ 1 ~ none ~ true ~ x }}
{{ [1, 'a', none, true, 1.0, {'k': (1,)}] }}
{{ 'it\\'s' }}{{ ["it's", 'q"', 'b\\\\', 'n\\n', "both'\\""] }}
{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}{{ 'a' in 'abc' }}{{ 4 not in [1, 2] }}{{ 'k' in d }}{{ not x }}
{{ 'a' if false }}|{{ 'a' if x else 'b' if y else 'c' }}
{{ d.k }}{{ d['k'] }}{{ d.get('nope') }}{{ d.get('nope', 3) }}{{ d.nope }}{{ d.items() | list }}{{ d.keys() | list }}
{{ lst[0] }}{{ lst[-1] }}{{ lst[99] }}{{ lst[1:] }}{{ lst[:-1] }}{{ lst[::-1] }}{{ lst[::2] }}{{ lst[-2:] }}{{ lst[5:1:-2] }}
{{ 'häuser'[1:3] }}{{ 'häuser'[::-1] }}{{ 'häuser' | length }}{{ 'häuser'[-1] }}
{{ lst | join(', ') }}{{ lst | first }}{{ lst | last }}{{ lst | min }}{{ lst | max }}{{ lst | sum }}{{ lst | sort }}{{ lst | sort(reverse=true) }}
{{ objs | map(attribute='n') | list }}{{ objs | selectattr('n', 'equalto', 1) | list }}{{ objs | rejectattr('z') | list }}{{ objs | map(attribute='q', default=0) | list }}
{{ lst | select('odd') | list }}{{ lst | reject('gt', 2) | list }}{{ ['a', 'B'] | map('upper') | join }}{{ [3, 1, 3] | unique | list }}
{{ d | dictsort }}{{ d | items | list }}{{ d | tojson }}{{ d | tojson(indent=2) }}{{ '<>&\\u00e9\\u007f' | tojson }}{{ [1.0, 1e100, 5e-324] | tojson }}
{{ ' x '.strip() ~ '|' ~ 'xxaxx'.strip('x') ~ '|' ~ '  a'.lstrip() ~ '|' ~ 'a\\n'.rstrip() }}{{ '\\u3000a\\xa0' | trim }}|
{{ 'a,b,,c'.split(',') }}{{ ' a  b '.split() }}{{ 'a b c'.split(' ', 1) }}{{ 'a b c'.rsplit(' ', 1) }}{{ 'a  b c '.split(none, 1) }}
{{ 'abcabc'.replace('b', 'X') }}{{ 'abcabc'.replace('b', 'X', 1) }}{{ 'abc' | replace('', '-') }}{{ 'aaa' | replace('a', 'b', 2) }}
{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'abc'.find('c') }}{{ 'aXa'.count('a') }}{{ 'a\\nb\\r\\nc'.splitlines() }}
{{ 'hello world' | title }}{{ 'hELLO' | capitalize }}{{ 'AbC' | lower }}{{ 'AbC'.upper() }}{{ 'abc' | reverse }}{{ lst | reverse | list }}
{{ '%s is %d and %.2f%%' | format('a', 3, 2.5) }}{{ '%5s|%-5s|%05d' % ('a', 'b', 42) }}{{ '{} {0}' }}{{ '{} {}'.format(1, 'b') }}{{ '{a}'.format(a=2) }}
{{ 'a\\nb\\n\\nc' | indent }}{{ 'a\\nb' | indent(2, true) }}{{ 'a\\n\\nb' | indent(width=3, blank=true) }}
{{ '12' | int }}{{ 'x' | int }}{{ 'x' | int(7) }}{{ 3.9 | int }}{{ '2.5' | float }}{{ -3 | abs }}{{ 2.567 | round(2) }}{{ 2.5 | round }}
{{ x | default('dd') }}{{ '' | default('dd') }}{{ '' | default('dd', true) }}{{ none | default('n') }}{{ 5 | string ~ 'a' }}
{{ x is defined }}{{ x is undefined }}{{ none is none }}{{ 1 is number }}{{ true is number }}{{ 1 is integer }}{{ 1.0 is float }}{{ true is boolean }}
{{ d is mapping }}{{ d is iterable }}{{ 'a' is iterable }}{{ 1 is iterable }}{{ lst is sequence }}{{ d is sequence }}{{ 'a' is sequence }}{{ none is iterable }}
{{ 3 is odd }}{{ 4 is even }}{{ 9 is divisibleby 3 }}{{ 1 is eq 1 }}{{ 'a' is in ['a'] }}{{ true is true }}{{ 1 is true }}{{ false is false }}{{ 'a' is lower }}{{ x is not defined and 1 }}
{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for k, v in d.items() %}{{ loop.index }}{{ k }}={{ v }}{{ loop.revindex }}{{ ', ' if not loop.last }}{% endfor %}
{% for i in lst if i > 1 %}{{ loop.index0 }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{% else %}none{% endfor %}
{% for i in x %}a{% else %}empty{% endfor %}{% for c in 'añb' %}{{ c }}.{% endfor %}{% for k in d %}{{ k }}{% endfor %}
{% set a = 1 %}{% for i in [1] %}{% set a = 2 %}{{ a }}{% endfor %}{{ a }}{% if true %}{% set a = 3 %}{% endif %}{{ a }}
{% set a, b = 1, [2] %}{{ a }}{{ b }}{% set t %}x{{ a }}{% endset %}{{ t }}{% set u | upper %}abc{% endset %}{{ u }}
{% set n = namespace(c=0, l=[]) %}{% for i in lst %}{% set n.c = n.c + i %}{% set n.l = n.l + [i] %}{% endfor %}{{ n.c }}{{ n.l }}
{% macro m(a, b=2) %}<{{ a }}{{ b }}{{ c }}>{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(a=5) }}{{ m() }}
{% macro fact(n) %}{% if n > 1 %}{{ n }}*{{ fact(n - 1) }}{% else %}1{% endif %}{% endmacro %}{{ fact(5) }}
{% filter upper %}abc{{ d.k }}{% endfilter %}{% generation %}gen{% endgeneration %}{% raw %}{{ x }}{% endraw %}
{{ dict(a=1, b='x') }}{{ dict() }}{{ range(3) | list }}{{ range(5, 0, -2) | list }}{{ (1, 2) }}{{ () }}{{ [] }}{{ {} }}{{ (1) }}
{{ lst == [1, 2, 3] }}{{ 1 == 1.0 }}{{ '1' == 1 }}{{ d == {'k': 'v', 'j': [1]} }}{{ [1, 2] < [1, 3] }}{{ 'a' < 'b' }}{{ none == x }}
{{ [1] * 2 }}{{ 'ab' * 2 }}{{ [1] + [2] }}{{ 'a' + 'b' }}{{ 1 and 0 }}{{ 0 or 'z' }}{{ '' and 1 }}{{ not 1 == 2 }}{{ -2 ** 2 }}{{ 'a' 'b' }}
a  {%- if true -%}  b  {%- endif -%}  c {#- comment -#} d {{- 1 -}} e
{%+ if true %}plus{% endif +%}
{{ x.y }}
{{ none.y }}{{ d.k.zzz }}{{ lst.zzz }}
{{ none.y.z }}
{{ 1 + x }}
{{ 'a' + 1 }}
{{ x() }}
{{ lst | nofilter }}
{{ 1 is nosuch }}
{{ raise_exception('boom') }}
{{ undefined_fn(1) }}
{% for i in 5 %}{% endfor %}
{% for i in none %}{% endfor %}
{{ x | tojson }}
{{ 1 < 'a' }}
{{ none | length }}
{% if %}{% endif %}
{{ 'unclosed }}
{% endfor %}
{{ }}""".split("\n")
VARIABLES = {"d": {"k": "v", "j": [1]}, "lst": [1, 2, 3], "objs": [{"n": 1}, {"n": 2, "z": True}]}
MULTILINE = [
    "a\n  {% if true %}\n    b\n  {% endif %}\nc\n", "  {{ 1 }}\n  {# c #}\n  x\n\n", "{% for i in [1,2] %}\n  {{ i }}\n{% endfor %}\n\nend",
    "a\r\nb\r{{ 1 }}\r\n", "x {% set a = 1 %}\n y", "{{ 'multi\nline' }}\n{%- set b = 2 %}\n\n{{- b -}}\n\nz", "\n\n{%- if true +%}\nk{% endif %}\n",
]


@pytest.mark.parametrize("source", FEATURES + MULTILINE)
def test_features_equal_jinja(probe, source):
    check(probe, source, VARIABLES)


def test_random_templates_equal_jinja(probe):
    """A fixed run of tools/template_fuzz.py: what both render is the same, and nearly all of it renders."""
    counts, wrong = collections.Counter(), []
    gen = template_fuzz.Gen(random.Random(20261201))
    for _ in range(1500):
        template_fuzz.compare(probe, ENV, gen.template(), gen.context(), counts, wrong.append)
    assert not wrong, f"{len(wrong)} differ, first: {min(wrong, key=len)}"
    assert counts["rendered"] > 1200 and counts["lenient"] < 30, counts


@pytest.mark.parametrize("source", [
    "{{ 'straße ÀÉ ǆ'|upper }}{{ 'ÀÉ İ ΑΣ ΣΑ.'|lower }}{{ 'éa-b (ǆ'|title }}{{ 'éa-bß'.title() }}{{ 'ﬁn ÀB'|capitalize }}{{ 'ßé'.casefold() }}{{ 'aÉß'.swapcase() }}",
    "{{ 'éaéa'.find('a', 2) }}{{ 'éaéa'.rfind('é', 0, 2) }}{{ 'aaa'.count('a', 1) }}{{ ''.find('', 1) }}{{ 'abc'.startswith('b', 1) }}{{ 'abc'.endswith('b', 0, 2) }}",
    "{{ d.keys() }}{{ d.values() }}{{ d.items() }}{{ range(3) }}{{ range(9)[2:7:2] }}{{ d.keys() is sequence }}{{ d.items()[0] }}|{{ d.items()|length }}",
    "{% if lst|select('gt', 9) %}always{% endif %}{% set g = lst|map('string') %}{{ g|join }}{{ g|join }}{{ g|first }}|",
    "{{ 7|round }}{{ 2.675|round(2) }}{{ 15|round(-1) }}{{ 1e16 % 3 }}{{ -7.5 // 2 }}{{ -0.0 }}{{ 2 ** 100 }}{{ 1 == 1.0 }}{{ 9007199254740993 == 9007199254740992.0 }}",
    "{{ '٣٤'|int }}{{ '1_000'|int }}{{ ' 0x1f '|int(base=16) }}{{ 'x'|int(default=none) }}{{ '1e400'|float }}{{ 'nan'|float }}{{ '½'.isnumeric() }}{{ '²'.isdigit() }}",
    "{{ 'a\x0bb\u2028c\r\nd'.splitlines() }}{{ 'a\x0bb'|indent }}{{ ' a  b c '.rsplit(none, 1) }}{{ 'a.b.c'.rpartition('.') }}",
    "{% for i in lst %}{% continue %}{% else %}none{% endfor %}{% for i in lst %}{{ i }}{% break %}{% else %}broken{% endfor %}",
    "{{ '\x85\u200b\xa0é😀'|list }}{{ ['\x00\x7f'] }}{{ '{:>5}|{:,}|{!r}|{:.1f}'.format('é', 12345, 'x', 2.25) }}{{ '%5s|%x|%+d' % ('é', -255, 3) }}",
    "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}{{ m(*[4, 5], **{'y': 6}) }}",
    "{% macro box() %}[{{ caller('in') }}]{% endmacro %}{% call(x) box() %}{{ x }}{{ lst }}{% endcall %}{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}",
    "{{ objs|groupby('n')|map('first')|list }}{{ lst|batch(2, 0)|list }}{{ lst|slice(2)|list }}{{ 'one two three'|truncate(9, leeway=0) }}{{ 'a b'|wordcount }}",
    "{{ [none, none]|sort }}{{ objs|sort(attribute='n,z')|list }}{{ objs|map(attribute='q', default=none)|list }}{{ none|selectattr('x')|list }}{{ 0|map('upper')|list }}",
    "{{ 'a<'|safe + '<b>' }}{{ '<' + '&'|safe }}{{ '<'|e ~ '<' }}{{ '<'|e|e }}{{ '<'|e|forceescape }}{{ '<'|safe|tojson }}",
    "{{ [[1]]|unique|list }}", "{{ d|first.upper }}", "{{ {[1]: 2} }}", "{{ d.items() + [1] }}", "{{ lst|map('upper')|length }}", "{{ lst|map('upper')|tojson }}",
])
def test_small_differences_equal_jinja(probe, source):
    check(probe, source, VARIABLES)
