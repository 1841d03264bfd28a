// Media of a prompt: their sizes, their tokens, their names; and the bodies whose estimate is JSON.
#include <cstring>

#include "config/graph.h"
#include "llmd/sched/config_loader.h"
#include "plugins/producer/image_size.h"
#include "plugins/producer/media_estimate.h"
#include "plugins/producer/packer.h"
#include "plugins/producer/token_estimate.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::HasSubstr;

std::string Base64(std::string_view bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    for (size_t k = 0; k < 3; ++k)
      word = word << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k)
      out += i + k <= bytes.size() ? kDigits[word >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::string Big(uint32_t v, int bytes) {
  std::string out;
  for (int i = bytes - 1; i >= 0; --i) out += static_cast<char>(v >> (8 * i));
  return out;
}

std::string Png(uint32_t w, uint32_t h) {
  return "\x89PNG\r\n\x1a\n" + Big(13, 4) + "IHDR" + Big(w, 4) + Big(h, 4) + "more";
}

// With a comment segment of that size before the frame, and padding.
std::string Jpeg(uint32_t w, uint32_t h, size_t comment) {
  return "\xff\xd8\xff\xfe" + Big(static_cast<uint32_t>(comment + 2), 2) +
         std::string(comment, 'c') + "\xff\xff\xc2" + Big(17, 2) + "\x08" + Big(h, 2) + Big(w, 2) +
         "\x03 rest of it";
}

void ExpectSize(const std::string& image, int64_t w, int64_t h) {
  const std::optional<ImageSize> size = ImageSizeOf(Base64(image));
  ASSERT_TRUE(size.has_value());
  EXPECT_EQ(size->width, w);
  EXPECT_EQ(size->height, h);
}

TEST(ImageSize, IsReadFromTheHead) {
  ExpectSize(Png(1920, 1080), 1920, 1080);
  ExpectSize(std::string("GIF89a\x40\x01\xf0\x00 rest", 15), 320, 240);
  ExpectSize(Jpeg(800, 600, 10), 800, 600);
  ExpectSize(Jpeg(4000, 3000, 60000), 4000, 3000);
}

TEST(ImageSize, IsNotInventedForBrokenPictures) {
  for (const std::string& bad :
       {std::string(), std::string("text"), Png(0, 5), Png(5, 0), Png(5, 5).substr(0, 20),
        std::string("GIF8"), Jpeg(5, 5, 10).substr(0, 18), std::string("\xff\xd8\xff\xd9 nothing"),
        std::string("\xff\xd8 no marker here")}) {
    EXPECT_FALSE(ImageSizeOf(Base64(bad)).has_value()) << testing::PrintToString(bad);
  }
  EXPECT_FALSE(ImageSizeOf("!!!!not base64").has_value());
}

MediaEstimate Estimate(const std::string& yaml, std::string* errors = nullptr) {
  const StatusOr<config::Node> node = config::Parse(yaml);
  EXPECT_TRUE(node.ok());
  Params params(*node);
  MediaEstimate out;
  out.Read(params);
  const Status status = params.Finish();
  if (errors != nullptr) *errors = status.message();
  EXPECT_EQ(status.ok(), errors == nullptr) << status.ToString();
  return out;
}

TEST(MediaEstimate, PicturesCountTheirPixels) {
  const MediaEstimate e = Estimate("{}");
  EXPECT_EQ(e.ImageByUrl("http://a/b.png"), 640u * 360 / 1024);
  EXPECT_EQ(e.ImageByUrl("data:image/png;base64," + Base64(Png(1024, 768))), 768u);
  EXPECT_EQ(e.ImageByUrl("data:image/png;base64,broken"), 225u);
  EXPECT_EQ(e.ImageByData(Base64(Png(64, 64))), 4u);
  EXPECT_EQ(e.ImageByData(Base64(Png(8, 8))), 1u);
}

TEST(MediaEstimate, AClaimOfHugeSizeIsBounded) {
  const MediaEstimate e = Estimate("{}");
  EXPECT_EQ(e.ImageByData(Base64(Png(0xffffffff, 0xffffffff))), MediaEstimate::kMaxTokens);
  EXPECT_EQ(e.Audio(std::string(1 << 20, 'x')), MediaEstimate::kMaxTokens);
}

TEST(MediaEstimate, SettingsChangeThePicture) {
  const MediaEstimate e =
      Estimate("image: {defaultResolution: {width: 1000, height: 500}, dynamic: {factor: 500}}");
  EXPECT_EQ(e.ImageByUrl("http://a"), 1000u);
  const MediaEstimate fixed = Estimate("image: {mode: static, static: {staticToken: 77}}");
  EXPECT_EQ(fixed.ImageByUrl("http://a"), 77u);
  EXPECT_EQ(fixed.ImageByData(Base64(Png(4000, 4000))), 77u);
}

size_t Film(const MediaEstimate& e, HeaderList headers) {
  RequestContext request;
  request.headers = &headers;
  return e.Video(request);
}

TEST(MediaEstimate, FilmsAreSampledFrames) {
  const MediaEstimate e = Estimate("{}");
  EXPECT_EQ(Film(e, {}), 20u * 225);  // 10 s at 2 frames a second
  EXPECT_EQ(Film(e, {{"x-llm-d-video-duration-seconds", "3.5"}}), 7u * 225);
  EXPECT_EQ(Film(e, {{"x-llm-d-video-resolution", "1280x720"}}), 20u * 900);
  // The source's rate says nothing of sampled frames; nonsense says nothing at all.
  EXPECT_EQ(Film(e, {{"x-llm-d-video-fps", "60"}}), 20u * 225);
  for (const char* bad : {"", "x", "-3", "nan", "1e99", "10s"})
    EXPECT_EQ(Film(e, {{"x-llm-d-video-duration-seconds", bad}}), 20u * 225) << bad;
  for (const char* bad : {"1280", "x720", "1280x", "0x0", "1280x720x3"})
    EXPECT_EQ(Film(e, {{"x-llm-d-video-resolution", bad}}), 20u * 225) << bad;
}

TEST(MediaEstimate, FramesFollowTheSettings) {
  const MediaEstimate strided = Estimate(
      "video: {tokensPerFrame: {mode: static, static: {numTokensPerFrame: 10}}, frames: {mode: "
      "strided, maxFrames: 100, strided: {frameStride: 4}}}");
  EXPECT_EQ(Film(strided, {}), 600u);  // 10 s · 24 / 4
  EXPECT_EQ(Film(strided, {{"x-llm-d-video-fps", "30"}}), 750u);
  EXPECT_EQ(Film(strided, {{"x-llm-d-video-fps", "600"}}), 1000u);
  const MediaEstimate every =
      Estimate("video: {tokensPerFrame: {mode: static}, frames: {mode: strided}}");
  EXPECT_EQ(Film(every, {}), 240u);  // 10 s · 24 / 1, a token a frame
  const MediaEstimate merged = Estimate(
      "video: {defaultDuration: 1, maxVideoTokens: 500, frames: {minFrames: 4, sampled: "
      "{sampleFPS: "
      "1, temporalPatchSize: 2}}}");
  EXPECT_EQ(Film(merged, {}), 450u);
  EXPECT_EQ(Film(merged, {{"x-llm-d-video-duration-seconds", "60"}}), 500u);
}

TEST(MediaEstimate, ErrorsNameTheKey) {
  const std::pair<const char*, const char*> cases[] = {
      {"image: {mode: guess}", "mode"},
      {"image: {dynamic: {factor: 0}}", "factor"},
      {"image: {colour: red}", "colour"},
      {"video: {frames: {minFrames: 5, maxFrames: 2}}", "at least minFrames"},
      {"video: {defaultDuration: 0}", "defaultDuration"},
      {"sound: {}", "sound"}};
  for (const auto& [yaml, why] : cases) {
    std::string errors;
    Estimate(yaml, &errors);
    EXPECT_THAT(errors, HasSubstr(why)) << yaml;
  }
}

// One prompt through the default graph's producers.
Attribute Tokens(const std::string& path, const std::string& body, HeaderList headers = {}) {
  const auto graph = LoadGraph(Config({"{type: prefix-cache-scorer}"}), {});
  EXPECT_TRUE(graph.ok());
  RequestContext request;
  request.Reset((*graph)->attribute_count);
  request.path = path;
  request.body = body;
  request.headers = &headers;
  EXPECT_TRUE((*graph)->FindParser(path)->Parse(request).ok());
  Attribute out;
  EXPECT_TRUE(EstimateTokens(request, MediaEstimate(), out).ok());
  return out;
}

std::vector<uint32_t> Packed(std::string text) {
  text.resize((text.size() + 3) / 4 * 4, '\0');
  std::vector<uint32_t> out(text.size() / 4);
  std::memcpy(out.data(), text.data(), text.size());
  return out;
}

std::string Chat(const std::string& parts) {
  return R"({"model":"m","messages":[{"role":"user","content":[)" + parts + "]}]}";
}

TEST(TokenEstimate, MediaAreNamedAndPlaced) {
  const Attribute out =
      Tokens("/v1/chat/completions",
             Chat(R"({"type":"text","text":"look: "},)"
                  R"({"type":"image_url","image_url":{"url":"http:\/\/a\/b.png"}},)"
                  R"({"type":"input_audio","input_audio":{"data":"AAAABBBBC","format":"wav"}},)"
                  R"({"type":"video_url","video_url":{"url":"v"}},{"type":"text","text":"end"})"));
  ASSERT_EQ(out.media.size(), 3u);
  // "userlook: " is ten bytes: three tokens, then the picture.
  EXPECT_EQ(out.media[0].offset, 3u);
  EXPECT_EQ(out.media[0].length, 225u);
  const uint64_t hash = XXH64("http://a/b.png", 14, 0);
  char hex[17];
  std::snprintf(hex, sizeof(hex), "%016llx", static_cast<unsigned long long>(hash));
  EXPECT_EQ(out.media[0].hash, hex);
  EXPECT_EQ(out.tokens[3], static_cast<uint32_t>(hash));
  EXPECT_EQ(out.tokens[227], static_cast<uint32_t>(hash));
  EXPECT_EQ(out.media[1].modality, Modality::kAudio);
  EXPECT_EQ(out.media[1].offset, 228u);
  EXPECT_EQ(out.media[1].length, 3u);
  EXPECT_EQ(out.media[2].modality, Modality::kVideo);
  EXPECT_EQ(out.media[2].length, 4500u);
  EXPECT_EQ(out.tokens.size(), 3u + 225 + 3 + 4500 + 1);
}

TEST(TokenEstimate, ManyMediaStayBounded) {
  std::string parts;
  const std::string huge = Base64(Png(100000, 100000));
  for (int i = 0; i < 40; ++i) {
    parts += (i ? "," : "") + std::string(R"({"type":"image_url","image_url":{"url":)") +
             R"("data:image/png;base64,)" + huge + R"("}})";
  }
  const Attribute out = Tokens("/v1/chat/completions", Chat(parts));
  EXPECT_EQ(out.media.size(), 40u);
  EXPECT_LE(out.tokens.size(), Packer::kMaxMediaTokens + 64);
  EXPECT_EQ(out.media.back().length, 1u);
}

TEST(TokenEstimate, AnthropicPicturesToolsAndResults) {
  const Attribute out = Tokens(
      "/v1/messages",
      R"({"model":"m","system":[{"type":"text","text":"sys"}],"messages":[)"
      R"({"role":"user","content":[{"type":"image","source":{"type":"base64","data":")" +
          Base64(Png(64, 64)) +
          R"("}},{"type":"image","source":{"type":"url","url":"http://x"}}]},)"
          R"({"role":"assistant","content":[{"type":"tool_use","id":"i","name":"n","input":{"a":1}}]},)"
          R"({"role":"user","content":[{"type":"tool_result","content":[{"type":"text","text":"r"}]}]}]})");
  ASSERT_EQ(out.media.size(), 2u);
  EXPECT_EQ(out.media[0].length, 4u);
  EXPECT_EQ(out.media[1].length, 225u);
  const auto tail = Packed("assistantin{\"a\":1}userr");
  ASSERT_GE(out.tokens.size(), tail.size());
  EXPECT_TRUE(std::equal(tail.rbegin(), tail.rend(), out.tokens.rbegin()));
}

