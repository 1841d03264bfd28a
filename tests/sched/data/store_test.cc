#include "llmd/sched/data/store.h"

#include "sched/support.h"

namespace llmd::sched {
namespace {

TEST(EndpointStore, KeepsSlotsAndMetricsOfThoseThatStay) {
  EndpointStore store;
  std::vector<std::string> gone;
  store.OnGone([&](const EndpointInfo& e, uint32_t) { gone.push_back(e.name); });
  EXPECT_FALSE(store.synced());
  store.Update({Ep("a").info, Ep("b").info});
  const auto before = store.Get();
  EndpointMetrics m;
  m.waiting = 5;
  m.ever = true;
  store.SetMetrics(before->set->infos[1], m);
  store.Update({Ep("b").info, Ep("c").info});
  const auto after = store.Get();
  EXPECT_THAT(gone, ::testing::ElementsAre("a"));
  EXPECT_EQ(after->set->slots[0], before->set->slots[1]);
  EXPECT_EQ(after->waiting[0], 5);
  EXPECT_NE(after->set->slots[1],
            before->set->slots[0]);  // a's slot is free only after its state is dropped
  EXPECT_GT(after->epoch, before->epoch);
  EXPECT_EQ(before->waiting[1], 0);  // the old snapshot does not change
  store.SetMetrics(before->set->infos[0], m);
  EXPECT_EQ(store.Get(), after);
  store.Update({Ep("b").info, Ep("c").info, Ep("d").info});
  EXPECT_EQ(store.Get()->set->slots[2], before->set->slots[0]);
}

TEST(EndpointStore, ChangedLabelsMakeANewEndpoint) {
  EndpointStore store;
  store.Update({Ep("a").info});
  const auto first = store.Get()->set->infos[0];
  store.Update({Ep("a", 0, 0, 0, "decode").info});
  EXPECT_NE(store.Get()->set->infos[0], first);
  EXPECT_EQ(store.Get()->set->roles[0], kRoleDecode);
}

}  // namespace
}  // namespace llmd::sched
