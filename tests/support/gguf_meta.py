"""Reads the metadata (not the tensors) of a GGUF file: {key: value}."""

import struct

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class _Reader:
    def __init__(self, file):
        self._file = file

    def scalar(self, code):
        return struct.unpack("<" + code, self._file.read(struct.calcsize("<" + code)))[0]

    def string(self):
        return self._file.read(self.scalar("Q")).decode("utf-8")

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            element, count = self.scalar("I"), self.scalar("Q")
            return [self.value(element) for _ in range(count)]
        return self.scalar(_SCALARS[kind])


def read_metadata(path):
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path} is no GGUF file")
        reader = _Reader(file)
        reader.scalar("I")
        reader.scalar("Q")
        count = reader.scalar("Q")
        return {reader.string(): reader.value(reader.scalar("I")) for _ in range(count)}
