// What the requests say. Request N of a run is a pure function of the options, the trace and N
// (and, from the second turn of a conversation on, of the answers so far): whoever builds it,
// whenever. Thread-safe once made.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cli/bench/options.h"
#include "cli/bench/random.h"
#include "cli/bench/trace_file.h"

namespace llmd::bench {

// One arrival: a request, or with --turns several, each sent when its predecessor's answer is in.
struct Conversation {
  uint64_t index = 0;
  uint32_t stage = 0, tenant = 0, turn = 0;
  uint64_t prompt_tokens = 0, output_tokens = 0;  // of the turn that was built last, as planned
  // Chat: the messages so far as JSON, each with a comma behind it. Completion: the text so far,
  // as it stands between the quotes of a JSON string.
  std::string history;
  uint64_t history_tokens = 0;
  std::string question;  // of the turn that was built last; kept when another turn follows
};

class Workload {
 public:
  // `options.model` must be known by now, but for kRaw. `trace` is needed for kTrace. Both outlive
  // this. INVALID_ARGUMENT: --extra-body is no JSON object, or sets what the workload sets.
  static StatusOr<Workload> Create(const Options& options, const Trace* trace);

  Conversation Start(uint64_t index, uint32_t stage) const;
  // The turn's request, head and body, for that target. The result lives in `scratch`, or in this
  // for a request that is always the same.
  std::string_view Build(Conversation& conversation, size_t target, std::string& scratch) const;
  bool HasNextTurn(const Conversation& conversation) const {
    return conversation.turn + 1 < static_cast<uint32_t>(options_->turns);
  }
  // `answer` as between the quotes of a JSON string; `tokens` of it.
  void NextTurn(Conversation& conversation, std::string_view answer, uint64_t tokens) const;

 private:
  Workload(const Options& options, const Trace* trace) : options_(&options), trace_(trace) {}
  Status MakeTail();
  void MakeHeads();
  uint32_t TenantOf(uint64_t index) const;
  void WriteBody(Conversation& conversation, std::string& out) const;
  void WriteQuestion(Conversation& conversation, size_t start, std::string& out) const;
  void WriteShared(Conversation& conversation, std::string& out) const;
  void WriteTraced(Conversation& conversation, size_t start, std::string& out) const;

  const Options* options_;
  const Trace* trace_;
  double weights_ = 0;
  std::string tail_;                 // the body's members behind max_tokens
  std::vector<std::string> models_;  // of each tenant, quoted
  std::vector<std::string> heads_;   // [target * tenants + tenant], to "Content-Length: "
  std::vector<std::string> fixed_;   // the same, whole requests; kRaw only
};

}  // namespace llmd::bench
