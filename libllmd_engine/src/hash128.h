// XXH3-128 over a row of values, each with its length, so that no two rows look alike.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace llmd::engine {

// Thread-compatible.
class Hash128 {
 public:
  Hash128();
  ~Hash128();
  Hash128(const Hash128&) = delete;
  Hash128& operator=(const Hash128&) = delete;

  void Bytes(std::span<const std::byte> bytes);
  void Text(std::string_view text) { Bytes(std::as_bytes(std::span(text.data(), text.size()))); }
  template <typename T>
  void Number(T value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    Bytes(std::as_bytes(std::span(&value, 1)));
  }
  // 32 digits.
  std::string Hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace llmd::engine
