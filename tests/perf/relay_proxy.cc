// The relay with nothing to decide: requests go to the targets in turn. What it costs is what the
// data plane costs; the gateway's decisions come on top.
//   relay_proxy PORT LOOPS IP:PORT...
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "llmd/http/relay/relay.h"

namespace llmd::relay {
namespace {

class InTurn final : public Policy {
 public:
  explicit InTurn(const std::vector<Target>& targets) : targets_(targets) {}
  void OnRequest(Call& call) override {
    SendOptions options;
    options.target = targets_[next_++ % targets_.size()];
    call.Send(options);
  }
  void OnFailure(Call& call, Failure failure, std::string_view) override {
    call.Answer(502, {}, NameOf(failure));
  }
  void OnResponseHead(Call& call, const http::ResponseView&) override {
    call.Forward({}, BodyMode::kPass);
  }
  void OnEnd(Call&, const Outcome&) override {}

 private:
  const std::vector<Target>& targets_;
  size_t next_ = 0;
};

int Run(int argc, char** argv) {
  if (argc < 4) return std::fprintf(stderr, "usage: relay_proxy PORT LOOPS IP:PORT...\n"), 2;
  std::vector<Target> targets;
  for (int i = 3; i < argc; ++i) {
    auto target = Target::Parse(argv[i]);
    if (!target.ok()) return std::fprintf(stderr, "%s\n", target.status().message().c_str()), 2;
    targets.push_back(*target);
  }
  RelayOptions options;
  options.server.port = static_cast<uint16_t>(std::atoi(argv[1]));
  options.loops = std::atoi(argv[2]);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  auto relay = Relay::Create(
      options, [&](Loop&) -> std::unique_ptr<Policy> { return std::make_unique<InTurn>(targets); },
      Logger());
  if (!relay.ok()) return std::fprintf(stderr, "%s\n", relay.status().message().c_str()), 1;
  int signal = 0;
  sigwait(&signals, &signal);
  (*relay)->Stop(Duration::zero());
  return 0;
}

}  // namespace
}  // namespace llmd::relay

int main(int argc, char** argv) {
  return llmd::relay::Run(argc, argv);
}
