#!/usr/bin/env python3
"""Checks what comments and documents refer to.

pages     a page (name.md) that is named must exist: from the root, beside the naming file, or as the one page of that
          name under docs/
headings  page.md, "Heading" must be a heading of that page
links     relative links of documents must lead to a file, and their #anchors to a heading as GitHub makes them
numbers   no numbers of cases or requirements (a letter and digits, or two such numbers with a dash), which only those
          who have the list could look up; no section signs, but those of RFCs

usage: tools/check_docs.py [ROOT]
Prints one line per violation, "file:line: rule", and exits 1 when there is any.
"""
import pathlib
import re
import sys

TOPS = ("libllmd", "libllmd_kv", "libllmd_sched", "libllmd_engine", "services", "bindings", "tests", "examples", "tools", "scripts",
        "deploy", "docs", "cmake", ".ci")
SLASHES = {".h", ".cc", ".c", ".cu", ".cuh", ".proto"}
HASHES = {".py", ".pyi", ".sh", ".cmake", ".txt", ".yaml", ".yml", ".toml"}
OWN_EXAMPLES = {"tools/check_docs.py", "tests/tools/test_checks.py"}

URL = re.compile(r"\b[a-z]+://\S+")
PAGE = re.compile(r"(?<![\w./*-])([\w-][\w./-]*\.md)\b")
CITED = re.compile(r'(?<![\w./*-])([\w-][\w./-]*\.md), "([^"]+)"')
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NUMBER = re.compile(r"\b[A-Z]\d{1,2}-\d{1,3}\b|\b[GNPS]\d{1,2}\b|(?<![-\w])(?:issue|requirement|decisions?) #?\d+\b")
SECTION = re.compile("§")
OF_RFC = re.compile(r"RFC \d+,?[\s/#]*$")
CODE_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|(//[^\n]*|/\*.*?\*/)', re.S)
HASH_COMMENT = re.compile(r'("""(?:.*?)"""|(?<![^\s])#[^\n]*)', re.S)


def blank(match):
    return re.sub(r"[^\n]", " ", match.group())


def comments(path, text):
    """`text` with all but its comments (and docstrings) blanked; documents are kept whole."""
    if path.suffix == ".md":
        return text
    pattern = CODE_COMMENT if path.suffix in SLASHES else HASH_COMMENT
    out, at = [], 0
    for match in pattern.finditer(text):
        if match.group(1) is None:
            continue
        out += [re.sub(r"[^\n]", " ", text[at:match.start()]), match.group(1)]
        at = match.end()
    return "".join(out) + re.sub(r"[^\n]", " ", text[at:])


def line_of(text, at):
    return text.count("\n", 0, at) + 1


def headings(text):
    return re.findall(r"^#{1,6} +(.+?) *$", re.sub(r"^```.*?^```", blank, text, flags=re.M | re.S), flags=re.M)


def anchors(text):
    seen, out = {}, set()
    for heading in headings(text):
        slug = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        out.add(slug if count == 0 else f"{slug}-{count}")
    return out


class Tree:
    def __init__(self, root):
        self.root = root
        found = [p for top in TOPS for p in sorted((root / top).rglob("*"))] + sorted(root.glob("*"))
        self.files = [p for p in found if p.is_file() and p.suffix in SLASHES | HASHES | {".md"}
                      and not p.relative_to(root).as_posix().startswith("tests/data/")]
        self.pages = {}
        for page in sorted((root / "docs").rglob("*.md")):
            self.pages.setdefault(page.name, []).append(page)

    def resolve(self, source, name):
        """The page that `source` means by `name`, or None."""
        below = name[name.find("docs/"):] if "/docs/" in name else name  # $checkout/docs/…
        for candidate in (self.root / name, source.parent / name, self.root / below):
            if candidate.is_file():
                return candidate
        same = self.pages.get(name, []) if "/" not in name else []
        return same[0] if len(same) == 1 else None


def check_names(tree, path, text):
    text = URL.sub(blank, text)
    for match in PAGE.finditer(text):
        if tree.resolve(path, match[1]) is None:
            yield line_of(text, match.start()), f"there is no page {match[1]}"
    # Citations may go on in the next line of a comment; joined, they keep their length.
    joined = re.sub(r"\n[ \t]*(?://|#)?", lambda m: " " * len(m.group()), text)
    for match in CITED.finditer(re.sub(r",\s+\"", lambda m: ', "' + "\0" * (len(m.group()) - 3), joined)):
        page, title = tree.resolve(path, match[1]), " ".join(match[2].replace("\0", "").split())
        if page and title not in [h.replace("`", "") for h in headings(page.read_text(encoding="utf-8"))]:
            yield line_of(text, match.start()), f'{match[1]} has no heading "{title}"'


def check_links(path, text):
    prose = re.sub(r"^```.*?^```", blank, text, flags=re.M | re.S)
    prose = re.sub(r"`[^`\n]*`", blank, prose)
    for match in LINK.finditer(prose):
        target, _, anchor = match[1].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = path.parent / target if target else path
        if not file.exists():
            yield line_of(text, match.start()), f"link to {target}, which is not there"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
            yield line_of(text, match.start()), f"{target or path.name} has no heading #{anchor}"


def check_numbers(path, text):
    said = URL.sub(blank, comments(path, text))
    for match in NUMBER.finditer(said):
        yield line_of(text, match.start()), f"{match.group()} looks like the number of a case or requirement"
    for match in SECTION.finditer(said):
        if not OF_RFC.search(said[max(0, match.start() - 40):match.start()]):
            yield line_of(text, match.start()), "a section sign: name the heading instead"


def check_file(tree, path):
    rel = path.relative_to(tree.root).as_posix()
    if rel in OWN_EXAMPLES:
        return
    text = path.read_text(encoding="utf-8")
    found = list(check_names(tree, path, text)) + list(check_numbers(path, text))
    if path.suffix == ".md":
        found += check_links(path, text)
    for line, message in sorted(set(found)):
        yield f"{rel}:{line}: {message}"


def main():
    tree = Tree(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve())
    found = [message for path in tree.files for message in check_file(tree, path)]
    print("\n".join(found) if found else f"check_docs: {len(tree.files)} files, clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
