#include "http/relay/loop_impl.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "http/relay/call_impl.h"
#include "http/relay/client.h"
#include "http/relay/upstream.h"
#include "llmd/worker_pool.h"

namespace llmd::relay {
namespace {

constexpr Duration kTick = std::chrono::milliseconds(250);
constexpr size_t kPoolsKept = 256;

}  // namespace

LoopImpl::LoopImpl(Shared& shared, int index)
    : shared_(shared),
      index_(index),
      now_(SystemClock().Now()),
      wheel_(now_),
      scratch_(new char[kScratchBytes]),
      record_(new char[Socket::kRecordBytes]),
      acceptor_(*this),
      waker_(*this),
      tick_([](void* self) { static_cast<LoopImpl*>(self)->Tick(); }, this),
      accept_again_([](void* self) { static_cast<LoopImpl*>(self)->Listen(); }, this) {}

LoopImpl::~LoopImpl() {
  Stop();
  policy_.reset();
  if (epoll_ >= 0) ::close(epoll_);
  if (event_ >= 0) ::close(event_);
  if (spare_ >= 0) ::close(spare_);
}

Status LoopImpl::Prepare(int listener) {
  listener_ = listener;
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) return ErrnoStatus(errno, "epoll");
  event_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_ < 0) return ErrnoStatus(errno, "eventfd");
  if (!Watch(event_, waker_)) return ErrnoStatus(errno, "epoll");
  if (!OpenSpare()) return ErrnoStatus(errno, "open /dev/null");
  return OkStatus();
}

void LoopImpl::Start() {
  thread_ = std::thread([this] {
    SetThreadName("relay/" + std::to_string(index_));
    Run();
  });
}

void LoopImpl::Run() {
  thread_id_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  now_ = SystemClock().Now();
  LookAtUpstreamTls();
  Listen();
  wheel_.Set(tick_, now_ + kTick);
  while (!shared_.cutting.load(std::memory_order_acquire)) Turn();
  RunPosts();
  CutAll();
  RunDeferred();
  for (auto& [key, pool] : pools_) pool->CloseAll();
  for (auto& pool : retired_pools_) pool->CloseAll();
  EmptyGraveyard();
}

int LoopImpl::WaitMillis() const {
  if (woken_ || !again_.empty()) return 0;
  const TimePoint next = wheel_.Next();
  if (next == TimePoint::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - now_);
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 60'000));
}

void LoopImpl::Turn() {
  std::array<epoll_event, 256> events;
  const int n = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), WaitMillis());
  now_ = SystemClock().Now();
  Bump(counters.turns);
  running_again_.swap(again_);
  for (int i = 0; i < n; ++i)
    static_cast<Handler*>(events[static_cast<size_t>(i)].data.ptr)
        ->OnEvents(events[static_cast<size_t>(i)].events);
  RunAgain();
  if (std::exchange(woken_, false)) RunPosts();
  wheel_.Advance(now_);
  RunDeferred();
  EmptyGraveyard();
}

bool LoopImpl::Post(std::function<void()> fn) {
  return Push(std::move(fn), options().max_posts);
}

bool LoopImpl::Push(std::function<void()> fn, size_t limit) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_ || posts_.size() >= limit) return false;
    posts_.push_back(std::move(fn));
  }
  if (std::this_thread::get_id() == thread_id_.load(std::memory_order_relaxed)) {
    woken_ = true;
  } else if (!wake_pending_.exchange(true)) {
    const uint64_t one = 1;
    (void)!::write(event_, &one, sizeof one);
  }
  return true;
}

bool LoopImpl::PostTo(uint32_t slot, uint32_t generation, std::function<void(Call&)> fn) {
  // What a call waits for must come: there is room for what is told to calls.
  constexpr size_t kNoLimit = ~size_t{0};
  return Push(
      [this, slot, generation, fn = std::move(fn)] {
        if (CallImpl* const call = Find(slot, generation)) fn(*call);
      },
      kNoLimit);
}

void LoopImpl::RunPosts() {
  wake_pending_.store(false);
  {
    const std::lock_guard lock(mutex_);
    running_posts_.swap(posts_);
  }
  for (auto& fn : running_posts_) fn();
  running_posts_.clear();
}

void LoopImpl::Defer(const CallImpl& call, void (*fn)(CallImpl&)) {
  deferred_.push_back({call.slot(), call.generation, fn});
}

void LoopImpl::RunDeferred() {
  while (!deferred_.empty()) {
    running_deferred_.swap(deferred_);
    for (const Deferred& each : running_deferred_) {
      if (CallImpl* const call = Find(each.slot, each.generation)) each.fn(*call);
    }
    running_deferred_.clear();
  }
}

CallImpl* LoopImpl::Find(uint32_t slot, uint32_t generation) {
  CallImpl* const call = slot < calls_.size() ? calls_[slot].get() : nullptr;
  return call != nullptr && call->generation == generation ? call : nullptr;
}

