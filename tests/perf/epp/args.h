// --name value pairs of the benchmark programs. A name nobody asked for, or one without a value,
// ends the program with status 2.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

namespace llmd::perf {

class Args {
 public:
  Args(int argc, char** argv) {
    for (int i = 1; i < argc; i += 2) {
      const std::string name = argv[i];
      if (!name.starts_with("--") || i + 1 == argc) Usage(name);
      values_[name.substr(2)] = argv[i + 1];
    }
  }
  std::string Text(const std::string& name, std::string otherwise) {
    const auto it = values_.find(name);
    if (it == values_.end()) return otherwise;
    std::string value = it->second;
    values_.erase(it);
    return value;
  }
  double Number(const std::string& name, double otherwise) {
    const std::string text = Text(name, "");
    return text.empty() ? otherwise : std::strtod(text.c_str(), nullptr);
  }
  // Call after the last question.
  void Done() const {
    if (!values_.empty()) Usage("--" + values_.begin()->first);
  }

 private:
  [[noreturn]] static void Usage(const std::string& name) {
    std::fprintf(stderr, "unknown or incomplete argument: %s\n", name.c_str());
    std::exit(2);
  }
  std::map<std::string, std::string> values_;
};

}  // namespace llmd::perf
