// Media affinity: what was encoded where, the score of it, and the decision to encode elsewhere.
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

RequestSpec Look(const std::vector<std::string>& urls) {
  RequestSpec r;
  r.path = "/v1/chat/completions";
  r.body = R"({"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"})";
  for (const std::string& url : urls)
    r.body += R"(,{"type":"image_url","image_url":{"url":")" + url + R"("}})";
  r.body += "]}]}";
  return r;
}

const std::vector<EndpointState>& Three() {
  static const std::vector<EndpointState> pool = {Ep("a"), Ep("b"), Ep("c")};
  return pool;
}

TEST(EncoderCache, ScoresTheShareOfMediaAnEndpointHasSeen) {
  auto s = MakeScheduler(Config({"{type: mm-embeddings-cache-scorer}"}));
  EXPECT_THAT(Raw(Must(*s, Look({"x", "y"}), Three())), ElementsAre(0, 0, 0));
  Must(*s, Look({"p", "q"}), {Ep("b")});
  Must(*s, Look({"p"}), {Ep("c")});
  EXPECT_THAT(Raw(Must(*s, Look({"p", "q"}), Three())).at(1), 1);
  EXPECT_THAT(Raw(Must(*s, Look({"p", "z"}), {Ep("b"), Ep("c")})), ElementsAre(0.5, 0.5));
}

TEST(EncoderCache, OneContentCountsOnce) {
  auto s = MakeScheduler(Config({"{type: mm-embeddings-cache-scorer}"}));
  Must(*s, Look({"p"}), {Ep("b")});
  EXPECT_THAT(Raw(Must(*s, Look({"p", "p", "p", "n"}), {Ep("a"), Ep("b")})), ElementsAre(0, 0.5));
}

TEST(EncoderCache, TextHasNoAffinity) {
  auto s = MakeScheduler(Config({"{type: mm-embeddings-cache-scorer}"}));
  EXPECT_THAT(Raw(Must(*s, Look({}), Three())), ElementsAre(0, 0, 0));
  EXPECT_THAT(Raw(Must(*s, Prompt("text"), Three())), ElementsAre(0, 0, 0));
}

TEST(EncoderCache, TheOldestIsForgottenBeyondItsSize) {
  auto s = MakeScheduler(Config({"{type: mm-embeddings-cache-scorer}",
                                 "{type: mm-embeddings-cache-producer, parameters: "
                                 "{cacheSizeInMBPerServer: 4}}"}));  // two items
  for (const char* url : {"1", "2", "1", "3"}) Must(*s, Look({url}), {Ep("a")});
  EXPECT_THAT(Raw(Must(*s, Look({"1", "2", "3"}), {Ep("a"), Ep("b")})).at(0),
              ::testing::DoubleNear(2.0 / 3, 1e-9));
}

TEST(EncoderCache, StateFollowsTheEndpointsName) {
  auto s = MakeScheduler(Config({"{type: mm-embeddings-cache-scorer}"}));
  Must(*s, Look({"p"}), {Ep("a"), Ep("b"), Ep("c")});
  const std::vector<double> before = Raw(Must(*s, Look({"p"}), {Ep("a"), Ep("b"), Ep("c")}));
  const std::vector<double> after = Raw(Must(*s, Look({"p"}), {Ep("c"), Ep("b"), Ep("a")}));
  EXPECT_THAT(after, ElementsAre(before[2], before[1], before[0]));
}

class EncoderMetrics : public DirectorFixture {};

