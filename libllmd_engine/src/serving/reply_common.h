// Shared by the completion and the chat reply.
#pragma once

#include <iterator>
#include <optional>
#include <vector>

#include "llmd/engine/serving/generation.h"
#include "llmd/engine/serving/reply.h"
#include "llmd/openai/response.h"

namespace llmd::engine::serving {

// "<prefix><id of the header, of the body, or a fresh UUID>".
std::string MakeId(std::string_view prefix, const RequestMeta& meta,
                   const openai::CommonRequest& request);
openai::ReplyHead MakeHead(const ServingContext& context, std::string id);
// A rejected decode request must not leave the prefill engine holding its blocks.
openai::MaybeError Rejected(const ServingContext& context, const openai::CommonRequest& request,
                            openai::MaybeError error);

// Appends; an unset list becomes an empty one first.
template <typename T>
void Extend(std::optional<std::vector<T>>& to, std::vector<T>&& from) {
  if (!to) to.emplace();
  to->insert(to->end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

// What both replies do alike: the generation's life, usage, errors.
class ReplyBase : public Reply {
 public:
  const std::string& id() const override { return head_.id; }
  void OnReady(std::function<void()> wake) override { generation_->OnReady(std::move(wake)); }
  void Abort() override { generation_->Abort(); }
  const openai::MaybeError& error() const override { return error_; }
  bool stream() const override { return stream_; }
  openai::Usage usage() const override { return generation_->usage(); }
  bool Advance(std::string& out) override;

 protected:
  ReplyBase(const ServingContext& context, openai::ReplyHead head,
            const openai::CommonRequest& request);
  // A delta as frames (stream) or into what is collected.
  virtual void WriteDelta(std::string& out, Delta&& delta, bool last) = 0;
  virtual void CollectDelta(Delta&& delta) = 0;
  virtual void WriteUsage(std::string& out, const openai::Usage& usage) = 0;
  virtual void WriteBody(std::string& out) = 0;
  virtual openai::Usage FinalUsage() const { return generation_->usage(); }
  // The usage of one choice so far, when every chunk is to carry it.
  const openai::Usage* ChunkUsage(const Delta& delta);
  std::vector<openai::PositionLogprobs> PromptWords(int index) const;

  const ServingContext& context_;
  const openai::ReplyHead head_;
  const openai::CommonRequest& common_;
  const bool stream_, include_usage_, continuous_usage_;
  std::unique_ptr<Generation> generation_;
  openai::MaybeError error_;
  std::vector<int> completion_tokens_;  // per choice, for ChunkUsage

 private:
  bool End(std::string& out);
  openai::Usage chunk_usage_;
};

}  // namespace llmd::engine::serving
