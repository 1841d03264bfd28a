#!/usr/bin/env python3
"""Writes the tables of libllmd/src/text: character classes (two-stage) and normalisation form C (sorted lists).

Hugging Face tokenizers 0.23 matches with Unicode 16.0: run with PyPI unicodedata2==16.0.0 installed (Python 3.11 has 14.0).
Its NFC is older (Unicode 9): what it does not know yet is left out, so `nfc` wants PyPI tokenizers too.
Usage: tools/gen_unicode.py classes > libllmd/src/text/unicode_tables.inc
       tools/gen_unicode.py nfc > libllmd/src/text/nfc_tables.inc
"""
import sys

import unicodedata2 as ud

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


def main():
    writers = {"classes": write_classes, "nfc": write_nfc}
    if len(sys.argv) != 2 or sys.argv[1] not in writers:
        sys.exit(__doc__)
    print(f"// Made by tools/gen_unicode.py {sys.argv[1]} from Unicode {ud.unidata_version}; do not edit.")
    writers[sys.argv[1]]()


if __name__ == "__main__":
    main()
