#include "gateway/doors/model_catalogue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "support.h"

namespace llmd::doors {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr TimePoint kStart{std::chrono::hours(1)};

std::string Page(std::initializer_list<std::string_view> ids) {
  std::string out = R"({"object":"list","data":[)";
  for (const std::string_view id : ids)
    out += (out.back() == '[' ? "" : ",") + std::string(R"({"id":")") + std::string(id) + "\"}";
  return out + "]}";
}

TEST(ReadModelPage, KeepsWhatClientsAskFor) {
  size_t left_out = 0;
  const auto models = ReadModelPage(
      "\xEF\xBB\xBF{\"data\":[{\"id\":\"base\",\"created\":17,\"owned_by\":\"vllm\","
      "\"max_model_len\":4096},{\"id\":\"lora\",\"parent\":\"base\"},{\"id\":\"\"},{\"x\":1}]}",
      &left_out);
  ASSERT_TRUE(models.ok()) << models.status().ToString();
  ASSERT_EQ(models->size(), 2u);
  EXPECT_EQ((*models)[0].created, 17);
  EXPECT_EQ((*models)[0].owned_by, "vllm");
  EXPECT_EQ((*models)[0].max_model_len, 4096);
  EXPECT_EQ((*models)[1].parent, "base");
  EXPECT_EQ(left_out, 2u);
}

TEST(ReadModelPage, RefusesWhatIsNone) {
  size_t left_out = 0;
  for (const char* page : {"", "{", "[]", "{}", R"({"data":{}})", "<html>", R"({"data":[]} x)"})
    EXPECT_FALSE(ReadModelPage(page, &left_out).ok()) << page;
  EXPECT_FALSE(ReadModelPage(std::string(kMaxModelPageBytes + 1, ' '), &left_out).ok());
}

TEST(ReadModelPage, IsBounded) {
  std::string page = R"({"data":[{"id":")" + std::string(kMaxModelName + 1, 'x') + "\"}";
  for (size_t i = 0; i < kMaxModelsOfEngine + 5; ++i)
    page += ",{\"id\":\"m" + std::to_string(i) + "\"}";
  size_t left_out = 0;
  const auto models = ReadModelPage(page + "]}", &left_out);
  ASSERT_TRUE(models.ok());
  EXPECT_EQ(models->size(), kMaxModelsOfEngine);
  EXPECT_EQ(left_out, 6u);
}

class CatalogueTest : public ::testing::Test {
 protected:
  std::shared_ptr<const CatalogueView> View() { return catalogue_.view().Load(); }
  Status Learn(const std::string& engine, std::string_view page, int status = 200,
               const std::string& pool = "") {
    return catalogue_.Learn({pool, engine}, status, page, kStart);
  }
  ModelCatalogue catalogue_{seconds(10)};
};

TEST_F(CatalogueTest, ReadsOnJoinAndThenEveryInterval) {
  ASSERT_TRUE(catalogue_.SetMembers("", {{"a", true}, {"b", false}}).ok());
  EXPECT_EQ(catalogue_.NextDue(kStart)->name, "a");
  EXPECT_EQ(catalogue_.NextDue(kStart)->name, "b");
  EXPECT_FALSE(catalogue_.NextDue(kStart + seconds(9)));
  ASSERT_TRUE(catalogue_.SetMembers("", {{"a", true}, {"b", true}, {"c", true}}).ok());
  EXPECT_EQ(catalogue_.NextDue(kStart + seconds(9))->name, "c");
  EXPECT_EQ(catalogue_.NextDue(kStart + seconds(10))->name, "a");
  EXPECT_EQ(catalogue_.NextDue(kStart + seconds(10))->name, "b");
  EXPECT_FALSE(catalogue_.NextDue(kStart + seconds(10)));
}

TEST_F(CatalogueTest, ReadsABoundedNumberAtATime) {
  std::vector<ModelCatalogue::Member> members;
  for (size_t i = 0; i < 2 * kMaxReads; ++i) members.push_back({"e" + std::to_string(i)});
  ASSERT_TRUE(catalogue_.SetMembers("", members).ok());
  std::vector<EngineName> reading;
  while (const auto engine = catalogue_.NextDue(kStart)) reading.push_back(*engine);
  EXPECT_EQ(reading.size(), kMaxReads);
  ASSERT_TRUE(Learn(reading[0].name, Page({"m"})).ok());
  catalogue_.Fail(reading[1], Unavailable("refused"), kStart);
  EXPECT_TRUE(catalogue_.NextDue(kStart));
  EXPECT_TRUE(catalogue_.NextDue(kStart));
  EXPECT_FALSE(catalogue_.NextDue(kStart));
  // Whoever read them is lost: they no longer count, and come again after those that waited.
  std::set<std::string> later;
  while (const auto engine = catalogue_.NextDue(kStart + seconds(10))) later.insert(engine->name);
  EXPECT_EQ(later.size(), kMaxReads);
  for (const EngineName& engine : reading) later.erase(engine.name);
  EXPECT_EQ(later.size(), kMaxReads - 2);  // two of those that waited had been read
}

