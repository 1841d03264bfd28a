#include "gateway/doors/key_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <set>

#include "support.h"

namespace llmd::doors {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const std::string kHash(64, 'a');

std::string Error(std::string_view text) {
  return ParseKeyFile(text).status().message();
}

TEST(KeyFile, ReadsEveryField) {
  const auto keys = ParseKeyFile("keys:\n- id: k1\n  sha256: " + kHash +
                                 "\n  tenant: acme\n  models: ['llama-*', 'gpt?']\n  priority: -3\n"
                                 "  objective: batch\n  fairnessId: team-a\n"
                                 "  requestsPerMinute: 60\n  tokensPerMinute: 1000\n"
                                 "  trusted: true\n  disabled: true\n"
                                 "  expires: 2027-01-01T00:00:00Z\n");
  ASSERT_TRUE(keys.ok()) << keys.status().ToString();
  ASSERT_EQ(keys->size(), 1u);
  const KeyRecord& key = keys->front();
  EXPECT_EQ(key.id, "k1");
  EXPECT_EQ(ToHex(key.sha256), kHash);
  EXPECT_EQ(key.tenant, "acme");
  EXPECT_EQ(key.models, (std::vector<std::string>{"llama-*", "gpt?"}));
  EXPECT_EQ(key.priority, -3);
  EXPECT_EQ(key.objective, "batch");
  EXPECT_EQ(key.fairness_id, "team-a");
  EXPECT_EQ(key.requests_per_minute, 60);
  EXPECT_EQ(key.tokens_per_minute, 1000);
  EXPECT_TRUE(key.trusted);
  EXPECT_TRUE(key.disabled);
  EXPECT_EQ(key.expires_unix_s, 1'798'761'600);
}

TEST(KeyFile, TellsEveryErrorWithItsLineAndKey) {
  const std::string error =
      Error("keys:\n- id: k1\n  sha256: abc\n  tenant: acme\n- id: k2\n  sha256: " + kHash +
            "\n  tenant: 'a b'\n  requestsPerMinute: 0\n  expires: tomorrow\n  trust: true\n- 7\n");
  EXPECT_THAT(error, HasSubstr("line 3: keys[0].sha256: key 'k1': expected the SHA-256"));
  EXPECT_THAT(error, HasSubstr("line 7: keys[1].tenant: key 'k2'"));
  EXPECT_THAT(error, HasSubstr("line 8: keys[1].requestsPerMinute: key 'k2': expected an integer"));
  EXPECT_THAT(error, HasSubstr("line 9: keys[1].expires: key 'k2': expected a time"));
  EXPECT_THAT(error, HasSubstr("trust"));
  EXPECT_THAT(error, HasSubstr("trusted"));
  EXPECT_THAT(error, HasSubstr("line 11: keys[2]: expected a map"));
}

TEST(KeyFile, RefusesDoubles) {
  const std::string one = "- id: k\n  sha256: " + kHash + "\n  tenant: t\n";
  EXPECT_THAT(Error("keys:\n" + one + one), HasSubstr("another key has this id"));
  EXPECT_THAT(Error("keys:\n" + one + one), HasSubstr("another key has this secret"));
}

TEST(KeyFile, RefusesWhatSaysNothing) {
  EXPECT_THAT(Error(""), HasSubstr("expected a list of keys"));
  EXPECT_THAT(Error("keys:\n"), HasSubstr("expected a list of keys"));
  EXPECT_THAT(Error("key: []\n"), HasSubstr("expected a list of keys"));
  EXPECT_THAT(Error("keys: []\nmore: 1\n"), HasSubstr("more"));
  EXPECT_TRUE(ParseKeyFile("keys: []").ok());
  EXPECT_THAT(Error("keys:\n- {id: k, sha256: '" + std::string(64, '0') + "', tenant: t}\n"),
              HasSubstr("sha256"));
  EXPECT_THAT(Error("keys:\n- {id: k, sha256: '" + kHash + "', tenant: t, models: []}\n"),
              HasSubstr("expected 1 to 256 patterns"));
}

TEST(KeyFile, IsBounded) {
  std::string errors = "keys:\n";
  for (int i = 0; i < 200; ++i) errors += "- 7\n";
  EXPECT_THAT(Error(errors), HasSubstr("and 150 more errors"));
  std::string many = "keys:\n";
  for (size_t i = 0; i <= kMaxKeys; ++i) many += "- 7\n";
  EXPECT_THAT(Error(many), HasSubstr("more than 20000 keys"));
  EXPECT_FALSE(ParseKeyFile("keys: []\n#" + std::string(kMaxKeyFileBytes, 'x')).ok());
  EXPECT_FALSE(CheckKeyName("tenant", std::string(kMaxKeyName + 1, 'a')).ok());
  EXPECT_FALSE(CheckKeyName("tenant", "a\nb").ok());
  EXPECT_TRUE(CheckKeyName("tenant", "Team/a.b:c@d_e-1").ok());
}

TEST(KeyFile, SurvivesWritingAndReading) {
  KeyRecord key;
  key.id = "k1";
  key.sha256 = HashSecret("s");
  key.tenant = "acme";
  key.models = {"a*", "quo\"te"};
  key.priority = 7;
  key.objective = "chat";
  key.fairness_id = "f";
  key.requests_per_minute = 1;
  key.tokens_per_minute = 2;
  key.trusted = key.disabled = true;
  key.expires_unix_s = 1'798'761'600;
  KeyRecord plain;
  plain.id = "k2";
  plain.sha256 = HashSecret("t");
  plain.tenant = "acme";
  const auto again = ParseKeyFile(FormatKeyFile({key, plain}));
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  ASSERT_EQ(again->size(), 2u);
  EXPECT_EQ(FormatKeyFile(*again), FormatKeyFile({key, plain}));
  EXPECT_EQ(again->front().models, key.models);
  EXPECT_EQ(again->front().expires_unix_s, key.expires_unix_s);
  EXPECT_TRUE(ParseKeyFile(FormatKeyFile({})).ok());
}

TEST(KeyFile, IsReplacedAtOnceForItsOwnerAlone) {
  const TempFolder folder;
  const std::string real = folder.Write("real.yaml", "keys: []\n");
  std::filesystem::create_symlink(real, folder.Path("link.yaml"));
  ASSERT_TRUE(WriteKeyFile(folder.Path("link.yaml"), {}).ok());
  EXPECT_TRUE(std::filesystem::is_symlink(folder.Path("link.yaml")));
  struct stat info{};
  ASSERT_EQ(stat(real.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.Path(""))) {
    ++files;
    EXPECT_THAT(entry.path().string(), Not(HasSubstr(".new")));
  }
  EXPECT_EQ(files, 2u);
  EXPECT_FALSE(WriteKeyFile(folder.Path("missing/keys.yaml"), {}).ok());
}

TEST(KeyFile, MakesSecretsThatDiffer) {
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) {
    const auto secret = NewSecret();
    ASSERT_TRUE(secret.ok());
    EXPECT_EQ(secret->size(), 8u + 43u);
    EXPECT_TRUE(secret->starts_with("sk-llmd-"));
    EXPECT_EQ(secret->find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                        "0123456789-_"),
              std::string::npos);
    seen.insert(*secret);
  }
  EXPECT_EQ(seen.size(), 100u);
}

