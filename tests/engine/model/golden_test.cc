// The engine's arithmetic against an independent float64 forward pass of the same dequantised
// weights (tools/golden_forward.py), teacher-forced along the reference's greedy path, for every
// path of this CPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "engine/model/model_support.h"
#include "support/paths.h"

namespace llmd::engine {
namespace {

using testing::AllModes;
using testing::BlockRange;
using testing::Driver;
using testing::Mode;

constexpr size_t kChunk = 512, kSingleSteps = 12;

struct Step {
  int32_t token = 0;
  double gap = 0, logprob = 0;
};

struct Prompt {
  std::string name;
  std::vector<int32_t> ids;
  std::vector<Step> steps;
};

std::vector<Prompt> ReadGolden(const std::string& path) {
  std::ifstream file(path);
  std::string word, model, digest;
  int version = 0, prompts = 0, steps = 0;
  file >> word >> version >> model >> digest >> word >> prompts >> word >> steps;
  std::vector<Prompt> golden(file && version == 1 ? prompts : 0);
  for (Prompt& prompt : golden) {
    int count = 0;
    file >> word >> prompt.name >> count;
    prompt.ids.resize(count);
    for (int32_t& id : prompt.ids) file >> id;
    prompt.steps.resize(steps);
    for (Step& step : prompt.steps) file >> step.token >> step.gap >> step.logprob;
  }
  return file ? golden : std::vector<Prompt>{};
}

struct Limits {
  double gap, drift;
};

Limits LimitsOf(const Mode& mode) {
  if (mode.quantization == Quantization::kW8A8) return {0.8, 0.06};
  return mode.dtype == DType::kFloat32 ? Limits{0.02, 0.001} : Limits{0.25, 0.02};
}

struct Tally {
  int exact = 0, near_tie = 0, wrong = 0;
  double drift = 0;

  void Add(const std::vector<float>& logits, const Step& want, double gap_limit) {
    auto top = std::max_element(logits.begin(), logits.end());
    double total = 0;
    for (float logit : logits) total += std::exp(static_cast<double>(logit) - *top);
    drift +=
        std::fabs(static_cast<double>(logits[want.token]) - *top - std::log(total) - want.logprob);
    if (top - logits.begin() == want.token) {
      ++exact;
    } else {
      ++(want.gap < gap_limit ? near_tie : wrong);
    }
  }
  int steps() const { return exact + near_tie + wrong; }
};

void Walk(Driver& driver, const Prompt& prompt, double gap_limit, Tally& tally) {
  std::vector<int32_t> ids = prompt.ids;
  for (size_t i = 0; i + 1 < prompt.steps.size(); ++i) ids.push_back(prompt.steps[i].token);
  auto blocks = BlockRange(0, static_cast<int>(ids.size()) / driver.block_size() + 1);
  // The prompt in chunks, some steps as the decoder takes them, the rest as one chunk: every kind
  // of step is walked.
  size_t prompt_end = prompt.ids.size(), singles_end = prompt_end + kSingleSteps, step = 0;
  for (size_t at = 0; at < ids.size();) {
    size_t end = at < prompt_end    ? std::min(at + kChunk, prompt_end)
                 : at < singles_end ? at + 1
                                    : ids.size();
    auto logits = driver.Run(
        {{{ids.begin() + static_cast<ptrdiff_t>(at), ids.begin() + static_cast<ptrdiff_t>(end)},
          static_cast<int>(at),
          blocks,
          at >= prompt_end}});
    if (end >= prompt_end) {
      for (const auto& row : logits) tally.Add(row, prompt.steps[step++], gap_limit);
    }
    at = end;
  }
  EXPECT_EQ(step, prompt.steps.size());
}

// The best path of this CPU and the one the engine chooses walk every prompt. The others walk the
// shortest ones, since the scalar twins take minutes for the rest; LLMD_GOLDEN=full walks
// everything.
std::vector<Prompt> PromptsFor(const Mode& mode, std::vector<Prompt> all) {
  constexpr size_t kOfOtherPaths = 2;
  const char* wish = std::getenv("LLMD_GOLDEN");
  if (mode.isa.empty() || mode.isa == CpuIsaNames().back() ||
      (wish != nullptr && std::string_view(wish) == "full")) {
    return all;
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Prompt& a, const Prompt& b) { return a.ids.size() < b.ids.size(); });
  all.resize(kOfOtherPaths);
  return all;
}

class Golden : public ::testing::TestWithParam<Mode> {};

TEST_P(Golden, FollowsTheReference) {
  std::string path = testing::RealModelPath();
  if (path.empty()) GTEST_SKIP() << "the model file is absent: SmolLM2-135M-Instruct.Q4_1.gguf";
  std::vector<Prompt> golden =
      ReadGolden(::llmd::testing::SourcePath("tests/data/golden_smollm2_135m_q4_1.txt"));
  ASSERT_GE(golden.size(), 20u) << "golden file missing or damaged";
  auto file = ModelFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  auto model = LoadModel(**file, GetParam().Options(0));
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  std::string description = (*model)->Describe();
  Driver driver(std::move(*model), 160);
  Limits limits = LimitsOf(GetParam());
  Tally tally;
  const std::vector<Prompt> prompts = PromptsFor(GetParam(), std::move(golden));
  for (const Prompt& prompt : prompts) {
    ASSERT_GE(prompt.steps.size(), 64u);
    int wrong = tally.wrong;
    Walk(driver, prompt, limits.gap, tally);
    EXPECT_EQ(tally.wrong, wrong) << "prompt " << prompt.name;
  }
  double drift = tally.drift / tally.steps();
  std::printf(
      "[ golden   ] %-22s %zu prompts: exact %d near-tie %d wrong %d, mean |d logprob| %.6f (limit "
      "%.3f); %s\n",
      GetParam().Name().c_str(), prompts.size(), tally.exact, tally.near_tie, tally.wrong, drift,
      limits.drift, description.c_str());
  EXPECT_LE(drift, limits.drift);
  EXPECT_EQ(tally.wrong, 0);
}

// Every path, and what the engine chooses by itself (no instruction set named).
std::vector<Mode> PathsAndChoice() {
  std::vector<Mode> modes = AllModes();
  modes.push_back({"", DType::kBFloat16, Quantization::kNone});
  return modes;
}

INSTANTIATE_TEST_SUITE_P(Paths, Golden, ::testing::ValuesIn(PathsAndChoice()),
                         [](const auto& info) {
                           std::string name = info.param.Name();
                           std::replace(name.begin(), name.end(), ' ', '_');
                           return name;
                         });

TEST(GoldenFile, HasALongPrompt) {
  size_t longest = 0;
  for (const Prompt& prompt :
       ReadGolden(::llmd::testing::SourcePath("tests/data/golden_smollm2_135m_q4_1.txt"))) {
    longest = std::max(longest, prompt.ids.size());
  }
  EXPECT_GE(longest, 1500u);
}

}  // namespace
}  // namespace llmd::engine
