#include "llmd/pd/protocol.h"
#include "llmd/pd/usage_rewriter.h"

int main() {
  return llmd::pd::ApiOfPath("/v1/completions") == llmd::pd::Api::kCompletions ? 0 : 1;
}
