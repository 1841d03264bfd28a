#!/usr/bin/env python3
"""Chat templates against jinja2, set up as transformers sets it up: random templates, or real ones with random conversations.

Both sides render; what differs is printed, and the exit code is 1. A failure of both is equality (messages differ by design); where
jinja2 fails and we render, the case is counted as lenient and printed with --lenient.

Usage: tools/template_fuzz.py [--seed N] [--count N] [--probe build/release/tests/text_probe]
       tools/template_fuzz.py --templates DIR [--conversations 40]    every *.jinja file of DIR
"""
import argparse
import collections
import datetime
import functools
import json
import pathlib
import random
import re
import subprocess
import sys

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda text: datetime.datetime.now().strftime(text)
    return env


class Probe:
    def __init__(self, path):
        self._process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, request):
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "text_probe ended"
        return json.loads(line)

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=10)


STRINGS = [
    "", "a", "Hello World", " hé llo ", "ÀÉßé", "straße", "İIıi", "ǆ Ǆa", "ΑΣ ΣΑΣ.", "ﬁn", "日本語", "😀x😀", "a,b,,c", "it's", 'q"', "b\\n", "\t x\n",
    "a\nb\r\nc\n", "x\u2028y", "\x1cz\x1f", "½٣²", "12", "-7", "3.5", "1e3", " 42 ", "0x1f", "1_000", "<b>&'", "%s %d", "{} {0}", "{x}", "aXbXc", "xy" * 20,
    "one two  three", "A-B_c d", "true", "none", "\u00a0nb\u3000", "e\u0301", "\x00\x7f", "\u200b\ufeff", "user", "content", "x\x0by\x0cz", "\x85", "aaa", "µ", "ŉ", "x=1;y=2",
]
KEYS = ["role", "content", "k", "é", "a b", "items", "x", "1"]

