#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "fuzz/fuzz.h"
#include "support/paths.h"

namespace llmd::fuzz {
namespace {

const std::filesystem::path kCorpus =
    std::filesystem::path(::llmd::testing::SourcePath()) / "tests" / "fuzz" / "corpus";

class FuzzCorpus : public ::testing::TestWithParam<std::string> {};

// A broken property aborts the process, with its place on stderr.
TEST_P(FuzzCorpus, HoldsForEveryInput) {
  int inputs = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kCorpus / GetParam())) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string input{std::istreambuf_iterator<char>(file), {}};
    SCOPED_TRACE(entry.path().filename().string());
    Targets().at(GetParam())(input);
    ++inputs;
  }
  EXPECT_GE(inputs, 5) << "too few inputs for " << GetParam();
}

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const auto& [name, target] : Targets()) names.push_back(name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(Targets, FuzzCorpus, ::testing::ValuesIn(Names()),
                         [](const auto& info) { return info.param; });

TEST(FuzzCorpusTable, HasATargetForEveryFolder) {
  for (const auto& entry : std::filesystem::directory_iterator(kCorpus))
    EXPECT_EQ(Targets().count(entry.path().filename().string()), 1u) << entry.path();
}

}  // namespace
}  // namespace llmd::fuzz
