// How fast core reads bytes, beside memchr over the same buffer as the roof: scraping a metrics
// page and scanning a request.
#include <benchmark/benchmark.h>

#include <cstring>
#include <string>

#include "llmd/json.h"
#include "llmd/prom_text.h"
#include "support/prom_page.h"

namespace llmd {
namespace {

constexpr size_t kPageBytes = 57'000;

// A chat request with a prompt of `prompt_bytes` bytes.
std::string Body(size_t prompt_bytes) {
  std::string prompt;
  while (prompt.size() < prompt_bytes) prompt += "The quick brown fox jumps over the lazy dog.\\n ";
  return R"({"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":")" +
         prompt +
         R"("}],"temperature":0.7,"max_tokens":128,"stream":true,"stream_options":{"include_usage":true}})";
}

void CountBytes(benchmark::State& state, size_t bytes) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * bytes));
}

// A byte that never comes, so that all of the buffer is read.
void Memchr(benchmark::State& state, const std::string& text) {
  for (auto _ : state) benchmark::DoNotOptimize(std::memchr(text.data(), '\x01', text.size()));
  CountBytes(state, text.size());
}

void MemchrPage(benchmark::State& state) {
  Memchr(state, test::EnginePage(kPageBytes));
}
BENCHMARK(MemchrPage);

// The least any reader of lines must do.
void MemchrLinesOfPage(benchmark::State& state) {
  const std::string page = test::EnginePage(kPageBytes);
  for (auto _ : state) {
    size_t lines = 0;
    const char* at = page.data();
    const char* const end = at + page.size();
    while (const void* newline = std::memchr(at, '\n', static_cast<size_t>(end - at))) {
      at = static_cast<const char*>(newline) + 1;
      ++lines;
    }
    benchmark::DoNotOptimize(lines);
  }
  CountBytes(state, page.size());
}
BENCHMARK(MemchrLinesOfPage);

void PromScan(benchmark::State& state) {
  const std::string page = test::EnginePage(kPageBytes);
  const PromScanner scanner(test::ScrapedNames());
  double sum = 0;
  for (auto _ : state) scanner.Scan(page, [&sum](const PromSample& s) { sum += s.value; });
  benchmark::DoNotOptimize(sum);
  CountBytes(state, page.size());
}
BENCHMARK(PromScan);

void MemchrBody(benchmark::State& state) {
  Memchr(state, Body(static_cast<size_t>(state.range(0))));
}
BENCHMARK(MemchrBody)->Arg(1 << 10)->Arg(64 << 10)->Arg(1 << 20);

void ScanBody(benchmark::State& state) {
  const std::string body = Body(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    auto members = json::ScanObject(body);
    benchmark::DoNotOptimize(members.ok());
  }
  CountBytes(state, body.size());
}
BENCHMARK(ScanBody)->Arg(1 << 10)->Arg(64 << 10)->Arg(1 << 20);

void ParseBody(benchmark::State& state) {
  const std::string body = Body(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    auto value = json::Parse(body);
    benchmark::DoNotOptimize(value.ok());
  }
  CountBytes(state, body.size());
}
BENCHMARK(ParseBody)->Arg(1 << 10)->Arg(64 << 10)->Arg(1 << 20);

}  // namespace
}  // namespace llmd

BENCHMARK_MAIN();
