#include "director/request_metrics.h"

#include <cmath>

#include "config/graph.h"
#include "director/keyed_cache.h"
#include "llmd/sched/config_loader.h"
#include "sched/support.h"

namespace llmd::sched {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(KeyedCache, MakesOncePerListOfTexts) {
  KeyedCache<int> cache;
  std::vector<std::unique_ptr<int>> all;
  const auto of = [&](std::string_view a, std::string_view b) -> int& {
    return cache.Of({a, b}, [&]() -> int& {
      all.push_back(std::make_unique<int>(static_cast<int>(all.size())));
      return *all.back();
    });
  };
  EXPECT_EQ(of("a", "b"), 0);
  EXPECT_EQ(of("ab", ""), 1);  // borders count
  EXPECT_EQ(of("", "ab"), 2);
  EXPECT_EQ(of("a", "b"), 0);
  EXPECT_EQ(all.size(), 3u);
}

TEST(KeyedCache, IsBounded) {
  KeyedCache<int> cache;
  int one = 1, made = 0;
  for (size_t i = 0; i < KeyedCache<int>::kMaxEntries + 10; ++i)
    cache.Of({std::to_string(i)}, [&]() -> int& { return one; });
  for (int i = 0; i < 3; ++i) {
    cache.Of({"late"}, [&]() -> int& {
      ++made;
      return one;
    });
  }
  EXPECT_EQ(made, 3);
  cache.Of({"0"}, [&]() -> int& {
    ADD_FAILURE() << "an early entry was dropped";
    return one;
  });
}

TEST(KeyedCache, DoesNotKeepLongTexts) {
  KeyedCache<int> cache;
  int one = 1, made = 0;
  for (int i = 0; i < 3; ++i) {
    cache.Of({std::string(100'000, 'm'), "a"}, [&]() -> int& {
      ++made;
      return one;
    });
  }
  EXPECT_EQ(made, 3);
}

TEST(BoundedName, KeepsShortTextsAndTellsLongOnesApart) {
  EXPECT_EQ(BoundedName(std::string(kMaxNameBytes, 'm')), std::string(kMaxNameBytes, 'm'));
  const std::string one = BoundedName(std::string(100'000, 'm') + "1");
  const std::string two = BoundedName(std::string(100'000, 'm') + "2");
  EXPECT_EQ(one.size(), kMaxNameBytes);
  EXPECT_NE(one, two);
  EXPECT_EQ(one, BoundedName(std::string(100'000, 'm') + "1"));
  EXPECT_EQ(one.substr(0, one.find('~')), two.substr(0, two.find('~')));
}

TEST(BoundedName, CutsBetweenCharacters) {
  for (size_t shift = 0; shift < 4; ++shift) {
    std::string text(shift, 'a');
    while (text.size() < 200) text += "\xF0\x9F\x98\x80";
    const std::string cut = BoundedName(text);
    EXPECT_LE(cut.size(), kMaxNameBytes);
    EXPECT_EQ((cut.find('~') - shift) % 4, 0u) << shift;
  }
  EXPECT_LE(BoundedName(std::string(500, '\x80')).size(), kMaxNameBytes);
}

// Whatever clients write: long names, many of them, bytes that are no text.
TEST(RequestMetrics, ThePageIsBoundedWhateverTheNames) {
  MetricsRegistry registry;
  registry.ExposeAliases(false);
  RequestMetrics m(registry, "pool");
  EndpointInfo endpoint;
  endpoint.name = "e";
  RequestContext request;
  for (int i = 0; i < 3; ++i) {
    const std::string name = std::string(2'000'000, 'd') + std::to_string(i) + "\xC3(";
    m.Of(name, name + "t", name + "f", 0);
    request.model = name;
    request.target_model = name + "t";
    request.fairness_id = name + "f";
    m.Error(request, 503);
    m.Attempt(name, &endpoint);
    m.Attempt(name, nullptr);
    m.Rewrite("rule", name, "target");
  }
  EXPECT_LT(registry.Expose().size(), 500'000u);
}

TEST(RequestMetrics, ErrorsAndAttemptsAreBoundedInNumber) {
  MetricsRegistry registry;
  RequestMetrics m(registry, "pool");
  EndpointInfo endpoint;
  endpoint.name = "e";
  RequestContext request;
  const auto lines = [&](const std::string& name) {
    const std::string page = registry.Expose();
    size_t count = 0;
    for (size_t at = page.find("\n" + name); at != std::string::npos;
         at = page.find("\n" + name, at + 1))
      ++count;
    return count;
  };
  for (int i = 0; i < 6000; ++i) {
    request.model = request.target_model = "m" + std::to_string(i % 100);
    request.fairness_id = "f" + std::to_string(i / 100);
    request.priority = i % 3;
    m.Error(request, 429);
    m.Attempt("t" + std::to_string(i), &endpoint);
  }
  EXPECT_LE(lines("llm_d_epp_request_error_total{"), RequestMetrics::kMaxErrors + 2);
  EXPECT_LE(lines("llm_d_epp_scheduler_attempts_total{"), NameCap::kMaxNames + 3);
  EXPECT_THAT(registry.Expose(),
              HasSubstr("status=\"success\",target_model_name=\"other\"} 5100.0"));
}

TEST(RequestMetrics, SeriesAreTheSameForTheSameLabels) {
  MetricsRegistry registry;
  RequestMetrics m(registry, "pool");
  const RequestSeries& a = m.Of("m", "t", "f", -1);
  EXPECT_EQ(&a, &m.Of("m", "t", "f", -1));
  EXPECT_NE(&a, &m.Of("m", "t", "f", 1));
  a.total->Add();
  EXPECT_THAT(
      registry.Expose(),
      HasSubstr("llm_d_epp_request_total{fairness_id=\"f\",model_name=\"m\",priority=\"-1\","
                "target_model_name=\"t\"} 1.0"));
}

TEST(RequestMetrics, NamesBeyondAThousandAreFolded) {
  MetricsRegistry registry;
  RequestMetrics m(registry, "pool");
  for (int i = 0; i < 1000; ++i) m.Attempt("model-" + std::to_string(i), nullptr);
  m.Attempt("one-too-many", nullptr);
  m.Attempt("two-too-many", nullptr);
  m.Attempt("model-7", nullptr);
  const std::string page = registry.Expose();
  EXPECT_THAT(page, HasSubstr("target_model_name=\"other\"} 2.0"));
  EXPECT_THAT(page, Not(HasSubstr("too-many")));
  EXPECT_THAT(page, HasSubstr("target_model_name=\"model-7\"} 2.0"));
}

TEST(RequestMetrics, AttemptsNameTheEndpoint) {
  MetricsRegistry registry;
  RequestMetrics m(registry, "pool");
  EndpointInfo e;
  e.name = "e0";
  e.ns = "ns";
  e.port = 8000;
  for (int i = 0; i < 3; ++i) m.Attempt("m", &e);
  m.Attempt("m", nullptr);
  const std::string page = registry.Expose();
  EXPECT_THAT(page, HasSubstr("llm_d_epp_scheduler_attempts_total{endpoint_name=\"e0\",namespace="
                              "\"ns\",port=\"8000\",status=\"success\",target_model_name=\"m\"} "
                              "3.0"));
  EXPECT_THAT(page, HasSubstr("status=\"failure\",target_model_name=\"m\"} 1.0"));
}

TEST(RequestMetrics, AttemptsGoWithTheirEndpoint) {
  MetricsRegistry registry;
  RequestMetrics m(registry, "pool");
  auto members = std::make_shared<Snapshot>();
  m.FollowPool([&] { return members; });
  const auto lines = [&] {
    const std::string page = registry.Expose();
    size_t n = 0;
    for (size_t at = 0; (at = page.find("llm_d_epp_scheduler_attempts_total{", at)) != page.npos;
         ++at)
      ++n;
    return n;
  };
  // Endpoints come and go, three at a time; nobody reads the page meanwhile.
  for (uint32_t i = 0; i < 3000; ++i) {
    auto set = std::make_shared<EndpointSet>();
    for (uint32_t k = i; k < i + 3; ++k) {
      auto info = std::make_shared<EndpointInfo>();
      info->name = "e" + std::to_string(k);
      info->port = 8000;
      set->Add(info, k - i);
    }
    auto next = std::make_shared<Snapshot>();
    next->set = set;
    for (size_t k = 0; k < 3; ++k) next->Add(std::make_shared<const EndpointMetrics>());
    members = next;
    for (int n = 0; n < 2; ++n) m.Attempt("m", set->infos[0].get());
  }
  m.Attempt("m", members->set->infos[1].get());
  // Those of two members, and the zeros that show the family.
  EXPECT_EQ(lines(), 3u);
  EXPECT_THAT(
      registry.Expose(),
      HasSubstr("attempts_total{endpoint_name=\"e2999\",namespace=\"default\",port=\"8000\","
                "status=\"success\",target_model_name=\"m\"} 2.0"));
  // One that has left but whose request was under way.
  EndpointInfo late;
  late.name = "e7";
  m.Attempt("m", &late);
  EXPECT_EQ(lines(), 3u);
}

TEST(RequestMetrics, DisaggregationIsCountedByHandlerUnderBothNames) {
  MetricsRegistry registry;
  RequestMetrics m(registry, "pool");
  const auto graph = *LoadGraph("", {});
  m.Disagg(*graph->handler, "m", "decode-only");
  m.Disagg(*graph->handler, "m", "decode-only");
  const std::string labels =
      "{decision_type=\"decode-only\",model_name=\"m\",plugin_name=\"single-profile-handler\","
      "plugin_type=\"single-profile-handler\"} 2.0";
  EXPECT_THAT(registry.Expose(), HasSubstr("llm_d_epp_disagg_decision_total" + labels));
  EXPECT_THAT(registry.Expose(), HasSubstr("llm_d_epp_pd_decision_total" + labels));
}

TEST(RequestMetrics, PoolMeansLeaveStaleEndpointsOut) {
  MetricsRegistry registry;
  RequestMetrics m(registry, "pool");
  Snapshot s;
  auto set = std::make_shared<EndpointSet>();
  for (const EndpointState& e : {Ep("a", 2, 4, 0.5), Ep("b", 4, 8, 0.25)}) {
    set->Add(std::make_shared<const EndpointInfo>(e.info), static_cast<uint32_t>(set->size()));
    s.Add(std::make_shared<const EndpointMetrics>(e.metrics));
  }
  set->Add(std::make_shared<const EndpointInfo>(Ep("gone").info), 2);
  s.AddStale(Ep("gone", 100, 100, 1).metrics);
  s.set = set;
  m.FollowPool([shared = std::make_shared<const Snapshot>(s)] { return shared; });
  const std::string page = registry.Expose();
  EXPECT_THAT(page, HasSubstr("llm_d_epp_average_queue_size{name=\"pool\"} 3.0"));
  EXPECT_THAT(page, HasSubstr("llm_d_epp_std_dev_queue_size{name=\"pool\"} 1.0"));
  EXPECT_THAT(page, HasSubstr("llm_d_epp_average_running_requests{name=\"pool\"} 6.0"));
  EXPECT_THAT(page, HasSubstr("inference_pool_average_kv_cache_utilization{name=\"pool\"} 0.375"));
  EXPECT_THAT(page, HasSubstr("llm_d_epp_ready_endpoints{name=\"pool\"} 3.0"));
  EXPECT_THAT(page, HasSubstr("inference_pool_ready_pods{name=\"pool\"} 3.0"));
  EXPECT_THAT(page, HasSubstr("llm_d_epp_per_endpoint_queue_size{model_server_endpoint=\"b\",name="
                              "\"pool\"} 4.0"));
  EXPECT_THAT(page, HasSubstr("inference_pool_per_pod_queue_size{model_server_pod=\"b\""));
  EXPECT_THAT(page, Not(HasSubstr("=\"gone\"")));
}

TEST(RequestMetrics, FamiliesShowBeforeTheFirstRequest) {
  MetricsRegistry registry;
  RequestMetrics m(registry, "pool");
  const std::string page = registry.Expose();
  for (const char* name :
       {"llm_d_epp_request_total", "inference_model_request_total", "llm_d_epp_request_error_total",
        "llm_d_epp_scheduler_attempts_total", "inference_extension_scheduler_attempts_total",
        "llm_d_inference_scheduler_disagg_decision_total", "inference_objective_running_requests",
        "inference_model_normalized_time_per_output_token_seconds_count"}) {
    EXPECT_THAT(page, HasSubstr("\n" + std::string(name) + "{")) << name;
  }
  registry.ExposeAliases(false);
  EXPECT_THAT(registry.Expose(), Not(HasSubstr("inference_")));
}

TEST(RequestMetrics, NamesOfRewriteRulesAreNeverFolded) {
  MetricsRegistry registry;
  RequestMetrics m(registry, "pool");
  PoolPolicy policy;
  policy.rules.push_back({.rewrite = "r", .models = {"from"}, .targets = {{"to", 1}}});
  m.Keep(policy);
  for (size_t i = 0; i < NameCap::kMaxNames; ++i) m.Attempt("model-" + std::to_string(i), nullptr);
  m.Attempt("to", nullptr);
  m.Attempt("from", nullptr);
  m.Attempt("folded", nullptr);
  const std::string page = registry.Expose();
  for (const char* name : {"to", "from", "other"})
    EXPECT_THAT(page, HasSubstr("target_model_name=\"" + std::string(name) + "\"} 1.0"));
}

TEST(RequestMetrics, CombinationsOfLabelsAreBounded) {
  MetricsRegistry registry;
  RequestMetrics m(registry, "pool");
  for (size_t i = 0; i < RequestMetrics::kMaxSeries; ++i) {
    m.Of("m" + std::to_string(i % 900), "t", "f" + std::to_string(i / 900), 0);
  }
  const RequestSeries& rest = m.Of("m1", "t", "f999", 0);
  EXPECT_EQ(&rest, &m.Of("m2", "t", "f998", 7));
  EXPECT_NE(&rest, &m.Of("m0", "t", "f0", 0));
  EXPECT_LT(registry.Expose().size(), 32u << 20) << "a scraper reads the page in seconds";
}

TEST(RequestMetrics, ErrorsAreCountedByStatus) {
  MetricsRegistry registry;
  RequestMetrics m(registry, "pool");
  RequestContext request;
  request.model = "m";
  request.target_model = "t";
  request.fairness_id = "f";
  request.priority = -2;
  for (const int status : {429, 429, 503}) m.Error(request, status);
  const std::string page = registry.Expose();
  EXPECT_THAT(page,
              HasSubstr("error_code=\"429\",fairness_id=\"f\",model_name=\"m\",priority=\"-2\","
                        "target_model_name=\"t\"} 2.0"));
  EXPECT_THAT(page, HasSubstr("inference_objective_request_error_total{error_code=\"503\""));
}

}  // namespace
}  // namespace llmd::sched
