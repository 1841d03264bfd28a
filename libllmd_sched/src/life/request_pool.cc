#include "life/request_pool.h"

#include <new>

namespace llmd::sched {

struct RequestPool::Return {
  std::shared_ptr<RequestPool> pool;
  void operator()(RequestState* state) const {
    state->End(true);
    state->Clear();
    pool->Give(state);
  }
};

// Memory of the holders' counts.
template <typename T>
struct RequestPool::Blocks {
  using value_type = T;
  std::shared_ptr<RequestPool> pool;
  explicit Blocks(std::shared_ptr<RequestPool> p) : pool(std::move(p)) {}
  template <typename U>
  Blocks(const Blocks<U>& other) : pool(other.pool) {}  // NOLINT(google-explicit-constructor)
  T* allocate(size_t n) { return static_cast<T*>(pool->Block(n * sizeof(T))); }
  void deallocate(T* block, size_t n) { pool->GiveBlock(block, n * sizeof(T)); }
  template <typename U>
  bool operator==(const Blocks<U>& other) const {
    return pool == other.pool;
  }
};

RequestPool::~RequestPool() {
  for (void* block : blocks_) ::operator delete(block);
}

std::shared_ptr<RequestState> RequestPool::Take() {
  std::unique_ptr<RequestState> state;
  {
    std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      state = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (!state) state = std::make_unique<RequestState>();
  const std::shared_ptr<RequestPool> self = shared_from_this();
  return std::shared_ptr<RequestState>(state.release(), Return{self}, Blocks<RequestState>(self));
}

void RequestPool::Give(RequestState* state) {
  std::unique_ptr<RequestState> one(state);
  std::lock_guard lock(mutex_);
  if (free_.size() < kMaxKept) free_.push_back(std::move(one));
}

void* RequestPool::Block(size_t bytes) {
  {
    std::lock_guard lock(mutex_);
    if (bytes == block_bytes_ && !blocks_.empty()) {
      void* const block = blocks_.back();
      blocks_.pop_back();
      return block;
    }
  }
  return ::operator new(bytes);
}

void RequestPool::GiveBlock(void* block, size_t bytes) {
  {
    std::lock_guard lock(mutex_);
    if (block_bytes_ == 0) block_bytes_ = bytes;
    if (bytes == block_bytes_ && blocks_.size() < kMaxKept) {
      blocks_.push_back(block);
      return;
    }
  }
  ::operator delete(block);
}

}  // namespace llmd::sched
