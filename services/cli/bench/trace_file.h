// Recorded arrivals: Mooncake's JSON lines (timestamp in ms, input_length, output_length, hash_ids)
// and Azure's CSV (TIMESTAMP, ContextTokens, GeneratedTokens).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "llmd/status.h"

namespace llmd::bench {

// Thread-safe once loaded.
class Trace {
 public:
  struct Entry {
    int64_t at_ns = 0;  // from the first entry
    uint64_t input_tokens = 0, output_tokens = 0;
    size_t first_block = 0, blocks = 0;
    size_t order = 0;  // in the file
  };
  static constexpr size_t kMaxBytes = size_t{1} << 30;
  static constexpr size_t kMaxEntries = 10'000'000;

  // `format` "mooncake", "azure", or "" = by the name: .jsonl or .csv. Entries come in the order of
  // time. INVALID_ARGUMENT with file and line for what is no such file; NOT_FOUND.
  static StatusOr<Trace> Load(const std::string& path, const std::string& format);

  const std::vector<Entry>& entries() const { return entries_; }
  // The ids of an entry's blocks; none in Azure's format.
  std::span<const uint64_t> Blocks(const Entry& entry) const {
    return std::span(blocks_).subspan(entry.first_block, entry.blocks);
  }

 private:
  Status AddMooncake(std::string_view line);
  Status AddAzure(std::string_view line);
  void Sort();
  std::vector<Entry> entries_;
  std::vector<uint64_t> blocks_;
};

}  // namespace llmd::bench
