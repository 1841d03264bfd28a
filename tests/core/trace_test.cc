#include "llmd/trace.h"

#include <gtest/gtest.h>

namespace llmd {
namespace {

constexpr char kHeader[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(Traceparent, RoundTrips) {
  const auto context = ParseTraceparent(kHeader);
  ASSERT_TRUE(context.has_value());
  EXPECT_TRUE(context->sampled);
  EXPECT_EQ(context->TraceIdHex(), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(context->SpanIdHex(), "00f067aa0ba902b7");
  EXPECT_EQ(context->ToTraceparent(), kHeader);
}

TEST(Traceparent, ReadsOnlyTheSampledFlag) {
  const auto with_flags = [](const char* flags) {
    return ParseTraceparent(std::string(kHeader).substr(0, 53) + flags)->sampled;
  };
  EXPECT_FALSE(with_flags("00"));
  EXPECT_FALSE(with_flags("fe"));
  EXPECT_TRUE(with_flags("ff"));
}

TEST(Traceparent, ReadsLaterVersionsByTheirFirstFields) {
  EXPECT_TRUE(
      ParseTraceparent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").has_value());
  EXPECT_TRUE(
      ParseTraceparent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").has_value());
  EXPECT_FALSE(
      ParseTraceparent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more").has_value());
}

TEST(Traceparent, RefusesWhatTheSpecificationRefuses) {
  for (const char* header : {"", "00", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                             "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                             "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                             "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                             "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
                             "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
                             "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
                             "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                             "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}) {
    EXPECT_FALSE(ParseTraceparent(header).has_value()) << header;
  }
}

TEST(TraceContext, AChildKeepsTheTraceAndTakesANewSpan) {
  const TraceContext parent = *ParseTraceparent(kHeader);
  const TraceContext child = parent.Child();
  EXPECT_EQ(child.TraceIdHex(), parent.TraceIdHex());
  EXPECT_TRUE(child.sampled);
  EXPECT_NE(child.span_id, parent.span_id);
  EXPECT_FALSE(TraceContext::NewRoot(false).sampled);
  EXPECT_EQ(ParseTraceparent(child.ToTraceparent()), child);
  EXPECT_TRUE(ParseTraceparent(TraceContext::NewRoot(true).ToTraceparent()).has_value());
}

}  // namespace
}  // namespace llmd
