#include "llmd/sched/data/scraper.h"

#include "llmd/sched/config_loader.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ScraperTest : public ::testing::Test {
 protected:
  ScraperTest() {
    graph_ = *LoadGraph("", {});
    store_.Update({Ep("a").info, Ep("b").info});
    scraper_ = std::make_unique<Scraper>(graph_, fetch_, store_, clock_, Logger(), metrics_,
                                         ScraperOptions{.interval = milliseconds(100)});
    clock_.Advance(milliseconds(1000));
  }
  FakeClock clock_;
  MetricsRegistry metrics_;
  EndpointStore store_;
  std::shared_ptr<CannedFetch> fetch_ = std::make_shared<CannedFetch>();
  std::shared_ptr<Graph> graph_;
  std::unique_ptr<Scraper> scraper_;
};

TEST_F(ScraperTest, SpreadsEndpointsOverTheInterval) {
  const TimePoint start = clock_.Now();
  EXPECT_EQ(scraper_->Tick(), start + milliseconds(50));
  EXPECT_THAT(fetch_->TakeAsked(), ElementsAre("a/metrics"));
  clock_.Advance(milliseconds(50));
  scraper_->Tick();
  EXPECT_THAT(fetch_->TakeAsked(), ElementsAre("b/metrics"));
  clock_.Advance(milliseconds(49));
  scraper_->Tick();
  EXPECT_THAT(fetch_->TakeAsked(), IsEmpty());
  clock_.Advance(milliseconds(1));
  scraper_->Tick();
  EXPECT_THAT(fetch_->TakeAsked(), ElementsAre("a/metrics"));
}

TEST_F(ScraperTest, MissedTurnsAreLeftOut) {
  scraper_->Tick();
  clock_.Advance(milliseconds(1030));
  scraper_->Tick();
  EXPECT_EQ(fetch_->TakeAsked().size(), 3u);  // a at 0, then each once
  scraper_->Tick();
  EXPECT_THAT(fetch_->TakeAsked(), IsEmpty());
}

TEST_F(ScraperTest, FailuresKeepTheValuesAndTheirAge) {
  fetch_->Set("a", std::string("vllm:num_requests_waiting 7\n"));
  scraper_->Tick();
  const TimePoint good = clock_.Now();
  EXPECT_EQ(store_.Get()->waiting[0], 7);
  EXPECT_EQ(store_.Get()->updated[0], good);
  fetch_->Set("a", Unavailable("HTTP 500"));
  clock_.Advance(milliseconds(300));
  scraper_->Tick();
  EXPECT_EQ(store_.Get()->waiting[0], 7);
  EXPECT_EQ(store_.Get()->updated[0], good);
  EXPECT_THAT(metrics_.Expose(), ::testing::HasSubstr("llm_d_epp_datalayer_poll_errors_total"));
  EXPECT_FALSE(store_.Get()->metrics[1]->ever);
}

TEST_F(ScraperTest, RunsItsOwnThreadAndStops) {
  Scraper threaded(graph_, fetch_, store_, SystemClock(), Logger(), metrics_,
                   ScraperOptions{.interval = milliseconds(1)});
  fetch_->Set("a", std::string("vllm:num_requests_waiting 7\n"));
  threaded.Start();
  for (int i = 0; i < 1000 && store_.Get()->waiting[0] != 7; ++i)
    std::this_thread::sleep_for(milliseconds(1));
  threaded.Stop();
  EXPECT_EQ(store_.Get()->waiting[0], 7);
}

}  // namespace
}  // namespace llmd::sched
