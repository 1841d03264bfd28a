#include "llmd/sched/request_context.h"

#include <set>

#include "llmd/sched/profile_handler.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(RolesOf, KnowsEveryRoleOfTheLabel) {
  const auto roles = [](const std::string& value) { return RolesOf(Ep("a", 0, 0, 0, value).info); };
  EXPECT_EQ(roles(""), kRoleUnlabelled);
  EXPECT_EQ(roles("decode"), kRoleDecode);
  EXPECT_EQ(roles("prefill"), kRolePrefill);
  EXPECT_EQ(roles("encode"), kRoleEncode);
  EXPECT_EQ(roles("both"), kRolePrefill | kRoleDecode);
  EXPECT_EQ(roles("prefill-decode"), kRolePrefill | kRoleDecode);
  EXPECT_EQ(roles("encode-prefill"), kRoleEncode | kRolePrefill);
  EXPECT_EQ(roles("encode-prefill-decode"), kRoleEncode | kRolePrefill | kRoleDecode);
  EXPECT_EQ(roles("Decode"), 0);
}

TEST(EndpointInfo, PutsIpv6InBrackets) {
  EndpointInfo info;
  info.address = "fe80::1";
  info.port = 80;
  EXPECT_EQ(info.HostPort(), "[fe80::1]:80");
  info.address = "1.2.3.4";
  EXPECT_EQ(info.HostPort(), "1.2.3.4:80");
}

TEST(FindHeader, TheLastOneCounts) {
  const HeaderList headers = {{"a", "1"}, {"b", "2"}, {"a", "3"}};
  EXPECT_EQ(FindHeader(headers, "a"), "3");
  EXPECT_EQ(FindHeader(headers, "c"), "");
}

TEST(RequestContext, ResetEmptiesEverything) {
  const HeaderList headers;
  RequestContext r;
  r.Reset(2);
  r.model = r.target_model = r.fairness_id = r.cache_salt = r.objective = "x";
  r.headers = &headers;
  r.body = r.prompt_json = "body";
  r.has_body = false;
  r.streaming = true;
  r.max_tokens = 5;
  r.priority = -1;
  r.slo_ttft_ms = 3;
  r.charges.Open(std::make_shared<const EndpointLife>(0), Stage::kAnswer);
  r.AllEligible(2);
  r.Put(1).tokens = {1, 2};
  r.Reset(2);
  EXPECT_EQ(r.model + r.target_model + r.fairness_id + r.cache_salt + r.objective, "");
  EXPECT_EQ(r.headers, nullptr);
  EXPECT_TRUE(r.body.empty() && r.prompt_json.empty() && r.has_body && !r.streaming);
  EXPECT_EQ(r.max_tokens, -1);
  EXPECT_EQ(r.priority, 0);
  EXPECT_EQ(r.slo_ttft_ms, -1);
  EXPECT_TRUE(r.charges.all().empty() && r.eligible.empty());
  EXPECT_EQ(r.Get(1), nullptr);
}

TEST(RequestContext, AttributesAreThereOnlyOnceProduced) {
  RequestContext r;
  r.Reset(1);
  EXPECT_EQ(r.Get(0), nullptr);
  EXPECT_EQ(r.Get(kNoKey), nullptr);
  EXPECT_EQ(r.Get(99), nullptr);
  r.Put(0).text = "x";
  ASSERT_NE(r.Get(0), nullptr);
  EXPECT_EQ(r.Get(0)->text, "x");
  r.Put(5).total = 2;
  EXPECT_EQ(r.Get(5)->total, 2);
}

TEST(RequestContext, DescriptionCountsCharactersAndHidesSecrets) {
  const HeaderList headers = {
      {"z", "1"}, {"authorization", "Bearer key"}, {"cookie", "c"}, {"x-api-key", "k"}};
  RequestContext r;
  r.target_model = "m";
  r.headers = &headers;
  r.prompt_json = R"("h\u00e9é\n")";
  const std::string text = r.Describe(true);
  EXPECT_THAT(text, HasSubstr("TargetModel: m, Critical: false, PromptLength: 4"));
  EXPECT_THAT(text, HasSubstr("authorization:<hidden> cookie:<hidden> x-api-key:<hidden> z:1"));
  EXPECT_THAT(text, Not(HasSubstr("Bearer")));
  r.priority = 1;
  EXPECT_THAT(r.Describe(false), HasSubstr("Critical: true"));
  EXPECT_THAT(r.Describe(false), Not(HasSubstr("Headers")));
}

TEST(Random, RepeatsForAStateAndStaysInRange) {
  uint64_t a = 5, b = 5;
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t x = RandomBelow(a, 10);
    EXPECT_EQ(x, RandomBelow(b, 10));
    EXPECT_LT(x, 10u);
    seen.insert(x);
  }
  EXPECT_EQ(seen.size(), 10u);
  for (int i = 0; i < 1000; ++i) {
    const double u = RandomUnit(a);
    EXPECT_TRUE(u > 0 && u < 1);
  }
}

TEST(ScheduleOutcome, ClearLeavesNothingBehind) {
  ScheduleOutcome o;
  o.primary = o.prefill = o.encode = {1};
  o.primary_profile = o.prefill_profile = o.encode_profile = 1;
  o.error = "e";
  o.error_status = 429;
  o.primary_port = 9;
  o.decision_type = "prefill-decode";
  o.Clear();
  EXPECT_TRUE(o.primary.empty() && o.prefill.empty() && o.encode.empty() && o.error.empty());
  EXPECT_EQ(o.primary_profile + o.prefill_profile + o.encode_profile, -3);
  EXPECT_EQ(o.error_status + o.primary_port, 0);
  EXPECT_EQ(o.decision_type, "decode-only");
}

}  // namespace
}  // namespace llmd::sched
