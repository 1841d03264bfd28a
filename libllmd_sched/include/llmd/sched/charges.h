// What one request has open in the ledger: a charge at each endpoint it was routed to. The core
// opens them before the pre-request hooks run, and closes them after the response hooks of the
// first piece of the answer (the stages before the last) and of its end; plugins book tokens beside
// them. Whatever is open when the request goes is closed with it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "llmd/sched/endpoint_life.h"

namespace llmd::sched {

inline constexpr size_t kNoCharge = SIZE_MAX;

// What a request was sent to an endpoint for. All but kAnswer are over with the first piece of the
// answer.
enum class Stage : uint8_t { kAnswer, kPrefill, kEncode };

// Owned by its request, one thread at a time.
class RequestCharges {
 public:
  enum class Until : uint8_t { kFirstChunk, kEnd };
  struct Charge {
    std::shared_ptr<const EndpointLife> life;
    uint64_t mark = 0;    // of its account
    EndpointId sent{};    // the life it was opened for; `life` is another one after Move
    double tpot_ms = -1;  // promised; -1 = nothing
    Stage stage = Stage::kAnswer;
    bool open = true, waits = true;
  };
  // Tokens that a plugin has booked.
  struct Entry {
    std::shared_ptr<const LedgerColumn> column;
    size_t charge = kNoCharge;
    int64_t units = 0;
    uint64_t mark = 0;  // the plugin's
    Until until = Until::kEnd;
    bool open = true;
    double tokens() const;
  };

  RequestCharges() = default;
  ~RequestCharges() { End(); }
  RequestCharges(RequestCharges&&) = default;
  RequestCharges& operator=(RequestCharges&&) = delete;

  // The core: a request leaves for the endpoint.
  void Open(std::shared_ptr<const EndpointLife> life, Stage stage, double tpot_ms = -1);
  // Another endpoint than it was sent to answers it: what is open of kAnswer stands there from now
  // on.
  void Move(std::shared_ptr<const EndpointLife> life);
  // The answer began: nothing waits any more, the stages before are over.
  void FirstChunk();
  // All is closed. Both without effect when repeated.
  void End();
  // End, and nothing is left of it but the buffers.
  void Reset();

  // A plugin: the charge of the stage, kNoCharge when there is none.
  size_t Find(Stage stage) const;
  // Books tokens beside a charge; without effect for kNoCharge and for one that is closed.
  void Book(std::shared_ptr<const LedgerColumn> column, size_t charge, double tokens, Until until,
            uint64_t mark = 0);
  const std::vector<Charge>& all() const { return charges_; }
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  void Close(Charge& charge);
  void Close(Entry& entry);
  std::vector<Charge> charges_;
  std::vector<Entry> entries_;
};

struct RequestContext;
struct ScheduleOutcome;
struct Snapshot;
// Opens the charges of a decision: the primary endpoint's, and those of prefill and encoding where
// there are such stages.
void OpenCharges(RequestContext& request, const Snapshot& snapshot, const ScheduleOutcome& outcome);

}  // namespace llmd::sched
