#include "llmd/config.h"
#include "llmd/openai/request.h"
#include "llmd/version.h"

static_assert(LLMD_VERSION_MAJOR * 100 + LLMD_VERSION_MINOR >= 1);

int main() {
  const auto node = llmd::config::Parse("{a: [1, 2]}");
  return node.ok() && node->Get("a").Items().size() == 2 ? 0 : 1;
}
