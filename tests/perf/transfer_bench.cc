// GB/s of each transfer lane beside the copy roofs of this machine, in one run: transfer_bench [BLOCKS]
// [KIB_PER_BLOCK] [ROUNDS]. Medians; the lanes run inside one process but through the whole
// protocol.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "llmd/kv/transfer.h"
#include "transfer/copy.h"

namespace {

using llmd::kv::Agent;
using llmd::kv::Region;

double MedianGbPerS(int rounds, double bytes, const std::function<bool()>& run) {
  std::vector<double> rates;
  for (int i = 0; i < rounds + 1; ++i) {
    const auto start = std::chrono::steady_clock::now();
    if (!run()) return 0;
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (i > 0) rates.push_back(bytes / took.count() / 1e9);
  }
  std::sort(rates.begin(), rates.end());
  return rates[rates.size() / 2];
}

struct Side {
  std::unique_ptr<Region> region;
  llmd::MetricsRegistry metrics;
  std::unique_ptr<Agent> agent;
  std::string id;

  bool Start(std::string engine_id, int blocks, size_t bytes, const char* transport) {
    id = std::move(engine_id);
    auto made = Region::Create({blocks, bytes, true});
    if (!made.ok()) return std::fprintf(stderr, "%s\n", made.status().ToString().c_str()), false;
    region = *std::move(made);
    std::memset(region->blocks(), 1, region->block_stride() * static_cast<size_t>(blocks));
    llmd::kv::AgentOptions options;
    options.engine_id = id;
    options.transport = transport;
    auto started = Agent::Start(*region, options, {}, llmd::Logger(), metrics, llmd::SystemClock());
    if (!started.ok())
      return std::fprintf(stderr, "%s\n", started.status().ToString().c_str()), false;
    agent = *std::move(started);
    return true;
  }
};

bool PullAll(Side& lender, Side& reader, const std::vector<int32_t>& blocks) {
  static int serial = 0;
  const std::string request = "r" + std::to_string(serial++);
  if (!lender.agent->Lend(request, blocks).ok()) return false;
  std::promise<llmd::kv::PullResult> done;
  reader.agent->Pull({lender.id, "127.0.0.1", lender.agent->port(), request, blocks, blocks},
                     [&](llmd::kv::PullResult result) { done.set_value(std::move(result)); });
  const auto result = done.get_future().get();
  if (!result.status.ok()) std::fprintf(stderr, "%s\n", result.status.ToString().c_str());
  return result.status.ok();
}

double Lane(const char* transport, int blocks, size_t bytes, int rounds) {
  const std::string suffix = std::to_string(getpid());
  Side lender, reader;
  if (!lender.Start("bench-p-" + suffix, blocks, bytes, transport) ||
      !reader.Start("bench-d-" + suffix, blocks, bytes, transport)) {
    return 0;
  }
  std::vector<int32_t> list(static_cast<size_t>(blocks));
  for (int i = 0; i < blocks; ++i) list[static_cast<size_t>(i)] = i;
  return MedianGbPerS(rounds, static_cast<double>(bytes) * blocks,
                      [&] { return PullAll(lender, reader, list); });
}

}  // namespace

int main(int argc, char** argv) {
  const int blocks = argc > 1 ? std::atoi(argv[1]) : 512;
  const size_t bytes = static_cast<size_t>(argc > 2 ? std::atoi(argv[2]) : 256) * 1024;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 9;
  if (blocks <= 0 || bytes == 0 || rounds <= 0)
    return std::fprintf(stderr, "usage: transfer_bench [BLOCKS] [KIB] [ROUNDS]\n"), 2;
  auto from = Region::Create({blocks, bytes, true}), to = Region::Create({blocks, bytes, true});
  if (!from.ok() || !to.ok()) return 1;
  const double total = static_cast<double>(bytes) * blocks;
  const auto each = [&](auto copy) {
    return MedianGbPerS(rounds, total, [&] {
      for (int b = 0; b < blocks; ++b) {
        const size_t at = static_cast<size_t>(b) * (*from)->block_stride();
        copy((*to)->blocks() + at, (*from)->blocks() + at, bytes);
      }
      return true;
    });
  };
  std::memset((*from)->blocks(), 1, (*from)->block_stride() * static_cast<size_t>(blocks));
  const double memcpy_rate =
      each([](std::byte* t, const std::byte* f, size_t n) { std::memcpy(t, f, n); });
  const double stream_rate =
      each([](std::byte* t, const std::byte* f, size_t n) { llmd::kv::CopyBlock(t, f, n); });
  const double roof = std::max(memcpy_rate, stream_rate);
  std::printf("%d blocks of %zu KiB, median of %d, GB/s (part of the copy roof)\n", blocks,
              bytes / 1024, rounds);
  std::printf("  memcpy         %6.2f\n  streaming copy %6.2f\n", memcpy_rate, stream_rate);
  for (const char* lane : {"memfd", "tcp"}) {
    const double rate = Lane(lane, blocks, bytes, rounds);
    std::printf("  lane %-9s %6.2f  (%.0f %%)\n", lane, rate, 100 * rate / roof);
    if (rate == 0) return 1;
  }
  return 0;
}
