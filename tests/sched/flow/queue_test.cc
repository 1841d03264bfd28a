#include "flow/queue.h"

#include <gtest/gtest.h>

namespace llmd::sched {
namespace {

TEST(FlowItems, ATicketOfAnEarlierUseFindsNothing) {
  FlowItems items;
  FlowItem& item = items.Take();
  item.state = FlowItem::State::kQueued;
  const uint64_t ticket = item.ticket();
  EXPECT_EQ(items.Find(ticket, FlowItem::State::kQueued), &item);
  items.Free(item);
  items.Take().state = FlowItem::State::kQueued;
  EXPECT_EQ(items.Find(ticket, FlowItem::State::kQueued), nullptr);
}

TEST(FlowItems, NoTicketIsZeroHoweverOftenASlotIsUsed) {
  FlowItems items;
  FlowItem* item = &items.Take();
  item->generation = UINT32_MAX;
  items.Free(*item);
  item = &items.Take();
  EXPECT_NE(item->ticket(), 0u);
  item->state = FlowItem::State::kQueued;
  EXPECT_EQ(items.Find(item->ticket(), FlowItem::State::kQueued), item);
}

}  // namespace
}  // namespace llmd::sched
