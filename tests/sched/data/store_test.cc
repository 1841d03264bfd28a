#include "llmd/sched/data/store.h"

#include "sched/support.h"

namespace llmd::sched {
namespace {

using std::chrono::seconds;

EndpointMetrics Started(double at) {
  EndpointMetrics m;
  m.process_start = at;
  m.ever = true;
  return m;
}

class EndpointStoreTest : public ::testing::Test {
 protected:
  EndpointStoreTest() {
    store_.OnGone([this](const EndpointInfo& e, uint32_t slot) {
      events_.push_back("gone " + e.name + " " + std::to_string(slot));
    });
    store_.OnSlotFree([this](uint32_t slot) { events_.push_back("free " + std::to_string(slot)); });
  }
  void Update(std::vector<EndpointInfo> endpoints) { store_.Update(std::move(endpoints)); }
  std::shared_ptr<const EndpointLife> Life(size_t i) const { return store_.Members()->lives[i]; }
  std::vector<std::string> Events() { return std::exchange(events_, {}); }

  FakeClock clock_;
  EndpointStore store_{&clock_, kNeverStale};
  std::vector<std::string> events_;
};

// The endpoint under another label, name or port.
EndpointInfo Edited(EndpointInfo info) {
  info.labels["zone"] = "b";
  return info;
}
EndpointInfo Renamed(EndpointInfo info, std::string name) {
  info.name = std::move(name);
  return info;
}

TEST_F(EndpointStoreTest, KeepsLivesAndMetricsOfThoseThatStay) {
  EXPECT_FALSE(store_.synced());
  Update({Ep("a").info, Ep("b").info});
  const auto before = store_.Get();
  EndpointMetrics m;
  m.waiting = 5;
  m.ever = true;
  store_.SetMetrics(before->set->infos[1], m);
  Update({Ep("b").info, Ep("c").info});
  const auto after = store_.Get();
  EXPECT_THAT(Events(), ::testing::ElementsAre("gone a 0"));
  EXPECT_EQ(after->set->lives[0], before->set->lives[1]);
  EXPECT_EQ(after->set->slots[0], before->set->slots[1]);
  EXPECT_EQ(after->waiting[0], 5);
  EXPECT_GT(after->epoch, before->epoch);
  EXPECT_EQ(before->waiting[1], 0);  // the old snapshot does not change
  store_.SetMetrics(before->set->infos[0], m);
  EXPECT_EQ(store_.Get(), after);
}

TEST_F(EndpointStoreTest, ASlotIsGivenAwayOnlyWhenNobodyHoldsItsLife) {
  Update({Ep("a").info, Ep("b").info});
  auto snapshot = store_.Get();
  auto life = Life(0);
  Update({Ep("b").info, Ep("c").info});
  snapshot.reset();
  EXPECT_EQ(Life(1)->slot(), 2u);
  Update({Ep("b").info, Ep("c").info, Ep("d").info});
  EXPECT_EQ(Life(2)->slot(), 3u);
  EXPECT_THAT(Events(), ::testing::ElementsAre("gone a 0"));
  life.reset();
  Update({Ep("b").info, Ep("c").info, Ep("d").info, Ep("e").info});
  EXPECT_THAT(Events(), ::testing::ElementsAre("free 0"));  // before e gets it
  EXPECT_EQ(Life(3)->slot(), 0u);
}

TEST_F(EndpointStoreTest, IdsAreNeverUsedTwice) {
  std::set<EndpointId> ids;
  for (int i = 0; i < 10; ++i) {
    Update({Ep("a").info});
    EXPECT_TRUE(ids.insert(Life(0)->id()).second);
    Update({});
  }
}

TEST_F(EndpointStoreTest, ALabelEditKeepsTheLife) {
  Update({Ep("a").info});
  const auto first = store_.Get()->set;
  EndpointMetrics m;
  m.waiting = 3;
  store_.SetMetrics(first->infos[0], m);
  Update({Ep("a", 0, 0, 0, "decode").info});
  const auto after = store_.Get();
  EXPECT_NE(after->set->infos[0], first->infos[0]);
  EXPECT_EQ(after->set->roles[0], kRoleDecode);
  EXPECT_EQ(after->set->lives[0], first->lives[0]);
  EXPECT_EQ(after->waiting[0], 3);
  EXPECT_TRUE(Events().empty());
}

TEST_F(EndpointStoreTest, AnotherPortIsAnotherLife) {
  Update({Ep("a").info});
  const auto first = Life(0);
  EndpointInfo moved = Ep("a").info;
  ++moved.port;
  Update({moved});
  EXPECT_NE(Life(0)->id(), first->id());
  EXPECT_NE(Life(0)->slot(), first->slot());
  EXPECT_THAT(Events(), ::testing::ElementsAre("gone a 0"));
}

TEST_F(EndpointStoreTest, AShortAbsenceKeepsTheLifeWithRequestsOnTheirWay) {
  Update({Ep("a").info});
  const EndpointId first = Life(0)->id();
  Life(0)->account().Open();
  Update({});
  clock_.Advance(seconds(10));
  Update({Edited(Ep("a").info)});
  EXPECT_EQ(Life(0)->id(), first);
  EXPECT_EQ(Life(0)->account().requests(), 1);
}

TEST_F(EndpointStoreTest, ALongAbsenceEndsIt) {
  Update({Ep("a").info});
  const auto first = Life(0);
  first->account().Open();
  Update({});
  clock_.Advance(seconds(10) + std::chrono::nanoseconds(1));
  Update({Ep("a").info});
  EXPECT_NE(Life(0)->id(), first->id());
  EXPECT_EQ(Life(0)->account().requests(), 0);
}

TEST_F(EndpointStoreTest, AnAbsenceWithNothingOnItsWayEndsIt) {
  Update({Ep("a").info});
  const auto first = Life(0);
  Update({});
  Update({Ep("a").info});
  EXPECT_NE(Life(0)->id(), first->id());
}

TEST_F(EndpointStoreTest, AnotherNameAtTheAddressGoesOnWithTheLife) {
  Update({Ep("a").info});
  const EndpointId first = Life(0)->id();
  Life(0)->account().Open();
  Update({Renamed(Ep("a").info, "z")});
  EXPECT_EQ(Life(0)->id(), first);
  EXPECT_THAT(Events(), ::testing::ElementsAre("gone a 0"));
}

TEST_F(EndpointStoreTest, AYoungerProcessIsANewLife) {
  Update({Ep("a").info});
  const auto set = store_.Get()->set;
  store_.SetMetrics(set->infos[0], Started(1000));
  EXPECT_EQ(Life(0), set->lives[0]);
  store_.SetMetrics(set->infos[0], Started(1000.9));  // the same, computed anew
  store_.SetMetrics(set->infos[0], Started(500));     // another worker behind the port
  store_.SetMetrics(set->infos[0], Started(0));       // a page without it
  EXPECT_EQ(Life(0), set->lives[0]);
  store_.SetMetrics(set->infos[0], Started(1000));
  store_.SetMetrics(set->infos[0], Started(1002));
  EXPECT_NE(Life(0)->id(), set->lives[0]->id());
  EXPECT_EQ(Life(0)->slot(), 1u);
  EXPECT_EQ(store_.Members()->infos[0], set->infos[0]);
  EXPECT_THAT(Events(), ::testing::ElementsAre("gone a 0"));
}

TEST_F(EndpointStoreTest, AYoungerProcessAfterAShortAbsenceIsANewLife) {
  Update({Ep("a").info});
  store_.SetMetrics(store_.Members()->infos[0], Started(1000));
  const auto first = Life(0);
  first->account().Open();
  Update({});
  Update({Ep("a").info});
  EXPECT_EQ(Life(0), first);
  store_.SetMetrics(store_.Members()->infos[0], Started(2000));
  EXPECT_NE(Life(0)->id(), first->id());
  EXPECT_EQ(Life(0)->account().requests(), 0);
}

TEST_F(EndpointStoreTest, RestartsOfEnginesUseNoSlotsUp) {
  Update({Ep("a").info, Ep("b").info});
  const auto infos = store_.Members()->infos;
  for (int i = 1; i <= 1000; ++i) {
    for (const auto& info : infos) store_.SetMetrics(info, Started(1000.0 * i));
    EXPECT_LE(store_.Members()->max_slot, 3u) << i;
  }
}

TEST_F(EndpointStoreTest, ASlotOfAnEndedLifeIsFreeOnceItsRequestsHaveEnded) {
  Update({Ep("a").info});
  const auto info = store_.Members()->infos[0];
  store_.SetMetrics(info, Started(1000));
  auto life = Life(0);
  store_.SetMetrics(info, Started(2000));
  store_.SetMetrics(info, Started(2000));
  EXPECT_THAT(Events(), ::testing::ElementsAre("gone a 0"));
  life.reset();
  store_.SetMetrics(info, Started(2000));
  EXPECT_THAT(Events(), ::testing::ElementsAre("free 0"));
  store_.SetMetrics(info, Started(3000));
  EXPECT_EQ(Life(0)->slot(), 0u);
}

TEST_F(EndpointStoreTest, EachPageHasANumberWhateverItsTime) {
  Update({Ep("a").info, Ep("b").info});
  const auto infos = store_.Members()->infos;
  EXPECT_EQ(store_.Metrics(infos[0])->page, 0u);
  store_.SetMetrics(infos[0], Started(1000));
  const uint64_t first = store_.Metrics(infos[0])->page;
  EXPECT_GT(first, 0u);
  store_.SetMetrics(infos[0], Started(1000));
  const uint64_t second = store_.Metrics(infos[0])->page;
  EXPECT_GT(second, first);
  store_.SetMetrics(infos[0], Started(1000), false);  // a list of models
  EXPECT_EQ(store_.Metrics(infos[0])->page, second);
}

TEST_F(EndpointStoreTest, PagesAfterAShortAbsenceAreNewOnes) {
  Update({Ep("a").info});
  for (int i = 0; i < 5; ++i) store_.SetMetrics(store_.Members()->infos[0], Started(1000));
  const auto life = Life(0);
  life->account().Open();
  EXPECT_EQ(life->account().Unseen(store_.Get()->metrics[0]->page), 0);
  life->account().Open();
  Update({});
  Update({Ep("a").info});
  ASSERT_EQ(Life(0), life);
  EXPECT_EQ(life->account().Unseen(store_.Get()->metrics[0]->page), 1);
  store_.SetMetrics(store_.Members()->infos[0], Started(1000));
  EXPECT_EQ(life->account().Unseen(store_.Get()->metrics[0]->page), 0);
}

// By hash order it would be now the one, now the other.
TEST_F(EndpointStoreTest, OfTwoThatLeaveOneAddressTheFirstWithRequestsGoesOn) {
  for (int i = 0; i < 20; ++i) {
    for (const size_t idle : {0u, 1u, 2u}) {
      EndpointInfo a = Ep("e").info, b = a, c = a;
      a.name += std::to_string(3 * i);
      b.name += std::to_string(3 * i + 1);
      c.name += std::to_string(3 * i + 2);
      Update({a, b, c});
      for (size_t k = 0; k < 3; ++k) {
        if (k != idle) Life(k)->account().Open();
      }
      const auto lives = store_.Members()->lives;
      Update({});
      Update({Renamed(a, "z")});
      EXPECT_EQ(Life(0), lives[idle == 0 ? 1 : 0]) << i << " " << idle;
      Update({});
      clock_.Advance(seconds(11));
    }
  }
}

TEST_F(EndpointStoreTest, OneGivenTwiceIsOneMember) {
  Update({Ep("a").info, Ep("b").info, Edited(Ep("a").info)});
  const auto before = store_.Members();
  ASSERT_EQ(before->size(), 2u);
  EXPECT_EQ(before->infos[0]->labels.count("zone"), 0u);
  Update({Ep("a").info, Ep("a").info, Ep("b").info});
  EXPECT_EQ(store_.Members()->lives, before->lives);
  EXPECT_TRUE(Events().empty());
  EXPECT_EQ(before->max_slot, 2u);
}

TEST_F(EndpointStoreTest, WhatIsShownOfASetHoldsNoLife) {
  Update({Ep("a").info});
  std::weak_ptr<const EndpointLife> life = Life(0);
  const auto shown = store_.Members()->shown;
  Update({});
  EXPECT_TRUE(life.expired());
  EXPECT_EQ(shown->names[0], "default/a");
}

}  // namespace
}  // namespace llmd::sched
