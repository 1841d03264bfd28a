// The pieces of a snapshot: little-endian numbers and counted texts under one checksum (XXH3-64).
#pragma once

#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <string>

#include "llmd/kv/index.h"

namespace llmd::kv {

static_assert(std::endian::native == std::endian::little, "numbers are written as they lie");

class Checksum {
 public:
  Checksum();
  ~Checksum();
  void Add(const void* bytes, size_t count);
  uint64_t Value() const;

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

// Keeps the first error of the sink; what follows it is dropped.
class SnapshotWriter {
 public:
  explicit SnapshotWriter(const Index::Sink& sink) : sink_(sink) {}
  template <typename T>
  void Number(T value) {
    Bytes(&value, sizeof(value));
  }
  void Text(std::string_view text) {
    Number(static_cast<uint32_t>(text.size()));
    Bytes(text.data(), text.size());
  }
  void Bytes(const void* bytes, size_t count);
  // Writes the checksum of all before it.
  Status Finish();

 private:
  void Flush();
  const Index::Sink& sink_;
  Status status_;
  Checksum checksum_;
  std::array<uint8_t, 1 << 16> buffer_;
  size_t used_ = 0;
};

// DATA_LOSS for what cannot be; the source's own errors as they are.
class SnapshotReader {
 public:
  explicit SnapshotReader(const Index::Source& source) : source_(source) {}
  template <typename T>
  StatusOr<T> Number() {
    T value;
    LLMD_RETURN_IF_ERROR(Bytes(&value, sizeof(value)));
    return value;
  }
  // At most `most`.
  StatusOr<uint64_t> Count(std::string_view what, uint64_t most);
  StatusOr<std::string> Text();
  Status Bytes(void* bytes, size_t count);
  Status CheckEnd();

 private:
  const Index::Source& source_;
  Checksum checksum_;
};

Status BadSnapshot(std::string_view what);

}  // namespace llmd::kv
