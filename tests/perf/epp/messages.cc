#include "epp/messages.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "envoy/service/ext_proc/v3/external_processor.pb.h"

namespace llmd::perf {
namespace {

using envoy::config::core::v3::HeaderMap;
using envoy::service::ext_proc::v3::ProcessingRequest;

constexpr std::string_view kIdMark = "00000000-0000-4000-8000-000000000000";
constexpr std::string_view kPromptMark = "################";

std::string Framed(const ProcessingRequest& message) {
  const std::string bytes = message.SerializeAsString();
  const size_t n = bytes.size();
  const char head[5] = {0, static_cast<char>(n >> 24), static_cast<char>(n >> 16),
                        static_cast<char>(n >> 8), static_cast<char>(n)};
  return std::string(head, sizeof head) + bytes;
}

void Add(HeaderMap& map, std::string_view name, std::string_view value) {
  auto* header = map.add_headers();
  header->set_key(std::string(name));
  header->set_raw_value(std::string(value));
}

std::string RequestHeaders(size_t body_bytes) {
  ProcessingRequest message;
  HeaderMap& map = *message.mutable_request_headers()->mutable_headers();
  Add(map, ":authority", "inference.example.com");
  Add(map, ":path", "/v1/chat/completions");
  Add(map, ":method", "POST");
  Add(map, ":scheme", "http");
  Add(map, "content-type", "application/json");
  Add(map, "content-length", std::to_string(body_bytes));
  Add(map, "accept", "application/json");
  Add(map, "accept-encoding", "gzip, deflate");
  Add(map, "user-agent", "OpenAI/Python 1.99.0");
  Add(map, "authorization", "Bearer sk-0123456789abcdef0123456789abcdef");
  Add(map, "x-stainless-lang", "python");
  Add(map, "x-forwarded-for", "10.1.2.3");
  Add(map, "x-forwarded-proto", "http");
  Add(map, "x-request-id", kIdMark);
  return Framed(message);
}

std::string Body(size_t bytes) {
  const std::string head =
      R"({"model":"meta-llama/Llama-3.1-8B-Instruct","messages":[{"role":"user","content":")" +
      std::string(kPromptMark);
  const std::string tail = R"("}],"max_tokens":64,"temperature":0})";
  std::string text = head;
  while (text.size() + tail.size() < bytes) {
    text += "Some words of a long text, with a number: " + std::to_string(text.size()) + ". ";
  }
  text.resize(std::max(head.size(), bytes - std::min(bytes, tail.size())));
  return text + tail;
}

std::string ResponseHeaders(bool sse) {
  ProcessingRequest message;
  HeaderMap& map = *message.mutable_response_headers()->mutable_headers();
  Add(map, ":status", "200");
  Add(map, "date", "Fri, 28 Nov 2025 00:00:00 GMT");
  Add(map, "server", "uvicorn");
  Add(map, "content-type", sse ? "text/event-stream; charset=utf-8" : "application/json");
  Add(map, "x-envoy-upstream-service-time", "12");
  return Framed(message);
}

std::string ResponsePiece(std::string text, bool end) {
  ProcessingRequest message;
  message.mutable_response_body()->set_body(std::move(text));
  message.mutable_response_body()->set_end_of_stream(end);
  return Framed(message);
}

std::string ResponseJson(size_t bytes) {
  const std::string head = R"({"id":"chatcmpl-1","object":"chat.completion","created":1750000000,)"
                           R"("model":"meta-llama/Llama-3.1-8B-Instruct","choices":[{"index":0,)"
                           R"("message":{"role":"assistant","content":")";
  const std::string tail = R"("},"finish_reason":"stop"}],"usage":{"prompt_tokens":70,)"
                           R"("total_tokens":134,"completion_tokens":64}})";
  const size_t fill = bytes > head.size() + tail.size() ? bytes - head.size() - tail.size() : 0;
  return head + std::string(fill, 'w') + tail;
}

constexpr char kSseChunk[] =
    "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":"
    "1750000000,\"model\":\"meta-llama/Llama-3.1-8B-Instruct\",\"choices\":[{\"index\":0,\"delta\":"
    "{\"content\":\" word\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
