// Writes protocol buffer messages and gRPC bodies for tests.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace llmd::sched {

inline std::string Base128(uint64_t v) {
  std::string out;
  for (; v >= 0x80; v >>= 7) out += static_cast<char>(v | 0x80);
  return out + static_cast<char>(v);
}
inline std::string Num(uint32_t field, uint64_t value) {
  return Base128(field << 3) + Base128(value);
}
inline std::string Len(uint32_t field, std::string_view bytes) {
  return Base128(field << 3 | 2) + Base128(bytes.size()) + std::string(bytes);
}
inline std::string Packed(uint32_t field, std::initializer_list<uint64_t> values) {
  std::string all;
  for (uint64_t v : values) all += Base128(v);
  return Len(field, all);
}
inline std::string Grpc(std::string_view message, char flag = 0) {
  std::string out(1, flag);
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(message.size() >> shift);
  return out + std::string(message);
}

}  // namespace llmd::sched