TEST_F(EncoderMetrics, CountQueriesHitsAndRatios) {
  Start(Two(), {"{type: mm-embeddings-cache-scorer}"});
  for (int i = 0; i < 2; ++i)
    ASSERT_TRUE(Route(Look({"p"}).body, {{":path", "/v1/chat/completions"}}).ok);
  const std::string text = metrics_.Expose();
  EXPECT_THAT(text, HasSubstr("llm_d_epp_encoder_cache_queries_total{modality=\"image\","
                              "plugin_name=\"mm-embeddings-cache-producer\","
                              "plugin_type=\"mm-embeddings-cache-producer\"} 2.0"));
  EXPECT_THAT(text, ::testing::ContainsRegex(
                        "llm_d_epp_encoder_cache_hits_total.modality=\"image\"[^\n]*pod=\"default/"
                        "[ab]\"} 1.0"));
  EXPECT_THAT(text, ::testing::ContainsRegex("encoder_cache_hit_ratio_count[^\n]* 4.0"));
  EXPECT_THAT(text, ::testing::ContainsRegex("encoder_cache_hit_ratio_sum[^\n]* 1.0"));
  EXPECT_THAT(text,
              ::testing::ContainsRegex("llm_d_router_epp_encoder_cache_queries_total[^\n]* 2"));
  EXPECT_THAT(text, ::testing::ContainsRegex("llm_d_router_epp_encoder_cache_hits_total[^\n]* 1"));
  // The endpoints leave, and their series with them.
  const std::string& yaml = options_.config_yaml;
  ASSERT_TRUE(director_->Reload(yaml.substr(0, yaml.find("dataLayer:"))).ok());
  EXPECT_THAT(metrics_.Expose(), ::testing::Not(HasSubstr("pod=")));
}

std::string Encoding() {
  return Config({"{type: encode-filter}", "{type: decode-filter}",
                 "{type: always-disagg-multimodal-decider}",
                 "{type: disagg-profile-handler, parameters: {deciders: {encode: "
                 "always-disagg-multimodal-decider}}}",
                 "{name: two, type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}"}) +
         "schedulingProfiles:\n"
         "- {name: decode, plugins: [{pluginRef: decode-filter}]}\n"
         "- {name: encode, plugins: [{pluginRef: encode-filter}, {pluginRef: two}]}\n";
}

TEST(EncodeStage, MediaGoToTheEncodersAndTextDoesNot) {
  auto s = MakeScheduler(Encoding());
  const std::vector<EndpointState> pool = {Ep("d", 0, 0, 0, "decode"), Ep("e", 0, 0, 0, "encode"),
                                           Ep("f", 0, 0, 0, "encode")};
  const Decision with = Must(*s, Look({"p"}), pool);
  ASSERT_TRUE(with.ok);
  EXPECT_EQ(with.decision_type, "encode-decode");
  const std::string hosts(FindHeader(with.set_headers, "x-encoder-hosts-ports"));
  EXPECT_THAT(hosts, HasSubstr(pool[1].info.HostPort()));
  EXPECT_THAT(hosts, HasSubstr(pool[2].info.HostPort()));
  EXPECT_EQ(std::count(hosts.begin(), hosts.end(), ','), 1);
  const Decision without = Must(*s, Look({}), pool);
  EXPECT_EQ(without.decision_type, "decode-only");
  EXPECT_EQ(FindHeader(without.set_headers, "x-encoder-hosts-ports"), "");
}

TEST(EncodeStage, TheEncodersAreWhatHasSeenTheMedia) {
  auto s = MakeScheduler(
      Config({"{type: encode-filter}", "{type: decode-filter}",
              "{type: always-disagg-multimodal-decider}", "{type: mm-embeddings-cache-scorer}",
              "{type: disagg-profile-handler, parameters: {deciders: {encode: "
              "always-disagg-multimodal-decider}}}"}) +
      "schedulingProfiles:\n"
      "- {name: decode, plugins: [{pluginRef: decode-filter}]}\n"
      "- {name: encode, plugins: [{pluginRef: encode-filter}, {pluginRef: "
      "mm-embeddings-cache-scorer}]}\n");
  std::vector<EndpointState> pool = {Ep("d", 0, 0, 0, "decode")};
  for (int i = 0; i < 8; ++i) pool.push_back(Ep("e" + std::to_string(i), 0, 0, 0, "encode"));
  const Decision first = Must(*s, Look({"p"}), pool);
  const std::string chosen(FindHeader(first.set_headers, "x-encoder-hosts-ports"));
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(FindHeader(Must(*s, Look({"p"}), pool).set_headers, "x-encoder-hosts-ports"), chosen);
  }
}

}  // namespace
}  // namespace llmd::sched
