#include "testing/subject.h"

#include <exception>
#include <numeric>
#include <thread>

#if defined(__SANITIZE_THREAD__)
#define LLMD_UNDER_TSAN true
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LLMD_UNDER_TSAN true
#endif
#endif
#ifndef LLMD_UNDER_TSAN
#define LLMD_UNDER_TSAN false
#endif

namespace llmd::sched::testing {
namespace {

uint64_t HashOf(std::string_view text) {
  uint64_t hash = 14695981039346656037u;
  for (unsigned char c : text) hash = (hash ^ c) * 1099511628211u;
  return hash;
}

// Plausible for every data type, and the same for an endpoint wherever it stands.
Fact MadeUp(const std::string& data_type, std::span<const EndpointState> endpoints) {
  constexpr double kTotal = 20;
  Fact out;
  out.total = kTotal;
  out.block_size = 16;
  out.exact = true;
  out.text = "made-up";
  for (uint32_t token = 0; token < 320; ++token) out.tokens.push_back(token * 7 % 1000);
  for (const EndpointState& e : endpoints) {
    const uint64_t hash = HashOf(data_type + e.info.name);
    out.per_endpoint[e.info.name] = static_cast<double>(hash % 21);
    out.second[e.info.name] = static_cast<double>(hash / 32 % 5000);
  }
  return out;
}

}  // namespace

Subject::Subject(const PluginRegistry* registry, std::string_view type,
                 const PropertyOptions& options)
    : registry_(registry), type_(type), options_(options) {
  report_.plugin = type_;
}

bool Subject::TryBuild(const std::function<bool(Plugin&)>& is_kind, const char* kind) {
  Check("builds", [&] {
    const auto plugin = PluginUnderTest::Create(registry_, type_, options_.parameters);
    if (!plugin.ok()) return Fail(plugin.status().message());
    if (!is_kind((*plugin)->plugin())) return Fail(std::string("it is no ") + kind);
    const std::vector<EndpointState> pool = Pool(1);
    const auto scene = (*plugin)->Set(WithFacts(**plugin, pool), pool);
    if (!scene.ok()) Fail("the options' request: " + scene.status().message());
  });
  return report_.ok();
}

void Subject::Check(const char* property, const std::function<void()>& check) {
  const auto& except = options_.except;
  if (std::find(except.begin(), except.end(), property) != except.end()) return;
  property_ = property;
  failed_ = false;
  report_.checked.emplace_back(property);
  try {
    check();
  } catch (const std::exception& e) {
    Fail(std::string("it throws an exception: ") + e.what());
  } catch (...) {
    Fail("it throws an exception that is no std::exception");
  }
}

void Subject::CheckThreads(const std::function<void()>& check) {
  Check("threads", check);
  constexpr bool kUnderTsan = LLMD_UNDER_TSAN;
  if (!kUnderTsan && report_.checked.back() == "threads") {
    report_.notes.emplace_back(
        "property 'threads': a race need not show in the results; run it under TSan "
        "(-fsanitize=thread)");
  }
}

void Subject::ExpectNoClockReads(uint64_t reads) {
  if (reads == 0) return;
  Fail("it reads the machine's clock (" + std::to_string(reads) +
       " times in one call); take the time from PluginEnv::clock");
}

void Subject::Fail(const std::string& detail) {
  std::lock_guard lock(mutex_);
  if (failed_) return;
  failed_ = true;
  report_.violations.push_back({property_, detail});
}

std::unique_ptr<PluginUnderTest> Subject::Make() const {
  auto plugin = PluginUnderTest::Create(registry_, type_, options_.parameters);
  LLMD_CHECK(plugin.ok());  // it was built before
  return std::move(*plugin);
}

FakeRequest Subject::WithFacts(const PluginUnderTest& plugin,
                               std::span<const EndpointState> endpoints) const {
  FakeRequest request = options_.request;
  for (const std::string& key : plugin.DataKeys()) {
    const std::string type = key.substr(0, key.find('/'));
    if (!request.facts().contains(type)) request.With(type, MadeUp(type, endpoints));
  }
  return request;
}

std::unique_ptr<Scene> Subject::Stage(const PluginUnderTest& plugin,
                                      std::span<const EndpointState> endpoints,
                                      uint64_t seed) const {
  auto scene = plugin.Set(WithFacts(plugin, endpoints), endpoints, seed);
  LLMD_CHECK(scene.ok());  // it could be set before
  return std::move(*scene);
}

std::unique_ptr<Scene> Subject::StageWithoutFacts(const PluginUnderTest& plugin,
                                                  std::span<const EndpointState> endpoints) const {
  std::unique_ptr<Scene> scene = Stage(plugin, endpoints);
  for (Attribute& attribute : scene->request.attributes) attribute.Clear();
  return scene;
}

void Subject::OnThreads(const std::function<void(const std::vector<EndpointState>&, int)>& calls) {
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(options_.threads));
  for (int t = 0; t < options_.threads; ++t) {
    threads.emplace_back([&, t] {
      try {
        calls(options_.pool(static_cast<size_t>(t) + 10, static_cast<uint64_t>(t)),
              options_.calls_per_thread);
      } catch (const std::exception& e) {
        Fail(std::string("it throws an exception: ") + e.what());
      } catch (...) {
        Fail("it throws an exception that is no std::exception");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void Subject::WithoutAllocations(const std::function<void()>& call) {
  constexpr int kWarm = 3, kMeasured = 10;
  for (int i = 0; i < kWarm; ++i) call();
  const uint64_t before = options_.allocations();
  for (int i = 0; i < kMeasured; ++i) call();
  const uint64_t made = options_.allocations() - before;
  if (made > 0) {
    Fail(std::to_string(made) + " allocations in " + std::to_string(kMeasured) +
         " calls after warm-up, expected none");
  }
}

std::vector<EndpointState> WithOtherOddOnes(const std::vector<EndpointState>& pool) {
  std::vector<EndpointState> out = pool;
  for (size_t i = 1; i < out.size(); i += 2) {
    out[i] = FakeEndpoint("other-" + std::to_string(i))
                 .Waiting(100)
                 .Running(50)
                 .KvUsage(0.99)
                 .Cache(16, 10)
                 .Label("zone", "elsewhere")
                 .Adapters({"other", "more"}, {"test-model"}, 2);
  }
  return out;
}

std::vector<uint32_t> Indexes(size_t count) {
  std::vector<uint32_t> out(count);
  std::iota(out.begin(), out.end(), 0);
  return out;
}

std::vector<uint32_t> EvenIndexes(size_t count) {
  std::vector<uint32_t> out;
  for (uint32_t i = 0; i < count; i += 2) out.push_back(i);
  return out;
}

std::vector<std::string> NamesOf(const Scene& scene, const std::vector<uint32_t>& indexes) {
  std::vector<std::string> out;
  for (uint32_t i : indexes) {
    const bool known = i < scene.snapshot.size();
    out.push_back(known ? scene.snapshot.info(i).name : "no endpoint " + std::to_string(i));
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::string Joined(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return "{" + out + "}";
}

std::string WrongSubset(const Scene& scene, std::span<const uint32_t> candidates,
                        const std::vector<uint32_t>& result) {
  std::vector<bool> seen(scene.snapshot.size());
  for (uint32_t i : result) {
    if (std::find(candidates.begin(), candidates.end(), i) == candidates.end())
      return "index " + std::to_string(i) + " is no candidate";
    if (seen[i]) return "'" + scene.snapshot.info(i).name + "' comes twice";
    seen[i] = true;
  }
  return "";
}

}  // namespace llmd::sched::testing
