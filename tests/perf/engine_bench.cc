// Tokens per second of the model alone (no scheduler, no HTTP) at batch 1, batch 16 and a prompt of
// 512, for each arithmetic, beside the machine's roofs measured in the same run: read bandwidth and
// multiply-adds per second.
//
//   engine_bench MODEL.gguf [threads] [seconds per figure]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "backend/cpu/isa.h"
#include "backend/cpu/packed_weight.h"
#include "backend/cpu/thread_pool.h"
#include "llmd/engine/model.h"
#include "llmd/engine/weights/gguf.h"

namespace llmd::engine {
namespace {

constexpr int kBlockSize = 16, kBlocks = 640, kDecodeContext = 128, kPrompt = 512;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Best of repeated calls within about `seconds`, at least three.
template <typename Body>
double BestSeconds(double seconds, const Body& body) {
  double best = 1e300, end = Now() + seconds;
  for (int round = 0; round < 3 || Now() < end; ++round) {
    double begin = Now();
    body();
    best = std::min(best, Now() - begin);
  }
  return best;
}

uint64_t Sum(const uint64_t* from, size_t count) {
  uint64_t sums[32] = {};
  for (size_t i = 0; i + 32 <= count; i += 32) {
    for (int j = 0; j < 32; ++j) sums[j] += from[i + j];
  }
  return std::accumulate(std::begin(sums), std::end(sums), uint64_t{0});
}

// Reading a set of `bytes` again and again, as decoding does with the weights: part of it may stay
// in a cache.
double ReadBytesPerSecond(int threads, size_t bytes) {
  auto data = cpu::HostBuffer::Create(bytes);
  if (!data.ok()) return 0;
  auto* words = reinterpret_cast<uint64_t*>((*data)->address());
  constexpr size_t kPieces = 64;
  size_t piece = bytes / sizeof(uint64_t) / kPieces;
  std::fill(words, words + piece * kPieces, 1);
  cpu::ThreadPool pool(threads);
  std::vector<uint64_t> sums(kPieces * 8);
  double seconds = BestSeconds(0.5, [&] {
    pool.For(kPieces, 1, [&](int, int begin, int end) {
      for (int p = begin; p < end; ++p) sums[p * 8] = Sum(words + piece * p, piece);
    });
  });
  if (std::accumulate(sums.begin(), sums.end(), uint64_t{0}) == 0) std::abort();
  return static_cast<double>(piece * kPieces * sizeof(uint64_t)) / seconds;
}

double MultiplyAddsPerSecond(int threads, cpu::Arithmetic arithmetic) {
  cpu::KernelTable kernels = cpu::KernelsOf(cpu::AvailableIsas().back());
  if (kernels.probe[arithmetic] == nullptr) return 0;
  cpu::ThreadPool pool(threads);
  constexpr int kRounds = 200000;
  std::vector<double> done(threads);
  double seconds = BestSeconds(0.2, [&] {
    pool.For(threads, 1, [&](int, int begin, int end) {
      for (int i = begin; i < end; ++i) done[i] = kernels.probe[arithmetic](kRounds);
    });
  });
  return std::accumulate(done.begin(), done.end(), 0.0) / seconds;
}

// `sequences` sequences of `rows` new tokens each behind `past` tokens.
class Step {
 public:
  Step(int sequences, int rows, int past) {
    int width = (past + rows + kBlockSize - 1) / kBlockSize;
    query_.push_back(0);
    for (int s = 0; s < sequences; ++s) {
      for (int i = 0; i < rows; ++i) {
        int position = past + i;
        tokens_.push_back(1000 + 7 * i + s);
        positions_.push_back(position);
        slots_.push_back(int64_t{s} * width * kBlockSize + position);
      }
      query_.push_back(static_cast<int32_t>(tokens_.size()));
      context_.push_back(past + rows);
      for (int b = 0; b < width; ++b) table_.push_back(s * width + b);
      wanted_.push_back(static_cast<int32_t>(tokens_.size()) - 1);
    }
    batch_ = {tokens_, positions_, slots_, query_, context_, table_, width, wanted_};
  }
  const StepBatch& batch() const { return batch_; }
  int tokens() const { return static_cast<int>(tokens_.size()); }
  int wanted() const { return static_cast<int>(wanted_.size()); }