TEST(TokenEstimate, CallsOfToolsArePartOfThePrompt) {
  const Attribute out = Tokens(
      "/v1/chat/completions",
      R"({"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"c"}]},)"
      R"({"role":"tool","tool_call_id":"c","content":"r"}]})");
  EXPECT_EQ(out.tokens, Packed("assistant[{\"id\":\"c\"}]toolr"));
}

TEST(TokenEstimate, DeepToolResultsAreRefusedNotFollowed) {
  std::string part = R"({"type":"text","text":"x"})";
  for (int i = 0; i < 40; ++i) part = R"({"type":"tool_result","content":[)" + part + "]}";
  const auto graph = LoadGraph(Config({"{type: prefix-cache-scorer}"}), {});
  RequestContext request;
  request.Reset((*graph)->attribute_count);
  request.path = "/v1/messages";
  const std::string body = Chat(part);
  request.body = body;
  ASSERT_TRUE((*graph)->FindParser(request.path)->Parse(request).ok());
  Attribute out;
  EXPECT_FALSE(EstimateTokens(request, MediaEstimate(), out).ok());
}

TEST(TokenEstimate, ResponsesAreAJsonArrayOfTheirParts) {
  EXPECT_EQ(
      Tokens("/v1/responses", R"({"model":"m","input":"hi","instructions":"be kind"})").tokens,
      Packed(R"([{"instructions":"be kind"},{"input":"hi"}])"));
}

