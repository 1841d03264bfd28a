#include "llmd/engine/engine.h"
#include "llmd/engine/sampling.h"

int main() {
  llmd::engine::SamplingParams wrong;
  wrong.temperature = -1;
  return llmd::engine::Validate(wrong, 100).ok() ? 1 : 0;
}
