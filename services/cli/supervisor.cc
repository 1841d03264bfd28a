#include "cli/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace llmd::cli {
namespace {

constexpr size_t kMaxLineBytes = 1 << 20;

std::string DescribeExit(int wait_status) {
  if (WIFEXITED(wait_status)) return "exit code " + std::to_string(WEXITSTATUS(wait_status));
  const int number = WTERMSIG(wait_status);
  return "signal " + std::to_string(number) + " (" + strsignal(number) + ")";
}

// Between fork and exec: only async-signal-safe calls.
[[noreturn]] void RunChild(char* const* argv, char* const* env, int output_fd, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  setpgid(0, 0);  // a Ctrl-C in the terminal reaches llmd alone, which ends the others in order
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(output_fd, STDOUT_FILENO);
  dup2(output_fd, STDERR_FILENO);
  const int null_fd = open("/dev/null", O_RDONLY);
  dup2(null_fd, STDIN_FILENO);
  execve(argv[0], argv, env);
  _exit(127);
}

// What execve takes; the strings must outlive it.
std::vector<char*> Pointers(const std::vector<std::string>& words) {
  std::vector<char*> out;
  out.reserve(words.size() + 1);
  for (const std::string& word : words) out.push_back(const_cast<char*>(word.c_str()));
  out.push_back(nullptr);
  return out;
}

// Our environment with the entries of `changes` ("NAME=value") in place of those of the same name.
std::vector<std::string> Environment(const std::vector<std::string>& changes) {
  std::vector<std::string> out = changes;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::string_view name = text.substr(0, text.find('=') + 1);
    const bool changed = std::any_of(changes.begin(), changes.end(),
                                     [&](const std::string& c) { return c.starts_with(name); });
    if (!changed) out.emplace_back(text);
  }
  return out;
}

}  // namespace

struct Supervisor::Child {
  ProcessPlan plan;
  pid_t pid = -1;
  int output_fd = -1;
  std::string line;

  ~Child() {
    if (output_fd >= 0) close(output_fd);
  }
};

Supervisor::Supervisor(LineFn on_line) : on_line_(std::move(on_line)) {}

Supervisor::~Supervisor() {
  Stop(Duration::zero());
}

Status Supervisor::Start(const ProcessPlan& process) {
  if (access(process.argv[0].c_str(), X_OK) != 0)
    return ErrnoStatus(errno, "cannot start " + process.argv[0]);
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe for " + process.name);
  const std::vector<std::string> environment = Environment(process.environment);
  const std::vector<char*> argv = Pointers(process.argv), env = Pointers(environment);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) RunChild(argv.data(), env.data(), fds[1], parent);
  close(fds[1]);
  if (pid < 0) {
    close(fds[0]);
    return ErrnoStatus(errno, "fork for " + process.name);
  }
  fcntl(fds[0], F_SETFL, O_NONBLOCK);
  auto child = std::make_unique<Child>();
  child->plan = process;
  child->pid = pid;
  child->output_fd = fds[0];
  children_.push_back(std::move(child));
  return OkStatus();
}

void Supervisor::Poll(Duration timeout, int wake_fd) {
  std::vector<pollfd> fds;
  fds.reserve(children_.size() + 1);
  for (const auto& child : children_) fds.push_back({child->output_fd, POLLIN, 0});
  fds.push_back({wake_fd, POLLIN, 0});
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(timeout).count();
  if (poll(fds.data(), fds.size(), static_cast<int>(ms)) > 0) {
    for (size_t i = 0; i < children_.size(); ++i) {
      if (fds[i].revents != 0) ReadOutput(*children_[i]);
    }
  }
  Reap();
}

void Supervisor::ReadOutput(Child& child) {
  char buffer[16384];
  ssize_t got = 0;
  while ((got = read(child.output_fd, buffer, sizeof(buffer))) > 0) {
    std::string_view text(buffer, static_cast<size_t>(got));
    for (size_t end = text.find('\n'); end != std::string_view::npos; end = text.find('\n')) {
      child.line.append(text.substr(0, end));
      on_line_(child.plan, child.line);
      child.line.clear();
      text.remove_prefix(end + 1);
    }
    child.line.append(text.substr(0, kMaxLineBytes - std::min(kMaxLineBytes, child.line.size())));
  }
  if (got == 0) {  // end of output; poll ignores negative descriptors
    close(child.output_fd);
    child.output_fd = -1;
  }
}

void Supervisor::Reap() {
  std::erase_if(children_, [this](const std::unique_ptr<Child>& child) {
    int wait_status = 0;
    if (waitpid(child->pid, &wait_status, WNOHANG) != child->pid) return false;
    if (child->output_fd >= 0) ReadOutput(*child);
    if (!child->line.empty()) on_line_(child->plan, child->line);
    exits_.push_back({child->plan.name, DescribeExit(wait_status)});
    return true;
  });
}

std::vector<Supervisor::Exit> Supervisor::TakeExits() {
  return std::exchange(exits_, {});
}

void Supervisor::Stop(Duration patience) {
  while (!children_.empty()) {
    Child& last = *children_.back();
    const pid_t pid = last.pid;
    kill(pid, SIGTERM);
    const TimePoint deadline = SystemClock().Now() + patience;
    auto alive = [&] { return !children_.empty() && children_.back()->pid == pid; };
    while (alive() && SystemClock().Now() < deadline) Poll(std::chrono::milliseconds(20));
    if (!alive()) continue;
    kill(pid, SIGKILL);
    while (alive()) Poll(std::chrono::milliseconds(20));
  }
}

size_t Supervisor::running() const {
  return children_.size();
}

pid_t Supervisor::PidOf(std::string_view name) const {
  for (const auto& child : children_) {
    if (child->plan.name == name) return child->pid;
  }
  return -1;
}

}  // namespace llmd::cli
