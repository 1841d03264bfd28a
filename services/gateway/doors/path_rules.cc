#include "gateway/doors/path_rules.h"

#include <algorithm>
#include <array>

#include "gateway/doors/glob.h"
#include "llmd/http/head_view.h"

namespace llmd::doors {
namespace {

constexpr std::string_view kModelPrefix = "/v1/models/";
constexpr std::string_view kRead = "GET, HEAD, OPTIONS", kPost = "POST, OPTIONS",
                           kAny = "GET, HEAD, POST, DELETE, OPTIONS";

struct Known {
  std::string_view path;
  Route route;
  std::string_view methods;
};
constexpr std::array<Known, 13> kKnown = {
    {{"/v1/chat/completions", Route::kChat, kPost},
     {"/v1/completions", Route::kCompletion, kPost},
     {"/v1/responses", Route::kResponses, kPost},
     {"/v1/messages", Route::kMessages, kPost},
     {"/v1/messages/count_tokens", Route::kCountTokens, kPost},
     {"/v1/embeddings", Route::kEmbeddings, kPost},
     {"/v1/models", Route::kModels, kRead},
     {"/health", Route::kHealth, kRead},
     {"/ready", Route::kReady, kRead},
     {"/healthz", Route::kHealth, kRead},
     {"/readyz", Route::kReady, kRead},
     {"/metrics", Route::kMetrics, kRead},
     {"/", Route::kWelcome, kRead}}};

constexpr std::array<std::string_view, 13> kNames = {
    "unknown",    "welcome", "health",    "ready",    "metrics",      "models",    "model",
    "completion", "chat",    "responses", "messages", "count_tokens", "embeddings"};

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// RFC 3986, section 2.3: escaped or not they are the same.
bool IsUnreserved(int c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
         c == '.' || c == '_' || c == '~';
}

const char* EscapeFault(std::string_view rest) {
  const int high = rest.size() > 2 ? HexValue(rest[1]) : -1;
  const int low = rest.size() > 2 ? HexValue(rest[2]) : -1;
  if (high < 0 || low < 0) return "a '%' in the path is no escape";
  const int c = high * 16 + low;
  if (c == '/' || c == '\\' || c == 0) return "the path escapes a slash, a backslash or NUL";
  if (IsUnreserved(c)) return "the path escapes a character that needs no escape";
  return nullptr;
}

bool HasMethod(std::string_view methods, std::string_view method) {
  for (size_t at = 0; (at = methods.find(method, at)) != std::string_view::npos; ++at) {
    const size_t end = at + method.size();
    if ((at == 0 || methods[at - 1] == ' ') && (end == methods.size() || methods[end] == ','))
      return true;
  }
  return false;
}

bool MatchesAny(const std::vector<std::string>& patterns, std::string_view path) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& p) { return GlobMatches(p, path); });
}

}  // namespace

bool IsOwn(Route route) {
  return route >= Route::kWelcome && route <= Route::kModel;
}

bool IsInference(Route route) {
  return route >= Route::kCompletion && route <= Route::kEmbeddings;
}

std::string_view NameOf(Route route) {
  return route == Route::kOther ? "other" : kNames[static_cast<size_t>(route)];
}

const char* PathFault(std::string_view path) {
  if (!path.starts_with('/')) return "the path does not begin with '/'";
  size_t segment = 1;
  bool escapes = false;
  for (size_t i = 1; i <= path.size(); ++i) {
    if (i == path.size() || path[i] == '/') {
      const std::string_view text = path.substr(segment, i - segment);
      if (text == "." || text == "..") return "the path has a segment '.' or '..'";
      segment = i + 1;
      continue;
    }
    const char c = path[i];
    if (c <= 0x20 || c >= 0x7f) return "the path has a byte that is no printable ASCII";
    if (c == '\\') return "the path has a backslash";
    if (c == ';') return "the path has a ';'";
    if (c != '%') continue;
    if (const char* fault = EscapeFault(path.substr(i))) return fault;
    escapes = true;
  }
  // Escaped twice, or as overlong UTF-8.
  if (escapes && !http::IsPlainPath(path)) return "the path has a segment '.' or '..' in disguise";
  return nullptr;
}

StatusOr<PathRules> PathRules::Create(PathOptions options) {
  for (const auto* list : {&options.allow, &options.deny}) {
    const std::string flag = list == &options.allow ? "--allow-path" : "--deny-path";
    if (list->size() > kMaxPathPatterns)
      return InvalidArgument(flag + ": more than " + std::to_string(kMaxPathPatterns) +
                             " patterns");
    for (const std::string& pattern : *list) {
      if (const char* fault = PathFault(pattern))
        return InvalidArgument(flag + " '" + pattern + "': " + fault);
    }
  }
  PathRules out;
  out.options_ = std::move(options);
  return out;
}

PathDecision PathRules::Decide(std::string_view method, std::string_view path) const {
  PathDecision out;
  if (path == "*" && method == "OPTIONS") {  // of the server as a whole
    out.allowed = kAny;
    return out;
  }
  const bool model = path.starts_with(kModelPrefix) && path.size() > kModelPrefix.size();
  // Of a model's id nothing reaches an engine: only what parts the path itself matters.
  out.fault = model ? nullptr : PathFault(path);
  if (out.fault != nullptr) {
    out.status = 400;
    return out;
  }
  const auto known =
      std::find_if(kKnown.begin(), kKnown.end(), [&](const Known& k) { return k.path == path; });
  if (known != kKnown.end()) {
    out.route = known->route;
    out.allowed = known->methods;
  } else if (model) {
    out.route = Route::kModel;
    out.allowed = kRead;
  } else if (MatchesAny(options_.allow, path)) {
    out.route = Route::kOther;
    out.allowed = kAny;
  }
  if (out.route == Route::kUnknown || MatchesAny(options_.deny, path)) {
    out.route = Route::kUnknown;
    out.allowed = {};
    out.status = 404;
  } else if (!HasMethod(out.allowed, method)) {
    out.status = 405;
  }
  return out;
}

bool ModelIdOf(std::string_view path, std::string& id) {
  id.clear();
  if (!path.starts_with(kModelPrefix)) return false;
  path.remove_prefix(kModelPrefix.size());
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] != '%') {
      id += path[i];
      continue;
    }
    const int high = i + 2 < path.size() ? HexValue(path[i + 1]) : -1;
    const int low = i + 2 < path.size() ? HexValue(path[i + 2]) : -1;
    if (high < 0 || low < 0) return false;
    id += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return !id.empty();
}

const std::vector<std::string>& DefaultAllowedPaths() {
  static const std::vector<std::string> kPaths = {"/tokenize",
                                                  "/detokenize",
                                                  "/rerank",
                                                  "/v1/rerank",
                                                  "/v2/rerank",
                                                  "/score",
                                                  "/v1/score",
                                                  "/pooling",
                                                  "/classify",
                                                  "/generate",
                                                  "/inference/*",
                                                  "/v1/responses/*",
                                                  "/v1/conversations*",
                                                  "/v1/images/generations",
                                                  "/v1/completions/render",
                                                  "/v1/chat/completions/render"};
  return kPaths;
}

}  // namespace llmd::doors
