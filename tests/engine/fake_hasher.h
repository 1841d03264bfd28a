// A block hasher without cryptography: FNV over parent, tokens and salt.
#pragma once

#include <cstring>

#include "llmd/kv/block_hash.h"

namespace llmd::engine {

class FakeHasher final : public kv::EngineHasher {
 public:
  kv::Digest None() const override { return Make(1); }
  kv::Digest Hash(const kv::Digest& parent, std::span<const int32_t> tokens,
                  const kv::ExtraKeys& extra) const override {
    uint64_t h = 0xcbf29ce484222325ull;
    const auto mix = [&h](uint64_t v) { h = (h ^ v) * 0x100000001b3ull; };
    for (int i = 0; i < 8; ++i) mix(parent.bytes[i]);
    for (const int32_t t : tokens) mix(static_cast<uint32_t>(t));
    for (const char c : extra.cache_salt) mix(static_cast<unsigned char>(c));
    return Make(h ^ (h >> 29));
  }

 private:
  static kv::Digest Make(uint64_t v) {
    kv::Digest d;
    d.size = 8;
    std::memcpy(d.bytes.data(), &v, sizeof v);
    return d;
  }
};

}  // namespace llmd::engine
