// Where the content of a body lies between its framing, in place and without I/O.
// Thread-compatible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llmd::http {

// How the body that follows a head is delimited.
struct Framing {
  enum class Kind { kNone, kLength, kChunked, kUntilClose };
  Kind kind = Kind::kNone;
  uint64_t length = 0;
};

// Walks a body. Each Next looks at the unread input: `framing` bytes at its front are not content
// and may be dropped, then comes `piece`, to be dropped by the caller before the next call.
class BodyDecoder {
 public:
  enum class State { kPiece, kMore, kEnd, kBad };
  explicit BodyDecoder(Framing framing = {}) : framing_(framing), left_(framing.length) {
    if (framing.kind == Framing::Kind::kChunked) left_ = 0;
  }
  State Next(std::string_view input, size_t* framing, std::string_view* piece);
  bool until_close() const { return framing_.kind == Framing::Kind::kUntilClose; }
  const Framing& framing() const { return framing_; }
  // Between two chunks, or behind the last: what comes next is a chunk's size, or nothing.
  bool at_boundary() const {
    return phase_ == Phase::kEnd || (phase_ == Phase::kSize && digits_ == 0);
  }
  // Whether chunk extensions or trailers were passed over since this was last asked: such framing
  // must not be passed on.
  bool TakeOddities() {
    const bool odd = odd_;
    odd_ = false;
    return odd;
  }
  // What a declared length still lacks; 0 for the other kinds.
  uint64_t declared_left() const { return framing_.kind == Framing::Kind::kLength ? left_ : 0; }

 private:
  enum class Phase {
    kSize,
    kBlankBeforeExtension,
    kExtension,
    kSizeLf,
    kData,
    kDataCr,
    kDataLf,
    kTrailer,
    kTrailerLf,
    kEnd
  };
  State NextChunked(std::string_view input, size_t* framing, std::string_view* piece);
  bool Step(char c);
  bool StepSize(char c);
  bool StepExtension(char c);
  bool StepTrailer(char c);

  Framing framing_;
  uint64_t left_ = 0;
  Phase phase_ = Phase::kSize;
  int digits_ = 0;
  bool odd_ = false;
  size_t line_bytes_ = 0, trailer_bytes_ = 0;
};

}  // namespace llmd::http