# One line an alternative; <name> is expanded, <name!> to a leaf of that name. Leaves are the lines of "name!", or of "name" without one.
GRAMMAR = r"""
any!: s\nt\nn\nm\nf\nb\nl\nls\nli\nd\no\nz\nu\nnone\n1\ntrue\n<quoted>\n[]\no[0]\nd.zz\nli[0]\n2.0
any: <str>\n<str>\n<int>\n<float>\n<list>\n<dict>\n<bool>
int!: n\nm\n0\n1\n2\n3\n-1\n-2\n10\n7\ntrue\n<random>
int: <int!>\n(<int> <+> <int>)\n<any>|length\n<str>|int\n<str>|int(<int!>)\n<str>|int(base=<base>)\n<str>.<find>(<quoted>)\n<int>|abs\n-<int>
int: <str>.<find>(<quoted>, <int!>)\n<str>.<find>(<quoted>, <int!>, <int!>)\n<list>.index(<any!>)\n<list>.count(<any!>)\n<float>|int\n<str>|wordcount
int: li|sum\nli|min\nli|max\nli|first\nli|last\nli|sum(start=<int!>)\no|sum(attribute='n')\n(<int!> ** <small>)\n<str>.index(<quoted>)
+: +\n-\n*\n//\n%
base: 16\n2\n8\n0
small: 0\n2\n3\n5
find: find\nrfind\ncount
float: f\n1.5\n0.0\n-2.25\n1e20\n1e-7\n100.0\n3.0e10\n(7 / 2)\n(n / 3)\n(f * 3)\n(f // 2)\n(f % 3)\n(2 ** -1)\n(f ** 2)\n('2.5'|float)\n(f|round)
float: (f|round(1))\n(f|round(2, 'floor'))\n(f|round(0, 'ceil'))\n(2.675|round(2))\n(n|round)\n(f|abs)\n(s|float)\n(s|float(1.5))\n(1e308 * 10)
float: (-7.5 // 2)\n(-7.5 % 2)\n(n|round(-1))\n(2.5|round)\n(f + n)\n(n - f)\n-f
str!: s\nt\n<quoted>\nls[0]\nd.k\nd['a b']\no[0].role
str: <str!>\n<str>|<strfilter>\n<str>.<strmethod>()\n<str>.<strip>(<quoted>)\n<str>.<strip>(none)\n(<str> ~ <any>)\n(<str> + <str>)\n(<str> * <int!>)
str: <str>.replace(<quoted>, <quoted>)\n<str>.replace(<quoted>, <quoted>, <int!>)\n<str>|replace(<quoted>, <quoted>)\n<str>|replace(<quoted>, <quoted>, <int!>)
str: <str>[<slice>]\n<str>[<int>]\n<list>|join\n<list>|join(<quoted>)\no|join('-', attribute='role')\n<any>|tojson\n<any>|tojson(<json>)\n<any>|string
str: (<str> if <bool> else <str>)\n(<str> or <str>)\n(<str> if <bool>)\n<str>|indent\n<str>|indent(<indent>)\nu|default(<quoted>)\n<any>|default(<quoted>, true)
str: <str%>|format(<any>)\n(<int%> % <int>)\n(<int%> % <float>)\n<str{}>.format(<str!>)\n<int{}>.format(<int!>)\n'{0.role} {0[n]}'.format(o[0])\n<str>.expandtabs()
str: <str>.split(<quoted>)[<int!>]\n<str>.<center>(<width>)\n<str>.<center>(<width>, '*')\n<str>.zfill(<width>)\n<str>.removeprefix(<quoted>)\n<str>.removesuffix(<quoted>)
str: <str>|center(9)\n<str>|truncate(<truncate>)\n<str>.join(<list>)\nd.get(<key>, <str>)\nls|min\nls|max\nls|first\nl|last\nl|first\n('%s-%s' % (<any!>, <any!>))
strfilter: upper\nlower\ntitle\ncapitalize\ntrim\nstring\nreverse\nlist|join\nfirst\nlast\ntojson\nupper|lower\ntrim(<quoted>)
strmethod: upper\nlower\ntitle\ncapitalize\nstrip\nlstrip\nrstrip\nswapcase\ncasefold
strip: strip\nlstrip\nrstrip
json: indent=2\nindent=0\ntrue\nsort_keys=true\nensure_ascii=true\nseparators=(',', ':')\nindent='--'
indent: 2\n2, true\nwidth=3, blank=true\nfirst=true\n'>'\n0
str%: '%s'\n'%5s|'\n'%-5s|'\n'%r'\n'%.2s'\n'a%%b%s'
int%: '%d'\n'%05d'\n'%x'\n'%+d'\n'% d'\n'%o'\n'%X'\n'%#x'\n'%5.2f'\n'%e'\n'%g'\n'%i'
str{}: '{}'\n'{0}{0}'\n'{:>6}|'\n'{!r}'\n'{0:<4}'\n'{:^7}|'\n'{:*^9}'\n'a{{b}}{}'\n'{0[0]}'
int{}: '{:d}'\n'{:05}'\n'{:x}'\n'{:,}'\n'{:+}'\n'{:.2f}'\n'{:e}'\n'{:>5}'\n'{}'
center: center\nljust\nrjust
width: 3\n8\n12\n0
truncate: 5\n5, true\n9, false, '..'\n4, true, '', 0\n7, leeway=0
key: 'role'\n'content'\n'k'\n'x'\n'é'\n'a b'\n1
slice: <part>:<part>\n<part>:<part>\n<part>:<part>:<step>
part: \n<int!>
step: 1\n2\n-1\n-2\n
list!: l\nls\nli\no\n[]\n[<any!>, <any!>]\n(<any!>, <any!>)\n(1,)\nrange(3)\nrange(5, 0, -2)|list
list: <list!>\n<list>|list\n<list>|reverse|list\n<list>[<slice>]\n(<list> + <list>)\n(<list> * 2)\n<str>.<split>()\n<str>.<split>(<quoted>)\n<str>.<split>(none, 1)
list: <str>.<split>(<quoted>, 1)\n<str>.split(<quoted>, maxsplit=1)\n<str>.splitlines()\n<str>.splitlines(true)\n<str>.<partition>(<quoted>)\n<str>|list
list: <maybe>|<select>|list\n<maybe>|<select>('<type>')|list\nli|<select>(<numtest>)|list\n<objects>|<select>attr(<attrtest>)|list\n<maybe>|map('<mapped>')|list
list: o|map(attribute=<attr>)|list\no|map(attribute=<attr>, default=<any>)|list\n<list>|sort\nls|sort(<sort>)\nli|sort(<sort>)\no|sort(attribute='n')\no|sort(attribute='n,role')
list: <list>|unique|list\nls|unique(true)|list\nd|dictsort\nd|dictsort(<dictsort>)\nd|items|list\nd.<view>()|list\n<list>|batch(<batch>)|list\n<list>|slice(<batch>)|list
list: o|groupby('<grouped>')|map('list')|list\n<dict>|list\nd.<view>()\nli|sort|reverse|list\n<str>|map('upper')|list\nls|map('replace', 'a', 'b')|list
split: split\nrsplit
partition: partition\nrpartition
maybe: <list>\n<list>\nz\nu\nn\n<str>
select: select\nreject
type: string\ndefined\nnumber\nnone\ninteger\nmapping\ntrue\nupper\niterable
numtest: 'odd'\n'even'\n'gt', 2\n'in', [1, 2]\n'==', 1\n'divisibleby', 2
objects: o\no\nz\nu\nd
attrtest: 'role'\n'n'\n'n', 'odd'\n'role', 'equalto', 'user'\n'zz', 'defined'\n'sub.x'\n'sub.x', 'none'
mapped: string\nupper\ntojson\nlength\ntrim\nlist\nlower\nint
attr: 'role'\n'n'\n'zz'\n'sub.x'\n'sub'
sort: true\nreverse=true\ncase_sensitive=true
dictsort: true\nby='value'\nreverse=true\nfalse, 'key', true
view: keys\nvalues\nitems
batch: 2\n2, 0\n3\n4, 'x'
grouped: role\nn\nsub.x
dict: d\no[0]\n{}\n{<key>: <any>}\n{1: <any!>, 'x': <any>}\ndict(a=1)\n{none: 1, true: 2}\ndict(d, x=<any!>)\nd.copy()
bool!: b\ntrue\nfalse\ns\nl\nu\nz\nn\nnot u
bool: <bool!>\n(<any> == <any>)\n(<any> != <any>)\n(<int> <order> <int>)\n(<str> <order> <str>)\n(<str> in <str>)\n(<any> in <list>)\n(<key> in <dict>)\n(<any!> not in <any!>)
bool: (<bool> and <bool>)\n(<bool> or <bool>)\n(not <bool>)\n(<any> is <test>)\n(<any> is not <test>)\n(<int> is <inttest>)\n(<str> is lower)\n(<str> is upper)\n<str>.<isclass>()
bool: <str>.<starts>(<quoted>)\n<str>.<starts>((<quoted>, <quoted>))\n<str>.<starts>(<quoted>, <int!>)\n<str>.<starts>(<quoted>, 1, 3)\n(<list> <order> <list>)
bool: (<int!> < <int!> <= <int!>)\n('upper' is filter)\n('nosuch' is filter)\n('odd' is test)\n(l|<select>('string'))\n(d.<view>() == d.<view>())\n(<list> == <list>)
order: <\n<=\n>\n>=\n==
test: defined\nundefined\nnone\nstring\nnumber\ninteger\nfloat\nboolean\nmapping\nsequence\niterable\ntrue\nfalse\ncallable\nsameas none
inttest: odd\neven\ndivisibleby 3\neq 1\ngt 2\nin [1, 2]\nlt(3)\nne 0\nsameas 1
isclass: isdigit\nisalpha\nisalnum\nisspace\nisupper\nislower\nisnumeric\nisdecimal\nisascii\nistitle\nisprintable
starts: startswith\nendswith
text: \n \n<nl>\nx\n a<nl>\n<nl>  \né\n  <nl><nl>\n|\n<tab>\n{ \n}
out: {{ <any> }}\n{{ <any> }}\n{{- <any> -}}\n{{ <any> -}}\n{{+ <any> }}\n{{ <str> }}
<: {%\n{%\n{%-\n{%+
>: %}\n%}\n-%}\n+%}
if: <<>if <bool><>><body><<>endif<>>\n<<>if <bool><>><body><<>else<>><body><<>endif<>>\n<<>if <bool><>><body><<>elif <bool><>><body><<>else<>><body><<>endif<>>
for: <<>for i in <loop><>>{{ i }}{{ <loopvar> }}<body><<>endfor<>>\n<<>for i in <loop> if <bool><>>{{ i }}<jump><body><<>else<>><body><<>endfor<>>
for: <<>for k, v in <pairs><>>{{ k }}={{ v }}{{ <loopvar> }}<body><<>endfor<>>
loop: <list>\n<list>\n<str>\nd\nu\nrange(3)\nl|reverse\nls|map('upper')\n<maybe>\nz or []
pairs: d.items()\nd|items\nd|dictsort\n[(1, 2), (3, 4)]\n[[1, 2]]\no|groupby('role')
loopvar: loop.index\nloop.index0\nloop.first\nloop.last\nloop.length\nloop.revindex\nloop.revindex0\nloop.previtem\nloop.nextitem\nloop.cycle('a', 'b')\nloop.depth
loopvar: loop.changed(i)\nloop.depth0\nloop.zz
jump: \n{% if <bool> %}{% break %}{% endif %}\n{% if <bool> %}{% continue %}{% endif %}
set: {{ s }}<<>set s = <any><>>\n<<>set q = <any><>>{{ q }}\n<<>set q<>><body><<>endset<>>{{ q }}\n<<>set q | upper<>><body><<>endset<>>{{ q }}\n<<>set q, r = <any!>, <any!><>>{{ r }}{{ q }}
block: <<>filter <strfilter><>><body><<>endfilter<>>\n{%- raw %}{{ x }} <nl>{% endraw -%}\n<<>generation<>><body><<>endgeneration<>>\n<<>with w = <any><>>{{ w }}<body><<>endwith<>>
block: {#- note #}\n{# note -#}\n{%- macro mm(a, b=2) -%}<body>[{{ a }}{{ b }}]{% endmacro %}{{ mm(<args>) }}\n{% macro cm() %}[{{ caller() }}]{% endmacro %}<<>call cm()<>><body><<>endcall<>>
block: {% set ns = namespace(c=0) %}<<>for i in li<>>{% set ns.c = ns.c + 1 %}<body><<>endfor<>>{{ ns.c }}\n{% macro va() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ va(<args>) }}
args: \n<any>\n<any>, <any>\nb=<any>\na=1, b=<any!>\n*[1, <any!>]\n**{'b': <any!>}
statement: <out>\n<out>\n<out>\n<if>\n<for>\n<for>\n<set>\n<block>
body: <text>\n<text><out><text>\n<text><statement><text>
body!: <text>
template: <out>\n<out>\n<out>\n<text><statement><text><statement><text>\n<text><statement><text><statement><text><statement><text>
"""


