#include "llmd/uuid.h"

#include <sys/random.h>

#include <array>
#include <cerrno>
#include <utility>

#include "hex.h"
#include "llmd/status.h"

namespace llmd {

uint64_t RandomBits() {
  // Ids are asked for several times a request: one system call for many. 256 bytes are never cut
  // short; only a signal before the pool is ready can interrupt it.
  static thread_local std::array<uint64_t, 32> bits;
  static thread_local size_t left = 0;
  if (left == 0) {
    ssize_t got = 0;
    do {
      got = getrandom(bits.data(), sizeof(bits), 0);
    } while (got < 0 && errno == EINTR);
    LLMD_CHECK(got == sizeof(bits));
    left = bits.size();
  }
  return std::exchange(bits[--left], 0);
}

void AssignUuid(std::string& out, uint64_t high, uint64_t low) {
  high = (high & ~uint64_t{0xF000}) | 0x4000;
  low = (low & ~(uint64_t{3} << 62)) | (uint64_t{2} << 62);
  char text[36];
  char* at = text;
  for (const auto& [bits, digits] :
       {std::pair{high >> 32, 8}, {high >> 16, 4}, {high, 4}, {low >> 48, 4}, {low, 12}}) {
    if (at != text) *at++ = '-';
    for (int shift = (digits - 1) * 4; shift >= 0; shift -= 4) *at++ = HexDigit(bits >> shift);
  }
  out.assign(text, sizeof(text));
}

std::string UuidFromBits(uint64_t high, uint64_t low) {
  std::string out;
  AssignUuid(out, high, low);
  return out;
}

std::string NewUuid() {
  const uint64_t high = RandomBits();
  return UuidFromBits(high, RandomBits());
}

}  // namespace llmd