CallRef LoopImpl::RefOf(const CallImpl& call) {
  return MakeRef(this, call.slot(), call.generation);
}

CallImpl& LoopImpl::TakeCall() {
  if (free_calls_.empty()) {
    free_calls_.push_back(static_cast<uint32_t>(calls_.size()));
    calls_.push_back(std::make_unique<CallImpl>(*this, free_calls_.back()));
  }
  CallImpl& call = *calls_[free_calls_.back()];
  free_calls_.pop_back();
  Bump(counters.calls);
  Bump(counters.active_calls);
  return call;
}

void LoopImpl::FreeCall(CallImpl& call) {
  ++call.generation;
  call.Reset();
  free_calls_.push_back(call.slot());
  Bump(counters.active_calls, ~size_t{0});
}

Call& LoopImpl::Open() {
  CallImpl& call = TakeCall();
  call.Begin(nullptr, now_);
  return call;
}

UpstreamPool& LoopImpl::PoolOf(const Target& target,
                               const std::shared_ptr<const UpstreamTls>& tls) {
  std::unique_ptr<UpstreamPool>& pool = pools_[{target, tls.get()}];
  if (pool && pool->retired()) retired_pools_.push_back(std::move(pool));
  if (!pool) pool = std::make_unique<UpstreamPool>(tls);
  return *pool;
}

Upstream& LoopImpl::TakeUpstream() {
  if (free_upstreams_.empty()) {
    upstreams_.push_back(std::make_unique<Upstream>(*this));
    return *upstreams_.back();
  }
  Upstream& out = *free_upstreams_.back();
  free_upstreams_.pop_back();
  return out;
}

void LoopImpl::Retire(Upstream& upstream) {
  dead_upstreams_.push_back(&upstream);
}

void LoopImpl::Retire(Client& client) {
  dead_clients_.push_back(&client);
  counters.connections.fetch_sub(1, std::memory_order_relaxed);
  shared_.connections.fetch_sub(1, std::memory_order_relaxed);
}

// Those that had their share of the turn before. Connections outlive their places here: one that
// is closed, or another's by now, takes an event without flags for nothing.
void LoopImpl::RunAgain() {
  for (Handler* handler : running_again_) handler->OnEvents(0);
  running_again_.clear();
}

void LoopImpl::EmptyGraveyard() {
  free_upstreams_.insert(free_upstreams_.end(), dead_upstreams_.begin(), dead_upstreams_.end());
  dead_upstreams_.clear();
  free_clients_.insert(free_clients_.end(), dead_clients_.begin(), dead_clients_.end());
  dead_clients_.clear();
  dead_buffers_.clear();
}

void LoopImpl::Tick() {
  LookAtUpstreamTls();
  policy_->OnTick();
  PrunePools();
  warm_.Cool();
  wheel_.Set(tick_, now_ + kTick);
}

void LoopImpl::LookAtUpstreamTls() {
  if (!options().upstream_tls) return;
  std::shared_ptr<const http::TlsContext> context = options().upstream_tls();
  if (upstream_tls_ && upstream_tls_->context == context) return;
  upstream_tls_ = std::make_shared<const UpstreamTls>(
      UpstreamTls{std::move(context), options().upstream_tls_host});
}

// Endpoints come and go, and so do the certificates we show them: their pools need not stay.
void LoopImpl::PrunePools() {
  const bool many = pools_.size() > kPoolsKept;
  const auto over = [many](UpstreamPool& pool) {
    const bool retired = pool.retired();
    if (retired) pool.CloseAll();
    return pool.users == 0 && (many || retired);
  };
  std::erase_if(pools_, [&](const auto& entry) { return over(*entry.second); });
  std::erase_if(retired_pools_, [&](const auto& pool) { return over(*pool); });
}

void LoopImpl::CutAll() {
  for (size_t i = 0; i < clients_.size(); ++i) clients_[i]->Cut();
  for (size_t i = 0; i < calls_.size(); ++i) {
    if (calls_[i]->client_ == nullptr && !calls_[i]->over()) calls_[i]->Abort();
  }
}

void LoopImpl::Stop() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  shared_.cutting.store(true, std::memory_order_release);
  const uint64_t one = 1;
  if (event_ >= 0) (void)!::write(event_, &one, sizeof one);
  if (thread_.joinable()) thread_.join();
}

LoopStats LoopImpl::Stats() const {
  const auto read = [](const auto& counter) { return counter.load(std::memory_order_relaxed); };
  LoopStats out;
  out.accepted = read(counters.accepted);
  out.calls = read(counters.calls);
  out.connections = read(counters.connections);
  out.active_calls = read(counters.active_calls);
  out.upstream_open = read(counters.upstream_open);
  out.upstream_idle = read(counters.upstream_idle);
  out.upstream_connects = read(counters.connects);
  out.replays = read(counters.replays);
  out.turns = read(counters.turns);
  out.handshakes = read(counters.handshakes);
  out.handshake_failures = read(counters.handshake_failures);
  return out;
}

}  // namespace llmd::relay