 private:
  std::vector<int32_t> tokens_, positions_, query_, context_, table_, wanted_;
  std::vector<int64_t> slots_;
  StepBatch batch_;
};

double TokensPerSecond(Model& model, const Step& step, double seconds) {
  std::vector<float> logits(static_cast<size_t>(step.wanted()) * model.config().vocab);
  return step.tokens() / BestSeconds(seconds, [&] {
           Status status = model.Forward(step.batch(), logits);
           if (!status.ok()) {
             std::fprintf(stderr, "%s\n", status.ToString().c_str());
             std::exit(1);
           }
         });
}

int BenchModel(const ModelFile& file, ModelOptions options, const char* name, double seconds) {
  auto model = LoadModel(file, options);
  if (!model.ok()) {
    std::fprintf(stderr, "%s\n", model.status().ToString().c_str());
    return 1;
  }
  std::vector<std::byte> pool((*model)->kv_geometry(kBlockSize).block_bytes() * kBlocks);
  size_t stride = (*model)->kv_geometry(kBlockSize).block_bytes();
  if (Status status = (*model)->AttachKv(pool.data(), stride, kBlocks, kBlockSize); !status.ok())
    return 1;
  Step prompt(1, kPrompt, 0), sixteen(16, 1, kDecodeContext), one(1, 1, kDecodeContext);
  double prefill = TokensPerSecond(**model, prompt, seconds);
  double batch16 = TokensPerSecond(**model, sixteen, seconds),
         batch1 = TokensPerSecond(**model, one, seconds);
  std::printf("%-10s %10.1f %10.1f %12.1f   %s\n", name, batch1, batch16, prefill,
              (*model)->Describe().c_str());
  return 0;
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: engine_bench MODEL.gguf [threads] [seconds per figure]\n");
    return 2;
  }
  ModelOptions options;
  options.threads = argc > 2 ? std::atoi(argv[2]) : 0;
  double seconds = argc > 3 ? std::atof(argv[3]) : 2;
  auto file = ModelFile::Open(argv[1]);
  if (!file.ok()) {
    std::fprintf(stderr, "%s\n", file.status().ToString().c_str());
    return 1;
  }
  int threads = options.threads > 0 ? options.threads : cpu::UsableCores();
  size_t weight_bytes = 0;
  for (const TensorView& tensor : (*file)->tensors()) weight_bytes += tensor.data.size();
  double read = ReadBytesPerSecond(threads, weight_bytes);
  std::printf(
      "roofs, %d threads: read %.1f GB/s (%.0f tok/s at batch 1 for %.0f MB of weights); "
      "multiply-adds per "
      "second: f32 %.0f G, bf16 dot %.0f G, int8 dot %.0f G\n",
      threads, read / 1e9, read / static_cast<double>(weight_bytes),
      static_cast<double>(weight_bytes) / 1e6,
      MultiplyAddsPerSecond(threads, cpu::kArithmeticF32) / 1e9,
      MultiplyAddsPerSecond(threads, cpu::kArithmeticBf16Dot) / 1e9,
      MultiplyAddsPerSecond(threads, cpu::kArithmeticInt8) / 1e9);
  std::printf("%-10s %10s %10s %12s   tok/s, context %d\n", "llmd", "batch 1", "batch 16",
              "prefill 512", kDecodeContext);
  options.dtype = DType::kFloat32;
  int failures = BenchModel(**file, options, "float32", seconds);
  options.dtype = DType::kBFloat16;
  failures += BenchModel(**file, options, "bfloat16", seconds);
  options.quantization = Quantization::kW8A8;
  return failures + BenchModel(**file, options, "w8a8", seconds);
}

}  // namespace
}  // namespace llmd::engine

int main(int argc, char** argv) {
  return llmd::engine::Main(argc, argv);
}
