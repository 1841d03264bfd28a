// Which paths there are, what may be done on them, and which a server could read as another one
// than they say.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "llmd/status.h"

namespace llmd::doors {

// What a path is to the gateway.
enum class Route {
  kUnknown,
  kWelcome,  // "/"; this one to kModel are answered by the gateway itself
  kHealth,
  kReady,
  kMetrics,
  kModels,
  kModel,       // /v1/models/{id}
  kCompletion,  // from here on engines answer
  kChat,
  kResponses,
  kMessages,     // Anthropic's
  kCountTokens,  // Anthropic's /v1/messages/count_tokens
  kEmbeddings,
  kOther,  // allowed by configuration: tokenize, rerank, score …
};
bool IsOwn(Route route);
// Whether its requests are paid for in tokens, have a JSON body and name a model in it.
bool IsInference(Route route);
// Whether its clients are Anthropic's.
inline bool IsAnthropic(Route route) {
  return route == Route::kMessages || route == Route::kCountTokens;
}
std::string_view NameOf(Route route);  // "chat", … for metrics and logs

// Why a path is refused whatever stands behind it; null when it is plain. Refused are: no leading
// '/', bytes that are no printable ASCII, '\', ';', '%' that is no escape, escapes of characters
// that need none (%61) or that part or end paths (%2f, %5c, %00), and segments "." and "..",
// escaped twice or overlong too. `path` is without its query.
const char* PathFault(std::string_view path);

struct PathOptions {
  std::vector<std::string> allow;  // patterns of paths that go to engines, besides the known ones
  std::vector<std::string> deny;   // patterns of paths that are 404, whatever else says
};
inline constexpr size_t kMaxPathPatterns = 256;

struct PathDecision {
  Route route = Route::kUnknown;
  int status = 0;               // 0, or the refusal: 400, 404, 405
  const char* fault = nullptr;  // of a 400
  std::string_view allowed;     // methods, of a 405 and for OPTIONS
};

// Immutable.
class PathRules {
 public:
  // INVALID_ARGUMENT names the pattern: they begin with '/', hold what PathFault lets pass, and
  // '*' or '?'.
  static StatusOr<PathRules> Create(PathOptions options);
  // `path` is without its query. OPTIONS is a method of every path that there is.
  PathDecision Decide(std::string_view method, std::string_view path) const;

 private:
  PathOptions options_;
};

// The id in /v1/models/{id}, where %2F and other escapes are undone since no engine sees it. False
// when an escape is none.
bool ModelIdOf(std::string_view path, std::string& id);

// What goes to engines unless --allow-path says otherwise.
const std::vector<std::string>& DefaultAllowedPaths();

}  // namespace llmd::doors