TEST(TokenEstimate, EmbeddingsAndConversationsAreTheirJson) {
  EXPECT_EQ(Tokens("/v1/embeddings", R"({"model":"m","input":["ab","c"]})").tokens,
            Packed(R"(["ab","c"])"));
  EXPECT_EQ(Tokens("/v1/embeddings", R"({"model":"m","input":[1,2,3]})").tokens,
            (std::vector<uint32_t>{1, 2, 3}));
  const Attribute two = Tokens("/v1/embeddings", R"({"model":"m","input":[[1,2],[3]]})");
  EXPECT_EQ(two.bounds, (std::vector<size_t>{2, 3}));
  EXPECT_TRUE(two.exact);
  EXPECT_EQ(Tokens("/v1/conversations", R"({"model":"m","items":[{"a":1}]})").tokens,
            Packed(R"([{"a":1}])"));
  EXPECT_EQ(Tokens("/v1/images/generations", R"({"model":"m","prompt":"a cat"})").tokens,
            Packed("a cat"));
}

TEST(TokenEstimate, GenerateTakesThePlacesOfItsMedia) {
  const Attribute out = Tokens(
      "/inference/v1/generate",
      R"({"model":"m","token_ids":[1,2,3,4,5],"features":{"mm_hashes":{"image":["h1","h2"],"audio":["h3"]},)"
      R"("mm_placeholders":{"image":[{"offset":1,"length":2},{"offset":-4,"length":1}],"audio":[{"offset":4,"length":1}]}}})");
  ASSERT_EQ(out.media.size(), 2u);
  EXPECT_EQ(out.media[0].hash, "h1");
  EXPECT_EQ(out.media[0].offset, 1u);
  EXPECT_EQ(out.media[1].modality, Modality::kAudio);
  EXPECT_EQ(out.tokens.size(), 5u);
  EXPECT_TRUE(Tokens("/inference/v1/generate", R"({"model":"m","token_ids":[1],"features":"none"})")
                  .media.empty());
}

}  // namespace
}  // namespace llmd::sched
