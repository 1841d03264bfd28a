// What every fuzz target is made of. FUZZ_TARGET(name) { … } defines the body over `input`:
// libFuzzer's entry point, or with LLMD_FUZZ_REPLAY a row of the table that fuzz_corpus_test walks.
// Single-threaded.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>

namespace llmd::fuzz {

using Target = void (*)(std::string_view input);
inline std::map<std::string, Target>& Targets() {
  static std::map<std::string, Target> targets;
  return targets;
}

// Calls `each` with consecutive pieces whose lengths come from `seed`: the same bytes, split anew.
template <typename Each>
void InPieces(std::string_view bytes, uint32_t seed, Each&& each) {
  while (!bytes.empty()) {
    seed = seed * 1664525 + 1013904223;
    const size_t size = std::min<size_t>(bytes.size(), 1 + (seed >> 24) % 7);
    each(bytes.substr(0, size));
    bytes.remove_prefix(size);
  }
}

// Takes the first byte as a parameter, 0 when there is none.
inline uint8_t TakeByte(std::string_view& input) {
  if (input.empty()) return 0;
  const auto byte = static_cast<uint8_t>(input.front());
  input.remove_prefix(1);
  return byte;
}

}  // namespace llmd::fuzz

#define FUZZ_EXPECT(condition)                                                     \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                \
    }                                                                              \
  } while (false)

#ifdef LLMD_FUZZ_REPLAY
#define FUZZ_TARGET(name)                                         \
  static void Fuzz_##name(std::string_view input);                \
  static const bool registered_##name =                           \
      ::llmd::fuzz::Targets().emplace(#name, Fuzz_##name).second; \
  static void Fuzz_##name([[maybe_unused]] std::string_view input)
#else
#define FUZZ_TARGET(name)                                                   \
  static void Fuzz_##name(std::string_view input);                          \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) { \
    Fuzz_##name({reinterpret_cast<const char*>(data), size});               \
    return 0;                                                               \
  }                                                                         \
  static void Fuzz_##name(std::string_view input)
#endif
