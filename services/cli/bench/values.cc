// The values of flags that have parts.
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "cli/bench/flags.h"
#include "llmd/config.h"
#include "llmd/format.h"
#include "llmd/http/message.h"

namespace llmd::bench {
namespace {

constexpr uintmax_t kMaxFile = 256 << 20;

struct Part {
  std::string_view name, value;
};

StatusOr<std::vector<Part>> Parts(std::string_view text, char between) {
  std::vector<Part> out;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    const size_t at = part.find(between);
    if (at == std::string_view::npos || at == 0) {
      return InvalidArgument("'" + std::string(part) + "': expected NAME" +
                             std::string(1, between) + "VALUE");
    }
    out.push_back({part.substr(0, at), part.substr(at + 1)});
    if (comma == std::string_view::npos) return out;
    text.remove_prefix(comma + 1);
  }
}

StatusOr<double> Positive(const Part& part, double max) {
  double value = 0;
  const char* end = part.value.data() + part.value.size();
  const auto [at, ec] = std::from_chars(part.value.data(), end, value);
  if (ec != std::errc{} || at != end || !(value > 0) || value > max) {
    return InvalidArgument(std::string(part.name) + ": expected a number above 0, got '" +
                           std::string(part.value) + "'");
  }
  return value;
}

StatusOr<uint64_t> Count(const Part& part) {
  LLMD_ASSIGN_OR_RETURN(const double value, Positive(part, 1e15));
  if (value != static_cast<double>(static_cast<uint64_t>(value))) {
    return InvalidArgument(std::string(part.name) + ": expected an integer, got '" +
                           std::string(part.value) + "'");
  }
  return static_cast<uint64_t>(value);
}

Status UnknownPart(const Part& part, std::string_view known) {
  return InvalidArgument("'" + std::string(part.name) + "' is none of " + std::string(known));
}

Status SetTenantPart(const Part& part, Tenant& tenant) {
  if (part.name == "name") {
    tenant.name = part.value;
  } else if (part.name == "weight") {
    LLMD_ASSIGN_OR_RETURN(tenant.weight, Positive(part, 1e9));
  } else if (part.name == "model") {
    tenant.model = part.value;
  } else if (part.name == "fairness-id") {
    tenant.headers.Set("x-llm-d-inference-fairness-id", part.value);
  } else if (part.name == "api-key") {
    tenant.headers.Set("Authorization", "Bearer " + std::string(part.value));
  } else if (part.name == "api-key-file") {
    LLMD_ASSIGN_OR_RETURN(const std::string key, ReadKeyFile(std::string(part.value)));
    tenant.headers.Set("Authorization", "Bearer " + key);
  } else if (part.name == "header") {
    return AddHeader(part.value, tenant.headers);
  } else {
    return UnknownPart(part, "name, weight, model, fairness-id, api-key, api-key-file, header");
  }
  return OkStatus();
}

}  // namespace

Status AddHeader(std::string_view text, http::Headers& headers) {
  const size_t colon = text.find(':');
  const std::string_view name = Trim(text.substr(0, colon));
  constexpr std::string_view kToken =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~";
  if (colon == std::string_view::npos || name.empty() ||
      name.find_first_not_of(kToken) != std::string_view::npos ||
      text.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos) {
    return InvalidArgument("expected 'Name: value', got '" + std::string(text.substr(0, 200)) +
                           "'");
  }
  for (const char* ours : {"Host", "Content-Length", "Transfer-Encoding", "Connection"}) {
    if (EqualsIgnoreCase(name, ours)) {
      return InvalidArgument(std::string(ours) + " is set by llmd bench itself");
    }
  }
  headers.Set(name, Trim(text.substr(colon + 1)));
  return OkStatus();
}

StatusOr<std::string> ReadFile(const std::string& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return NotFound(path + ": " + error.message());
  if (size > kMaxFile) return InvalidArgument(path + ": larger than 256 MiB");
  std::ifstream in(path, std::ios::binary);
  std::string body{std::istreambuf_iterator<char>(in), {}};
  if (!in.good() && !in.eof()) return NotFound(path + ": cannot be read");
  return body;
}

StatusOr<std::string> ReadKeyFile(const std::string& path) {
  std::ifstream in(path);
  std::string key;
  if (!in || !std::getline(in, key) || Trim(key).empty()) {
    return NotFound(path + ": holds no key");
  }
  return std::string(Trim(key));
}

StatusOr<Tenant> ParseTenant(std::string_view text) {
  Tenant tenant;
  LLMD_ASSIGN_OR_RETURN(const std::vector<Part> parts, Parts(text, '='));
  for (const Part& part : parts) LLMD_RETURN_IF_ERROR(SetTenantPart(part, tenant));
  if (tenant.name.empty()) return InvalidArgument("a tenant needs name=NAME");
  return tenant;
}

StatusOr<Slo> ParseSlo(std::string_view text) {
  Slo slo;
  LLMD_ASSIGN_OR_RETURN(const std::vector<Part> parts, Parts(text, ':'));
  for (const Part& part : parts) {
    Duration* target = part.name == "ttft"   ? &slo.ttft
                       : part.name == "tpot" ? &slo.tpot
                       : part.name == "e2e"  ? &slo.e2e
                                             : nullptr;
    if (target == nullptr) return UnknownPart(part, "ttft, tpot, e2e");
    const bool bare = part.value.find_first_not_of("0123456789.") == std::string_view::npos;
    const std::string with_unit = std::string(part.value) + (bare ? "ms" : "");
    LLMD_ASSIGN_OR_RETURN(*target, config::ParseGoDuration(with_unit));
    if (target->count() <= 0) return InvalidArgument(std::string(part.name) + ": above 0");
  }
  return slo;
}

StatusOr<Stage> ParseStage(std::string_view text) {
  Stage stage;
  LLMD_ASSIGN_OR_RETURN(const std::vector<Part> parts, Parts(text, '='));
  for (const Part& part : parts) {
    if (part.name == "rate") {
      LLMD_ASSIGN_OR_RETURN(stage.rate, Positive(part, kMaxRate));
    } else if (part.name == "concurrency") {
      LLMD_ASSIGN_OR_RETURN(const uint64_t slots, Count(part));
      stage.concurrency = static_cast<int64_t>(slots);
    } else if (part.name == "duration") {
      LLMD_ASSIGN_OR_RETURN(stage.duration, config::ParseGoDuration(part.value));
    } else if (part.name == "requests") {
      LLMD_ASSIGN_OR_RETURN(stage.requests, Count(part));
    } else {
      return UnknownPart(part, "rate, concurrency, duration, requests");
    }
  }
  if ((stage.rate > 0) == (stage.concurrency > 0)) {
    return InvalidArgument("a stage has either rate= or concurrency=");
  }
  return stage;
}

}  // namespace llmd::bench
