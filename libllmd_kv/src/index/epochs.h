// When memory that readers without locks may still look at is given back. Readers pin the epoch
// they came in; what a writer took out of reach is freed once every reader that could have seen it
// left.
#pragma once

#include <malloc.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <thread>
#include <vector>

#include "llmd/status.h"

namespace llmd::kv {

// Pinning is thread-safe; all else belongs to the one writer. Counts the bytes it hands out, with
// what malloc rounds up.
class Epochs {
 public:
  Epochs() = default;
  Epochs(const Epochs&) = delete;
  Epochs& operator=(const Epochs&) = delete;
  ~Epochs() {
    for (const Retired& r : retired_) std::free(r.memory);
  }

  // While one is alive nothing its thread could reach is freed. Waits only when kReaders others are
  // inside.
  class Pin {
   public:
    explicit Pin(const Epochs& epochs) {
      static thread_local size_t place = std::hash<std::thread::id>()(std::this_thread::get_id());
      for (size_t tries = 0;; ++tries, ++place) {
        reader_ = &epochs.readers_[place % kReaders].epoch;
        uint64_t idle = 0;
        // The exchange comes before every look at the index, in the one order of all seq_cst
        // operations: a writer that did not see it had unlinked before.
        if (reader_->compare_exchange_strong(idle, epochs.now_.load(std::memory_order_seq_cst),
                                             std::memory_order_seq_cst)) {
          return;
        }
        if (tries % kReaders == kReaders - 1) std::this_thread::yield();
      }
    }
    ~Pin() { reader_->store(0, std::memory_order_release); }
    Pin(const Pin&) = delete;
    Pin& operator=(const Pin&) = delete;

   private:
    std::atomic<uint64_t>* reader_;
  };

  void* Allocate(size_t size) {
    void* memory = std::malloc(size);
    LLMD_CHECK(memory != nullptr);
    bytes_ += SizeOf(memory);
    return memory;
  }
  // Of what no reader has seen.
  void Free(void* memory) {
    if (memory == nullptr) return;
    bytes_ -= SizeOf(memory);
    std::free(memory);
  }
  // Of what no reader that comes in from now on can reach.
  void Retire(void* memory) {
    if (memory == nullptr) return;
    retired_.push_back({memory, now_.load(std::memory_order_relaxed)});
    retired_bytes_ += SizeOf(memory);
    if (retired_.size() >= kBatch || retired_bytes_ >= kBatchBytes) Collect();
  }
  // Frees what it can. True when nothing is left.
  bool Collect() {
    now_.fetch_add(1, std::memory_order_seq_cst);
    const uint64_t oldest = Oldest();
    size_t kept = 0;
    for (const Retired& r : retired_) {
      if (r.epoch >= oldest) {
        retired_[kept++] = r;
        continue;
      }
      const size_t size = SizeOf(r.memory);
      retired_bytes_ -= size;
      bytes_ -= size;
      std::free(r.memory);
    }
    retired_.resize(kept);
    return kept == 0;
  }
  // A mark that Passed once no reader is left that came in before.
  uint64_t Mark() { return now_.fetch_add(1, std::memory_order_seq_cst); }
  bool Passed(uint64_t mark) const { return mark < Oldest(); }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kReaders = 128, kBatch = 256, kBatchBytes = 1 << 20;
  struct alignas(64) Reader {
    std::atomic<uint64_t> epoch{0};  // 0 = nobody
  };
  struct Retired {
    void* memory;
    uint64_t epoch;
  };
  static size_t SizeOf(void* memory) { return malloc_usable_size(memory) + sizeof(size_t); }
  uint64_t Oldest() const {
    uint64_t oldest = now_.load(std::memory_order_relaxed);
    for (const Reader& reader : readers_) {
      const uint64_t epoch = reader.epoch.load(std::memory_order_seq_cst);
      if (epoch != 0 && epoch < oldest) oldest = epoch;
    }
    return oldest;
  }

  mutable std::array<Reader, kReaders> readers_;
  std::atomic<uint64_t> now_{1};
  std::vector<Retired> retired_;
  size_t retired_bytes_ = 0;
  size_t bytes_ = 0;
};

}  // namespace llmd::kv
