// The index of KV blocks under workloads with known answers:
//   index_bench [--total N] [--dump DIR] [w1-ladder] [w1-full] [w2] [hash]
// prints p50 and p99 of a query in µs, store in M blocks/s from decoded events, bytes of memory a
// live holder-block, allocations a query, and whether every answer was right.
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <numeric>
#include <string>

#include "llmd/kv/index.h"
#include "llmd/kv/request_keys.h"
#include "perf/count_allocations.h"
#include "perf/kv_workload.h"

namespace {

using llmd::bench::Workload;
using namespace llmd::kv;
using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

size_t ResidentBytes() {
  std::FILE* f = std::fopen("/proc/self/statm", "r");
  size_t all = 0, resident = 0;
  if (f == nullptr || std::fscanf(f, "%zu %zu", &all, &resident) != 2) resident = 0;
  if (f != nullptr) std::fclose(f);
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

enum class EngineKeys { kShared, kAligned, kOwn };

uint64_t EngineKeyOf(EngineKeys kind, uint16_t endpoint, uint64_t key) {
  if (kind == EngineKeys::kAligned) return key;
  return llmd::bench::Spread(key ^ (kind == EngineKeys::kShared ? 1u : 1u + endpoint));
}

struct Loaded {
  std::unique_ptr<Index> index;
  NamespaceId ns{};
  std::vector<EndpointId> ids;
};

// Only what the index itself does is timed.
Loaded Load(const Workload& w, EngineKeys kind, double& store_mps, double& peak) {
  Loaded l{MakeRunIndex(), {}, {}};
  l.ns = *l.index->AddNamespace({"m"});
  const TierId gpu = *l.index->AddTier("gpu");
  for (uint16_t p = 0; p < w.endpoints; ++p)
    l.ids.push_back(*l.index->AddEndpoint("10.0.0." + std::to_string(p) + ":8000"));
  // In batches, so that reading the thread's clock costs nothing beside them.
  constexpr size_t kBatch = 64;
  std::vector<std::vector<uint64_t>> keys(kBatch), engine(kBatch);
  double took = 0;
  uint64_t blocks = 0;
  size_t most = 0;
  for (size_t at = 0; at < w.ops.size(); at += kBatch) {
    const auto ops = std::span(w.ops).subspan(at, std::min(kBatch, w.ops.size() - at));
    for (size_t k = 0; k < ops.size(); ++k) {
      llmd::bench::FillKeys(ops[k], keys[k]);
      engine[k].resize(keys[k].size());
      for (size_t i = 0; i < keys[k].size(); ++i)
        engine[k][i] = EngineKeyOf(kind, ops[k].endpoint, keys[k][i]);
      if (ops[k].store) blocks += ops[k].count;
    }
    const double start = CpuSeconds();
    for (size_t k = 0; k < ops.size(); ++k) {
      const llmd::bench::BlockOp& op = ops[k];
      const Holder holder{l.ids[op.endpoint], gpu};
      std::optional<uint64_t> parent;
      if (op.parent != 0) parent = EngineKeyOf(kind, op.endpoint, op.parent);
      const llmd::Status status = op.store
                                      ? l.index->Add({l.ns, parent, keys[k], engine[k]}, holder)
                                      : l.index->Evict(l.ns, engine[k], holder);
      if (!status.ok()) std::printf("  refused: %s\n", status.ToString().c_str());
    }
    if (ops.back().store) took += CpuSeconds() - start;
    most = std::max(most, ResidentBytes());
  }
  store_mps = static_cast<double>(blocks) / took / 1e6;
  peak = static_cast<double>(std::max(most, ResidentBytes()));
  return l;
}

void Run(const char* name, const Workload& w) {
  const size_t before = ResidentBytes();
  double store = 0, peak = 0;
  const Loaded l = Load(w, EngineKeys::kShared, store, peak);
  const double grown = static_cast<double>(ResidentBytes() - before);
  const IndexStats stats = l.index->Stats();
  const Candidates candidates(l.ids);
  std::vector<PrefixMatch> out(l.ids.size());
  const size_t rounds = std::max<size_t>(100'000 / w.queries.size(), 1);
  std::vector<float> times;
  times.reserve(rounds * w.queries.size());
  size_t wrong = 0;
  for (const auto& query : w.queries) l.index->Score(l.ns, query.keys, candidates, out);
  const size_t allocations = g_allocations.load();
  for (size_t round = 0; round < rounds; ++round) {
    for (const auto& query : w.queries) {
      const auto start = Clock::now();
      l.index->Score(l.ns, query.keys, candidates, out);
      times.push_back(static_cast<float>(Seconds(Clock::now() - start) * 1e6));
      uint64_t check = 0;
      for (size_t p = 0; p < out.size(); ++p) check += (p + 1) * out[p].blocks;
      wrong += check != query.check;
    }
  }
  const size_t allocated = g_allocations.load() - allocations;
  std::sort(times.begin(), times.end());
  std::printf(
      "%-10s query p50 %.2f p99 %.2f us (%zu), store %.1f M blocks/s, %.1f B a holder-block (peak "
      "%.2fx, own count %.1f), %zu runs, allocations %zu, wrong answers %zu\n",
      name, times[times.size() / 2], times[times.size() * 99 / 100], times.size(), store,
      grown / static_cast<double>(w.live), (peak - static_cast<double>(before)) / grown,
      static_cast<double>(stats.bytes) / static_cast<double>(w.live), stats.runs, allocated, wrong);
  if (stats.holder_blocks != w.live)
    std::printf("  holds %zu blocks, expected %lu\n", stats.holder_blocks, w.live);
}

// Other namings of the blocks by the engines, one process each, for their memory.
void Memory(const char* name, const Workload& w, EngineKeys kind) {
  const size_t before = ResidentBytes();
  double store = 0, peak = 0;
  const Loaded l = Load(w, kind, store, peak);
  std::printf("%-10s %.1f B a holder-block, store %.1f M blocks/s\n", name,
              static_cast<double>(ResidentBytes() - before) / static_cast<double>(w.live), store);
}

void Hashes() {
  std::mt19937 rng(1);
  std::vector<uint32_t> tokens(100'000);
  for (uint32_t& t : tokens) t = rng() % 150'000;
  for (const char* algorithm : {"xxh64", "cbor-fnv"}) {
    const auto hasher = *MakeRequestHasher(algorithm, "");
    const uint64_t init = hasher->Init("m");
    std::vector<uint64_t> keys;
    const auto median = [&](KeyMemo* memo, size_t count) {
      std::vector<double> us;
      for (int i = 0; i < 15; ++i) {
        keys.clear();
        const auto start = Clock::now();
        RequestKeys(*hasher, init, std::span(tokens).first(count), 16, {}, memo, keys);
        us.push_back(Seconds(Clock::now() - start) * 1e6);
      }
      std::sort(us.begin(), us.end());
      return us[us.size() / 2];
    };
    KeyMemo memo;
    const double plain = median(nullptr, tokens.size());
    median(&memo, tokens.size() - 500);
    const auto start = Clock::now();
    keys.clear();
    RequestKeys(*hasher, init, tokens, 16, {}, &memo, keys);
    const double turn = Seconds(Clock::now() - start) * 1e6;
    std::printf(
        "%-10s 100,000 tokens, blocks of 16: %.0f us (%.0f ns a block); next turn with 500 more "
        "%.0f us\n",
        algorithm, plain, plain * 1e3 / 6250, turn);
  }
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t total = 1'000'000;
  std::string dump;
  std::vector<std::string> names;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--total" && i + 1 < argc) {
      total = std::strtoull(argv[++i], nullptr, 10);
    } else if (arg == "--dump" && i + 1 < argc) {
      dump = argv[++i];
    } else {
      names.push_back(arg);
    }
  }
  if (names.empty()) names = {"hash", "w1-ladder", "w1-full", "w2"};
  for (const std::string& name : names) {
    if (name == "hash") {
      Hashes();
      continue;
    }
    if (name != "w1-ladder" && name != "w1-full" && name.rfind("w2", 0) != 0)
      return std::fprintf(stderr,
                          "index_bench: '%s': expected hash, w1-ladder, w1-full, w2, "
                          "w2-aligned or w2-own\n",
                          name.c_str()),
             2;
    const Workload w =
        name[1] == '1' ? llmd::bench::MakeW1(name == "w1-full") : llmd::bench::MakeW2(total);
    if (!dump.empty() && !llmd::bench::WriteWorkload(w, dump + "/" + name))
      return std::perror(dump.c_str()), 1;
    if (name == "w2-aligned") {
      Memory(name.c_str(), w, EngineKeys::kAligned);
    } else if (name == "w2-own") {
      Memory(name.c_str(), w, EngineKeys::kOwn);
    } else {
      Run(name.c_str(), w);
    }
  }
  return 0;
}
