#include <thread>

#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class DirectorModels : public DirectorFixture {
 protected:
  // Reads the model lists until `count` models are known, for ten seconds at most.
  std::vector<ServedModel> Models(size_t count) {
    for (int i = 0; i < 1000 && director_->ServedModels().size() != count; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return director_->ServedModels();
  }
  void StartReading() {
    path_ = (std::filesystem::temp_directory_path() /
             ("llmd_models_" + std::to_string(::getpid()) + ".yaml"))
                .string();
    std::ofstream(path_) << "endpoints: [" << Two() << "]";
    options_.config_yaml =
        Config({"{type: file-discovery, parameters: {path: " + path_ + "}}",
                "{type: models-data-source, parameters: {interval: 50ms}}",
                "{type: models-data-extractor}", "{type: random-picker}"}) +
        "dataLayer:\n  discovery: {pluginRef: file-discovery}\n  sources: [{pluginRef: "
        "models-data-source, extractors: [{pluginRef: models-data-extractor}]}]\n";
    auto made = Director::Create(options_, fetch_, Logger(sink_, LogLevel::kDefault), metrics_,
                                 SystemClock());
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    director_ = std::move(*made);
  }
  std::shared_ptr<CannedFetch> fetch_ = std::make_shared<CannedFetch>();
};

TEST_F(DirectorModels, AreThoseOfAllEndpointsOnce) {
  fetch_->Set("a", std::string(R"({"data":[{"id":"llama"},{"id":"sql","parent":"llama"}]})"));
  fetch_->Set("b", std::string(R"({"data":[{"id":"art","parent":"llama"},{"id":"llama"}]})"));
  StartReading();
  EXPECT_THAT(Models(3), ElementsAre(ServedModel{"art", "llama"}, ServedModel{"llama", ""},
                                     ServedModel{"sql", "llama"}));
  fetch_->Set("a", std::string(R"({"data":[{"id":"llama"}]})"));
  EXPECT_THAT(Models(2), ElementsAre(ServedModel{"art", "llama"}, ServedModel{"llama", ""}));
}

TEST_F(DirectorModels, WithoutMetricsNothingIsStale) {
  fetch_->Set("a", std::string(R"({"data":[{"id":"llama"}]})"));
  StartReading();
  ASSERT_EQ(Models(1).size(), 1u);
  const Routing routing = Route(R"({"model":"llama","prompt":"x"})");
  ASSERT_TRUE(routing.ok);
  EXPECT_THAT(routing.trace->stale, IsEmpty());
}

TEST_F(DirectorModels, NoSourceMeansNoList) {
  Start(Two(), {"{type: queue-scorer}"});
  EXPECT_THAT(director_->ServedModels(), IsEmpty());
}

}  // namespace
}  // namespace llmd::sched
