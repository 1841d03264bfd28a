// Open-addressing map from short byte strings to token ids. Filled once, then read by any number of
// threads.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace llmd::text {

// Mixes the whole string; not for adversarial keys, which never get in here: only a model's
// vocabulary does.
inline uint64_t HashWord(std::string_view word) {
  constexpr uint64_t kSeed = 0x9E3779B97F4A7C15ull, kOdd = 0xD6E8FEB86659FD93ull;
  const auto load = [](const char* p, size_t n) {
    uint64_t v = 0;
    std::memcpy(&v, p, n);
    return v;
  };
  const char* p = word.data();
  size_t n = word.size();
  uint64_t h = kSeed ^ n;
  for (; n > 8; p += 8, n -= 8) h = (h ^ load(p, 8)) * kOdd, h ^= h >> 29;
  if (word.size() >= 8) {
    h = (h ^ load(p + n - 8, 8)) * kOdd;
  } else if (n >= 4) {
    h = (h ^ (load(p, 4) | load(p + n - 4, 4) << 32)) * kOdd;
  } else if (n > 0) {
    h = (h ^
         (static_cast<uint8_t>(p[0]) | static_cast<uint64_t>(static_cast<uint8_t>(p[n / 2])) << 8 |
          static_cast<uint64_t>(static_cast<uint8_t>(p[n - 1])) << 16)) *
        kOdd;
  }
  return h ^ h >> 32;
}

class TokenTable {
 public:
  // Room for `count` keys. Key bytes must outlive the table.
  explicit TokenTable(size_t count = 0) {
    size_t size = 16;
    while (size < count * 2) size *= 2;
    slots_.resize(size);
  }
  // Keeps the first id of equal keys.
  void Insert(std::string_view key, int32_t id) {
    const uint64_t hash = HashWord(key);
    for (size_t i = hash & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
      Slot& slot = slots_[i];
      if (slot.id >= 0 && slot.Holds(hash, key)) return;
      if (slot.id < 0) {
        slot = {key.data(), static_cast<uint32_t>(key.size()), static_cast<uint32_t>(hash >> 32),
                id};
        return;
      }
    }
  }
  // -1 when absent.
  int32_t Find(std::string_view key) const {
    const uint64_t hash = HashWord(key);
    for (size_t i = hash & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
      const Slot& slot = slots_[i];
      if (slot.id < 0) return -1;
      if (slot.Holds(hash, key)) return slot.id;
    }
  }

 private:
  struct Slot {
    const char* data = nullptr;
    uint32_t size = 0;
    uint32_t tag = 0;
    int32_t id = -1;
    bool Holds(uint64_t hash, std::string_view key) const {
      return tag == static_cast<uint32_t>(hash >> 32) && size == key.size() &&
             std::memcmp(data, key.data(), size) == 0;
    }
  };
  std::vector<Slot> slots_;
};

}  // namespace llmd::text
