#!/usr/bin/env python3
"""Writes the tables of libllmd/src/text: character classes (two-stage), normalisation form C and case (sorted lists).

Hugging Face tokenizers 0.23 matches with Unicode 16.0: run with PyPI unicodedata2==16.0.0 installed (Python 3.11 has 14.0).
Its NFC is older (Unicode 9): what it does not know yet is left out, so `nfc` wants PyPI tokenizers too.
Case is what this Python's str does (3.11: Unicode 14), as templates see it.
Usage: tools/gen_unicode.py classes > libllmd/src/text/unicode_tables.inc
       tools/gen_unicode.py nfc > libllmd/src/text/nfc_tables.inc
       tools/gen_unicode.py case > libllmd/src/text/case_tables.inc
"""
import sys
import unicodedata

try:
    import unicodedata2 as ud
except ImportError:
    ud = unicodedata

OTHER, LETTER, NUMBER, SPACE = range(4)
WHITE_SPACE = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
BLOCK = 256


def char_class(code):
    if code in WHITE_SPACE:
        return SPACE
    return {"L": LETTER, "N": NUMBER}.get(ud.category(chr(code))[0], OTHER)


def words_of_block(block):
    """Eight 64-bit words, two bits a character, lowest bits first."""
    classes = [char_class(block * BLOCK + i) for i in range(BLOCK)]
    return tuple(sum(c << (2 * i) for i, c in enumerate(classes[w * 32:w * 32 + 32])) for w in range(8))


def emit(name, kind, values, per_line):
    print(f"inline constexpr {kind} {name}[] = {{")
    for i in range(0, len(values), per_line):
        print("    " + ", ".join(values[i:i + per_line]) + ",")
    print("};")


def write_classes():
    blocks, stage1 = [], []
    for block in range(0x110000 // BLOCK):
        words = words_of_block(block)
        if words not in blocks:
            blocks.append(words)
        stage1.append(blocks.index(words))
    assert len(blocks) < 256
    emit("kBlockOf", "uint8_t", [str(v) for v in stage1], 24)
    emit("kClassWords", "uint64_t", [f"0x{w:x}" for b in blocks for w in b], 4)


def ranges(value_of):
    """(first, last, value) of every run of code points with the same truthy value."""
    found = []
    for code, value in sorted(value_of.items()):
        if found and found[-1][1] == code - 1 and found[-1][2] == value:
            found[-1] = (found[-1][0], code, value)
        else:
            found.append((code, code, value))
    return found


def write_nfc():
    from tokenizers import normalizers
    nfd, nfc = normalizers.NFD().normalize_str, normalizers.NFC().normalize_str
    codes = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    # The iota subscript has the highest class: a mark that is known moves in front of it.
    marks = {c: ud.combining(chr(c)) for c in codes
             if ud.combining(chr(c)) and (c == 0x345 or nfd("\u0345" + chr(c)) != "\u0345" + chr(c))}
    split = {}
    for c in codes:
        text = ud.decomposition(chr(c))
        if text and not text.startswith("<") and nfd(chr(c)) != chr(c):
            split[c] = ([int(t, 16) for t in text.split()] + [0])[:2]
    pairs = sorted((first, second, c) for c, (first, second) in split.items() if nfc(chr(c)) == chr(c))
    jamo = [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]
    maybe = {c: 1 for c in [*marks, *(c for c in split if nfc(chr(c)) != chr(c)), *(second for _, second, _ in pairs), *jamo]}
    emit("kMarks", "Mark", [f"{{0x{a:x}, 0x{b:x}, {v}}}" for a, b, v in ranges(marks)], 4)
    emit("kSplits", "Split", [f"{{0x{c:x}, 0x{a:x}, 0x{b:x}}}" for c, (a, b) in sorted(split.items())], 4)
    emit("kPairs", "Pair", [f"{{0x{a:x}, 0x{b:x}, 0x{c:x}}}" for a, b, c in pairs], 4)
    emit("kMaybe", "Range", [f"{{0x{a:x}, 0x{b:x}}}" for a, b, _ in ranges(maybe)], 6)


def case_runs(mapped):
    """(first, last, step, delta) of characters, every one or every second, that move by the same distance."""
    runs = []
    for code, to in sorted(mapped.items()):
        first, last, step, delta = runs[-1] if runs else (0, 0, 0, None)
        gap = code - last
        if delta == to - code and gap in (1, 2) and step in (0, gap):
            runs[-1] = (first, code, gap, delta)
        else:
            runs.append((code, code, 0, to - code))
    return [(first, last, step or 1, delta) for first, last, step, delta in runs]


def write_case():
    chars = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    lower = {ord(c): c.lower() for c in chars if c.lower() != c}
    upper = {ord(c): c.upper() for c in chars if c.upper() != c}
    title = {ord(c): c.title() for c in chars if c.title() != c.upper()}
    fold = {ord(c): c.casefold() for c in chars if c.casefold() != c.lower()}
    for name, table in (("Lower", lower), ("Upper", upper), ("Title", title), ("Fold", fold)):
        runs = case_runs({code: ord(to) for code, to in table.items() if len(to) == 1})
        emit(f"k{name}Runs", "CaseRun", [f"{{0x{a:x}, 0x{b:x}, {step}, {delta}}}" for a, b, step, delta in runs], 5)
        long = [(code, [ord(c) for c in to] + [0, 0]) for code, to in sorted(table.items()) if len(to) > 1]
        emit(f"k{name}Long", "CaseLong", [f"{{0x{code:x}, {{0x{t[0]:x}, 0x{t[1]:x}, 0x{t[2]:x}}}}}" for code, t in long], 4)
    cased = {ord(c): 1 if c.islower() else 2 if c.isupper() else 3 for c in chars if c.islower() or c.isupper() or c.istitle()}
    emit("kCased", "CaseRange", [f"{{0x{a:x}, 0x{b:x}, {v}}}" for a, b, v in ranges(cased)], 6)
    # A final sigma looks past these characters for a letter.
    ignorable = {ord(c): 1 for c in chars if ("A\u03a3" + c + "A").lower()[1] == "\u03c3" != ("A\u03a3" + c).lower()[1]}
    emit("kCaseIgnorable", "CaseRange", [f"{{0x{a:x}, 0x{b:x}, {v}}}" for a, b, v in ranges(ignorable)], 6)
    number = {ord(c): 1 if c.isdecimal() else 2 if c.isdigit() else 3 for c in chars if c.isnumeric()}
    emit("kNumeric", "CaseRange", [f"{{0x{a:x}, 0x{b:x}, {v}}}" for a, b, v in ranges(number)], 6)
    hidden = {ord(c): 1 for c in chars if not c.isprintable()}
    emit("kNotPrintable", "CaseRange", [f"{{0x{a:x}, 0x{b:x}, {v}}}" for a, b, v in ranges(hidden)], 6)


def main():
    writers = {"classes": write_classes, "nfc": write_nfc, "case": write_case}
    if len(sys.argv) != 2 or sys.argv[1] not in writers:
        sys.exit(__doc__)
    if sys.argv[1] != "case" and ud is unicodedata:
        sys.exit("tools/gen_unicode.py: PyPI's unicodedata2 is not installed")
    version = (unicodedata if sys.argv[1] == "case" else ud).unidata_version
    print(f"// Made by tools/gen_unicode.py {sys.argv[1]} from Unicode {version}; do not edit.")
    writers[sys.argv[1]]()


if __name__ == "__main__":
    main()
