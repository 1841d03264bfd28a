// One client request inside the engine: prompts × n child requests, their outputs as text deltas,
// usage, and the end of all of them. The reader (one loop thread) polls; the engine thread delivers
// into a Mailbox. Destroying it aborts what still runs.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "llmd/engine/serving/choice.h"
#include "llmd/engine/serving/context.h"
#include "llmd/engine/serving/mailbox.h"
#include "llmd/engine/serving/prompt.h"
#include "llmd/openai/response.h"

namespace llmd::engine::serving {

class RequestSpans;

class Generation {
 public:
  // Submits every child; child k of prompt i has index i*n + k, id "<id>-<index>", and seed + k.
  // When one is refused, those before it are aborted. `request` must outlive the generation.
  static openai::MaybeError Start(const ServingContext& context, const RequestMeta& meta,
                                  const std::string& id, const openai::CommonRequest& request,
                                  std::vector<PreparedPrompt> prompts,
                                  std::unique_ptr<Generation>* out);
  ~Generation();

  // See Mailbox::SetWake.
  void OnReady(std::function<void()> wake) { mailbox_->SetWake(std::move(wake)); }
  // What has become visible; empty when nothing has. After an error: empty for ever.
  std::vector<Delta> Poll();
  bool finished() const { return open_ == 0 || error_.has_value(); }
  const openai::MaybeError& error() const { return error_; }
  // Ends what still runs; counted as aborted.
  void Abort();

  openai::Usage usage() const;
  const std::vector<PreparedPrompt>& prompts() const { return prompts_; }
  const PreparedPrompt& prompt_of(int index) const { return prompts_[index / n_]; }
  // Empty unless asked for; complete once the choice's first delta was polled.
  const std::vector<PositionLogprobs>& prompt_logprobs_of(int index) const {
    return children_[index].prompt_logprobs;
  }
  // Of the first prompt's first choice; null when there is none.
  const json::Value& kv_transfer_params() const { return kv_transfer_params_; }

 private:
  struct Child {
    std::string id;
    Choice choice;
    ChildTimes times;
    int cached_tokens = 0;
    std::vector<PositionLogprobs> prompt_logprobs;
    int remote_tokens = 0;
    bool open = true;
  };

  Generation(const ServingContext& context, const RequestMeta& meta,
             const openai::CommonRequest& request, std::vector<PreparedPrompt> prompts);
  Status SubmitAll(const RequestMeta& meta, const std::string& id, const SamplingParams& sampling);
  Request MakeChild(const RequestMeta& meta, size_t index, const SamplingParams& sampling) const;
  void LogReceived(const Request& request, const PreparedPrompt& prompt) const;
  Delta Read(Mailbox::Letter&& letter);
  void Close(Child& child, size_t index, std::string_view reason);

  const ServingContext& context_;
  const openai::CommonRequest& request_;
  const std::vector<PreparedPrompt> prompts_;
  const int n_;
  std::shared_ptr<Mailbox> mailbox_;
  std::vector<Child> children_;
  size_t open_ = 0;
  openai::MaybeError error_;
  json::Value kv_transfer_params_;
  std::unique_ptr<RequestSpans> spans_;  // of a sampled request
};

// "SamplingParams(n=1, …)" as vLLM logs it.
std::string DescribeSampling(const SamplingParams& params, const openai::CommonRequest& request);

}  // namespace llmd::engine::serving
