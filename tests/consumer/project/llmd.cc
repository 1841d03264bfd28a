// One target for everything: something of each library is asked for.
#include "llmd/engine/engine.h"
#include "llmd/engine/sampling.h"
#include "llmd/http/server.h"
#include "llmd/kv/block_hash.h"
#include "llmd/pd/protocol.h"
#include "llmd/sched/scheduler.h"
#include "llmd/text/chat_template.h"

int main() {
  const auto runtime = llmd::http::Runtime::Create(1);
  if (!runtime.ok()) return 1;
  (*runtime)->Stop();
  llmd::engine::SamplingParams wrong;
  wrong.temperature = -1;
  const bool as_expected = llmd::sched::Scheduler::FromYaml("").ok() &&
                           llmd::kv::MakeEngineHasher("sha256_cbor", "0").ok() &&
                           !llmd::text::ChatTemplate::Parse("{{ broken").ok() &&
                           !llmd::engine::Validate(wrong, 100).ok() &&
                           llmd::pd::ApiOfPath("/v1/completions") == llmd::pd::Api::kCompletions;
  return as_expected ? 0 : 1;
}