TEST(KeyFile, HashesAsEverybodyDoes) {
  EXPECT_EQ(ToHex(HashSecret("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(ToHex(HashSecret("")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(KeyFile, ReadsTimes) {
  EXPECT_EQ(ParseRfc3339("1970-01-01T00:00:01Z"), 1);
  EXPECT_EQ(ParseRfc3339("2027-01-01T02:00:00+02:00"), 1'798'761'600);
  EXPECT_EQ(ParseRfc3339("2026-12-31T18:30:00-05:30"), 1'798'761'600);
  EXPECT_EQ(ParseRfc3339("2028-02-29T00:00:00Z").has_value(), true);
  for (const char* text :
       {"", "2027-01-01", "2027-01-01T00:00:00", "2027-01-01 00:00:00Z", "2027-02-29T00:00:00Z",
        "2027-13-01T00:00:00Z", "2027-01-01T24:00:00Z", "2027-01-01T00:60:00Z",
        "2027-01-01T00:00:00.5Z", "2027-01-01T00:00:00+24:00", "1969-12-31T23:59:59Z",
        "9999-01-01T00:00:00Z", "2027-01-01T00:00:00Zx"})
    EXPECT_FALSE(ParseRfc3339(text)) << text;
}

TEST(KeyFile, MatchesModelsByPattern) {
  KeyRecord key;
  EXPECT_TRUE(key.MayUse("anything"));
  key.models = {"llama-*", "gpt-?"};
  EXPECT_TRUE(key.MayUse("llama-3"));
  EXPECT_TRUE(key.MayUse("gpt-4"));
  EXPECT_FALSE(key.MayUse("gpt-40"));
  EXPECT_FALSE(key.MayUse("xllama-3"));
  EXPECT_FALSE(key.MayUse(""));
}

}  // namespace
}  // namespace llmd::doors
