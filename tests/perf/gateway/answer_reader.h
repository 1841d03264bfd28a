// Reads HTTP/1.1 answers as a client of the benchmarks needs them: where one ends, how many events
// it held and when each was sent. Nothing is copied but heads.
#pragma once

#include <strings.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace llmd::perf {

class AnswerReader {
 public:
  enum class Result { kMore, kDone, kBad };

  // Takes bytes of one answer. kDone: the answer ended with the last byte given; bytes behind it
  // are kBad, as nothing was asked for.
  Result Take(std::string_view bytes) {
    while (!bytes.empty()) {
      if (state_ == State::kEnd) return Result::kBad;
      if (!Step(bytes)) return Result::kBad;
    }
    return state_ == State::kEnd ? Result::kDone : Result::kMore;
  }

  int status() const { return status_; }
  size_t events() const { return events_; }
  // When the events taken since the last call were sent (their "t").
  std::vector<int64_t>& stamps() { return stamps_; }

  void Reset() {
    state_ = State::kHead;
    head_.clear();
    status_ = 0;
    events_ = 0;
    last_ = 0;
    stamps_.clear();
  }

 private:
  enum class State { kHead, kBody, kSize, kChunk, kChunkEnd, kTrailer, kEnd };

  bool Step(std::string_view& bytes) {
    switch (state_) {
      case State::kHead:
        return TakeHead(bytes);
      case State::kBody:
      case State::kChunk:
        TakeData(bytes);
        return true;
      default:
        return TakeLine(bytes);
    }
  }

  bool TakeHead(std::string_view& bytes) {
    const size_t had = head_.size();
    head_.append(bytes);
    const size_t end = head_.find("\r\n\r\n");
    if (end == std::string::npos) {
      bytes = {};
      return head_.size() < 65'536;
    }
    bytes.remove_prefix(end + 4 - had);
    head_.resize(end + 4);
    if (!head_.starts_with("HTTP/1.1 ")) return false;
    status_ = std::atoi(head_.c_str() + 9);
    line_.clear();
    const char* length = Field("content-length:");
    if (length != nullptr) {
      left_ = static_cast<size_t>(std::atoll(length));
      state_ = left_ > 0 ? State::kBody : State::kEnd;
      return true;
    }
    state_ = State::kSize;
    return Field("transfer-encoding:") != nullptr;
  }

  const char* Field(const char* name) const {
    const size_t size = std::strlen(name);
    for (size_t at = 0; (at = head_.find("\r\n", at)) != std::string::npos; at += 2) {
      if (strncasecmp(head_.c_str() + at + 2, name, size) == 0)
        return head_.c_str() + at + 2 + size;
    }
    return nullptr;
  }

  void TakeData(std::string_view& bytes) {
    const std::string_view data = bytes.substr(0, left_);
    Count(data);
    bytes.remove_prefix(data.size());
    left_ -= data.size();
    if (left_ == 0) state_ = state_ == State::kBody ? State::kEnd : State::kChunkEnd;
  }

  // Ends of events, also where a line end falls between two pieces.
  void Count(std::string_view data) {
    if (data.front() == '\n' && last_ == '\n') ++events_;
    for (size_t at = 0; (at = data.find("\n\n", at)) != std::string_view::npos; at += 2) ++events_;
    last_ = data.back();
    for (size_t at = 0; (at = data.find("\"t\":", at)) != std::string_view::npos; at += 4) {
      if (data.size() - at > 24) stamps_.push_back(std::atoll(data.data() + at + 4));
    }
  }

  bool TakeLine(std::string_view& bytes) {
    const size_t end = bytes.find('\n');
    line_.append(bytes.substr(0, end));
    if (line_.size() > 1024) return false;
    if (end == std::string_view::npos) {
      bytes = {};
      return true;
    }
    bytes.remove_prefix(end + 1);
    const bool blank = line_ == "\r";
    if (state_ == State::kChunkEnd) {
      state_ = State::kSize;
      line_.clear();
      return blank;
    }
    if (state_ == State::kSize) {
      left_ = static_cast<size_t>(std::strtoll(line_.c_str(), nullptr, 16));
      state_ = left_ > 0 ? State::kChunk : State::kTrailer;
    } else if (blank) {
      state_ = State::kEnd;
    }
    line_.clear();
    return true;
  }

  State state_ = State::kHead;
  std::string head_, line_;
  size_t left_ = 0, events_ = 0;
  int status_ = 0;
  char last_ = 0;
  std::vector<int64_t> stamps_;
};

}  // namespace llmd::perf
