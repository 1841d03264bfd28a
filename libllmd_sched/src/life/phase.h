// The phases of a request's life and the steps that lead from one to the next: the one table
// (docs/request-life.md).
#pragma once

#include <cstdint>
#include <optional>

namespace llmd::sched {

enum class Phase : uint8_t {
  kReceived,   // read and judged, in the call that brought it
  kQueued,     // flow control has it
  kProducing,  // its producers run or wait; then it is decided on
  kRouted,     // on its way to an endpoint
  kAnswering,  // the answer has begun
  kEnded       // answered, given up or refused
};

enum class Step : uint8_t { kQueue, kProduce, kRefuse, kRoute, kAnswer, kEnd };

// Where the step leads; nothing where it cannot be taken.
constexpr std::optional<Phase> After(Phase phase, Step step) {
  constexpr std::optional<Phase> kNone;
  constexpr auto kQueued = std::optional(Phase::kQueued);
  constexpr auto kProducing = std::optional(Phase::kProducing);
  constexpr auto kRouted = std::optional(Phase::kRouted);
  constexpr auto kAnswering = std::optional(Phase::kAnswering);
  constexpr auto kEnded = std::optional(Phase::kEnded);
  constexpr std::optional<Phase> kTable[6][6] = {
      //               queue    produce     refuse  route    answer      end
      /* received */ {kQueued, kProducing, kEnded, kNone, kNone, kNone},
      /* queued */ {kNone, kProducing, kEnded, kNone, kNone, kNone},
      /* producing */ {kNone, kProducing, kEnded, kRouted, kNone, kNone},
      /* routed */ {kNone, kNone, kNone, kNone, kAnswering, kEnded},
      /* answering */ {kNone, kNone, kNone, kNone, kAnswering, kEnded},
      /* ended */ {kNone, kNone, kNone, kNone, kNone, kNone}};
  return kTable[static_cast<int>(phase)][static_cast<int>(step)];
}

}  // namespace llmd::sched
