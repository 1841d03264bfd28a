// Random identifiers (RFC 9562 version 4).
#pragma once

#include <cstdint>
#include <string>

namespace llmd {

// "5e1ca989-a775-4ed2-a517-2addd9600c23", from the system's random source. Thread-safe.
std::string NewUuid();
// The version 4 UUID made of these 128 random bits (six of them are overwritten); for seeded runs.
std::string UuidFromBits(uint64_t high, uint64_t low);
// The same into the memory that `out` has.
void AssignUuid(std::string& out, uint64_t high, uint64_t low);
// 64 bits from the system's random source, for ids and seeds. Thread-safe. After a fork parent and
// child may get the same.
uint64_t RandomBits();

}  // namespace llmd
