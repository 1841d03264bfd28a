#include "llmd/kv/transfer.h"

int main() {
  return llmd::kv::AgentOptions().engine_id.empty() ? 0 : 1;
}
