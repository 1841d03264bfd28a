// The ledger: accounts of lives, charges of requests, columns of plugins.
#include "llmd/sched/ledger.h"

#include <ctime>
#include <limits>
#include <thread>

#include "llmd/sched/charges.h"
#include "llmd/sched/profile_handler.h"
#include "llmd/sched/request_context.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using Until = RequestCharges::Until;

std::shared_ptr<const EndpointLife> NewLife() {
  return std::make_shared<const EndpointLife>(0);
}

TEST(InFlightAccount, UnseenRequestsAreForgottenWithANewPageOnly) {
  InFlightAccount account;
  const uint64_t mark = account.Open();
  account.Open();
  EXPECT_EQ(account.Unseen(0), 2);  // no page was read
  account.Answered(mark);
  EXPECT_EQ(account.Unseen(0), 1);
  EXPECT_EQ(account.Unseen(2), 0);
  account.Open();
  EXPECT_EQ(account.Unseen(1), 1);  // an older snapshot
  account.Answered(mark);
  EXPECT_EQ(account.Unseen(2), 1);
  EXPECT_EQ(account.requests(), 3);
}

TEST(InFlightAccount, TheTightestPromiseIsThatOfTheRunning) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  InFlightAccount account;
  EXPECT_EQ(account.tightest_tpot_ms(), kNone);
  for (double slo : {50.0, 20.0, 20.0, 80.0}) account.Promise(slo);
  EXPECT_EQ(account.tightest_tpot_ms(), 20);
  account.Release(20);
  EXPECT_EQ(account.tightest_tpot_ms(), 20);
  account.Release(20);
  account.Release(999);  // never promised
  EXPECT_EQ(account.tightest_tpot_ms(), 50);
  account.Release(50);
  account.Release(80);
  EXPECT_EQ(account.tightest_tpot_ms(), kNone);
}

TEST(InFlightAccount, APromiseCostsNoMoreAmongManyOthers) {
  InFlightAccount account;
  constexpr int kMany = 40'000;
  const std::clock_t start = std::clock();
  for (int i = kMany; i > 0; --i) account.Promise(i);
  EXPECT_EQ(account.tightest_tpot_ms(), 1);
  for (int i = 1; i < kMany; ++i) account.Release(i);
  EXPECT_EQ(account.tightest_tpot_ms(), kMany);
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 1);
}

TEST(RequestCharges, APrefillEndsWithTheFirstChunkTheRestWithTheRequest) {
  const auto ledger = std::make_shared<InFlightLedger>();
  const auto column = ledger->Column("c");
  const auto decode = NewLife(), prefill = NewLife();
  RequestCharges charges;
  charges.Open(decode, Stage::kAnswer, 30);
  charges.Open(prefill, Stage::kPrefill);
  charges.Book(column, charges.Find(Stage::kAnswer), 100.5, Until::kEnd, 7);
  charges.Book(column, charges.Find(Stage::kPrefill), 40, Until::kFirstChunk);
  EXPECT_EQ(decode->account().requests(), 1);
  EXPECT_EQ(decode->account().Tokens(*column), 100.5);
  EXPECT_EQ(decode->account().tightest_tpot_ms(), 30);
  EXPECT_EQ(prefill->account().Tokens(*column), 40);
  for (int twice = 0; twice < 2; ++twice) {
    charges.FirstChunk();
    EXPECT_EQ(prefill->account().requests(), 0);
    EXPECT_EQ(prefill->account().Tokens(*column), 0);
    EXPECT_EQ(decode->account().requests(), 1);
    EXPECT_EQ(decode->account().Tokens(*column), 100.5);
    EXPECT_EQ(decode->account().Unseen(0), 0);
  }
  charges.Book(column, charges.Find(Stage::kPrefill), 5, Until::kEnd);  // it is over
  EXPECT_EQ(prefill->account().Tokens(*column), 0);
  for (int twice = 0; twice < 2; ++twice) {
    charges.End();
    EXPECT_EQ(decode->account().requests(), 0);
    EXPECT_EQ(decode->account().Tokens(*column), 0);
    EXPECT_EQ(decode->account().tightest_tpot_ms(), std::numeric_limits<double>::infinity());
  }
}

TEST(RequestCharges, WhatIsOpenEndsWithItsOwner) {
  const auto life = NewLife();
  {
    RequestCharges charges;
    charges.Open(life, Stage::kAnswer);
    EXPECT_EQ(life->account().requests(), 1);
  }
  EXPECT_EQ(life->account().requests(), 0);
  EXPECT_EQ(life->account().Unseen(0), 0);
  EXPECT_EQ(life.use_count(), 1);
}

