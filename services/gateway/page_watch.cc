#include "gateway/page_watch.h"

#include <algorithm>
#include <utility>

namespace llmd::gateway {
namespace {

// After a read failed, one more must: while this process stood still itself, the first fails for
// want of time.
constexpr int kMinFailures = 2;
// Nobody reads its pages any more: it has left.
constexpr Duration kForgetAfter = std::chrono::minutes(1);

}  // namespace

struct PageWatch::State {
  struct Page {
    TimePoint read{};                         // last
    TimePoint unanswered = TimePoint::max();  // since when reads are; max = they are not
    int failures = 0;                         // since then
  };
  State(Duration l, const Clock& c) : limit(l), clock(c) {}

  void Asked(const std::string& address) {
    const TimePoint now = clock.Now();
    const std::lock_guard lock(mutex);
    Page& page = pages[address];
    page.read = now;
    if (page.unanswered == TimePoint::max()) page.unanswered = now;
  }
  void Told(const std::string& address, bool answered, TimePoint asked) {
    const std::lock_guard lock(mutex);
    const auto found = pages.find(address);
    if (found == pages.end()) return;
    Page& page = found->second;
    if (!answered) {
      ++page.failures;
      return;
    }
    // Reads that began later are not answered yet.
    page.failures = 0;
    page.unanswered = page.read > asked ? page.read : TimePoint::max();
  }
  bool IsSilent(const Page& page, TimePoint now) const {
    return page.failures >= kMinFailures && now - page.unanswered > limit;
  }

  const Duration limit;
  const Clock& clock;
  std::atomic<uint64_t> version{0};
  mutable std::mutex mutex;
  std::unordered_map<std::string, Page> pages;  // by "ip:port"; guarded by mutex
  std::shared_ptr<const std::vector<std::string>> silent =
      std::make_shared<const std::vector<std::string>>();  // guarded by mutex
};

PageWatch::PageWatch(std::shared_ptr<sched::Fetch> fetch, Duration limit, const Clock& clock)
    : fetch_(std::move(fetch)), state_(std::make_shared<State>(limit, clock)) {}

PageWatch::~PageWatch() = default;

void PageWatch::Get(const sched::EndpointInfo& endpoint, const sched::PageSpec& page,
                    Duration timeout, std::function<void(StatusOr<std::string>)> done) {
  // A page at another address says nothing about this one.
  if (!page.address_label.empty()) return fetch_->Get(endpoint, page, timeout, std::move(done));
  std::string address = endpoint.HostPort();
  state_->Asked(address);
  fetch_->Get(endpoint, page, timeout,
              [state = state_, address = std::move(address), asked = state_->clock.Now(),
               done = std::move(done)](StatusOr<std::string> reply) {
                const bool answered =
                    reply.ok() || reply.status().code() != StatusCode::kDeadlineExceeded;
                state->Told(address, answered, asked);
                done(std::move(reply));
              });
}

void PageWatch::Post(const std::string& url, std::string body, Duration timeout,
                     std::function<void(StatusOr<std::string>)> done) {
  fetch_->Post(url, std::move(body), timeout, std::move(done));
}

void PageWatch::Look() {
  const TimePoint now = state_->clock.Now();
  const std::lock_guard lock(state_->mutex);
  std::erase_if(state_->pages,
                [now](const auto& each) { return now - each.second.read > kForgetAfter; });
  auto silent = std::make_shared<std::vector<std::string>>();
  for (const auto& [address, page] : state_->pages) {
    if (state_->IsSilent(page, now)) silent->push_back(address);
  }
  if (silent->size() == state_->pages.size()) silent->clear();
  std::sort(silent->begin(), silent->end());
  if (*silent == *state_->silent) return;
  state_->silent = std::move(silent);
  state_->version.fetch_add(1, std::memory_order_release);
}

uint64_t PageWatch::version() const {
  return state_->version.load(std::memory_order_acquire);
}

std::shared_ptr<const std::vector<std::string>> PageWatch::Silent() const {
  const std::lock_guard lock(state_->mutex);
  return state_->silent;
}

}  // namespace llmd::gateway
