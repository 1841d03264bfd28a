// What the batch scheduler asks of whoever can bring KV from elsewhere.
#pragma once

#include <span>

#include "llmd/engine/sequence.h"

namespace llmd::engine {

// Called on the engine thread.
class Connector {
 public:
  virtual ~Connector() = default;
  // Prompt tokens beyond the first `local_tokens` (whole blocks) whose KV another engine holds for
  // this sequence.
  virtual int ExternalTokens(const Sequence& sequence, int local_tokens) const = 0;
  // The sequence got its blocks. Starts bringing `external_tokens` into the blocks behind
  // `local_tokens`; with 0 it only tells the lender that nothing is needed. Must not block; the end
  // is reported to BatchScheduler::LoadFinished.
  virtual void StartLoad(Sequence& sequence, int local_tokens, int external_tokens) = 0;
};

}  // namespace llmd::engine
