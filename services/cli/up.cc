#include "cli/up.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <fstream>
#include <set>
#include <utility>

#include "cli/cluster_spec.h"
#include "cli/plan.h"
#include "cli/run_dir.h"
#include "cli/supervisor.h"
#include "common/flags.h"
#include "common/process.h"
#include "llmd/http/client.h"
#include "llmd/nearest.h"

namespace llmd::cli {
namespace {

using services::FlagSet;

struct UpFlags {
  std::string config, model, name = "default", transport;
  uint16_t port = 8000;
  std::vector<std::string> only;
  bool epp = false, dry_run = false, start_logs = false;
  std::chrono::nanoseconds ready_timeout = std::chrono::seconds(60);
};

// Our own lines carry the prefix "llmd" so that a grep for it shows what `up` did.
void Say(std::string_view text) {
  std::printf("%-16s| %.*s\n", "llmd", static_cast<int>(text.size()), text.data());
  std::fflush(stdout);
}

FlagSet MakeFlags(UpFlags& flags) {
  FlagSet set("llmd up",
              "Starts gateway, engines and sidecars on this machine; Ctrl-C stops them.");
  set.Positional("CLUSTER.yaml", &flags.config,
                 "a LlmdCluster document; without it one prefill and two decode engines");
  set.String("model", &flags.model, "GGUF file to serve");
  set.String("name", &flags.name, "name of the cluster, for llmd explain");
  set.Port("port", &flags.port, "port of the gateway; 0 = any free one");
  set.String("transport", &flags.transport, "KV lane between the engines: auto, memfd or tcp");
  set.Bool("epp", &flags.epp,
           "start an endpoint picker of its own, which the gateway asks over ext_proc, as Envoy "
           "would; else the gateway decides");
  set.List("only", &flags.only, "show only the logs of these roles or process names");
  set.Bool("start-logs", &flags.start_logs,
           "show the logs of the start as they come; else only when it fails or with --only");
  set.Bool("dry-run", &flags.dry_run, "print the command lines and files, start nothing");
  set.Duration("ready-timeout", &flags.ready_timeout,
               "how long to wait for everything to be ready");
  return set;
}

StatusOr<ClusterSpec> MakeSpec(const UpFlags& flags, const FlagSet::Outcome& outcome) {
  ClusterSpec spec;
  if (!flags.config.empty()) {
    LLMD_ASSIGN_OR_RETURN(spec, ParseCluster(flags.config));
  }
  if (!flags.model.empty()) spec.model = flags.model;
  if (!flags.transport.empty()) spec.transport = flags.transport;
  if (outcome.Given("epp")) spec.picker_process = flags.epp;
  if (outcome.Given("name")) spec.name = flags.name;
  if (outcome.Given("port")) spec.gateway_port = flags.port;
  LLMD_RETURN_IF_ERROR(Complete(spec, AvailableCores()));
  return spec;
}

Status WriteFiles(const ClusterPlan& plan) {
  for (const auto& [path, content] : plan.files) {
    std::ofstream out(path, std::ios::trunc);
    out << content;
    if (!out.flush()) return PermissionDenied("cannot write " + path);
  }
  return OkStatus();
}

Status WriteRunFile(const ClusterPlan& plan, const std::string& run_dir) {
  const std::string path = run_dir + "/run.json";
  std::ofstream out(path + ".new", std::ios::trunc);
  out << plan.RunFile().DumpPretty() << "\n";
  if (!out.flush()) return PermissionDenied("cannot write " + path);
  std::filesystem::rename(path + ".new", path);
  return OkStatus();
}

void PrintPlan(const ClusterPlan& plan) {
  for (const auto& [path, content] : plan.files)
    std::printf("# %s\n%s\n", path.c_str(), content.c_str());
  for (const ProcessPlan& process : plan.processes) {
    std::printf("# %s\n", process.name.c_str());
    for (const std::string& word : process.environment) std::printf("%s ", word.c_str());
    for (const std::string& word : process.argv) std::printf("%s ", word.c_str());
    std::printf("\n\n");
  }
}

bool Shown(const ProcessPlan& process, const std::vector<std::string>& only) {
  if (only.empty()) return true;
  return std::any_of(only.begin(), only.end(), [&](const std::string& word) {
    return word == process.role || word == process.name;
  });
}

std::vector<std::string> SplitCommas(const std::vector<std::string>& words) {
  std::vector<std::string> out;
  for (const std::string& word : words) {
    size_t begin = 0;
    while (begin <= word.size()) {
      const size_t end = std::min(word.find(',', begin), word.size());
      if (end > begin) out.push_back(word.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return out;
}

// An error naming the nearest when a word is neither a role nor a process of the plan.
Status CheckOnly(const ClusterPlan& plan, const std::vector<std::string>& only) {
  std::set<std::string> known;
  for (const ProcessPlan& process : plan.processes) known.insert({process.role, process.name});
  for (const std::string& word : only) {
    if (known.contains(word)) continue;
    return InvalidArgument("--only: no process or role is called '" + word + "'" +
                           DidYouMean(word, {known.begin(), known.end()}));
  }
  return OkStatus();
}

// One running cluster, owned by the main thread.
class Up {
 public:
  // With `hold_start` what the processes log until all are ready is shown only if that fails.
  Up(const ClusterPlan& plan, std::vector<std::string> only, bool hold_start, int signal_fd)
      : plan_(plan),
        only_(std::move(only)),
        signal_fd_(signal_fd),
        holds_(hold_start),
        supervisor_([this](const ProcessPlan& process, std::string_view line) {
          if (Shown(process, only_)) Show(process.name, line);
        }) {}

  int Run(const std::string& run_dir, Duration ready_timeout) {
    const TimePoint started = SystemClock().Now();
    Say("starting " + plan_.Summary());
    for (const ProcessPlan& process : plan_.processes) {
      if (Status s = supervisor_.Start(process); !s.ok()) return services::Fail(s);
    }
    int code = WaitReady(started, ready_timeout);
    EndHolding(code > 0);
    if (code == 0) {
      if (Status s = WriteRunFile(plan_, run_dir); !s.ok()) return services::Fail(s);
      SayReady(started);
      code = Follow();
      std::filesystem::remove(run_dir + "/run.json");
    }
    Say("stopping");
    supervisor_.Stop(std::chrono::seconds(10));
    Say("stopped");
    return code > 0 ? code : 0;
  }

 private:
  static constexpr int kInterrupted = -1;
  static constexpr size_t kMaxHeldLines = 10'000;

  void Show(const std::string& name, std::string_view line) {
    if (holds_) {
      if (held_.size() == kMaxHeldLines) held_.pop_front();
      held_.emplace_back(name, line);
      return;
    }
    std::printf("%-16s| %.*s\n", name.c_str(), static_cast<int>(line.size()), line.data());
    std::fflush(stdout);
  }

  void EndHolding(bool show) {
    holds_ = false;
    for (const auto& [name, line] : std::exchange(held_, {})) {
      if (show) Show(name, line);
    }
  }

  // 0 = all ready, kInterrupted = Ctrl-C, 1 = failed.
  int WaitReady(TimePoint started, Duration timeout) {
    auto runtime = http::Runtime::Create(1);
    if (!runtime.ok()) return services::Fail(runtime.status());
    http::Client client(**runtime, {});
    std::vector<const ProcessPlan*> waiting;
    waiting.reserve(plan_.processes.size());
    for (const ProcessPlan& process : plan_.processes) waiting.push_back(&process);
    TimePoint next_word = started + std::chrono::seconds(2);
    while (!waiting.empty()) {
      if (Tick(std::chrono::milliseconds(20))) return kInterrupted;
      if (ReportExits()) return 1;
      std::erase_if(waiting, [&](const ProcessPlan* process) { return Ready(client, *process); });
      const TimePoint now = SystemClock().Now();
      if (waiting.empty() || now < next_word) continue;
      std::string names;
      for (const ProcessPlan* process : waiting)
        names += (names.empty() ? "" : ", ") + process->name;
      Say("waiting for " + names);
      next_word = now + std::chrono::seconds(2);
      if (now - started > timeout) {
        Say("gave up waiting; see the logs of the processes named above");
        return 1;
      }
    }
    return 0;
  }

  static bool Ready(http::Client& client, const ProcessPlan& process) {
    http::HostPort peer{"127.0.0.1", process.health_port};
    http::RequestHead head;
    head.target = process.health_path;
    http::CallOptions options;
    options.first_byte_timeout = std::chrono::seconds(1);
    const auto response = client.FetchBlocking(peer, std::move(head), "", options);
    return response.ok() && response->head.status == 200;
  }

  void SayReady(TimePoint started) {
    const auto ms =
        std::chrono::duration_cast<std::chrono::milliseconds>(SystemClock().Now() - started)
            .count();
    const std::string url = "http://127.0.0.1:" + std::to_string(plan_.gateway_port);
    Say("ready in " + std::to_string(ms) + " ms: " + url + " serves " + plan_.served_model_name);
    Say("try: curl -sN " + url +
        "/v1/chat/completions -H 'Content-Type: application/json' -d '{\"model\":\"" +
        plan_.served_model_name +
        "\",\"stream\":true,\"max_tokens\":64,\"messages\":[{\"role\":\"user\",\"content\":\"Hello!"
        "\"}]}'");
    Say("why it went where it went: llmd explain" +
        (plan_.name == "default" ? "" : " --name " + plan_.name) +
        "; Ctrl-C stops all; what follows are the logs");
  }

  int Follow() {
    for (;;) {
      if (Tick(std::chrono::seconds(1))) return kInterrupted;
      if (ReportExits()) return 1;
    }
  }

  // True when a signal asks to stop.
  bool Tick(Duration timeout) {
    supervisor_.Poll(timeout, signal_fd_);
    signalfd_siginfo info;
    return read(signal_fd_, &info, sizeof(info)) == sizeof(info);
  }

  bool ReportExits() {
    const auto exits = supervisor_.TakeExits();
    for (const auto& exit : exits) Say(exit.name + " ended: " + exit.how);
    return !exits.empty();
  }

  const ClusterPlan& plan_;
  const std::vector<std::string> only_;
  const int signal_fd_;
  bool holds_;
  std::deque<std::pair<std::string, std::string>> held_;  // process and line
  Supervisor supervisor_;
};

int SignalFd() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

}  // namespace

int RunUp(int argc, const char* const* argv) {
  services::BlockSignals();
  UpFlags flags;
  FlagSet set = MakeFlags(flags);
  const FlagSet::Outcome outcome = set.Parse(argc, argv);
  if (outcome.exit) return outcome.code;
  auto spec = MakeSpec(flags, outcome);
  if (!spec.ok()) return services::Fail(spec.status());
  const std::string run_dir = RunDirectory(spec->name);
  const std::string bin_dir =
      std::filesystem::read_symlink("/proc/self/exe").parent_path().string();
  auto plan = MakePlan(*spec, bin_dir, run_dir, FreePorts());
  if (!plan.ok()) return services::Fail(plan.status());
  const std::vector<std::string> only = SplitCommas(flags.only);
  if (Status s = CheckOnly(*plan, only); !s.ok()) return services::Fail(s);
  if (flags.dry_run) return PrintPlan(*plan), 0;
  if (Status s = MakeRunDirectory(spec->name); !s.ok()) return services::Fail(s);
  if (Status s = WriteFiles(*plan); !s.ok()) return services::Fail(s);
  const bool hold = only.empty() && !flags.start_logs;
  return Up(*plan, only, hold, SignalFd()).Run(run_dir, flags.ready_timeout);
}

}  // namespace llmd::cli
