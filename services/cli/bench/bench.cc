#include "cli/bench/bench.h"

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "cli/bench/chart.h"
#include "cli/bench/flags.h"
#include "cli/bench/report.h"
#include "common/process.h"
#include "llmd/http/client.h"
#include "llmd/http/runtime.h"

namespace llmd::bench {
namespace {

// The first model that the server lists.
StatusOr<std::string> FirstModel(const Options& options) {
  const http::Url& target = options.targets[0];
  LLMD_ASSIGN_OR_RETURN(auto runtime, http::Runtime::Create(1));
  http::ClientOptions client_options;
  if (target.tls) {
    LLMD_ASSIGN_OR_RETURN(client_options.tls, http::TlsContext::CreateClient(options.tls));
  }
  http::Client client(*runtime, client_options);
  http::RequestHead head;
  std::string base = target.target;
  while (base.ends_with('/')) base.pop_back();
  head.target = base + "/v1/models";
  if (!options.api_key.empty()) head.headers.Set("Authorization", "Bearer " + options.api_key);
  for (const auto& [name, value] : options.headers.lines()) head.headers.Set(name, value);
  const std::string url =
      std::string(target.tls ? "https://" : "http://") + target.peer.ToString() + head.target;
  StatusOr<http::Response> response = client.FetchBlocking(
      target.peer, std::move(head), "", {.first_byte_timeout = std::chrono::seconds(30)});
  if (!response.ok()) return response.status().WithContext(url);
  if (response->head.status != 200) {
    return Unavailable(url + " answered " + std::to_string(response->head.status) +
                       "; give --model");
  }
  LLMD_ASSIGN_OR_RETURN(const json::Value list, json::Parse(response->body));
  for (const json::Value& model : list["data"].AsArray()) {
    if (!model["id"].AsString().empty()) return model["id"].AsString();
  }
  return NotFound(url + " lists no model; give --model");
}

Status Write(const std::string& path, const std::string& text) {
  std::error_code ignored;
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  if (!parent.empty()) std::filesystem::create_directories(parent, ignored);
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  return out ? OkStatus() : Unavailable(path + ": cannot be written");
}

Status Publish(const Options& options, const Result& result) {
  const bool json_to_stdout = options.json_path == "-";
  std::fputs(TextReport(options, result).c_str(), json_to_stdout ? stderr : stdout);
  if (!options.json_path.empty()) {
    const std::string json = JsonReport(options, result).DumpPretty() + "\n";
    if (json_to_stdout) {
      std::fputs(json.c_str(), stdout);
    } else {
      LLMD_RETURN_IF_ERROR(Write(options.json_path, json));
    }
  }
  return options.svg_path.empty() ? OkStatus() : Write(options.svg_path, SvgChart(options, result));
}

StatusOr<int> Go(Options& options) {
  Trace trace;
  if (options.load == Options::Load::kTrace) {
    LLMD_ASSIGN_OR_RETURN(trace, Trace::Load(options.trace, options.trace_format));
  }
  if (options.model.empty() && options.api != Api::kRaw) {
    LLMD_ASSIGN_OR_RETURN(options.model, FirstModel(options));
  }
  LLMD_ASSIGN_OR_RETURN(const Workload workload, Workload::Create(options, &trace));
  services::BlockSignals();
  LLMD_ASSIGN_OR_RETURN(const Result result, RunBench(options, workload, &trace));
  LLMD_RETURN_IF_ERROR(Publish(options, result));
  if (result.signal != 0) return 128 + result.signal;
  return result.total.completed() > 0 ? 0 : 1;
}

}  // namespace

int Main(int argc, const char* const* argv) {
  CommandLine line = ReadCommandLine(argc, argv);
  if (line.exit) return line.code;
  const StatusOr<int> code = Go(line.options);
  if (code.ok()) return *code;
  services::Fail(code.status());
  const StatusCode kind = code.status().code();
  return kind == StatusCode::kInvalidArgument || kind == StatusCode::kNotFound ? 2 : 1;
}

}  // namespace llmd::bench
