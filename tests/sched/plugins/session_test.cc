#include "plugins/session.h"

#include "sched/support.h"

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

}  // namespace
}  // namespace llmd::sched
