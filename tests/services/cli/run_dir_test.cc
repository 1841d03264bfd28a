#include "cli/run_dir.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "cli/plan.h"

namespace llmd::cli {
namespace {

using ::testing::HasSubstr;

class RunDirTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "run_dir_XXXXXX";
    root_ = mkdtemp(pattern.data());
    setenv("XDG_RUNTIME_DIR", root_.c_str(), 1);
  }
  void TearDown() override {
    unsetenv("XDG_RUNTIME_DIR");
    std::filesystem::remove_all(root_);
  }
  static int ModeOf(const std::string& path) {
    struct stat info{};
    return lstat(path.c_str(), &info) == 0 ? static_cast<int>(info.st_mode & 0777) : -1;
  }
  std::string root_;
};

TEST_F(RunDirTest, IsMadeForItsOwnerOnly) {
  const mode_t before = umask(0);
  EXPECT_TRUE(MakeRunDirectory("one").ok());
  umask(before);
  EXPECT_EQ(RunDirectory("one"), root_ + "/llmd/one");
  EXPECT_EQ(ModeOf(root_ + "/llmd"), 0700);
  EXPECT_EQ(ModeOf(root_ + "/llmd/one"), 0700);
  EXPECT_TRUE(MakeRunDirectory("one").ok()) << "once more";
}

TEST_F(RunDirTest, OneThatOthersMayReadIsClosedAndOneTheyMayWriteRefused) {
  ASSERT_EQ(mkdir((root_ + "/llmd").c_str(), 0700), 0);
  ASSERT_EQ(chmod((root_ + "/llmd").c_str(), 0755), 0);
  EXPECT_TRUE(MakeRunDirectory("one").ok());
  EXPECT_EQ(ModeOf(root_ + "/llmd"), 0700);
  ASSERT_EQ(chmod((root_ + "/llmd").c_str(), 0770), 0);
  EXPECT_THAT(MakeRunDirectory("one").message(), HasSubstr("can be written by other users"));
  EXPECT_EQ(ReadRunFile("one").status().code(), StatusCode::kPermissionDenied);
}

TEST_F(RunDirTest, ALinkIsRefused) {
  ASSERT_EQ(mkdir((root_ + "/elsewhere").c_str(), 0700), 0);
  ASSERT_EQ(symlink((root_ + "/elsewhere").c_str(), (root_ + "/llmd").c_str()), 0);
  EXPECT_EQ(MakeRunDirectory("one").code(), StatusCode::kPermissionDenied);
  EXPECT_FALSE(std::filesystem::exists(root_ + "/elsewhere/one"));
  EXPECT_EQ(ReadRunFile("one").status().code(), StatusCode::kPermissionDenied);
}

TEST_F(RunDirTest, OneOfAnotherUserIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a folder away";
  ASSERT_EQ(mkdir((root_ + "/llmd").c_str(), 0700), 0);
  ASSERT_EQ(chown((root_ + "/llmd").c_str(), 4242, 4242), 0);
  EXPECT_THAT(MakeRunDirectory("one").message(), HasSubstr("another user (uid 4242)"));
  EXPECT_EQ(ReadRunFile("one").status().code(), StatusCode::kPermissionDenied);
}

TEST_F(RunDirTest, ClusterIsAbsentWhenNothingIsThere) {
  EXPECT_EQ(ReadRunFile("one").status().code(), StatusCode::kNotFound);
}

TEST(RunDirectory, CarriesTheUserWithoutARuntimeFolder) {
  unsetenv("XDG_RUNTIME_DIR");
  EXPECT_EQ(RunDirectory("one"), "/tmp/llmd-" + std::to_string(geteuid()) + "/one");
}

}  // namespace
}  // namespace llmd::cli
