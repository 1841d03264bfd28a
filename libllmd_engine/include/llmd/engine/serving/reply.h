// The serving layer's front: a request body in, a reply out, no HTTP. A Reply is read by one loop
// thread; the Begin functions and Tokenize parse and tokenise, so they belong on a worker thread.
// The context must outlive every reply.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "llmd/engine/serving/context.h"
#include "llmd/openai/error.h"
#include "llmd/openai/response.h"

namespace llmd::engine::serving {

class Reply {
 public:
  virtual ~Reply() = default;  // aborts what still runs
  virtual const std::string& id() const = 0;
  // True: Advance gives SSE frames, the last one "[DONE]". False: nothing until the end, then one
  // JSON body.
  virtual bool stream() const = 0;
  // `wake` is called, from any thread, when Advance has something to do.
  virtual void OnReady(std::function<void()> wake) = 0;
  // Appends what has become ready. True when the reply is complete.
  virtual bool Advance(std::string& out) = 0;
  // Instead of a body, when a plain reply failed. Streams carry their errors in a frame.
  virtual const openai::MaybeError& error() const = 0;
  // What has been read and said so far.
  virtual openai::Usage usage() const = 0;
  // The client has left.
  virtual void Abort() = 0;
};

openai::MaybeError BeginCompletion(const ServingContext& context, std::string_view body,
                                   const RequestMeta& meta, std::unique_ptr<Reply>* out);
openai::MaybeError BeginChat(const ServingContext& context, std::string_view body,
                             const RequestMeta& meta, std::unique_ptr<Reply>* out);

// Whole JSON bodies.
openai::MaybeError Tokenize(const ServingContext& context, std::string_view body, std::string* out);
openai::MaybeError Detokenize(const ServingContext& context, std::string_view body,
                              std::string* out);
std::string ModelsBody(const ServingContext& context);

}  // namespace llmd::engine::serving
