// Strict YAML/JSON configuration: every key must be read, every value is typed, and an error names
// file, line and key path.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/json.h"
#include "llmd/status.h"

namespace llmd::config {

// One node of a parsed document, with its path ("flowControl.priorityBands[1].maxRequests") and
// line. Value type; shares the document. Thread-compatible.
class Node {
 public:
  Node();
  bool IsNull() const;
  bool IsMap() const;
  bool IsList() const;
  bool IsScalar() const;
  const std::string& path() const;
  int line() const;  // 1-based, 0 when unknown

  // Children. Get on an absent key gives a null node whose path is right. Keys read by Get/Has
  // count as known.
  Node Get(std::string_view key) const;
  bool Has(std::string_view key) const;
  std::vector<Node> Items() const;  // of a list; empty otherwise
  std::vector<std::pair<std::string, Node>> Members()
      const;  // of a map, in order; marks all as known

  // Typed reads. INVALID_ARGUMENT: "line 7: plugins[2].parameters.threshold: expected an integer,
  // got 'many'".
  StatusOr<std::string> String() const;
  StatusOr<int64_t> Int() const;
  StatusOr<double> Double() const;
  StatusOr<bool> Bool() const;
  // Go durations: "200ms", "1m30s", "0s"; bare numbers are an error as in Go.
  StatusOr<std::chrono::nanoseconds> Duration() const;
  // Kubernetes quantities: "4k", "2Gi", "500", 1e9.
  StatusOr<double> Quantity() const;
  StatusOr<std::vector<std::string>> Strings() const;

  // INVALID_ARGUMENT when this map, or any map below it that was read, holds keys nobody asked
  // for: one line each, with the nearest known key. With `deep` false only this map is checked.
  Status RejectUnknown(bool deep = true) const;
  // An error at this node: "line N: path: message".
  Status Error(std::string_view message) const;
  // The whole subtree as JSON.
  json::Value ToJson() const;
  // The same content, in whatever order the keys of maps stand. Marks nothing as known.
  bool SameAs(const Node& other) const;

  struct Impl;
  explicit Node(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

 private:
  std::shared_ptr<const Impl> impl_;
};

struct Limits {
  size_t max_bytes = 1 << 20;
  size_t max_nodes = 100'000;  // after aliases are expanded
  int max_depth = 100;
};

// Parses YAML 1.2 (JSON included). Duplicate keys, merge keys (<<) and several documents are
// errors.
StatusOr<Node> Parse(std::string_view text, Limits limits = {});
StatusOr<Node> ParseFile(const std::string& path, Limits limits = {});

// Go's time.ParseDuration.
StatusOr<std::chrono::nanoseconds> ParseGoDuration(std::string_view text);
// The candidate nearest to `word` by edit distance, or "" when none is near.
std::string Nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace llmd::config
