#include "plugins/data/host_resolver.h"

#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class HostResolverTest : public ::testing::Test {
 protected:
  HostResolver Make(bool all) {
    return HostResolver(
        [this](const std::string& host) -> StatusOr<std::vector<std::string>> {
          ++lookups_;
          const auto it = table_.find(host);
          if (it == table_.end()) return Unavailable("host '" + host + "' cannot be resolved");
          return it->second;
        },
        all);
  }
  static EndpointInfo At(const std::string& name, const std::string& address) {
    EndpointInfo e;
    e.name = name;
    e.address = address;
    e.port = 8000;
    return e;
  }
  // "name@address" of each.
  std::vector<std::string> Resolve(HostResolver& resolver, const std::vector<EndpointInfo>& in) {
    problems_.clear();
    std::vector<std::string> out;
    for (const EndpointInfo& e : resolver.Resolve(in, &problems_))
      out.push_back(e.name + "@" + e.address);
    return out;
  }
  std::map<std::string, std::vector<std::string>> table_;
  std::vector<std::string> problems_;
  int lookups_ = 0;
};

TEST_F(HostResolverTest, LiteralsPassWithoutALookup) {
  HostResolver r = Make(false);
  EXPECT_THAT(Resolve(r, {At("a", "10.0.0.1"), At("b", "fd00::1")}),
              ElementsAre("a@10.0.0.1", "b@fd00::1"));
  EXPECT_EQ(lookups_, 0);
}

TEST_F(HostResolverTest, OneHostIsLookedUpOnceForAllItsEndpoints) {
  table_["h"] = {"10.0.0.1"};
  HostResolver r = Make(false);
  EXPECT_THAT(Resolve(r, {At("a", "h"), At("b", "h")}), ElementsAre("a@10.0.0.1", "b@10.0.0.1"));
  EXPECT_EQ(lookups_, 1);
}

TEST_F(HostResolverTest, TheFirstAddressIsTheLowestAndThenStays) {
  table_["h"] = {"fd00::1", "10.0.0.10", "10.0.0.9"};
  HostResolver r = Make(false);
  EXPECT_THAT(Resolve(r, {At("a", "h")}), ElementsAre("a@10.0.0.9"));
  table_["h"] = {"10.0.0.2", "10.0.0.9"};
  EXPECT_THAT(Resolve(r, {At("a", "h")}), ElementsAre("a@10.0.0.9"));
  table_["h"] = {"10.0.0.2", "10.0.0.3"};
  EXPECT_THAT(Resolve(r, {At("a", "h")}), ElementsAre("a@10.0.0.2"));
  table_["h"] = {"fd00::2", "fd00::1"};
  EXPECT_THAT(Resolve(r, {At("a", "h")}), ElementsAre("a@fd00::1"));
}

TEST_F(HostResolverTest, AllAddressesMakeOneEndpointEach) {
  table_["h"] = {"10.0.0.10", "10.0.0.9", "10.0.0.9", "fd00::1"};
  HostResolver r = Make(true);
  EXPECT_THAT(Resolve(r, {At("a", "h"), At("b", "10.9.9.9")}),
              ElementsAre("a-10.0.0.9@10.0.0.9", "a-10.0.0.10@10.0.0.10", "b@10.9.9.9"));
  table_["h"] = {"10.0.0.10"};  // the one that stays keeps its name
  EXPECT_THAT(Resolve(r, {At("a", "h")}), ElementsAre("a-10.0.0.10@10.0.0.10"));
}

TEST_F(HostResolverTest, AFailedLookupKeepsWhatWasKnown) {
  table_["h"] = {"10.0.0.1"};
  HostResolver r = Make(false);
  Resolve(r, {At("a", "h")});
  table_.clear();
  EXPECT_THAT(Resolve(r, {At("a", "h")}), ElementsAre("a@10.0.0.1"));
  EXPECT_THAT(problems_, ElementsAre(HasSubstr("keeping 10.0.0.1")));
  Resolve(r, {});  // the host left the file: forgotten
  EXPECT_THAT(Resolve(r, {At("a", "h")}), IsEmpty());
  EXPECT_THAT(problems_, ElementsAre("host 'h' cannot be resolved"));
}

TEST_F(HostResolverTest, NamesThatMeetAreLeftOutAndTold) {
  table_["h"] = {"10.0.0.1"};
  HostResolver r = Make(true);
  EXPECT_THAT(Resolve(r, {At("a-10.0.0.1", "10.9.9.9"), At("a", "h")}),
              ElementsAre("a-10.0.0.1@10.9.9.9"));
  EXPECT_THAT(problems_, ElementsAre(HasSubstr("'default/a-10.0.0.1' appears twice")));
}

TEST(LookupHost, FindsThisMachineAndNamesWhatItCannot) {
  const auto found = LookupHost("localhost");
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_THAT(*found, ::testing::Contains("127.0.0.1"));
  EXPECT_THAT(LookupHost("no-such-host.invalid").status().message(),
              HasSubstr("no-such-host.invalid"));
}

}  // namespace
}  // namespace llmd::sched
