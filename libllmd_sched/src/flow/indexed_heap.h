// A binary heap of borrowed objects that know their position in it, so that any of them can be
// removed or moved in O(log n). Allocates only to grow.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace llmd::sched {

inline constexpr size_t kNotInHeap = SIZE_MAX;

// `Where` gives the size_t& in which an object keeps its position: kNotInHeap while it is in no
// heap. `Before(a, b)`: a is nearer to the top. Thread-compatible.
template <typename T, typename Where, typename Before>
class IndexedHeap {
 public:
  explicit IndexedHeap(Before before = {}) : before_(std::move(before)) {}

  bool empty() const { return items_.empty(); }
  size_t size() const { return items_.size(); }
  T* top() const { return items_.front(); }

  void Push(T* item) {
    items_.push_back(item);
    Up(items_.size() - 1);
  }
  void Remove(T* item) {
    const size_t at = std::exchange(Where()(*item), kNotInHeap);
    T* const last = items_.back();
    items_.pop_back();
    if (last == item) return;
    items_[at] = last;
    Down(Up(at));
  }
  // The item's key has changed.
  void Update(T* item) { Down(Up(Where()(*item))); }

 private:
  size_t Up(size_t at) {
    T* const item = items_[at];
    while (at > 0 && before_(*item, *items_[(at - 1) / 2])) {
      Put(items_[(at - 1) / 2], at);
      at = (at - 1) / 2;
    }
    Put(item, at);
    return at;
  }
  void Down(size_t at) {
    T* const item = items_[at];
    for (size_t child = 2 * at + 1; child < items_.size(); child = 2 * at + 1) {
      if (child + 1 < items_.size() && before_(*items_[child + 1], *items_[child])) ++child;
      if (!before_(*items_[child], *item)) break;
      Put(items_[child], at);
      at = child;
    }
    Put(item, at);
  }
  void Put(T* item, size_t at) {
    items_[at] = item;
    Where()(*item) = at;
  }

  std::vector<T*> items_;
  Before before_;
};

}  // namespace llmd::sched
