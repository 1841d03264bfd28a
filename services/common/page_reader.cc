#include "common/page_reader.h"

#include <algorithm>
#include <charconv>

namespace llmd::services {
namespace {

constexpr size_t kMaxHead = 64 << 10;
constexpr size_t kMaxLine = 4096;
constexpr size_t kMaxReserve = 1 << 20;

bool SameText(std::string_view a, std::string_view lower) {
  return std::equal(a.begin(), a.end(), lower.begin(), lower.end(), [](char x, char y) {
    return (x >= 'A' && x <= 'Z' ? static_cast<char>(x + 32) : x) == y;
  });
}

std::string_view Trimmed(std::string_view text) {
  const size_t begin = std::min(text.find_first_not_of(" \t"), text.size());
  text.remove_prefix(begin);
  return text.substr(0, text.find_last_not_of(" \t") + 1);
}

bool ReadNumber(std::string_view text, int base, size_t* out) {
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), *out, base);
  return ec == std::errc() && end == text.data() + text.size();
}

Status NotHttp(const char* what) {
  return Unavailable(std::string("not an HTTP/1.1 answer: ") + what);
}

}  // namespace

StatusOr<bool> PageReader::Feed(std::string_view bytes) {
  started_ |= !bytes.empty();
  if (framing_ != Framing::kHead) return Body(bytes);
  body_ += bytes;
  return Head();
}

StatusOr<bool> PageReader::FeedEnd() {
  keep_alive_ = false;
  if (framing_ == Framing::kToEnd) return true;
  return Unavailable("the connection ended before the answer was whole");
}

StatusOr<bool> PageReader::Head() {
  const size_t end = body_.find("\r\n\r\n");
  if (end == std::string::npos) {
    if (body_.size() > kMaxHead) return ResourceExhausted("the answer's head is over 64 KiB");
    return false;
  }
  const std::string head = body_.substr(0, end);
  const std::string rest = body_.substr(end + 4);
  body_.clear();
  framing_ = Framing::kToEnd;
  std::string_view lines = head;
  for (bool first = true; !lines.empty(); first = false) {
    const size_t at = std::min(lines.find("\r\n"), lines.size());
    if (first) {
      if (!lines.starts_with("HTTP/1.") || at < 12 || lines[8] != ' ')
        return NotHttp("status line");
      size_t status = 0;
      if (!ReadNumber(lines.substr(9, 3), 10, &status)) return NotHttp("status");
      status_ = static_cast<int>(status);
      keep_alive_ = lines[7] != '0';
    } else {
      LLMD_RETURN_IF_ERROR(HeadLine(lines.substr(0, at)));
    }
    lines.remove_prefix(std::min(at + 2, lines.size()));
  }
  if (has_length_ && framing_ != Framing::kChunks) {
    if (length_ > max_body_) return ResourceExhausted("the page is too large");
    framing_ = Framing::kLength;
    body_.reserve(std::min(length_, kMaxReserve));
  }
  return Body(rest);
}

Status PageReader::HeadLine(std::string_view line) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return NotHttp("a header without a colon");
  const std::string_view name = line.substr(0, colon), value = Trimmed(line.substr(colon + 1));
  if (SameText(name, "content-length")) {
    size_t length = 0;
    if (!ReadNumber(value, 10, &length) || (has_length_ && length != length_))
      return NotHttp("content-length");
    length_ = length;
    has_length_ = true;
  } else if (SameText(name, "transfer-encoding")) {
    if (!SameText(value, "chunked")) return NotHttp("transfer-encoding");
    framing_ = Framing::kChunks;
  } else if (SameText(name, "location")) {
    location_ = value;
  } else if (SameText(name, "connection") && SameText(value, "close")) {
    keep_alive_ = false;
  }
  return OkStatus();
}

Status PageReader::Grow(std::string_view bytes) {
  if (body_.size() + bytes.size() > max_body_) return ResourceExhausted("the page is too large");
  body_ += bytes;
  return OkStatus();
}

StatusOr<bool> PageReader::Body(std::string_view bytes) {
  if (framing_ == Framing::kChunks) return Chunks(bytes);
  if (framing_ == Framing::kLength && bytes.size() > length_) return NotHttp("too long a body");
  LLMD_RETURN_IF_ERROR(Grow(bytes));
  if (framing_ == Framing::kToEnd) return false;
  length_ -= bytes.size();
  return length_ == 0;
}

StatusOr<bool> PageReader::Chunks(std::string_view bytes) {
  while (!bytes.empty()) {
    if (chunk_ == Chunk::kData) {
      const std::string_view data = bytes.substr(0, length_);
      LLMD_RETURN_IF_ERROR(Grow(data));
      length_ -= data.size();
      bytes.remove_prefix(data.size());
      if (length_ == 0) chunk_ = Chunk::kDataEnd;
      continue;
    }
    const size_t newline = bytes.find('\n');
    line_ += bytes.substr(0, newline);
    if (line_.size() > kMaxLine) return NotHttp("a chunk's line");
    if (newline == std::string_view::npos) return false;
    bytes.remove_prefix(newline + 1);
    if (line_.ends_with('\r')) line_.pop_back();
    const std::string line = std::exchange(line_, {});
    if (chunk_ == Chunk::kDataEnd) {
      if (!line.empty()) return NotHttp("a chunk's end");
      chunk_ = Chunk::kSize;
    } else if (chunk_ == Chunk::kTrailer) {
      if (line.empty())
        return bytes.empty() ? StatusOr<bool>(true) : NotHttp("text behind the end");
    } else {
      if (!ReadNumber(Trimmed(line.substr(0, line.find(';'))), 16, &length_))
        return NotHttp("a chunk's size");
      chunk_ = length_ == 0 ? Chunk::kTrailer : Chunk::kData;
    }
  }
  return false;
}

}  // namespace llmd::services