constexpr char kSseEnd[] =
    "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"choices\":[],\"usage\":{\"prompt_tokens\":70,"
    "\"total_tokens\":134,\"completion_tokens\":64}}\n\ndata: [DONE]\n\n";

// Walks a protobuf message's fields of wire types 0 and 2, all that the replies hold near the top.
class Fields {
 public:
  explicit Fields(std::string_view in) : in_(in) {}
  bool Next() {
    if (in_.empty()) return false;
    const uint64_t tag = Varint();
    number = tag >> 3;
    const uint64_t v = Varint();
    value = v;
    bytes = {};
    if ((tag & 7) == 0) return true;
    if ((tag & 7) != 2 || v > in_.size()) return false;
    bytes = in_.substr(0, v);
    in_.remove_prefix(v);
    return true;
  }
  uint64_t number = 0, value = 0;
  std::string_view bytes;

 private:
  uint64_t Varint() {
    uint64_t v = 0;
    for (int shift = 0; !in_.empty() && shift < 64; shift += 7) {
      const auto c = static_cast<uint8_t>(in_.front());
      in_.remove_prefix(1);
      v |= uint64_t{c & 0x7fu} << shift;
      if (c < 0x80) break;
    }
    return v;
  }
  std::string_view in_;
};

std::string_view Field(std::string_view message, uint64_t number) {
  for (Fields f(message); f.Next();) {
    if (f.number == number) return f.bytes;
  }
  return {};
}

}  // namespace

Exchange::Exchange(const ExchangeShape& shape) : shared_prompts_(shape.shared_prompts) {
  const std::string body = Body(shape.body_bytes);
  body_bytes_ = body.size();
  request_.push_back(RequestHeaders(body.size()));
  id_at_ = request_[0].find(kIdMark);
  for (size_t at = 0; at < body.size(); at += shape.chunk_bytes) {
    ProcessingRequest message;
    message.mutable_request_body()->set_body(body.substr(at, shape.chunk_bytes));
    message.mutable_request_body()->set_end_of_stream(at + shape.chunk_bytes >= body.size());
    request_.push_back(Framed(message));
  }
  prompt_at_ = request_[1].find(kPromptMark);
  response_headers_ = ResponseHeaders(shape.sse);
  response_body_ = ResponsePiece(ResponseJson(shape.response_bytes), true);
  sse_chunk_ = ResponsePiece(kSseChunk, false);
  sse_end_ = ResponsePiece(kSseEnd, true);
}

void Exchange::Renew(uint64_t number) {
  char text[32];
  std::snprintf(text, sizeof text, "%012llx",
                static_cast<unsigned long long>(number) & 0xffffffffffff);
  request_[0].replace(id_at_ + 24, 12, text);
  if (shared_prompts_ > 0) number %= shared_prompts_;
  std::snprintf(text, sizeof text, "%016llx",
                static_cast<unsigned long long>(number * 0x9e3779b97f4a7c15));
  request_[1].replace(prompt_at_, 16, text);
}

Reply ReadReply(std::string_view message) {
  Reply reply;
  for (Fields f(message); f.Next();) {
    switch (f.number) {
      case 1: {
        reply.kind = ReplyKind::kRequestHeaders;
        const size_t at = f.bytes.find("127.0.0.1:");
        if (at == std::string_view::npos) break;
        const size_t end = f.bytes.find_first_not_of("0123456789", at + 10);
        reply.destination = f.bytes.substr(at, end - at);
        break;
      }
      case 2:
        reply.kind = ReplyKind::kResponseHeaders;
        break;
      case 3:
      case 4:
        reply.kind = f.number == 3 ? ReplyKind::kRequestBody : ReplyKind::kResponseBody;
        for (Fields piece(Field(Field(Field(f.bytes, 1), 3), 3)); piece.Next();) {
          if (piece.number == 1) reply.body = piece.bytes;
          if (piece.number == 2) reply.end_of_stream = piece.value != 0;
        }
        break;
      case 7:
        reply.kind = ReplyKind::kImmediate;
        for (Fields status(Field(f.bytes, 1)); status.Next();) {
          if (status.number == 1) reply.status = static_cast<int>(status.value);
        }
        break;
      default:
        break;
    }
  }
  return reply;
}

}  // namespace llmd::perf
