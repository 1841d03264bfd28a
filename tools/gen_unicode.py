#!/usr/bin/env python3
"""Writes libllmd/src/text/unicode_tables.inc: letter / number / white-space classes as a two-stage table.

Hugging Face tokenizers 0.23 matches with Unicode 16.0: run with PyPI unicodedata2==16.0.0 installed (Python 3.11 has 14.0).
Usage: tools/gen_unicode.py > libllmd/src/text/unicode_tables.inc
"""
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


def main():
    blocks, stage1 = [], []
    for block in range(0x110000 // BLOCK):
        words = words_of_block(block)
        if words not in blocks:
            blocks.append(words)
        stage1.append(blocks.index(words))
    assert len(blocks) < 256
    print(f"// Made by tools/gen_unicode.py from Unicode {ud.unidata_version}; do not edit.")
    emit("kBlockOf", "uint8_t", [str(v) for v in stage1], 24)
    emit("kClassWords", "uint64_t", [f"0x{w:x}" for b in blocks for w in b], 4)


if __name__ == "__main__":
    main()