def read_grammar():
    rules = collections.defaultdict(list)
    for line in GRAMMAR.strip().split("\n"):
        name, alternatives = line.split(": ", 1)
        rules[name] += alternatives.split("\\n")
    return rules


class Gen:
    """Random templates and contexts. Types are mostly right, so that most templates render."""

    RULES = read_grammar()

    def __init__(self, rng):
        self.rng = rng

    def quoted(self):
        quote = self.rng.choice("'\"")
        escapes = {"\n": "\\n", "\r": "\\r", "\t": "\\t", quote: "\\" + quote, "\\": "\\\\"}
        return quote + "".join(escapes.get(c, c) for c in self.rng.choice(STRINGS)) + quote

    def expand(self, name, depth):
        special = {"quoted": self.quoted, "random": lambda: str(self.rng.randint(-100, 100)), "nl": lambda: "\n", "tab": lambda: "\t"}
        if name in special:
            return special[name]()
        if name.endswith("!") or (depth <= 0 and name + "!" in self.RULES):
            name = name.rstrip("!") + "!"
        if name not in self.RULES:
            name = name.rstrip("!")
        pattern = self.rng.choice(self.RULES[name])
        return re.sub(r"<([<>+]|[a-z]+(?:[!%]|{})?)>", lambda m: self.expand(m[1], depth - 1), pattern)

    def template(self):
        return self.expand("template", self.rng.randint(3, 6))

    def json(self, depth):
        rng = self.rng
        kind = rng.random()
        if depth <= 0 or kind < 0.5:
            return rng.choice([rng.choice(STRINGS), rng.choice(STRINGS), rng.randint(-5, 50), 2 ** 63 + rng.randint(-2, 5), 1.5, 100.0, 1e-9, True, False, None, -3])
        if kind < 0.75:
            return [self.json(depth - 1) for _ in range(rng.randint(0, 3))]
        return {rng.choice(KEYS): self.json(depth - 1) for _ in range(rng.randint(0, 3))}

    def context(self):
        rng = self.rng
        return {
            "s": rng.choice(STRINGS), "t": rng.choice(STRINGS), "n": rng.randint(-3, 12), "m": rng.choice([0, 1, 5, 255, 2 ** 62]),
            "f": rng.choice([0.5, -1.25, 3.0, 1e16, 123456.789, 2.5]), "b": rng.random() < 0.5, "z": None,
            "l": [self.json(1) for _ in range(rng.randint(0, 4))], "ls": [rng.choice(STRINGS) for _ in range(rng.randint(1, 5))],
            "li": [rng.randint(-4, 9) for _ in range(rng.randint(1, 5))],
            "d": {"k": rng.choice(STRINGS), "a b": rng.choice(STRINGS), rng.choice(KEYS): self.json(2)},
            "o": [{"role": rng.choice(["user", "tool", "User"]), "n": rng.randint(0, 3), "sub": {"x": rng.choice([None, 1, ""])}}
                  for _ in range(rng.randint(1, 3))]}


