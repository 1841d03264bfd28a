#include "llmd/sched/scheduler.h"

int main() {
  const auto scheduler = llmd::sched::Scheduler::FromYaml("");
  if (!scheduler.ok()) return 1;
  llmd::sched::EndpointState endpoint;
  endpoint.info.name = "a";
  llmd::sched::RequestSpec request;
  request.model = "m";
  request.prompt = "x";
  const auto decision = (*scheduler)->Schedule(request, {&endpoint, 1});
  return decision.ok() && decision->ok ? 0 : 1;
}
