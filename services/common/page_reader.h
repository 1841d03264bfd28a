// Reads one HTTP/1.1 answer off a connection, for scraping: length given, chunked or until the end
// of the connection. Bounded: heads by 64 KiB, bodies by what the caller says. Thread-compatible.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "llmd/status.h"

namespace llmd::services {

class PageReader {
 public:
  explicit PageReader(size_t max_body_bytes) : max_body_(max_body_bytes) {}

  // Takes what came off the wire. True once the answer is whole; bytes behind it are an error,
  // since nothing was asked twice. UNAVAILABLE for what is no HTTP answer, RESOURCE_EXHAUSTED over
  // a bound.
  StatusOr<bool> Feed(std::string_view bytes);
  // The peer closed: the same answer, where it may end so.
  StatusOr<bool> FeedEnd();

  bool started() const { return started_; }
  int status() const { return status_; }
  // The header of that name; "" without one.
  const std::string& location() const { return location_; }
  // Whether the connection may serve another request.
  bool keep_alive() const { return keep_alive_; }
  std::string TakeBody() { return std::move(body_); }
  // For the next answer.
  void Reset() { *this = PageReader(max_body_); }

 private:
  enum class Framing { kHead, kLength, kChunks, kToEnd };
  enum class Chunk { kSize, kData, kDataEnd, kTrailer };
  StatusOr<bool> Head();
  Status HeadLine(std::string_view line);
  StatusOr<bool> Body(std::string_view bytes);
  StatusOr<bool> Chunks(std::string_view bytes);
  Status Grow(std::string_view bytes);

  size_t max_body_;
  std::string body_;  // the head while that is read
  std::string location_;
  std::string line_;   // of a chunk's size or trailer
  size_t length_ = 0;  // left of the body or the chunk
  int status_ = 0;
  Framing framing_ = Framing::kHead;
  Chunk chunk_ = Chunk::kSize;
  bool started_ = false, keep_alive_ = true, has_length_ = false;
};

}  // namespace llmd::services
