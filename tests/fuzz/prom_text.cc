#include "llmd/prom_text.h"

#include "fuzz/fuzz.h"

FUZZ_TARGET(prom_text) {
  const llmd::PromScanner scanner({"up", "vllm:num_requests_running", "a_bucket"});
  size_t seen = 0;
  const auto result = scanner.Scan(input, [&](const llmd::PromSample& sample) {
    ++seen;
    FUZZ_EXPECT(sample.name < scanner.names().size());
    if (const auto le = llmd::FindLabel(sample.labels, "le")) {
      FUZZ_EXPECT(llmd::UnescapeLabel(*le).size() <= le->size());
    }
  });
  FUZZ_EXPECT(result.samples == seen);
  FUZZ_EXPECT(result.samples + result.malformed <= input.size());
  // A line more can neither hide nor change what stood before it.
  const auto more = scanner.Scan(std::string(input) + "\nup 1\n", [](const llmd::PromSample&) {});
  FUZZ_EXPECT(more.samples == result.samples + 1);
}
