// The one ledger of what is in flight: an account for each life of an endpoint (endpoint_life.h),
// booked by the core as requests leave, begin to be answered and end (charges.h), and read by
// detectors, producers and policies. Token numbers depend on a plugin's parameters: such a plugin
// has a column of its own, by its name, so that a reload finds what was booked before.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace llmd::sched {

inline constexpr size_t kLedgerColumns = 16;

class LedgerColumn;

// What one life of an endpoint has in flight. Thread-safe; a reader sees each number by itself.
// Allocates only for more different promises at once than ever before.
class InFlightAccount {
 public:
  // Requests on their way or being answered; a prefill ends with the first piece of the answer.
  double requests() const { return static_cast<double>(requests_.load(kRelaxed)); }
  // What stands in a column: tokens, to 1/65536.
  double Tokens(const LedgerColumn& column) const;
  // Requests sent after the page of that number (EndpointMetrics::page) was first asked for here,
  // and not answered yet: no page can have shown them.
  double Unseen(uint64_t page);
  // The strictest time per token promised to the requests in flight, ms; infinity = none.
  double tightest_tpot_ms() const { return tightest_.load(kRelaxed); }

  // A request leaves for the endpoint; the mark is for Answered.
  uint64_t Open();
  // Its answer began or ended, so that it does not wait any more. Once a request.
  void Answered(uint64_t mark);
  void Close() { requests_.fetch_sub(1, kRelaxed); }
  // Adds to a column, in units of 1/65536 of a token.
  void Add(size_t column, int64_t units) { tokens_[column].fetch_add(units, kRelaxed); }
  static int64_t Units(double tokens);
  static double Tokens(int64_t units) { return static_cast<double>(units) / kUnits; }
  void Promise(double tpot_ms);
  void Release(double tpot_ms);

 private:
  static constexpr auto kRelaxed = std::memory_order_relaxed;
  static constexpr double kUnits = 65536;

  // The first cache line is what most decisions read.
  alignas(64) std::atomic<int64_t> requests_{0};
  std::atomic<uint64_t> page_{0};    // the newest one seen
  std::atomic<uint64_t> unseen_{0};  // pages seen << 32 | sent since the last one
  std::atomic<double> tightest_{std::numeric_limits<double>::infinity()};
  std::array<std::atomic<int64_t>, kLedgerColumns> tokens_{};
  std::mutex mutex_;
  std::map<double, size_t> promises_;                       // how many of each; guarded by mutex_
  std::vector<std::map<double, size_t>::node_type> spare_;  // to be used again; guarded by mutex_
};

class InFlightLedger;

// A column of a ledger, held by the plugin it is named after. Its number is given to another name
// only after the last holder is gone. Immutable.
class LedgerColumn {
 public:
  LedgerColumn(std::shared_ptr<InFlightLedger> ledger, size_t number)
      : ledger_(std::move(ledger)), number_(number) {}
  ~LedgerColumn();
  LedgerColumn(const LedgerColumn&) = delete;
  LedgerColumn& operator=(const LedgerColumn&) = delete;
  size_t number() const { return number_; }

 private:
  const std::shared_ptr<InFlightLedger> ledger_;
  const size_t number_;
};

inline double InFlightAccount::Tokens(const LedgerColumn& column) const {
  return Tokens(tokens_[column.number()].load(kRelaxed));
}

// Who has which column. Lives as long as a Director or Scheduler, through its reloads. Thread-safe.
class InFlightLedger : public std::enable_shared_from_this<InFlightLedger> {
 public:
  // The column of that name, the same for all who ask while one of them holds it. Null when all
  // kLedgerColumns are taken by other names.
  std::shared_ptr<const LedgerColumn> Column(const std::string& name);
  // `old` takes the name and the place of `own`: the plugin goes on with what another one booked.
  void Succeed(std::shared_ptr<const LedgerColumn>& own, std::shared_ptr<const LedgerColumn> old);

 private:
  friend class LedgerColumn;
  struct Place {
    std::string name;
    std::weak_ptr<const LedgerColumn> column;
    bool taken = false;
  };
  void GiveBack(size_t number);
  std::mutex mutex_;
  std::array<Place, kLedgerColumns> places_;  // guarded by mutex_
};

}  // namespace llmd::sched