TEST(RequestCharges, AMovedAnswerLeavesNothingWhereItWasSent) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  const auto ledger = std::make_shared<InFlightLedger>();
  const auto column = ledger->Column("c");
  for (const bool answering : {false, true}) {
    const auto sent = NewLife(), prefill = NewLife(), fallback = NewLife();
    RequestCharges charges;
    charges.Open(sent, Stage::kAnswer, 30);
    charges.Open(prefill, Stage::kPrefill);
    charges.Book(column, charges.Find(Stage::kAnswer), 100.5, Until::kEnd);
    charges.Book(column, charges.Find(Stage::kPrefill), 40, Until::kEnd);
    if (answering) charges.FirstChunk();
    charges.Move(fallback);
    EXPECT_EQ(sent->account().requests(), 0);
    EXPECT_EQ(sent->account().Tokens(*column), 0);
    EXPECT_EQ(sent->account().Unseen({}), 0);
    EXPECT_EQ(sent->account().tightest_tpot_ms(), kNone);
    EXPECT_EQ(prefill->account().requests(), answering ? 0 : 1);
    EXPECT_EQ(fallback->account().requests(), 1);
    EXPECT_EQ(fallback->account().Tokens(*column), 100.5);
    EXPECT_EQ(fallback->account().Unseen({}), answering ? 0 : 1);
    EXPECT_EQ(fallback->account().tightest_tpot_ms(), 30);
    charges.End();
    charges.Move(sent);  // it is over
    EXPECT_EQ(sent->account().requests(), 0);
    EXPECT_EQ(fallback->account().requests(), 0);
    EXPECT_EQ(fallback->account().Tokens(*column), 0);
    EXPECT_EQ(fallback->account().tightest_tpot_ms(), kNone);
  }
}

TEST(OpenCharges, EachStageIsChargedAndAllButTheLastEndWithTheFirstChunk) {
  Snapshot snapshot;
  auto set = std::make_shared<EndpointSet>();
  for (const char* name : {"decode", "prefill", "encode", "fallback"})
    set->Add(std::make_shared<const EndpointInfo>(Ep(name).info), NewLife());
  snapshot.set = set;
  ScheduleOutcome outcome;
  outcome.primary = {0, 3};
  outcome.prefill = {1};
  outcome.encode = {2, 3};
  RequestContext request;
  OpenCharges(request, snapshot, outcome);
  const auto counts = [&] {
    std::vector<double> out;
    for (const auto& life : set->lives) out.push_back(life->account().requests());
    return out;
  };
  EXPECT_EQ(counts(), (std::vector<double>{1, 1, 1, 0}));
  request.charges.FirstChunk();
  EXPECT_EQ(counts(), (std::vector<double>{1, 0, 0, 0}));
  request.charges.End();
  EXPECT_EQ(counts(), (std::vector<double>{0, 0, 0, 0}));
}

TEST(RequestCharges, NothingIsLeftOfManyThreads) {
  const auto ledger = std::make_shared<InFlightLedger>();
  const auto column = ledger->Column("c");
  const std::vector<std::shared_ptr<const EndpointLife>> lives = {NewLife(), NewLife(), NewLife()};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        RequestCharges charges;
        charges.Open(lives[static_cast<size_t>(t + i) % 3], Stage::kAnswer, i);
        charges.Open(lives[static_cast<size_t>(t + i + 1) % 3], Stage::kPrefill);
        charges.Book(column, 0, 0.1 * i, Until::kEnd);
        charges.Book(column, 1, 300, Until::kFirstChunk);
        if (i % 3 == 0) charges.Move(lives[static_cast<size_t>(t + i + 2) % 3]);
        if (i % 2 == 0) charges.FirstChunk();
        if (i % 5 == 0) charges.Move(lives[static_cast<size_t>(t + i + 1) % 3]);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  for (const auto& life : lives) {
    EXPECT_EQ(life->account().requests(), 0);
    EXPECT_EQ(life->account().Tokens(*column), 0);
    EXPECT_EQ(life->account().Unseen(0), 0);
    EXPECT_EQ(life->account().tightest_tpot_ms(), std::numeric_limits<double>::infinity());
  }
}

TEST(InFlightLedger, AColumnIsFoundByItsNameWhileSomebodyHoldsIt) {
  const auto ledger = std::make_shared<InFlightLedger>();
  auto a = ledger->Column("a");
  EXPECT_EQ(ledger->Column("a"), a);
  EXPECT_NE(ledger->Column("b")->number(), a->number());
  const size_t number = a->number();
  a.reset();
  EXPECT_EQ(ledger->Column("c")->number(), number);
}

TEST(InFlightLedger, HasSoManyColumnsAndNoMore) {
  const auto ledger = std::make_shared<InFlightLedger>();
  std::vector<std::shared_ptr<const LedgerColumn>> columns;
  for (size_t i = 0; i < kLedgerColumns; ++i) {
    columns.push_back(ledger->Column(std::to_string(i)));
    ASSERT_NE(columns.back(), nullptr);
  }
  EXPECT_EQ(ledger->Column("one more"), nullptr);
  columns.pop_back();
  EXPECT_NE(ledger->Column("one more"), nullptr);
}

TEST(InFlightLedger, ASuccessorTakesOverColumnAndName) {
  const auto ledger = std::make_shared<InFlightLedger>();
  const auto old = ledger->Column("old");
  auto own = ledger->Column("new");
  ledger->Succeed(own, old);
  EXPECT_EQ(own, old);
  EXPECT_EQ(ledger->Column("new"), old);
  EXPECT_NE(ledger->Column("old"), old);
}

}  // namespace
}  // namespace llmd::sched
