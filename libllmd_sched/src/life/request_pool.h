// Requests that are over, kept with their buffers for those that come.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "life/request_state.h"

namespace llmd::sched {

// Thread-safe. Requests keep it alive. At most kMaxKept of them are kept.
class RequestPool : public std::enable_shared_from_this<RequestPool> {
 public:
  static constexpr size_t kMaxKept = 1024;

  RequestPool() = default;
  ~RequestPool();
  // An empty one. When the last holder lets go it ends and comes back here.
  std::shared_ptr<RequestState> Take();

 private:
  struct Return;
  template <typename T>
  struct Blocks;
  void* Block(size_t bytes);
  void GiveBlock(void* block, size_t bytes);
  void Give(RequestState* state);

  std::mutex mutex_;
  std::vector<std::unique_ptr<RequestState>> free_;  // guarded by mutex_
  std::vector<void*> blocks_;                        // of block_bytes_ each; guarded by mutex_
  size_t block_bytes_ = 0;                           // guarded by mutex_
};

}  // namespace llmd::sched
