#include "plugins/flow/token_cost.h"

#include <algorithm>
#include <utility>

namespace llmd::sched {
namespace {

// The ratio of measured to estimated prompts is that of about the last 32 requests; to begin with
// it is 1, as if this many tokens had been estimated rightly.
constexpr double kKeep = 31.0 / 32, kTrusted = 256;
constexpr double kMostWrong = 1e4;
double Correction(const TokenAccount& account) {
  return std::clamp(account.measured / account.estimated, 1 / kMostWrong, kMostWrong);
}

void Learn(TokenAccount& account, const QueuedItem& item, const FlowUsage& usage, double came_to) {
  account.expected_output += (usage.output_tokens - account.expected_output) / 8;
  account.mean = account.mean > 0 ? account.mean + (came_to - account.mean) / 16 : came_to;
  if (!(item.prompt_tokens > 0)) return;
  account.estimated = account.estimated * kKeep + item.prompt_tokens;
  account.measured = account.measured * kKeep + usage.prompt_tokens;
}

// What is outstanding, without trust in what is expected beyond what is usual; what was relied on
// before stays.
double Sure(const TokenAccount& account) {
  if (account.mean <= 0) return account.outstanding;
  const double relied = account.relied * account.share;
  const double usual = (account.in_flight - account.relied) * account.mean;
  return relied + std::min(account.outstanding - relied, usual);
}

double SureLevel(const TokenAccount& account) {
  return std::max(account.floor, account.settled + Sure(account) / account.weight);
}

}  // namespace

double TokenCost::WeightOf(const std::string& id) const {
  const auto it = weights.find(id);
  return it == weights.end() ? default_weight : it->second;
}

double TokenCost::Expect(const TokenAccount& account, const QueuedItem& item) const {
  double out = account.expected_output;
  if (item.max_output_tokens >= 0 && item.max_output_tokens < out) out = item.max_output_tokens;
  return input * item.prompt_tokens * Correction(account) + output * out;
}

double TokenCost::Measure(const FlowUsage& usage, double charge) const {
  if (!usage.ran) return 0;
  return usage.known ? input * usage.prompt_tokens + output * usage.output_tokens : charge;
}

void TokenBand::Know(TokenAccount& account, const std::string& id) const {
  if (std::exchange(account.known, true)) return;
  account.weight = cost_.WeightOf(id);
  account.expected_output = cost_.expected_output;
  account.estimated = account.measured = kTrusted;
}

void TokenBand::Add(FlowState& flow) noexcept {
  TokenAccount& account = flow.account;
  Know(account, flow.id);
  FlowState* const least = waiting_.empty() ? nullptr : &LeastServed();
  account.floor = least ? SureLevel(least->account) : last_;
  if (account.level() < account.floor) {
    account.settled += account.floor - account.level();
    (least ? least->account.beside : beside_last_) = ++events_;
    if (least) {
      Rely(least->account);
      Move(*least);
    }
  }
  flow.scratch.value = account.level();
  waiting_.Push(&flow);
}

void TokenBand::Remove(FlowState& flow) noexcept {
  waiting_.Remove(&flow);
  if (!waiting_.empty()) return;
  Rely(flow.account);
  last_ = flow.account.level();
}

// All in flight count the same then: their sum is what was relied on, whoever ends first.
void TokenBand::Rely(TokenAccount& account) {
  account.outstanding = Sure(account);
  account.settled += std::max(0.0, account.floor - account.level());
  account.relied = account.in_flight;
  account.share = account.in_flight > 0 ? account.outstanding / account.in_flight : 0;
  account.relied_at = ++events_;
}

FlowCharge TokenBand::Charge(FlowState& flow) {
  TokenAccount& account = flow.account;
  const double cost = cost_.Expect(account, *flow.head);
  account.outstanding += cost;
  ++account.in_flight;
  Move(flow);
  return {.tokens = cost, .event = events_, .charged = true, .alone = waiting_.size() == 1};
}

void TokenBand::Completed(FlowState& flow, const QueuedItem& item, TimePoint,
                          const FlowCharge& charge, const FlowUsage& usage) noexcept {
  TokenAccount& account = flow.account;
  Know(account, flow.id);
  const double came_to = cost_.Measure(usage, charge.tokens);
  if (usage.ran && usage.known) Learn(account, item, usage, came_to);
  if (!charge.charged) return;
  const bool relied = account.relied_at > charge.event;
  const double counted = relied ? account.share : charge.tokens;
  account.relied -= relied;
  account.outstanding = --account.in_flight > 0 ? account.outstanding - counted : 0;
  const bool nobodys_affair = charge.alone && std::max(account.beside, beside_last_) > charge.event;
  account.settled += (nobodys_affair ? counted : came_to) / account.weight;
  if (flow.scratch.position == kNotInHeap) return;
  account.settled += std::max(0.0, account.floor - account.level());
  Move(flow);
}

void TokenBand::Move(FlowState& flow) noexcept {
  flow.scratch.value = flow.account.level();
  waiting_.Update(&flow);
  Moved(flow);
}

void TokenBand::Follow(const FairnessBand& before) noexcept {
  const auto* other = dynamic_cast<const TokenBand*>(&before);
  if (other == nullptr) return;
  last_ = other->waiting_.empty() ? other->last_ : other->LeastServed().account.level();
  events_ = events_before_ = other->events_;
  beside_last_ = beside_last_before_ = other->beside_last_;
}

// Under another weight what a flow has had beyond the others, or less, stays so many tokens.
void TokenBand::Carry(FlowState& flow, const FlowState& before) noexcept {
  TokenAccount account = before.account;
  if (!account.known) return;
  const double weight = cost_.WeightOf(flow.id);
  const double scale = account.weight / weight;
  account.settled = last_ + (account.settled - last_) * scale;
  account.floor = last_ + (account.floor - last_) * scale;
  account.weight = weight;
  flow.account = account;
  events_ = events_before_;  // coming here was no joining
  beside_last_ = beside_last_before_;
  if (flow.scratch.position != kNotInHeap) Move(flow);
}

TokenCost ReadTokenCost(Params& params) {
  TokenCost cost;
  cost.default_weight = params.Double("defaultWeight", 1, 1e-6, 1e6);
  cost.input = params.Double("inputTokenWeight", 1, 0, 1e6);
  cost.output = params.Double("outputTokenWeight", 2, 0, 1e6);
  cost.expected_output = params.Double("expectedOutputTokens", 128, 0, 1e6);
  if (cost.input + cost.output <= 0) {
    params.Fail("inputTokenWeight", "expected a token weight above 0, of input or output");
  }
  if (!params.Has("weights")) return cost;
  const config::Node weights = params.node("weights");
  if (!weights.IsMap()) {
    params.Fail("weights", "expected a map from fairness id to weight");
    return cost;
  }
  for (const auto& [id, node] : weights.Members()) {
    const StatusOr<double> weight = node.Double();
    if (!weight.ok()) {
      params.Fail(weight.status());
    } else if (!(*weight >= 1e-6 && *weight <= 1e6)) {
      params.Fail(node.Error("expected a weight from 1e-6 to 1e6"));
    } else {
      cost.weights[id] = *weight;
    }
  }
  return cost;
}

std::vector<ParamHelp> TokenCostHelp() {
  return {{"weights", "{}", "share by fairness id; a flow of weight 4 gets four times the tokens"},
          {"defaultWeight", "1", "of flows not in `weights`"},
          {"inputTokenWeight", "1", "cost of a prompt token"},
          {"outputTokenWeight", "2", "cost of an output token"},
          {"expectedOutputTokens", "128",
           "output expected of a flow's first requests; later ones by its average"}};
}

}  // namespace llmd::sched
