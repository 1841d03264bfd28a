#include "gateway/routes.h"

#include <algorithm>
#include <array>

namespace llmd::gateway {
namespace {

constexpr std::array kPrefixes = {std::string_view("/v1/"), std::string_view("/v2/"),
                                  std::string_view("/inference/")};
constexpr std::array kPaths = {std::string_view("/tokenize"), std::string_view("/detokenize"),
                               std::string_view("/rerank"),   std::string_view("/score"),
                               std::string_view("/pooling"),  std::string_view("/classify")};
constexpr std::string_view kForwarded = "GET, HEAD, POST, DELETE, OPTIONS";
constexpr std::string_view kRead = "GET, HEAD, OPTIONS";

bool IsForwarded(std::string_view path) {
  return std::any_of(kPrefixes.begin(), kPrefixes.end(),
                     [path](std::string_view prefix) { return path.starts_with(prefix); }) ||
         std::find(kPaths.begin(), kPaths.end(), path) != kPaths.end();
}

bool IsRead(std::string_view method) {
  return method == "GET" || method == "HEAD";
}

Routes::Verdict Refuse(int status, std::string_view message, std::string_view allow = {}) {
  Routes::Verdict out;
  out.kind = Routes::Verdict::Kind::kRefuse;
  out.status = status;
  out.message = message;
  out.allow = allow;
  return out;
}

}  // namespace

Routes::Verdict Routes::Of(const http::RequestView& request) const {
  const std::string_view path = request.path();
  if (!http::IsPlainPath(path))
    return Refuse(400, "the path has dot segments, backslashes or escaped slashes");
  const bool options = request.method == "OPTIONS";
  const auto page = std::find_if(pages_.begin(), pages_.end(),
                                 [path](const LocalPage& each) { return each.path == path; });
  if (page != pages_.end() && (IsRead(request.method) || !IsForwarded(path))) {
    if (options) return Refuse(204, "", kRead);
    if (!IsRead(request.method)) return Refuse(405, "method not allowed", kRead);
    Verdict out;
    out.kind = Verdict::Kind::kLocal;
    out.page = &*page;
    return out;
  }
  if (request.target == "*") return Refuse(204, "", kForwarded);
  if (!IsForwarded(path)) return Refuse(404, "no such route");
  if (options) return Refuse(204, "", kForwarded);
  if (!IsRead(request.method) && request.method != "POST" && request.method != "DELETE")
    return Refuse(405, "method not allowed", kForwarded);
  return {};
}

}  // namespace llmd::gateway
