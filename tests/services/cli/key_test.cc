#include "cli/key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "gateway/doors/key_file.h"
#include "llmd/uuid.h"

namespace llmd::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class KeyTest : public ::testing::Test {
 protected:
  KeyTest() { std::filesystem::create_directories(folder_); }
  ~KeyTest() override {
    std::error_code error;
    std::filesystem::remove_all(folder_, error);
  }
  // llmd key COMMAND --file FILE words…
  int Run(std::string command, std::vector<std::string> words = {}) {
    words.insert(words.begin(), {"key", std::move(command), "--file", path()});
    std::vector<const char*> argv;
    for (const std::string& word : words) argv.push_back(word.c_str());
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int code = RunKey(static_cast<int>(argv.size()), argv.data());
    out_ = ::testing::internal::GetCapturedStdout();
    err_ = ::testing::internal::GetCapturedStderr();
    return code;
  }
  std::string path() const { return (folder_ / "keys.yaml").string(); }
  std::string Text() const {
    std::ifstream in(path());
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  std::vector<doors::KeyRecord> Keys() const { return doors::ReadKeyFile(path()).value(); }

  std::filesystem::path folder_ = std::filesystem::temp_directory_path() / ("key-" + NewUuid());
  std::string out_, err_;
};

TEST_F(KeyTest, AddShowsTheSecretOnceAndKeepsItsHash) {
  ASSERT_EQ(Run("add", {"--tenant",
                        "acme",
                        "--model",
                        "llama-*",
                        "--model",
                        "gpt",
                        "--rpm",
                        "60",
                        "--tpm",
                        "1000",
                        "--priority",
                        "-2",
                        "--fairness-id",
                        "f",
                        "--trusted",
                        "--objective",
                        "chat",
                        "--expires",
                        "2099-01-01T00:00:00Z",
                        "--id",
                        "k1"}),
            0)
      << err_;
  ASSERT_TRUE(out_.starts_with("sk-llmd-")) << out_;
  const std::string secret = out_.substr(0, out_.size() - 1);
  EXPECT_THAT(err_, HasSubstr("key 'k1' of tenant 'acme'"));
  EXPECT_THAT(Text(), Not(HasSubstr(secret)));
  ASSERT_EQ(Keys().size(), 1u);
  const doors::KeyRecord key = Keys().front();
  EXPECT_EQ(key.sha256, doors::HashSecret(secret));
  EXPECT_EQ(key.models, (std::vector<std::string>{"llama-*", "gpt"}));
  EXPECT_EQ(key.requests_per_minute, 60);
  EXPECT_EQ(key.tokens_per_minute, 1000);
  EXPECT_EQ(key.priority, -2);
  EXPECT_EQ(key.objective, "chat");
  EXPECT_EQ(key.fairness_id, "f");
  EXPECT_TRUE(key.trusted);
  EXPECT_EQ(key.expires_unix_s, 4'070'908'800);
  struct stat info{};
  ASSERT_EQ(stat(path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  ASSERT_EQ(Run("list"), 0);
  EXPECT_THAT(out_, HasSubstr("k1"));
  EXPECT_THAT(out_, HasSubstr("2099-01-01T00:00:00Z"));
  EXPECT_THAT(out_, Not(HasSubstr(secret)));
  EXPECT_THAT(out_, Not(HasSubstr(doors::ToHex(key.sha256))));
}

TEST_F(KeyTest, DisablesEnablesAndRemoves) {
  ASSERT_EQ(Run("add", {"--tenant", "t", "--id", "a"}), 0);
  ASSERT_EQ(Run("add", {"--tenant", "t", "--id", "b"}), 0);
  ASSERT_EQ(Run("disable", {"a"}), 0) << err_;
  EXPECT_TRUE(Keys()[0].disabled);
  EXPECT_FALSE(Keys()[1].disabled);
  ASSERT_EQ(Run("list"), 0);
  EXPECT_THAT(out_, HasSubstr("disabled"));
  ASSERT_EQ(Run("enable", {"a"}), 0);
  EXPECT_FALSE(Keys()[0].disabled);
  ASSERT_EQ(Run("remove", {"a"}), 0);
  ASSERT_EQ(Keys().size(), 1u);
  EXPECT_EQ(Keys()[0].id, "b");
  EXPECT_EQ(Run("remove", {"bb"}), 1);
  EXPECT_THAT(err_, HasSubstr("there is no key 'bb'; known: b"));
}

TEST_F(KeyTest, RefusesByName) {
  EXPECT_EQ(Run("add", {}), 2);
  EXPECT_THAT(err_, HasSubstr("--tenant is missing"));
  EXPECT_EQ(Run("add", {"--tenant", "a b"}), 2);
  EXPECT_EQ(Run("add", {"--tenant", "t", "--expires", "soon"}), 2);
  EXPECT_THAT(err_, HasSubstr("RFC 3339"));
  EXPECT_EQ(Run("add", {"--tenant", "t", "--priority", "high"}), 2);
  EXPECT_EQ(Run("add", {"--tenant", "t", "--rpm", "-1"}), 2);
  EXPECT_FALSE(std::filesystem::exists(path()));
  ASSERT_EQ(Run("add", {"--tenant", "t", "--id", "a"}), 0);
  EXPECT_EQ(Run("add", {"--tenant", "t", "--id", "a"}), 1);
  EXPECT_THAT(err_, HasSubstr("there is a key 'a' already"));
  EXPECT_EQ(Run("lst"), 2);
  EXPECT_THAT(err_, HasSubstr("did you mean 'list'"));
  EXPECT_EQ(Run("remove"), 2);
}

TEST_F(KeyTest, LeavesABadFileAlone) {
  std::ofstream(path()) << "keys: [";
  EXPECT_EQ(Run("add", {"--tenant", "t"}), 1);
  EXPECT_EQ(Text(), "keys: [");
  std::filesystem::remove(path());
  EXPECT_EQ(Run("list"), 1);
  EXPECT_EQ(Run("disable", {"a"}), 1);
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(KeyTest, LosesNoKeyWhenManyAreMadeAtOnce) {
  constexpr int kThreads = 4, kEach = 5;
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  std::vector<std::thread> threads;
  std::atomic<int> failed{0};
  const std::string file = path();
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      const char* argv[] = {"key", "add", "--file", file.c_str(), "--tenant", "t"};
      for (int i = 0; i < kEach; ++i) failed += RunKey(6, argv) == 0 ? 0 : 1;
    });
  }
  for (std::thread& thread : threads) thread.join();
  (void)::testing::internal::GetCapturedStdout();
  (void)::testing::internal::GetCapturedStderr();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(Keys().size(), static_cast<size_t>(kThreads * kEach));
}

}  // namespace
}  // namespace llmd::cli
