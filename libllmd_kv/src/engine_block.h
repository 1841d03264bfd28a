// The bytes of a block that vLLM hashes, (parent, tokens, extra keys), in each of its encodings.
#pragma once

#include <optional>

#include "cbor.h"
#include "llmd/kv/block_hash.h"
#include "pickle.h"

namespace llmd::kv {

inline size_t ExtraCount(const ExtraKeys& extra) {
  return (extra.lora_name.empty() ? 0 : 1) + extra.multimodal.size() +
         (extra.cache_salt.empty() ? 0 : 1);
}

// One use.
class CborBlock {
 public:
  std::span<const uint8_t> Seed(std::string_view seed) {
    out_.Text(seed);
    return out_.bytes();
  }
  std::span<const uint8_t> Block(std::span<const uint8_t> parent, std::span<const int32_t> tokens,
                                 const ExtraKeys& extra) {
    out_.Array(3);
    out_.Bytes(parent);
    out_.Numbers(tokens);
    Extra(extra);
    return out_.bytes();
  }

 private:
  void Extra(const ExtraKeys& extra) {
    if (extra.empty()) return out_.Null();
    out_.Array(ExtraCount(extra));
    if (!extra.lora_name.empty()) Lora(extra);
    for (const MultiModalKey& item : extra.multimodal) Media(item, extra.tagged);
    if (!extra.cache_salt.empty()) Salt(extra);
  }
  void Lora(const ExtraKeys& extra) {
    if (!extra.tagged) return out_.Text(extra.lora_name);
    out_.Array(3);
    out_.Text("lora");
    out_.Text(extra.lora_name);
    out_.Text(extra.lora_path);
  }
  void Media(const MultiModalKey& item, bool tagged) {
    out_.Array(tagged ? 3 : 2);
    if (tagged) out_.Text("mm");
    out_.Text(item.identifier);
    out_.Integer(item.offset);
  }
  void Salt(const ExtraKeys& extra) {
    if (!extra.tagged) return out_.Text(extra.cache_salt);
    out_.Array(2);
    out_.Text("cache_salt");
    out_.Text(extra.cache_salt);
  }
  CborWriter out_;
};

// One use.
class PickleBlock {
 public:
  std::span<const uint8_t> Seed(std::string_view seed) {
    out_.Text(seed);
    return out_.Finish();
  }
  std::span<const uint8_t> Block(std::span<const uint8_t> parent, std::span<const int32_t> tokens,
                                 const ExtraKeys& extra) {
    out_.Bytes(parent);
    out_.BeginTuple(tokens.size());
    for (int32_t token : tokens) out_.Integer(token);
    out_.EndTuple(tokens.size());
    Extra(extra);
    out_.EndTuple(3);
    return out_.Finish();
  }

 private:
  void Extra(const ExtraKeys& extra) {
    if (extra.empty()) return out_.None();
    const size_t count = ExtraCount(extra);
    out_.BeginTuple(count);
    if (!extra.lora_name.empty()) Lora(extra);
    for (const MultiModalKey& item : extra.multimodal) Media(item, extra.tagged);
    if (!extra.cache_salt.empty()) Salt(extra);
    out_.EndTuple(count);
  }
  void Lora(const ExtraKeys& extra) {
    if (extra.tagged) out_.Text("lora");
    out_.Text(extra.lora_name);
    if (!extra.tagged) return;
    out_.Text(extra.lora_path);
    out_.EndTuple(3);
  }
  void Media(const MultiModalKey& item, bool tagged) {
    if (tagged && media_tag_) out_.Again(*media_tag_);
    if (tagged && !media_tag_) media_tag_ = out_.Text("mm");
    out_.Text(item.identifier);
    out_.Integer(item.offset);
    out_.EndTuple(tagged ? 3 : 2);
  }
  void Salt(const ExtraKeys& extra) {
    if (extra.tagged) out_.Text("cache_salt");
    out_.Text(extra.cache_salt);
    if (extra.tagged) out_.EndTuple(2);
  }
  PickleWriter out_;
  std::optional<uint32_t> media_tag_;
};

}  // namespace llmd::kv
