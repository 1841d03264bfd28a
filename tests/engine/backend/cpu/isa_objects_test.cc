// The files compiled for a wider instruction set may define nothing but their Fill function and
// file-local code: a weak symbol would be merged with the same inline function of a baseline file,
// and a CPU without the instructions would die.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace llmd::engine::cpu {
namespace {

std::string Output(const std::string& command) {
  std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "r"), ::pclose);
  std::string text;
  std::array<char, 4096> chunk{};
  while (size_t n = std::fread(chunk.data(), 1, chunk.size(), pipe.get()))
    text.append(chunk.data(), n);
  return text;
}

// Lines of `nm` for the members of the archive that hold kernels: "kernels_avx2.cc.o", "T",
// "symbol".
struct Symbol {
  std::string member, kind, name;
};

std::vector<Symbol> KernelSymbols(const std::string& archive) {
  std::vector<Symbol> symbols;
  std::istringstream lines(
      Output("nm --defined-only --extern-only -C " + archive + " 2>/dev/null"));
  std::string line, member;
  while (std::getline(lines, line)) {
    if (line.size() > 2 && line.ends_with(".o:")) {
      member = line.substr(0, line.size() - 1);
      continue;
    }
    std::istringstream fields(line);
    Symbol symbol;
    std::string address;
    if (member.rfind("kernels_", 0) != 0 || !(fields >> address >> symbol.kind)) continue;
    std::getline(fields >> std::ws, symbol.name);
    symbol.member = member;
    symbols.push_back(symbol);
  }
  return symbols;
}

bool IsFill(const Symbol& symbol) {
  return symbol.kind == "T" && symbol.name.rfind("llmd::engine::cpu::Fill", 0) == 0;
}

// Sanitizers and coverage add symbols of their own.
bool IsInstrumentation(const Symbol& symbol) {
  return symbol.name.find("asan") != std::string::npos ||
         symbol.name.find("tsan") != std::string::npos ||
         symbol.name.find("__odr") != std::string::npos ||
         symbol.name.find("__clang_call_terminate") == 0;
}

TEST(KernelObjects, ExportTheirFillFunctionOnly) {
  std::vector<Symbol> symbols = KernelSymbols(LLMD_ENGINE_ARCHIVE);
  int fills = 0;
  for (const Symbol& symbol : symbols) {
    fills += IsFill(symbol);
    EXPECT_TRUE(IsFill(symbol) || IsInstrumentation(symbol))
        << symbol.member << " exports " << symbol.kind << " " << symbol.name;
  }
  EXPECT_GE(fills, 1) << "no kernel object in " << LLMD_ENGINE_ARCHIVE;
}

TEST(KernelObjects, TheCheckSeesAWeakSymbol) {
  std::string base = ::testing::TempDir() + "llmd_leak";
  std::string source =
      "inline int Leak(int x) { return x + 1; } int Use(int x) { return Leak(x) + Leak(x + 2); }";
  std::string dir = ::testing::TempDir();
  std::string command =
      "cd " + dir + " && printf '%s' '" + source +
      "' > kernels_leak.cc && (c++ -O0 -c kernels_leak.cc -o kernels_leak.o || clang++-19 -O0 -c "
      "kernels_leak.cc -o kernels_leak.o) && rm -f llmd_leak.a && ar rc llmd_leak.a kernels_leak.o";
  ASSERT_EQ(std::system(command.c_str()), 0);
  bool weak = false;
  for (const Symbol& symbol : KernelSymbols(base + ".a"))
    weak |= symbol.kind == "W" && !IsFill(symbol);
  EXPECT_TRUE(weak);
}

}  // namespace
}  // namespace llmd::engine::cpu