TEST_F(CatalogueTest, AnUnknownModelIsUnknownOnceAllHaveAnswered) {
  ASSERT_TRUE(catalogue_.SetMembers("", {{"a"}, {"b"}, {"c", false}}).ok());
  EXPECT_FALSE(View()->Complete(""));
  ASSERT_TRUE(Learn("a", Page({"m1"})).ok());
  EXPECT_FALSE(View()->Complete(""));
  EXPECT_NE(View()->Find("m1", ""), nullptr);
  ASSERT_TRUE(Learn("b", Page({"m1", "m2"})).ok());
  EXPECT_TRUE(View()->Complete(""));  // c takes no requests
  EXPECT_EQ(View()->Find("m3", ""), nullptr);
  EXPECT_EQ(View()->Find("m1", "")->engines.size(), 2u);
  EXPECT_EQ(View()->Find("m2", "")->engines[0].second, "b");
  // One that becomes ready has to tell first.
  ASSERT_TRUE(catalogue_.SetMembers("", {{"a"}, {"b"}, {"c"}}).ok());
  EXPECT_FALSE(View()->Complete(""));
}

TEST_F(CatalogueTest, NobodyThereIsNotComplete) {
  EXPECT_FALSE(View()->Complete(""));
  ASSERT_TRUE(catalogue_.SetMembers("", {{"a", false}}).ok());
  EXPECT_FALSE(View()->Complete(""));
}

TEST_F(CatalogueTest, ABadPageKeepsWhatWasAndIsShown) {
  ASSERT_TRUE(catalogue_.SetMembers("", {{"a"}}).ok());
  EXPECT_FALSE(Learn("a", "<html>").ok());
  EXPECT_FALSE(View()->Complete(""));
  ASSERT_TRUE(Learn("a", Page({"m"})).ok());
  EXPECT_FALSE(Learn("a", Page({"n"}), 500).ok());
  catalogue_.Fail({"", "a"}, Unavailable(std::string(10'000, 'x')), kStart);
  EXPECT_NE(View()->Find("m", ""), nullptr);
  EXPECT_TRUE(View()->Complete(""));
  const std::string shown = catalogue_.ToJson(kStart + seconds(3)).Dump();
  EXPECT_THAT(shown, HasSubstr(R"("models":["m"])"));
  EXPECT_THAT(shown, HasSubstr(R"("age_s":3.0)"));
  EXPECT_THAT(shown, HasSubstr(std::string(256, 'x')));
  EXPECT_LT(shown.size(), 1000u);
  ASSERT_TRUE(Learn("a", Page({"m"})).ok());
  EXPECT_THAT(catalogue_.ToJson(kStart).Dump(), HasSubstr(R"("error":null)"));
}

TEST_F(CatalogueTest, ForgetsWhatLeft) {
  ASSERT_TRUE(catalogue_.SetMembers("", {{"a"}, {"b"}}).ok());
  ASSERT_TRUE(Learn("a", Page({"m1"})).ok());
  ASSERT_TRUE(Learn("b", Page({"m2"})).ok());
  ASSERT_TRUE(catalogue_.SetMembers("", {{"b"}}).ok());
  EXPECT_EQ(View()->Find("m1", ""), nullptr);
  ASSERT_TRUE(Learn("a", Page({"m1"})).ok());  // an answer that comes too late
  EXPECT_EQ(View()->Find("m1", ""), nullptr);
  EXPECT_NE(View()->Find("m2", ""), nullptr);
}

TEST_F(CatalogueTest, KeepsPoolsApart) {
  ASSERT_TRUE(catalogue_.SetMembers("p", {{"a"}}).ok());
  ASSERT_TRUE(catalogue_.SetMembers("q", {{"a"}}).ok());
  ASSERT_TRUE(Learn("a", Page({"m"}), 200, "p").ok());
  EXPECT_TRUE(View()->Complete("p"));
  EXPECT_FALSE(View()->Complete("q"));
  EXPECT_FALSE(View()->Complete(""));
  EXPECT_FALSE(View()->Complete("r"));
  EXPECT_NE(View()->Find("m", "p"), nullptr);
  EXPECT_EQ(View()->Find("m", "q"), nullptr);
  EXPECT_NE(View()->Find("m", ""), nullptr);
  ASSERT_TRUE(catalogue_.SetMembers("p", {}).ok());
  EXPECT_EQ(View()->Find("m", ""), nullptr);
}

TEST_F(CatalogueTest, PublishesOnlyChanges) {
  ASSERT_TRUE(catalogue_.SetMembers("", {{"a"}}).ok());
  ASSERT_TRUE(Learn("a", Page({"m"})).ok());
  const uint64_t version = catalogue_.view().version();
  ASSERT_TRUE(Learn("a", Page({"m"})).ok());
  ASSERT_TRUE(catalogue_.SetMembers("", {{"a"}}).ok());
  EXPECT_EQ(catalogue_.view().version(), version);
}

TEST_F(CatalogueTest, IsBounded) {
  std::vector<ModelCatalogue::Member> members;
  for (size_t i = 0; i <= kMaxEngines; ++i) members.push_back({"e" + std::to_string(i), false});
  EXPECT_EQ(catalogue_.SetMembers("", members).code(), StatusCode::kResourceExhausted);
  ASSERT_TRUE(catalogue_.SetMembers("", {{"a"}, {"b"}, {"c"}, {"d"}, {"e"}, {"f"}}).ok());
  for (const char* engine : {"a", "b", "c", "d", "e", "f"}) {
    std::string page = R"({"data":[{"id":"first"})";
    for (size_t i = 1; i < kMaxModelsOfEngine; ++i)
      page += ",{\"id\":\"" + std::string(engine) + std::to_string(i) + "\"}";
    ASSERT_TRUE(Learn(engine, page + "]}").ok());
  }
  EXPECT_EQ(View()->models.size(), kMaxModels);
  EXPECT_FALSE(View()->Complete(""));  // nothing is said to be unknown any more
}

}  // namespace
}  // namespace llmd::doors
