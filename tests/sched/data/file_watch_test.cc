#include "data/file_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>

namespace llmd::sched {
namespace {

namespace fs = std::filesystem;

std::string TextOf(const fs::path& path) {
  std::ifstream in(path);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

// A folder, and a watch that remembers what the file held at each change.
class FileWatchTest : public ::testing::Test {
 protected:
  FileWatchTest() {
    static int count = 0;
    root_ = fs::canonical(fs::temp_directory_path()) /
            ("llmd_watch_" + std::to_string(::getpid()) + "_" + std::to_string(++count));
    fs::create_directories(root_ / "a");
    fs::create_directories(root_ / "b");
  }
  ~FileWatchTest() override {
    watch_.Stop();
    fs::remove_all(root_);
  }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(root_ / name) << text;
  }
  void Start(const std::string& name) {
    const fs::path path = root_ / name;
    const Status started = watch_.Start(path.string(), [this, path] {
      const std::lock_guard lock(mutex_);
      ++calls_;
      last_ = TextOf(path);
      changed_.notify_all();
    });
    ASSERT_TRUE(started.ok()) << started.ToString();
  }
  // Whether the watch finds the file to hold `text`.
  bool Sees(const std::string& text) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return last_ == text; });
  }
  int calls() {
    const std::lock_guard lock(mutex_);
    return calls_;
  }

  fs::path root_;
  FileWatch watch_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int calls_ = 0;          // guarded by mutex_
  std::string last_ = "";  // guarded by mutex_
};

TEST_F(FileWatchTest, SeesWritesAndRenames) {
  Write("a/file", "1");
  Start("a/file");
  Write("a/file", "2");
  EXPECT_TRUE(Sees("2"));
  Write("a/new", "3");
  fs::rename(root_ / "a/new", root_ / "a/file");
  EXPECT_TRUE(Sees("3"));
  Write("a/file", "4");
  EXPECT_TRUE(Sees("4"));
}

TEST_F(FileWatchTest, SeesTheTargetOfALinkInAnotherDirectory) {
  Write("b/target", "1");
  fs::create_symlink("../b/target", root_ / "a/file");
  Start("a/file");
  Write("b/target", "2");
  EXPECT_TRUE(Sees("2"));
  Write("b/new", "3");
  fs::rename(root_ / "b/new", root_ / "b/target");
  EXPECT_TRUE(Sees("3"));
  fs::create_directory(root_ / "c");
  Write("c/other", "4");
  fs::create_symlink(root_ / "c/other", root_ / "a/swap");
  fs::rename(root_ / "a/swap", root_ / "a/file");
  EXPECT_TRUE(Sees("4"));
  Write("c/other", "5");
  EXPECT_TRUE(Sees("5")) << "what the new link leads to is followed";
}

TEST_F(FileWatchTest, SeesAChangeOfALinkedDirectoryOnTheWay) {
  fs::create_directories(root_ / "v1/etc");
  fs::create_directories(root_ / "v2/etc");
  Write("v1/etc/file", "1");
  Write("v2/etc/file", "2");
  fs::create_directory_symlink("v1", root_ / "now");
  fs::create_directory_symlink(root_ / "now/etc", root_ / "a/etc");
  Start("a/etc/file");
  fs::create_directory_symlink("v2", root_ / "next");
  fs::rename(root_ / "next", root_ / "now");
  EXPECT_TRUE(Sees("2"));
  Write("v2/etc/file", "3");
  EXPECT_TRUE(Sees("3"));
}

TEST_F(FileWatchTest, SeesTheSwapOfAConfigMap) {
  fs::create_directories(root_ / "a/..1");
  Write("a/..1/file", "1");
  fs::create_directory_symlink("..1", root_ / "a/..data");
  fs::create_symlink("..data/file", root_ / "a/file");
  Start("a/file");
  fs::create_directories(root_ / "a/..2");
  Write("a/..2/file", "2");
  fs::create_directory_symlink("..2", root_ / "a/..data_tmp");
  fs::rename(root_ / "a/..data_tmp", root_ / "a/..data");
  EXPECT_TRUE(Sees("2"));
}

TEST_F(FileWatchTest, SeesAFileThatComesToExistWithItsDirectories) {
  Start("a/x/y/file");
  fs::create_directories(root_ / "a/x/y");
  Write("a/x/y/file", "1");
  EXPECT_TRUE(Sees("1"));
  fs::remove_all(root_ / "a/x");
  fs::create_directories(root_ / "b/y");
  Write("b/y/file", "2");
  fs::rename(root_ / "b", root_ / "a/x");
  EXPECT_TRUE(Sees("2"));
  Write("a/x/y/file", "3");
  EXPECT_TRUE(Sees("3"));
}

TEST_F(FileWatchTest, SeesTheFileBehindALinkThatLedNowhere) {
  fs::create_symlink("../b/later/file", root_ / "a/file");
  Start("a/file");
  fs::create_directories(root_ / "b/later");
  Write("b/later/file", "1");
  EXPECT_TRUE(Sees("1"));
}

TEST_F(FileWatchTest, IsNotWokenByNeighbours) {
  Write("a/file", "1");
  Start("a/file");
  for (int i = 0; i < 100; ++i) Write("a/other" + std::to_string(i), "x");
  Write("a/file", "2");
  EXPECT_TRUE(Sees("2"));
  EXPECT_LE(calls(), 4);
}

TEST_F(FileWatchTest, EndlessLinksAreNoLoop) {
  fs::create_symlink("two", root_ / "a/one");
  fs::create_symlink("one", root_ / "a/two");
  Start("a/one");
  Write("a/new", "1");
  fs::rename(root_ / "a/new", root_ / "a/two");
  EXPECT_TRUE(Sees("1"));
}

TEST(PlacesOf, FollowsDotsAndLinks) {
  const fs::path root =
      fs::canonical(fs::temp_directory_path()) / ("llmd_places_" + std::to_string(::getpid()));
  fs::create_directories(root / "d");
  std::ofstream(root / "file") << "x";
  fs::create_symlink("../file", root / "d/link");
  const std::vector<FilePlace> places = PlacesOf((root / "d/./../d/link").string());
  EXPECT_THAT(places, ::testing::Contains(FilePlace{(root / "d").string(), "link"}));
  EXPECT_EQ(places.back(), (FilePlace{root.string(), "file"}));
  fs::remove_all(root);
}

}  // namespace
}  // namespace llmd::sched
