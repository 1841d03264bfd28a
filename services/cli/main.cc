#include <cstdio>
#include <string_view>
#include <vector>

#include "cli/bench/bench.h"
#include "cli/key.h"
#include "cli/up.h"
#include "llmd/nearest.h"

namespace {

struct Command {
  const char* name;
  int (*run)(int argc, const char* const* argv);
  const char* help;
};

constexpr Command kCommands[] = {
    {"up", llmd::cli::RunUp, "start a prefill/decode cluster on this machine"},
    {"down", llmd::cli::RunDown, "stop a cluster that runs in the background"},
    {"bench", llmd::bench::Main, "send load to a server and measure it"},
    {"key", llmd::cli::RunKey, "make, list, disable and remove the gateway's API keys"},
    {"explain", llmd::cli::RunExplain, "show how a request was routed"},
    {"plugins", llmd::cli::RunPlugins, "list the scheduling plugins"},
};

int PrintHelp() {
  std::puts("usage: llmd COMMAND [flags]      (llmd COMMAND --help for its flags)\n");
  for (const Command& command : kCommands) std::printf("  %-9s %s\n", command.name, command.help);
  std::puts("\n  --version, --help");
  return 0;
}

int Unknown(std::string_view word) {
  std::vector<std::string> names;
  for (const Command& command : kCommands) names.emplace_back(command.name);
  std::fprintf(stderr, "llmd: unknown command '%.*s'%s (llmd --help lists them)\n",
               static_cast<int>(word.size()), word.data(), llmd::DidYouMean(word, names).c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view word = argc > 1 ? argv[1] : "";
  for (const Command& command : kCommands) {
    if (word == command.name) return command.run(argc - 1, argv + 1);
  }
  if (word == "--version") return std::puts("llmd " LLMD_VERSION), 0;
  if (word.empty() || word == "--help" || word == "-h" || word == "help") return PrintHelp();
  return Unknown(word);
}
