// AnswerPipe over a call that only notes what is released.
#include "gateway/ext_proc_answer.h"

#include <gtest/gtest.h>

namespace llmd::gateway {
namespace {

using Change = PickerAnswer::Change;

// No relay behind it: only Release does anything.
class NotedCall final : public relay::Call {
 public:
  const http::RequestView& request() const override { return request_; }
  std::string_view body() const override { return {}; }
  bool has_body() const override { return false; }
  std::string_view peer() const override { return {}; }
  bool tls() const override { return false; }
  TimePoint received() const override { return {}; }
  TimePoint now() const override { return {}; }
  relay::Loop& loop() const override { std::abort(); }
  relay::CallRef ref() const override { return {}; }
  void Send(const relay::SendOptions&) override {}
  void Answer(int, std::span<const relay::HeaderEdit>, std::string_view) override {}
  void Forward(std::span<const relay::HeaderEdit>, relay::BodyMode) override {}
  void Abort() override {}
  void BreakOff(std::string_view) override {}
  void Release(std::string_view bytes, size_t covers, bool last) override {
    sent += bytes;
    covered += covers;
    ended |= last;
    ++releases;
  }
  void SetTimer(Duration) override {}
  void Retain() override {}
  void LetGo() override {}

  std::string sent;
  size_t covered = 0;
  int releases = 0;
  bool ended = false;

 private:
  http::RequestView request_;
};

class AnswerPipeTest : public testing::Test {
 protected:
  bool Say(Change change, std::string_view body = {}, bool end = false) {
    PickerAnswer answer;
    answer.kind = PickerAnswer::Kind::kResponseBody;
    answer.change = change;
    answer.body = body;
    answer.end_of_stream = end;
    return pipe.OnAnswer(answer);
  }
  AnswerPipe pipe;
  NotedCall call;
};

TEST_F(AnswerPipeTest, UnchangedPiecesPassInOrderAndInOneRelease) {
  EXPECT_FALSE(pipe.owes());
  pipe.Take("one ", false);
  pipe.Take("two", true);
  EXPECT_EQ(pipe.held_bytes(), 7U);
  EXPECT_TRUE(pipe.owes());
  EXPECT_TRUE(Say(Change::kNone) && Say(Change::kNone));
  pipe.Flush(call);
  EXPECT_EQ(call.sent, "one two");
  EXPECT_EQ(call.covered, 7U);
  EXPECT_EQ(call.releases, 1);
  EXPECT_TRUE(call.ended && pipe.ended());
  EXPECT_FALSE(pipe.owes());
}

TEST_F(AnswerPipeTest, AnAnswerToNothingIsAFault) {
  EXPECT_FALSE(Say(Change::kNone));
  EXPECT_FALSE(Say(Change::kReplaced, "x"));
}

TEST_F(AnswerPipeTest, ReplacedPiecesSettleWhatTheyReplace) {
  pipe.Take("short", false);
  EXPECT_TRUE(Say(Change::kReplaced, "much longer"));
  pipe.Flush(call);
  EXPECT_EQ(call.sent, "much longer");
  EXPECT_EQ(call.covered, 5U);
  EXPECT_FALSE(call.ended);
  EXPECT_FALSE(pipe.GoOnAlone(true));
}

TEST_F(AnswerPipeTest, StreamedPiecesOfOtherSizesAreRecognised) {
  pipe.Take("abcdef", false);
  pipe.Take("ghi", false);
  EXPECT_TRUE(Say(Change::kStreamed, "abcd"));
  EXPECT_EQ(pipe.held_bytes(), 5U);
  EXPECT_TRUE(Say(Change::kStreamed, "efgh"));
  pipe.Flush(call);
  EXPECT_EQ(call.sent, "abcdefgh");
  EXPECT_EQ(call.covered, 8U);
  // The rest is known although the picker has gone.
  EXPECT_TRUE(pipe.GoOnAlone(false));
  pipe.Flush(call);
  EXPECT_EQ(call.sent, "abcdefghi");
  EXPECT_EQ(call.covered, 9U);
}

TEST_F(AnswerPipeTest, StreamedChangesSettleAtLeastThePieceTheyBeginIn) {
  for (int i = 0; i < 1000; ++i) {
    pipe.Take("0123456789", false);
    EXPECT_TRUE(Say(Change::kStreamed, "012345678"));  // shorter for ever
    EXPECT_LE(pipe.held_bytes(), 10U);
  }
  pipe.Take("", true);
  EXPECT_TRUE(Say(Change::kStreamed, "x", true));
  pipe.Flush(call);
  EXPECT_EQ(call.covered, 10'000U);
  EXPECT_TRUE(call.ended);
}

TEST_F(AnswerPipeTest, TheEndComesWithTheAnswerToTheLastPiece) {
  pipe.Take("all", true);
  EXPECT_TRUE(Say(Change::kStreamed, "all"));
  pipe.Flush(call);
  EXPECT_FALSE(call.ended);
  EXPECT_TRUE(pipe.owes());
  EXPECT_TRUE(Say(Change::kStreamed, "", true));
  pipe.Flush(call);
  EXPECT_TRUE(call.ended);
  EXPECT_EQ(call.sent, "all");
}

TEST_F(AnswerPipeTest, BeforeAnyAnswerGoingOnIsAMatterOfTrust) {
  pipe.Take("x", false);
  EXPECT_FALSE(pipe.GoOnAlone(false));
  EXPECT_TRUE(pipe.GoOnAlone(true));
}

TEST_F(AnswerPipeTest, OneThatKeepsTheAnswerGivesItBackAtTheEnd) {
  pipe.Take(std::string(1000, 'a'), false);
  pipe.GiveUpCopies();
  pipe.Flush(call);
  EXPECT_EQ(call.covered, 1000U);
  EXPECT_EQ(call.sent, "");
  pipe.Take(std::string(500, 'b'), false);
  EXPECT_EQ(pipe.held_bytes(), 0U);
  EXPECT_FALSE(pipe.owes());
  pipe.Take("", true);
  EXPECT_TRUE(pipe.owes());
  EXPECT_FALSE(Say(Change::kNone));  // of what, nobody knows
  EXPECT_FALSE(pipe.GoOnAlone(true));
  EXPECT_TRUE(Say(Change::kStreamed, std::string(1000, 'a') + std::string(500, 'b'), true));
  pipe.Flush(call);
  EXPECT_EQ(call.sent.size(), 1500U);
  EXPECT_TRUE(call.ended);
}

TEST_F(AnswerPipeTest, GoneWithTheLastPieceUnansweredTheAnswerEndsAllTheSame) {
  pipe.Take("a", false);
  EXPECT_TRUE(Say(Change::kNone));
  pipe.Take("b", true);
  EXPECT_TRUE(pipe.GoOnAlone(false));
  pipe.Flush(call);
  EXPECT_EQ(call.sent, "ab");
  EXPECT_TRUE(call.ended);
}

}  // namespace
}  // namespace llmd::gateway
