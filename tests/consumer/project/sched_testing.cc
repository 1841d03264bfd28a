#include "llmd/sched/testing/properties.h"

int main() {
  return llmd::sched::testing::CheckScorer(nullptr, "queue-scorer").ok() ? 0 : 1;
}
