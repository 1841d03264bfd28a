#!/usr/bin/env python3
"""Checks the coroutine rules that g++ 12.2 makes necessary (docs/architecture.md, "Coroutines").

C-1  inside a full expression with co_await: no {...} temporaries and no lambda with by-value captures
C-3  no lambda with captures is itself a coroutine

usage: tools/check_coawait.py [ROOT]
Prints one line per violation and exits 1 when there is any.
"""
import pathlib
import re
import sys

TOKEN = re.compile(r"""R"(?P<delim>[^()\\ ]{0,16})\(.*?\)(?P=delim)"|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])+'|//[^\n]*|/\*.*?\*/|\n|[A-Za-z_]\w*|.""", re.S)
OPEN, CLOSE = {"(": ")", "[": "]", "{": "}"}, {")", "]", "}"}


def tokenize(text):
    """(token, line) without comments, preprocessor lines and blanks; literals become '""'."""
    text = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: "\n" * m.group().count("\n"), text, flags=re.M)
    line, out = 1, []
    for match in TOKEN.finditer(text):
        token = match.group()
        if token.startswith(("//", "/*")) or token.isspace():
            pass
        elif token[0] in "\"'" or token.startswith('R"'):
            out.append(('""', line))
        else:
            out.append((token, line))
        line += token.count("\n")
    return out


def match_brackets(tokens):
    pair, stack = {}, []
    for i, (token, _) in enumerate(tokens):
        if token in OPEN:
            stack.append(i)
        elif token in CLOSE and stack:
            j = stack.pop()
            pair[i], pair[j] = j, i
    return pair


def lambda_at(tokens, pair, i):
    """If tokens[i] == '[' opens a lambda: (captures, index of body '{'), else None."""
    if tokens[i][0] != "[" or i not in pair:
        return None
    before = tokens[i - 1][0] if i else ";"
    if before == "[" or re.match(r"[A-Za-z_]\w*$|\)|\]$", before) and before not in ("return", "co_return", "co_await", "case"):
        return None
    end = pair[i]
    captures = [t for t, _ in tokens[i + 1:end]]
    k = end + 1
    if k < len(tokens) and tokens[k][0] == "(":
        k = pair.get(k, k) + 1
    while k < len(tokens) and tokens[k][0] not in ("{", ";", ")", ","):
        k += 1
        if k < len(tokens) and tokens[k][0] == "(":
            k = pair.get(k, k) + 1
    return (captures, k) if k < len(tokens) and tokens[k][0] == "{" else None


def by_value(captures):
    """True when a capture list copies or moves something into the closure."""
    depth, item, items = 0, [], []
    for token in captures + [","]:
        depth += token in OPEN
        depth -= token in CLOSE
        if token == "," and depth == 0:
            items.append(item)
            item = []
        else:
            item.append(token)
    return any(i and i[0] != "&" and i != ["this"] for i in items)


def lambdas(tokens, pair):
    found = {}
    for i in range(len(tokens)):
        hit = lambda_at(tokens, pair, i)
        if hit:
            found[i] = hit
    return found


def check_text(text):
    tokens = tokenize(text)
    pair = match_brackets(tokens)
    all_lambdas = lambdas(tokens, pair)
    bodies = {body: start for start, (_, body) in all_lambdas.items()}

    for start, (captures, body) in all_lambdas.items():
        inner = skip_nested(tokens, pair, body + 1, pair.get(body, body), bodies)
        if captures and any(t in ("co_await", "co_return", "co_yield") for t in inner):
            yield tokens[start][1], "C-3: a lambda with captures is a coroutine"

    for i, (token, line) in enumerate(tokens):
        if token != "co_await":
            continue
        k, depth = i + 1, 0
        while k < len(tokens):
            t = tokens[k][0]
            if t in CLOSE:
                depth -= 1
                if depth < 0:
                    break
            elif t == ";" and depth == 0:
                break
            elif k in all_lambdas:
                captures, body = all_lambdas[k]
                if by_value(captures):
                    yield tokens[k][1], "C-1: lambda with by-value captures in an expression with co_await"
                k = pair.get(body, body)
            elif t == "{":
                if depth == 0 and tokens[k - 1][0] == ")":  # the body of if (…) {, for (…) {
                    break
                yield tokens[k][1], "C-1: {...} temporary in an expression with co_await"
                k = pair.get(k, k)
            elif t in OPEN:
                depth += 1
            k += 1


def skip_nested(tokens, pair, begin, end, bodies):
    out, k = [], begin
    while k < end:
        if k in bodies:
            k = pair.get(k, k)
        else:
            out.append(tokens[k][0])
        k += 1
    return out


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()
    tops = [t for t in ("libllmd", "services", "examples", "tests") if (root / t).is_dir()] or ["."]
    files = [p for top in tops for p in sorted((root / top).rglob("*"))
             if p.suffix in (".h", ".cc") and "data" not in p.relative_to(root).parts[1:2]]
    found = [f"{path.relative_to(root)}:{line}: {message}"
             for path in files for line, message in check_text(path.read_text(encoding="utf-8"))]
    print("\n".join(found) if found else f"check_coawait: {len(files)} files, clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
