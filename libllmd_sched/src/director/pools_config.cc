#include <filesystem>
#include <set>

#include "llmd/config.h"
#include "llmd/sched/pools.h"

namespace llmd::sched {
namespace {

constexpr std::string_view kVersion = "llm-d.ai/v1alpha1";

class Reader {
 public:
  void Fail(const Status& status) {
    if (!errors_.empty()) errors_ += '\n';
    errors_ += status.message();
  }
  void Expect(const config::Node& node, std::string_view wanted) {
    const std::string got = node.String().value_or("");
    if (got != wanted) {
      Fail(node.Error("expected " + std::string(wanted) + ", got '" + got + "'"));
    }
  }
  std::string Text(const config::Node& node) {
    StatusOr<std::string> text = node.String();
    if (!text.ok()) Fail(text.status());
    if (text.ok() && text->empty()) Fail(node.Error("expected a text that is not empty"));
    return text.value_or("");
  }
  std::vector<std::string> Texts(const config::Node& node) {
    if (node.IsNull()) return {};
    StatusOr<std::vector<std::string>> texts = node.Strings();
    if (!texts.ok()) Fail(texts.status());
    return texts.value_or(std::vector<std::string>());
  }
  void Check(const config::Node& node) {
    if (Status status = node.RejectUnknown(); !status.ok()) Fail(status);
  }
  Status status() const { return errors_.empty() ? OkStatus() : InvalidArgument(errors_); }

 private:
  std::string errors_;
};

PoolRule ReadPool(Reader& r, const config::Node& node, const std::string& directory) {
  PoolRule pool;
  pool.name = r.Text(node.Get("name"));
  std::filesystem::path path = r.Text(node.Get("configFile"));
  if (path.is_relative()) path = std::filesystem::path(directory) / path;
  pool.config_path = path.string();
  pool.hosts = r.Texts(node.Get("hosts"));
  pool.models = r.Texts(node.Get("models"));
  return pool;
}

}  // namespace

StatusOr<PoolsConfig> ParsePools(std::string_view yaml, const std::string& directory) {
  LLMD_ASSIGN_OR_RETURN(const config::Node root, config::Parse(yaml));
  Reader r;
  r.Expect(root.Get("apiVersion"), kVersion);
  r.Expect(root.Get("kind"), "EndpointPickerPools");
  PoolsConfig out;
  std::set<std::string> names;
  std::set<std::string> taken;  // hosts and models
  const config::Node pools = root.Get("pools");
  if (pools.Items().empty()) r.Fail(pools.Error("expected a list of pools"));
  for (const config::Node& node : pools.Items()) {
    PoolRule pool = ReadPool(r, node, directory);
    if (!names.insert(pool.name).second)
      r.Fail(node.Error("another pool is already called '" + pool.name + "'"));
    for (const auto* rules : {&pool.hosts, &pool.models}) {
      for (const std::string& rule : *rules) {
        if (!taken.insert((rules == &pool.hosts ? "host " : "model ") + rule).second)
          r.Fail(node.Error("another pool takes '" + rule + "' already"));
      }
    }
    out.pools.push_back(std::move(pool));
  }
  if (const config::Node d = root.Get("defaultPool"); !d.IsNull()) {
    out.default_pool = r.Text(d);
    if (!names.contains(out.default_pool))
      r.Fail(d.Error("no pool is called '" + out.default_pool + "'"));
  }
  (void)root.Get("routes");  // of llmd-gateway, which reads them itself
  r.Check(root);
  LLMD_RETURN_IF_ERROR(r.status());
  return out;
}

}  // namespace llmd::sched