@functools.lru_cache(maxsize=4)
def compiled(env, source):
    return env.from_string(source)


def oracle(env, source, variables):
    try:
        return {"text": compiled(env, source).render(**variables)}
    except RecursionError:
        raise
    except Exception as error:  # whatever goes wrong there must go wrong here
        return {"error": f"{type(error).__name__}: {error}"}


def comparable(want):
    """False for results that show addresses or unordered things, which no two runs share."""
    return not any(sign in want.get("text", "") for sign in (" at 0x", "<built-in", "<class"))


def compare(probe, env, source, variables, counts, out, lenient=False):
    want = oracle(env, source, variables)
    if not comparable(want):
        counts["skipped"] += 1
        return
    got = probe.ask({"template": source, "variables": variables})
    counts["compared"] += 1
    if "text" in want:
        counts["rendered"] += 1
    kind = "equal"
    if "text" in want and got.get("text") != want["text"]:
        kind = "different" if "text" in got else "refused"
    elif "text" not in want and "text" in got:
        kind = "lenient"
    counts[kind] += 1
    if kind in ("different", "refused") or (lenient and kind == "lenient"):
        out(f"{kind}: {source!r}\n  variables {json.dumps(variables, ensure_ascii=False)}\n  jinja2 {want}\n  llmd   {got}")


