#include <cstdio>
#include <string_view>

#include "cli/up.h"

namespace {

constexpr const char* kUsage =
    "usage: llmd COMMAND [flags]      (llmd COMMAND --help for its flags)\n"
    "\n"
    "  up        start a prefill/decode cluster on this machine\n"
    "  down      stop a cluster that runs in the background\n"
    "  explain   show how a request was routed\n"
    "  plugins   list the scheduling plugins\n"
    "\n"
    "  --version, --help\n";

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "up") return llmd::cli::RunUp(argc - 1, argv + 1);
  if (command == "down") return llmd::cli::RunDown(argc - 1, argv + 1);
  if (command == "plugins") return llmd::cli::RunPlugins(argc - 1, argv + 1);
  if (command == "explain") return llmd::cli::RunExplain(argc - 1, argv + 1);
  if (command == "--version") return std::puts("llmd " LLMD_VERSION), 0;
  if (command == "--help" || command == "help") return std::fputs(kUsage, stdout), 0;
  std::fprintf(stderr, "llmd: unknown command '%.*s'\n%s", static_cast<int>(command.size()),
               command.data(), kUsage);
  return 2;
}
