#include "plugins/producer/media_estimate.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "plugins/producer/image_size.h"

namespace llmd::sched {
namespace {

constexpr double kMost = 1e9;

size_t Bounded(double tokens) {
  return tokens >= 1
             ? static_cast<size_t>(std::min(tokens, static_cast<double>(MediaEstimate::kMaxTokens)))
             : 1;
}

// A positive number, or 0.
double Positive(std::string_view text) {
  double v = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
  return ec == std::errc() && end == text.data() + text.size() && v > 0 && v < kMost ? v : 0;
}

void Close(Params& child, Params& parent) {
  if (Status status = child.Finish(); !status.ok()) parent.Fail(status);
}

void ReadResolution(Params& params, double* width, double* height) {
  Params resolution(params.node("defaultResolution"));
  *width = static_cast<double>(resolution.Int("width", 640, 1, 1 << 20));
  *height = static_cast<double>(resolution.Int("height", 360, 1, 1 << 20));
  Close(resolution, params);
}

}  // namespace

double MediaEstimate::Area::Of(double w, double h) const {
  return constant ? tokens : std::max(1.0, std::floor(w * h / factor));
}

void MediaEstimate::ReadArea(Params& params, std::string_view constant_key, Area* area) {
  area->constant = params.Choice("mode", "dynamic", {"dynamic", "static"}) == "static";
  Params dynamic(params.node("dynamic")), constant(params.node("static"));
  area->factor = static_cast<double>(dynamic.Int("factor", 1024, 1, INT32_MAX));
  area->tokens = static_cast<double>(constant.Int(constant_key, 1, 1, kMaxTokens));
  Close(dynamic, params);
  Close(constant, params);
}

void MediaEstimate::ReadFrames(Params& frames) {
  strided_ = frames.Choice("mode", "sampled", {"sampled", "strided"}) == "strided";
  min_frames_ = static_cast<double>(frames.Int("minFrames", 0, 0, INT32_MAX));
  max_frames_ = static_cast<double>(frames.Int("maxFrames", 0, 0, INT32_MAX));
  if (max_frames_ > 0 && max_frames_ < min_frames_)
    frames.Fail("maxFrames", "expected at least minFrames");
  Params sampled(frames.node("sampled")), strided(frames.node("strided"));
  sample_fps_ = sampled.Double("sampleFPS", 2, 1e-3, 1e6);
  patch_ = static_cast<double>(sampled.Int("temporalPatchSize", 1, 0, 1 << 20));
  source_fps_ = strided.Double("defaultSourceFPS", 24, 1e-3, 1e6);
  stride_ = static_cast<double>(strided.Int("frameStride", 1, 1, INT32_MAX));
  Close(sampled, frames);
  Close(strided, frames);
}

void MediaEstimate::Read(Params& estimate) {
  Params image(estimate.node("image")), video(estimate.node("video"));
  ReadArea(image, "staticToken", &image_);
  ReadResolution(image, &image_.width, &image_.height);
  Params per_frame(video.node("tokensPerFrame")), frames(video.node("frames"));
  ReadArea(per_frame, "numTokensPerFrame", &frame_);
  ReadFrames(frames);
  ReadResolution(video, &frame_.width, &frame_.height);
  duration_ = video.Double("defaultDuration", 10, 1e-3, kMost);
  max_video_tokens_ = static_cast<double>(video.Int("maxVideoTokens", 0, 0, INT32_MAX));
  Close(per_frame, video);
  Close(frames, video);
  Close(image, estimate);
  Close(video, estimate);
}

size_t MediaEstimate::ImageByUrl(std::string_view url) const {
  constexpr std::string_view kBase64 = "base64,";
  const size_t at = url.starts_with("data:image/") ? url.find(kBase64) : std::string_view::npos;
  if (at == std::string_view::npos) return Bounded(image_.Of(image_.width, image_.height));
  return ImageByData(url.substr(at + kBase64.size()));
}

size_t MediaEstimate::ImageByData(std::string_view base64) const {
  const std::optional<ImageSize> size = image_.constant ? std::nullopt : ImageSizeOf(base64);
  if (!size) return Bounded(image_.Of(image_.width, image_.height));
  return Bounded(image_.Of(static_cast<double>(size->width), static_cast<double>(size->height)));
}

double MediaEstimate::Frames(double duration, double source_fps) const {
  double n = strided_ ? std::floor(std::floor(duration * source_fps) / stride_)
                      : std::floor(duration * sample_fps_);
  n = std::max(n, min_frames_);
  if (max_frames_ > 0) n = std::min(n, max_frames_);
  return !strided_ && patch_ > 1 ? std::floor(n / patch_) : n;
}

size_t MediaEstimate::Video(const RequestContext& request) const {
  const double duration = Positive(request.Header("x-llm-d-video-duration-seconds"));
  const double fps = Positive(request.Header("x-llm-d-video-fps"));
  const std::string_view resolution = request.Header("x-llm-d-video-resolution");
  const size_t x = resolution.find('x');
  const double w = Positive(resolution.substr(0, x));
  const double h = x == std::string_view::npos ? 0 : Positive(resolution.substr(x + 1));
  const bool known = w > 0 && h > 0;
  const double frames = Frames(duration > 0 ? duration : duration_, fps > 0 ? fps : source_fps_);
  const double tokens = frames * frame_.Of(known ? w : frame_.width, known ? h : frame_.height);
  return Bounded(max_video_tokens_ > 0 ? std::min(tokens, max_video_tokens_) : tokens);
}

size_t MediaEstimate::Audio(std::string_view base64) const {
  return Bounded(std::ceil(static_cast<double>(base64.size()) / 4));
}

}  // namespace llmd::sched
