#include <string>
#include <vector>

#include "fuzz/fuzz.h"
#include "llmd/proto_wire.h"

namespace {
using llmd::PieceFields;
using llmd::WireFields;
using llmd::WireType;

// The fields of a message and, two levels down, those of what looks like one.
std::string Whole(std::string_view bytes, int depth) {
  std::string out;
  WireFields f(bytes);
  while (f.Next()) {
    out += std::to_string(f.field()) + (f.type() == WireType::kVarint
                                            ? "=" + std::to_string(f.number())
                                            : ":" + std::string(f.bytes()));
    if (depth > 0 && f.Is(4)) out += "{" + Whole(f.bytes(), depth - 1) + "}";
  }
  return out + (f.ok() ? "." : "!");
}

std::string InPieces(std::string_view bytes, uint32_t seed) {
  std::vector<std::string_view> pieces;
  llmd::fuzz::InPieces(bytes, seed, [&](std::string_view piece) { pieces.push_back(piece); });
  std::string out, scratch;
  PieceFields f(pieces);
  while (f.Next()) {
    out += std::to_string(f.field()) + (f.type() == WireType::kVarint
                                            ? "=" + std::to_string(f.number())
                                            : ":" + std::string(f.TakeAll(scratch)));
  }
  return out + (f.ok() ? "." : "!");
}

// Walks into every field of bytes; the walk may fail, but ends inside the message.
void Nested(std::string_view bytes, uint32_t seed) {
  std::vector<std::string_view> pieces;
  llmd::fuzz::InPieces(bytes, seed, [&](std::string_view piece) { pieces.push_back(piece); });
  PieceFields f(pieces);
  size_t taken = 0;
  while (f.Next()) {
    if (f.type() != WireType::kBytes) continue;
    f.Enter();
    while (f.Next()) {
      for (std::string_view part; !(part = f.TakePart()).empty();) taken += part.size();
    }
    f.Leave();
  }
  FUZZ_EXPECT(taken <= bytes.size());
}
}  // namespace

FUZZ_TARGET(ext_proc_wire) {
  const uint8_t seed = llmd::fuzz::TakeByte(input);
  FUZZ_EXPECT(InPieces(input, seed) == Whole(input, 0));
  Whole(input, 2);
  Nested(input, seed);
}
