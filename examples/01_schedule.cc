// One scheduling decision with llmd::sched: which of three model servers gets a request, and every
// score behind it. Built on its own against the installed package (examples/CMakeLists.txt);
// 02_schedule.py prints the same in Python. usage: 01_schedule CONFIG.yaml
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "llmd/sched/scheduler.h"

namespace {

llmd::sched::EndpointState Endpoint(const char* name, const char* role, uint16_t port,
                                    double waiting, double kv_usage) {
  llmd::sched::EndpointState endpoint;
  endpoint.info.name = name;
  endpoint.info.address = "10.0.0.1";
  endpoint.info.port = port;
  endpoint.info.labels["llm-d.ai/role"] = role;
  endpoint.metrics.waiting = waiting;
  endpoint.metrics.kv_usage = kv_usage;
  endpoint.metrics.block_size = 16;
  endpoint.metrics.ever = true;
  return endpoint;
}

void Print(const llmd::sched::Decision& decision) {
  const auto& names = decision.trace.endpoints;
  for (const auto& profile : decision.trace.profiles) {
    for (size_t i = 0; i < profile.candidates.size(); ++i) {
      std::printf("%s %s total %.6f", profile.profile.c_str(), names[profile.candidates[i]].c_str(),
                  profile.totals[i]);
      for (const auto& score : profile.scores)
        std::printf(" %s %.6f", score.scorer.c_str(), score.raw[i]);
      std::printf("\n");
    }
  }
  std::printf("chosen %s\n", decision.picked.at(0).endpoint.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  std::ifstream file(argc > 1 ? argv[1] : "examples/data/schedule.yaml");
  std::stringstream yaml;
  yaml << file.rdbuf();
  auto scheduler = llmd::sched::Scheduler::FromYaml(yaml.str());
  if (!scheduler.ok())
    return std::fprintf(stderr, "%s\n", scheduler.status().ToString().c_str()), 1;

  const std::vector<llmd::sched::EndpointState> endpoints{
      Endpoint("decode-0", "decode", 8000, 4, 0.5), Endpoint("decode-1", "decode", 8001, 1, 0.7),
      Endpoint("prefill-0", "prefill", 8002, 0, 0)};
  llmd::sched::RequestSpec request;
  request.model = "demo";
  request.prompt = std::string(2000, 'a');
  for (int turn = 0; turn < 2;
       ++turn) {  // the second time the prefix is known where the first one went
    auto decision = (*scheduler)->Schedule(request, endpoints);
    if (!decision.ok())
      return std::fprintf(stderr, "%s\n", decision.status().ToString().c_str()), 1;
    Print(*decision);
  }
  return 0;
}
