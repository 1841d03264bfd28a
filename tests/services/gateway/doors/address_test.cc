#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "director/body_edits.h"
#include "gateway/doors/client_trust.h"
#include "gateway/doors/ip_address.h"
#include "support.h"

namespace llmd::doors {
namespace {

using ::testing::HasSubstr;

std::string Client(const ClientTrust& trust, std::string_view peer, const TestLines& lines) {
  return trust.ClientOf(Ip(peer), Span(lines)).ToString();
}

CidrSet Set(std::vector<std::string> items) {
  return CidrSet::Parse(items).value();
}

TEST(IpAddress, ReadsExactlyAddresses) {
  EXPECT_EQ(Ip("10.1.2.3").ToString(), "10.1.2.3");
  EXPECT_EQ(Ip("2001:DB8::1").ToString(), "2001:db8::1");
  for (const char* text : {"", " 1.2.3.4", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4",
                           "::1%eth0", "[::1]", "1.2.3.4:80", "localhost", ":::", "1.2.3.4 "})
    EXPECT_FALSE(IpAddress::Parse(text)) << text;
  EXPECT_FALSE(IpAddress::Parse(std::string_view("1.2.3.4\0", 8)));
}

TEST(IpAddress, IsTheSameWhenMapped) {
  EXPECT_EQ(Ip("::ffff:1.2.3.4"), Ip("1.2.3.4"));
  EXPECT_FALSE(Ip("::ffff:1.2.3.4").v6());
  EXPECT_NE(Ip("::1.2.3.4"), Ip("1.2.3.4"));
  EXPECT_FALSE(IpAddress::FromBytes({}).valid());
  EXPECT_EQ(IpAddress().ToString(), "unknown");
}

TEST(IpAddress, ReadsWhatProxiesWriteAround) {
  EXPECT_EQ(IpAddress::ParseNode("1.2.3.4:65535"), Ip("1.2.3.4"));
  EXPECT_EQ(IpAddress::ParseNode("[2001:db8::1]:443"), Ip("2001:db8::1"));
  EXPECT_EQ(IpAddress::ParseNode("[::1]"), Ip("::1"));
  EXPECT_EQ(IpAddress::ParseNode("::1"), Ip("::1"));
  for (const char* text : {"1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1", "[1.2.3.4]", "[::1", "[::1]x",
                           "[::1]:", "unknown", "_hidden", ""})
    EXPECT_FALSE(IpAddress::ParseNode(text)) << text;
}

TEST(IpAddress, CountsAnIpv6NetworkAsOneClient) {
  EXPECT_EQ(Ip("2001:db8:1:2:3::4").Client(), Ip("2001:db8:1:2::"));
  EXPECT_EQ(Ip("10.0.0.1").Client(), Ip("10.0.0.1"));
  EXPECT_NE(Ip("2001:db8:1:3::").Client(), Ip("2001:db8:1:2::").Client());
}

TEST(CidrSet, HoldsItsBlocks) {
  const CidrSet set = Set({"10.0.0.0/8, 192.168.1.4", "2001:db8::/33", "172.16.0.0/12"});
  for (const char* in :
       {"10.255.0.1", "192.168.1.4", "2001:db8:7fff::1", "172.31.255.255", "::ffff:10.0.0.1"})
    EXPECT_TRUE(set.Contains(Ip(in))) << in;
  for (const char* out : {"11.0.0.0", "192.168.1.5", "2001:db8:8000::1", "172.32.0.0", "::1"})
    EXPECT_FALSE(set.Contains(Ip(out))) << out;
  EXPECT_FALSE(set.Contains(IpAddress()));
  EXPECT_TRUE(Set({"0.0.0.0/0"}).Contains(Ip("9.9.9.9")));
  EXPECT_FALSE(Set({"0.0.0.0/0"}).Contains(Ip("::2")));
}

TEST(CidrSet, RefusesByName) {
  const auto error = [](std::string item) { return CidrSet::Parse({item}).status().message(); };
  EXPECT_THAT(error("10.0.0.1/8"), HasSubstr("'10.0.0.1/8'"));
  EXPECT_THAT(error("10.0.0.1/8"), HasSubstr("the block is 10.0.0.0/8"));
  EXPECT_THAT(error("10.0.0.0/33"), HasSubstr("0 to 32"));
  EXPECT_THAT(error("::/129"), HasSubstr("0 to 128"));
  for (const char* text : {"10.0.0.0/", "10.0.0.0/08", "10.0.0.0/+8", "10.0.0.0/-1", "10.0.0.0/8/9",
                           "example.com", "", "10.0.0.0/99999999999", "::ffff:1.2.3.0/120"})
    EXPECT_FALSE(CidrSet::Parse({text}).ok()) << text;
  EXPECT_FALSE(CidrSet::Parse({"10.0.0.0/8,"}).ok());
  EXPECT_FALSE(CidrSet::Parse(std::vector<std::string>(CidrSet::kMaxBlocks + 1, "::1")).ok());
}

TEST(ClientTrust, BelievesOnlyProxies) {
  const ClientTrust trust(CidrSet(), Set({"10.0.0.0/8"}), AddressHeader::kXForwardedFor);
  const TestLines lines = {{"X-Forwarded-For", "1.1.1.1, 2.2.2.2"}};
  EXPECT_EQ(Client(trust, "9.9.9.9", lines), "9.9.9.9");
  EXPECT_EQ(Client(trust, "10.0.0.1", lines), "2.2.2.2");
  EXPECT_EQ(Client(trust, "10.0.0.1", {}), "10.0.0.1");
}

TEST(ClientTrust, TakesTheLastAddressThatIsNoProxy) {
  const ClientTrust trust(CidrSet(), Set({"10.0.0.0/8"}), AddressHeader::kXForwardedFor);
  EXPECT_EQ(Client(trust, "10.0.0.1",
                   {{"x-forwarded-for", "6.6.6.6, 2.2.2.2"}, {"x-forwarded-for", "10.0.0.7:80"}}),
            "2.2.2.2");
  EXPECT_EQ(Client(trust, "10.0.0.1", {{"x-forwarded-for", "10.0.0.3, 10.0.0.2"}}), "10.0.0.3");
  // What cannot be read was written by the hop behind it.
  EXPECT_EQ(Client(trust, "10.0.0.1", {{"x-forwarded-for", "2.2.2.2, evil, 10.0.0.2"}}),
            "10.0.0.2");
  EXPECT_EQ(Client(trust, "10.0.0.1", {{"x-forwarded-for", "2.2.2.2,"}}), "10.0.0.1");
}

TEST(ClientTrust, LooksAtABoundedNumberOfHops) {
  const ClientTrust trust(CidrSet(), Set({"10.0.0.0/8"}), AddressHeader::kXForwardedFor);
  std::string value = "2.2.2.2";
  for (size_t i = 0; i < ClientTrust::kMaxHops; ++i) value += ",10.0.0.2";
  EXPECT_EQ(Client(trust, "10.0.0.1", {{"x-forwarded-for", value}}), "10.0.0.2");
  value = "2.2.2.2";
  for (size_t i = 1; i < ClientTrust::kMaxHops; ++i) value += ",10.0.0.2";
  EXPECT_EQ(Client(trust, "10.0.0.1", {{"x-forwarded-for", value}}), "2.2.2.2");
}

TEST(ClientTrust, ReadsForwarded) {
  const ClientTrust trust(CidrSet(), Set({"10.0.0.0/8", "2001:db8::/32"}),
                          AddressHeader::kForwarded);
  const auto client = [&](std::string_view value) {
    return Client(trust, "10.0.0.1", {{"Forwarded", value}, {"X-Forwarded-For", "7.7.7.7"}});
  };
  EXPECT_EQ(client("for=1.1.1.1;proto=https, For=\"[2001:db8::2]:4711\";by=10.0.0.1"), "1.1.1.1");
  EXPECT_EQ(client("proto=http; for=3.3.3.3"), "3.3.3.3");
  EXPECT_EQ(client("for=1.1.1.1, for=unknown"), "10.0.0.1");
  EXPECT_EQ(client("for=1.1.1.1, host=\"a,for=2.2.2.2\""), "10.0.0.1");
  EXPECT_EQ(client("for=1.1.1.1;host=\"a,b\\\",c\""), "1.1.1.1");
}

TEST(ClientTrust, KnowsWhichHeadersSteer) {
  EXPECT_EQ(SteeringHeaderOf("X-Prefiller-Host-Port"), SteeringHeader::kDestination);
  EXPECT_EQ(SteeringHeaderOf("x-gateway-destination-endpoint"), SteeringHeader::kDestination);
  EXPECT_EQ(SteeringHeaderOf("x-llm-d-inference-objective"), SteeringHeader::kPriority);
  EXPECT_EQ(SteeringHeaderOf("x-llm-d-pool"), SteeringHeader::kPriority);
  EXPECT_EQ(SteeringHeaderOf("x-request-id"), SteeringHeader::kNone);
  EXPECT_EQ(SteeringHeaderOf("x-llm-d-explain"), SteeringHeader::kNone);
  EXPECT_EQ(SteeringHeaderOf(""), SteeringHeader::kNone);
}

// What the scheduler takes out of a request is known here, too, and the other way round.
TEST(ClientTrust, AgreesWithTheScheduler) {
  size_t known = 0;
  for (const char* name : {"x-gateway-destination-endpoint",
                           "x-gateway-destination-endpoint-subset",
                           "x-gateway-destination-endpoint-scores",
                           "x-gateway-destination-endpoint-served",
                           "x-prefiller-host-port",
                           "x-prefiller-url",
                           "x-encoder-hosts-ports",
                           "x-kv-cache-source-host-port",
                           "x-data-parallel-host-port",
                           "x-llm-d-inference-fairness-id",
                           "x-gateway-inference-fairness-id",
                           "x-llm-d-inference-objective",
                           "x-gateway-inference-objective",
                           "x-llm-d-model-name-rewrite",
                           "x-gateway-model-name-rewrite",
                           "x-llm-d-slo-ttft-ms",
                           "x-slo-ttft-ms",
                           "x-llm-d-slo-tpot-ms",
                           "x-slo-tpot-ms",
                           "x-llm-d-inference-ttl",
                           "x-llm-d-pool",
                           "x-request-id",
                           "traceparent",
                           "authorization",
                           "x-session-id"}) {
    EXPECT_EQ(sched::IsControlHeader(name), SteeringHeaderOf(name) != SteeringHeader::kNone)
        << name;
    known += sched::IsControlHeader(name) ? 1 : 0;
  }
  EXPECT_EQ(known, 21u);
}

}  // namespace
}  // namespace llmd::doors
