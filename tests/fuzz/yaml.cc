#include "fuzz/fuzz.h"
#include "llmd/config.h"

namespace {
void Visit(const llmd::config::Node& node) {
  (void)node.String();
  (void)node.Int();
  (void)node.Double();
  (void)node.Bool();
  (void)node.Duration();
  (void)node.Quantity();
  (void)node.Strings();
  for (const auto& item : node.Items()) Visit(item);
  for (const auto& [key, child] : node.Members()) Visit(child);
}
}  // namespace

FUZZ_TARGET(yaml) {
  llmd::config::Limits limits;
  limits.max_nodes = 2000;
  const auto root = llmd::config::Parse(input, limits);
  (void)llmd::config::ParseGoDuration(input);
  if (!root.ok()) return;
  Visit(*root);
  FUZZ_EXPECT(root->RejectUnknown().ok());
  FUZZ_EXPECT(llmd::json::Parse(root->ToJson().Dump()).ok());
}