CONTENTS = ["Hi", " two\nlines \n", "", "日本語 😀", "<think>\nhm\n</think>\n\nAnswer", "{{ x }} {% y %}", "it's \"q\" <b>&", "a" * 90, "\u00a0nb"]
SCHEMAS = [{"type": "string", "description": "d \"q\" </s>"}, {"type": "integer", "maximum": 18446744073709551615}, {"type": "array", "items": {"type": "number"}},
           {"type": "string", "enum": ["a", "b"], "nullable": True}, {"type": "object", "properties": {"x": {"type": "boolean", "default": False}}, "required": ["x"]}]


class Conversations:
    """Random conversations in the form that a server hands to templates: arguments are objects, a tool's result is text."""

    def __init__(self, rng):
        self.rng = rng

    def content(self, as_list):
        text = self.rng.choice(CONTENTS)
        return [{"type": "text", "text": text}] if as_list else text

    def call(self):
        arguments = {self.rng.choice("abc"): self.rng.choice([1, -2.5, "ü<&>'", None, True, [1, {"k": "v"}], {}]) for _ in range(self.rng.randint(0, 3))}
        return {"id": f"call{self.rng.randint(10000, 99999)}", "type": "function", "function": {"name": self.rng.choice(["get_weather", "f"]), "arguments": arguments}}

    def messages(self, as_list):
        rng, out = self.rng, []
        if rng.random() < 0.5:
            out.append({"role": rng.choice(["system", "system", "developer"]), "content": self.content(as_list)})
        for turn in range(rng.randint(1, 3)):
            out.append({"role": "user", "content": self.content(as_list)})
            if turn and rng.random() < 0.3:
                continue
            answer = {"role": "assistant", "content": self.content(as_list)}
            if rng.random() < 0.3:
                answer |= {name: rng.choice(CONTENTS) for name in ("reasoning", "reasoning_content", "thinking")}
            if rng.random() < 0.35:
                calls = [self.call() for _ in range(rng.randint(1, 2))]
                answer |= {"tool_calls": calls, "content": rng.choice([self.content(as_list), [] if as_list else ""])}
                out += [answer, *({"role": "tool", "content": rng.choice(CONTENTS), "tool_call_id": c["id"], "name": c["function"]["name"]} for c in calls)]
            elif turn or rng.random() < 0.5:
                out.append(answer)
        return out

    def tools(self):
        return [{"type": "function", "function": {"name": name, "description": "Does it.", "parameters": {
            "type": "object", "properties": {k: self.rng.choice(SCHEMAS) for k in "ab"}, "required": ["a"]}}} for name in ("get_weather", "f")]

    def variables(self, as_list):
        rng = self.rng
        out = {"messages": self.messages(as_list), "tools": rng.choice([None, self.tools()]), "documents": None, "add_generation_prompt": rng.random() < 0.7,
               "bos_token": "<s>", "eos_token": "</s>"}
        if rng.random() < 0.3:
            out |= {"enable_thinking": rng.random() < 0.5, "reasoning_effort": "low"}
        return out


