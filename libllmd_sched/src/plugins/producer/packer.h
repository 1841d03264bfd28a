// Packs bytes little-endian into 32-bit pseudo-tokens, zero padded at the end of a prompt.
#pragma once

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "llmd/sched/request_context.h"

namespace llmd::sched {

// Writes into one attribute, which holds no tokens yet. Thread-compatible.
class Packer {
 public:
  // Media tokens of one request together; what is above counts one each.
  static constexpr size_t kMaxMediaTokens = 1 << 20;

  explicit Packer(Attribute& out) : out_(out) {}
  // `quoted` is a JSON string; anything else packs nothing.
  void Text(std::string_view quoted) {
    if (quoted.size() < 2 || quoted[0] != '"') return;
    quoted = quoted.substr(1, quoted.size() - 2);
    filled_ += json::UnescapeTo(quoted, Room(quoted.size() + json::kUnescapeSlack));
  }
  void Bytes(std::string_view s) {
    if (!s.empty()) std::memcpy(Room(s.size()), s.data(), s.size());
    filled_ += s.size();
  }
  // `count` tokens named after the content.
  void Media(Modality modality, std::string_view content, size_t count) {
    Align();
    if (media_tokens_ + count > kMaxMediaTokens) count = 1;
    media_tokens_ += count;
    const uint64_t hash = XXH64(content.data(), content.size(), 0);
    const size_t begin = out_.bounds.empty() ? 0 : out_.bounds.back();
    out_.media.push_back({modality, Hex(hash), out_.bounds.size(), filled_ / kWord - begin, count});
    for (size_t i = 0; i < count; ++i) Token(static_cast<uint32_t>(hash));
  }
  // Between prompts or media, so at a word's beginning.
  void Token(uint32_t id) {
    std::memcpy(Room(kWord), &id, kWord);
    filled_ += kWord;
  }
  void EndPrompt() {
    Align();
    out_.bounds.push_back(filled_ / kWord);
  }
  // No more follows.
  void Finish() { out_.tokens.resize(filled_ / kWord); }

 private:
  static constexpr size_t kWord = sizeof(uint32_t);
  // Where the next `n` bytes go.
  char* Room(size_t n) {
    const size_t words = (filled_ + n + kWord - 1) / kWord;
    if (words > out_.tokens.size()) out_.tokens.resize(std::max(words, out_.tokens.size() * 2));
    return reinterpret_cast<char*>(out_.tokens.data()) + filled_;
  }
  void Align() {
    const size_t pad = (kWord - filled_ % kWord) % kWord;
    if (pad > 0) std::memset(Room(pad), 0, pad);
    filled_ += pad;
  }
  static std::string Hex(uint64_t value) {
    std::string out(16, '0');
    for (size_t i = 16; i-- > 0; value >>= 4) out[i] = "0123456789abcdef"[value & 15];
    return out;
  }
  Attribute& out_;
  size_t filled_ = 0;  // bytes of out_.tokens in use
  size_t media_tokens_ = 0;
};

}  // namespace llmd::sched
