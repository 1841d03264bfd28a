// A producer whose tokens in flight others read in the ledger.
#pragma once

#include "llmd/sched/ledger.h"
#include "llmd/sched/plugin.h"

namespace llmd::sched {

class InFlightTokens : public virtual Plugin {
 public:
  virtual const LedgerColumn& tokens_in_flight() const = 0;
};

}  // namespace llmd::sched