def loops_over_content(env, source):
    """Whether a template gets content as a list, by vLLM's rule, from jinja2's own syntax tree."""
    tree = env.parse(source)

    def stripped(node):
        while isinstance(node, (nodes.Filter, nodes.Test)) or (isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)):
            node = node.node
        return node

    def named(node, names):
        return isinstance(node, nodes.Name) and node.name in names

    def content_of(node, names):
        key = node.attr if isinstance(node, nodes.Getattr) else node.arg.value if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) else None
        return key == "content" and named(node.node, names)

    lists, before = {"messages"}, 0
    while before != len(lists):
        before = len(lists)
        lists |= {a.target.name for a in tree.find_all(nodes.Assign) if isinstance(a.target, nodes.Name) and named(stripped(a.node), lists)}
    loops = [f for f in tree.find_all(nodes.For) if isinstance(f.target, nodes.Name)]
    messages = {f.target.name for f in loops if named(stripped(f.iter), lists)}
    return any(content_of(stripped(f.iter), messages) for f in loops)


def compare_templates(probe, env, folder, conversations, seed, counts, out):
    for path in sorted(pathlib.Path(folder).glob("*.jinja")):
        source, found = path.read_text(), collections.Counter()
        try:
            as_list = loops_over_content(env, source)
        except jinja2.TemplateSyntaxError as error:
            print(f"{path.name}: not jinja2: {error}")
            continue
        form = probe.ask({"template": source, "variables": {}, "form": True}).get("content_is_list")
        if form != as_list:
            out(f"form: {path.name}: jinja2's tree says {as_list}, llmd {form}")
            counts["different"] += 1
        made = Conversations(random.Random(f"{seed}/{path.name}"))
        for _ in range(conversations):
            compare(probe, env, source, made.variables(as_list), found, lambda text, name=path.name: out(f"{name}\n{text}"), lenient=True)
        counts.update(found)
        counts["templates"] += 1
        print(f"{path.name}: {dict(found)}{' content is a list' if as_list else ''}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20000, help="random templates")
    parser.add_argument("--probe", default=ROOT / "build/release/tests/text_probe")
    parser.add_argument("--templates", help="folder of real templates to compare instead")
    parser.add_argument("--conversations", type=int, default=40, help="for each real template")
    parser.add_argument("--lenient", action="store_true", help="print what jinja2 refuses and we render")
    parser.add_argument("--most", type=int, default=40, help="differences to print")
    args = parser.parse_args()
    probe, env, counts, shown = Probe(args.probe), environment(), collections.Counter(), []
    if args.templates:
        compare_templates(probe, env, args.templates, args.conversations, args.seed, counts, shown.append)
    else:
        gen = Gen(random.Random(args.seed))
        for _ in range(args.count):
            compare(probe, env, gen.template(), gen.context(), counts, shown.append, args.lenient)
    for text in sorted(shown, key=len)[:args.most]:
        print(text)
    print(dict(counts))
    sys.exit(1 if counts["different"] or counts["refused"] else 0)


if __name__ == "__main__":
    main()
