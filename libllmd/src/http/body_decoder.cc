#include "http/body_decoder.h"

#include "http/characters.h"

namespace llmd::http {
namespace {

constexpr size_t kMaxChunkLineBytes = 4096;
constexpr size_t kMaxTrailerBytes = 16 * 1024;
constexpr int kMaxChunkSizeDigits = 15;

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

BodyDecoder::State BodyDecoder::Next(std::string_view input, size_t* framing,
                                     std::string_view* piece) {
  *framing = 0;
  *piece = {};
  switch (framing_.kind) {
    case Framing::Kind::kNone:
      return State::kEnd;
    case Framing::Kind::kChunked:
      return NextChunked(input, framing, piece);
    case Framing::Kind::kUntilClose:
      *piece = input;
      return input.empty() ? State::kMore : State::kPiece;
    case Framing::Kind::kLength:
      break;
  }
  if (left_ == 0) return State::kEnd;
  *piece = input.substr(0, left_);
  left_ -= piece->size();
  return piece->empty() ? State::kMore : State::kPiece;
}

BodyDecoder::State BodyDecoder::NextChunked(std::string_view input, size_t* framing,
                                            std::string_view* piece) {
  size_t at = 0;
  while (phase_ != Phase::kEnd && phase_ != Phase::kData && at < input.size()) {
    if (!Step(input[at++])) return State::kBad;
  }
  *framing = at;
  if (phase_ == Phase::kEnd) return State::kEnd;
  if (phase_ != Phase::kData || at == input.size()) return State::kMore;
  *piece = input.substr(at, left_);
  left_ -= piece->size();
  if (left_ == 0) phase_ = Phase::kDataCr;
  return State::kPiece;
}

bool BodyDecoder::Step(char c) {
  switch (phase_) {
    case Phase::kSize:
      return StepSize(c);
    case Phase::kBlankBeforeExtension:
    case Phase::kExtension:
      return StepExtension(c);
    case Phase::kSizeLf:
      phase_ = left_ > 0 ? Phase::kData : Phase::kTrailer;
      digits_ = 0;
      line_bytes_ = 0;
      return c == '\n';
    case Phase::kDataCr:
      phase_ = Phase::kDataLf;
      return c == '\r';
    case Phase::kDataLf:
      phase_ = Phase::kSize;
      return c == '\n';
    case Phase::kTrailer:
      return StepTrailer(c);
    case Phase::kTrailerLf:
      phase_ = line_bytes_ == 0 ? Phase::kEnd : Phase::kTrailer;
      line_bytes_ = 0;
      return c == '\n';
    case Phase::kData:
    case Phase::kEnd:
      break;
  }
  return false;
}

bool BodyDecoder::StepSize(char c) {
  if (const int digit = HexValue(c); digit >= 0) {
    left_ = left_ * 16 + static_cast<uint64_t>(digit);
    return ++digits_ <= kMaxChunkSizeDigits;
  }
  if (digits_ == 0) return false;
  if (c == '\r') {
    phase_ = Phase::kSizeLf;
  } else if (c == ';') {
    phase_ = Phase::kExtension;
  } else {
    phase_ = Phase::kBlankBeforeExtension;
    return c == ' ' || c == '\t';
  }
  return true;
}

bool BodyDecoder::StepExtension(char c) {
  if (++line_bytes_ > kMaxChunkLineBytes) return false;
  odd_ = true;
  if (phase_ == Phase::kBlankBeforeExtension) {
    if (c == ';') phase_ = Phase::kExtension;
    return c == ';' || c == ' ' || c == '\t';
  }
  if (c == '\r') {
    phase_ = Phase::kSizeLf;
    return true;
  }
  return IsValueChar(c);
}

// Trailers are dropped; a line must start like a header line.
bool BodyDecoder::StepTrailer(char c) {
  if (++trailer_bytes_ > kMaxTrailerBytes) return false;
  if (c == '\r') {
    phase_ = Phase::kTrailerLf;
    return true;
  }
  odd_ = true;
  return line_bytes_++ == 0 ? IsTokenChar(c) : IsValueChar(c);
}

}  // namespace llmd::http
