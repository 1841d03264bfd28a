// How many tokens a picture, film or sound stands for, by rule of thumb; the shapes are those of
// Qwen3-VL and Gemma (docs/reference/producers.md).
#pragma once

#include <cstdint>
#include <string_view>

#include "llmd/sched/plugin.h"

namespace llmd::sched {

// Immutable once read. All counts are at least 1 and at most kMaxTokens.
class MediaEstimate {
 public:
  static constexpr size_t kMaxTokens = 1 << 17;

  // Reads image{…} and video{…}; errors go to `estimate`.
  void Read(Params& estimate);

  // `url` may be a data: URL, whose picture is looked at.
  size_t ImageByUrl(std::string_view url) const;
  size_t ImageByData(std::string_view base64) const;
  // Resolution, duration and frame rate come from the x-llm-d-video-* headers where given.
  size_t Video(const RequestContext& request) const;
  size_t Audio(std::string_view base64) const;

 private:
  // Tokens of an area: pixels over a factor, or a constant.
  struct Area {
    bool constant = false;
    double tokens = 1, factor = 1024, width = 640, height = 360;
    double Of(double w, double h) const;
  };
  static void ReadArea(Params& params, std::string_view constant_key, Area* area);
  void ReadFrames(Params& frames);
  double Frames(double duration, double source_fps) const;

  Area image_, frame_;
  bool strided_ = false;
  double sample_fps_ = 2, source_fps_ = 24, stride_ = 1, patch_ = 1;
  double min_frames_ = 0, max_frames_ = 0;  // 0 = no bound
  double duration_ = 10, max_video_tokens_ = 0;
};

}  // namespace llmd::sched
