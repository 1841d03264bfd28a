#include "plugins/session.h"

#include "sched/director_support.h"

namespace llmd::sched {
namespace {

std::string Cookie(const std::string& header, const std::string& name) {
  const HeaderList headers = {{"cookie", header}};
  RequestContext request;
  request.headers = &headers;
  return std::string(SessionSource{"", name}.Read(request));
}

bool Loads(const std::string& plugin) {
  return Scheduler::FromYaml(Config({plugin})).ok();
}

TEST(SessionSource, ReadsTheNamedCookie) {
  EXPECT_EQ(Cookie("a=1; sid=xyz; b=2", "sid"), "xyz");
  EXPECT_EQ(Cookie("sid=xyz", "sid"), "xyz");
  EXPECT_EQ(Cookie("sid=a=b", "sid"), "a=b");
  EXPECT_EQ(Cookie("mysid=no", "sid"), "");
  EXPECT_EQ(Cookie("sidecar=no", "sid"), "");
  EXPECT_EQ(Cookie("sid", "sid"), "");
  EXPECT_EQ(Cookie("", "sid"), "");
}

TEST(SessionSource, ReadsTheNamedHeader) {
  const HeaderList headers = {{"x-session-id", "s"}};
  RequestContext request;
  request.headers = &headers;
  EXPECT_EQ((SessionSource{"x-session-id", ""}.Read(request)), "s");
  EXPECT_EQ((SessionSource{"other", ""}.Read(request)), "");
}

TEST(Base64, MatchesTheVectorsOfRfc4648) {
  const std::pair<const char*, const char*> cases[] = {{"", ""},
                                                       {"f", "Zg=="},
                                                       {"fo", "Zm8="},
                                                       {"foo", "Zm9v"},
                                                       {"foob", "Zm9vYg=="},
                                                       {"fooba", "Zm9vYmE="},
                                                       {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, coded] : cases) EXPECT_EQ(Base64(plain), coded);
  EXPECT_EQ(Base64("\xff\xfe"), "//4=");
}

TEST(Base64, IsReadBackByItsOneSpelling) {
  std::string bytes, read;
  for (int i = 0; i < 600; ++i) {
    ASSERT_TRUE(FromBase64(Base64(bytes), read)) << i;
    EXPECT_EQ(read, bytes);
    bytes += static_cast<char>(i * 7);
  }
  for (const char* bad :
       {"Zg=", "Zg", "Zh==", "Zm9=", "Z===", "====", "=", "Zm9v!mFy", "Zg==Zg==", "Zm9v\n", "Zm-v"})
    EXPECT_FALSE(FromBase64(bad, read)) << bad;
}

TEST(Lower, ChangesAsciiLettersOnly) {
  EXPECT_EQ(Lower("X-Session-ID_9"), "x-session-id_9");
  EXPECT_EQ(Lower("\xc3\x89"), "\xc3\x89");
}

TEST(SessionIdProducer, TakesAHeaderOrACookieNotBoth) {
  EXPECT_TRUE(Loads("{type: session-id-producer, parameters: {cookieName: sid}}"));
  EXPECT_TRUE(Loads("{type: session-id-producer}"));
  EXPECT_FALSE(Loads("{type: session-id-producer, parameters: {cookieName: sid, headerName: h}}"));
}

constexpr char kBody[] = R"({"model":"m","prompt":"hello"})";

// Decisions with a fallback, and answers by it.
class SessionAnswers : public DirectorFixture {
 protected:
  void Begin(const std::string& strategy) {
    Start(Two(),
          {"{type: session-affinity-scorer, parameters: {strategy: " + strategy + "}}",
           "{type: active-request-scorer}",
           "{type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}"},
          "schedulingProfiles: [{name: p, plugins: [{pluginRef: session-affinity-scorer, weight: "
          "10}, {pluginRef: active-request-scorer}, {pluginRef: max-score-picker}]}]\n");
  }
  static std::string TokenOf(const std::string& address) {
    return Base64(address == "127.0.0.1:8001" ? "default/a" : "default/b");
  }
  HeaderList Answer(const Routing& r, const std::string& served, int status) {
    if (!served.empty()) director_->OnServed(r.state, served);
    const HeaderList set = director_->OnResponseHeaders(r.state, status, {});
    director_->Cancel(r.state);
    return set;
  }
  // Where the session is sent now.
  std::string Goes() {
    const Routing r = Route(kBody, {{"x-session-id", "s"}});
    director_->Cancel(r.state);
    return r.endpoints.at(0);
  }
};

TEST_F(SessionAnswers, TheTokenNamesWhoAnswered) {
  Begin("encoded_endpoint_header");
  Routing r = Route(kBody);
  ASSERT_EQ(r.endpoints.size(), 2u);
  EXPECT_EQ(FindHeader(Answer(r, "", 200), "x-session-token"), TokenOf(r.endpoints[0]));
  for (const size_t by : {0, 1}) {
    r = Route(kBody);
    EXPECT_EQ(FindHeader(Answer(r, r.endpoints[by], 200), "x-session-token"),
              TokenOf(r.endpoints[by]));
  }
  r = Route(kBody);
  EXPECT_EQ(FindHeader(Answer(r, "10.9.9.9:1", 200), "x-session-token"), TokenOf(r.endpoints[0]));
}

TEST_F(SessionAnswers, AServersErrorBindsNobody) {
  Begin("encoded_endpoint_header");
  for (const int status : {500, 503})
    EXPECT_EQ(FindHeader(Answer(Route(kBody), "", status), "x-session-token"), "");
  EXPECT_NE(FindHeader(Answer(Route(kBody), "", 404), "x-session-token"), "");
}

TEST_F(SessionAnswers, ASessionFollowsTheFallbackThatAnswered) {
  Begin("session_id");
  const Routing r = Route(kBody, {{"x-session-id", "s"}});
  Answer(r, r.endpoints[1], 502);
  EXPECT_EQ(Goes(), r.endpoints[0]);
  const Routing again = Route(kBody, {{"x-session-id", "s"}});
  Answer(again, again.endpoints[1], 200);
  EXPECT_EQ(Goes(), r.endpoints[1]);
}

TEST_F(SessionAnswers, ASessionFollowsTheRetryThatAnswered) {
  Begin("session_id");
  const Routing first = Route(kBody, {{"x-session-id", "s"}});
  director_->Cancel(first.state);
  const Routing retry = Route(kBody, {{"x-session-id", "s"}}, {first.endpoints[1]}, true);
  ASSERT_EQ(retry.endpoints.at(0), first.endpoints[1]);
  EXPECT_EQ(Goes(), first.endpoints[0]) << "it has not answered yet";
  Answer(retry, "", 200);
  EXPECT_EQ(Goes(), first.endpoints[1]);
}

TEST_F(SessionAnswers, ARequestIsInFlightWhereItIsAnswered) {
  Begin("session_id");
  const Routing r = Route(kBody);
  director_->OnServed(r.state, r.endpoints[1]);
  const auto in_flight = [&](const std::string& address) {
    const std::string name = address == "127.0.0.1:8001" ? "default/a" : "default/b";
    return director_->PluginState()["inflight-load-producer"]["state"][name]["requests"].AsDouble();
  };
  EXPECT_EQ(in_flight(r.endpoints[0]), 0);
  EXPECT_EQ(in_flight(r.endpoints[1]), 1);
  director_->Cancel(r.state);
  EXPECT_EQ(in_flight(r.endpoints[1]), 0);
}

}  // namespace
}  // namespace llmd::sched
