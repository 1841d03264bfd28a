// A process of its own for the tests: "kv_peer lend ID" lends request r1, "kv_peer pull ID PORT
// LANE" reads it. Both print a word when they stand still in the middle of the copy, and are killed
// there.
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <thread>

#include "llmd/kv/transfer.h"

namespace {

constexpr int kBlocks = 16;
constexpr size_t kBytes = 8192;

[[noreturn]] void HoldForEver(const char* word) {
  std::printf("%s\n", word);
  std::fflush(stdout);
  for (;;) pause();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const bool lends = std::strcmp(argv[1], "lend") == 0;
  auto region = llmd::kv::Region::Create({kBlocks, kBytes, true});
  if (!region.ok()) return 3;
  for (int b = 0; b < kBlocks; ++b)
    std::memset((*region)->blocks() + b * (*region)->block_stride(), b + 1, kBytes);
  llmd::kv::AgentOptions options;
  options.engine_id = lends ? argv[2] : std::string(argv[2]) + "-reader";
  if (argc > 4) options.transport = argv[4];
  const bool holds = !lends || std::strcmp(argv[argc - 1], "hold") == 0;
  if (holds)
    options.before_recheck = [](size_t position) {
      if (position == 1) HoldForEver("holding");
    };
  llmd::MetricsRegistry metrics;
  auto agent =
      llmd::kv::Agent::Start(**region, options, {}, llmd::Logger(), metrics, llmd::SystemClock());
  if (!agent.ok()) return 4;
  if (lends) {
    if (!(*agent)->Lend("r1", {0, 1, 2, 3}).ok()) return 5;
    std::printf("%u\n", (*agent)->port());
    std::fflush(stdout);
    for (;;) pause();
  }
  const auto port = static_cast<uint16_t>(std::stoi(argv[3]));
  (*agent)->Pull({argv[2], "127.0.0.1", port, "r1", {0, 1, 2, 3}, {0, 1, 2, 3}},
                 [](llmd::kv::PullResult result) {
                   std::printf("%s\n", result.status.ToString().c_str());
                   std::fflush(stdout);
                 });
  for (;;) pause();
}
