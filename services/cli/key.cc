#include "cli/key.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/flags.h"
#include "common/process.h"
#include "gateway/doors/key_file.h"
#include "llmd/clock.h"
#include "llmd/format.h"
#include "llmd/nearest.h"
#include "llmd/text_table.h"
#include "llmd/uuid.h"

namespace llmd::cli {
namespace {

using doors::KeyRecord;
using services::FlagSet;
using Keys = std::vector<KeyRecord>;

constexpr std::string_view kFileHelp = "the file of --api-keys-file";

// Two commands at a time would lose the keys of one. The file itself is replaced, so that its
// folder is what is locked.
class FolderLock {
 public:
  ~FolderLock() {
    if (fd_ >= 0) close(fd_);
  }
  Status Take(const std::string& file) {
    std::error_code error;
    const auto folder = std::filesystem::weakly_canonical(file, error).parent_path();
    fd_ = open(error || folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd_ < 0) return ErrnoStatus(errno, "cannot open the folder of '" + file + "'");
    if (flock(fd_, LOCK_EX) != 0)
      return ErrnoStatus(errno, "cannot lock the folder of '" + file + "'");
    return OkStatus();
  }

 private:
  int fd_ = -1;
};

// Reads the keys, lets `change` work on them and writes them back.
template <typename Change>
Status Edit(const std::string& path, bool may_be_missing, const Change& change) {
  FolderLock lock;
  LLMD_RETURN_IF_ERROR(lock.Take(path));
  auto keys = doors::ReadKeyFile(path);
  if (!keys.ok() && !(may_be_missing && !std::filesystem::exists(path))) return keys.status();
  Keys all = keys.value_or(Keys());
  LLMD_RETURN_IF_ERROR(change(all));
  return doors::WriteKeyFile(path, all);
}

// Of the key of that id; NOT_FOUND names those that are near.
StatusOr<Keys::iterator> Find(Keys& keys, const std::string& id) {
  const auto it =
      std::find_if(keys.begin(), keys.end(), [&](const KeyRecord& k) { return k.id == id; });
  if (it != keys.end()) return it;
  std::vector<std::string> known;
  for (const KeyRecord& key : keys) known.push_back(key.id);
  return NotFound("there is no key '" + id + "'" + DidYouMean(id, known));
}

// What needs a file and nothing else that must be given. 0 = go on.
int Parsed(FlagSet& set, int argc, const char* const* argv, const std::string& file, bool* stop) {
  const auto outcome = set.Parse(argc, argv);
  *stop = outcome.exit;
  if (outcome.exit) return outcome.code;
  if (!file.empty()) return 0;
  *stop = true;
  return services::Fail(InvalidArgument("--file is missing")), 2;
}

StatusOr<int32_t> ParsePriority(std::string_view text) {
  int32_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size())
    return InvalidArgument("expected an integer of 32 bits");
  return out;
}

void AddKeyFlags(FlagSet& set, KeyRecord& key) {
  set.String("id", &key.id, "name of the key, in logs and for the other commands; one is made up");
  set.String("tenant", &key.tenant, "whose key it is; labels metrics (required)");
  set.List("model", &key.models,
           "model it may use, * and ? stand for text; may be repeated; default: all");
  set.Int("rpm", &key.requests_per_minute, 0, doors::kMaxPerMinute,
          "requests a minute; 0 = no bound");
  set.Int("tpm", &key.tokens_per_minute, 0, doors::kMaxPerMinute, "tokens a minute; 0 = no bound");
  set.Custom(
      "priority",
      [&key](std::string_view text) -> Status {
        LLMD_ASSIGN_OR_RETURN(key.priority, ParsePriority(text));
        return OkStatus();
      },
      "of its requests; negative = the first to be shed");
  set.String("objective", &key.objective, "objective its requests are given; has a priority, too");
  set.String("fairness-id", &key.fairness_id, "flow its requests belong to; default: the tenant");
  set.Bool("trusted", &key.trusted, "its requests may carry headers that steer them");
  set.Custom(
      "expires",
      [&key](std::string_view text) -> Status {
        key.expires_unix_s = doors::ParseRfc3339(text);
        if (!key.expires_unix_s)
          return InvalidArgument("expected a time as 2027-01-31T12:00:00Z (RFC 3339)");
        return OkStatus();
      },
      "when it ends, as 2027-01-31T12:00:00Z; default: never");
}

int Add(int argc, const char* const* argv) {
  std::string file;
  KeyRecord key;
  FlagSet set("llmd key add", "Makes a key and shows its secret, once.");
  set.String("file", &file, kFileHelp);
  AddKeyFlags(set, key);
  bool stop = false;
  const int code = Parsed(set, argc, argv, file, &stop);
  if (stop) return code;
  if (key.id.empty()) key.id = "key-" + NewUuid().substr(0, 8);
  const auto secret = doors::NewSecret();
  if (!secret.ok()) return services::Fail(secret.status());
  key.sha256 = doors::HashSecret(*secret);
  // What the gateway would refuse is not written.
  if (const auto good = doors::ParseKeyFile(doors::FormatKeyFile({key})); !good.ok()) {
    if (key.tenant.empty()) return services::Fail(InvalidArgument("--tenant is missing")), 2;
    return services::Fail(good.status()), 2;
  }
  const Status status = Edit(file, true, [&](Keys& keys) -> Status {
    if (Find(keys, key.id).ok()) return AlreadyExists("there is a key '" + key.id + "' already");
    if (keys.size() == doors::kMaxKeys)
      return ResourceExhausted("the file holds " + std::to_string(doors::kMaxKeys) +
                               " keys already");
    keys.push_back(key);
    return OkStatus();
  });
  if (!status.ok()) return services::Fail(status);
  std::fprintf(stderr, "key '%s' of tenant '%s'; its secret is shown this once:\n", key.id.c_str(),
               key.tenant.c_str());
  std::printf("%s\n", secret->c_str());
  return 0;
}

std::string Joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ",") + word;
  return out;
}

std::string StateOf(const KeyRecord& key) {
  if (key.disabled) return "disabled";
  const int64_t now_s = SystemClock().UnixNanos() / 1'000'000'000;
  return key.expires_unix_s && now_s >= *key.expires_unix_s ? "expired" : "good";
}

std::string Limit(int64_t per_minute) {
  return per_minute == 0 ? "-" : std::to_string(per_minute);
}

int List(int argc, const char* const* argv) {
  std::string file;
  FlagSet set("llmd key list", "Lists the keys, never their secrets.");
  set.String("file", &file, kFileHelp);
  bool stop = false;
  const int code = Parsed(set, argc, argv, file, &stop);
  if (stop) return code;
  const auto keys = doors::ReadKeyFile(file);
  if (!keys.ok()) return services::Fail(keys.status());
  std::vector<std::vector<std::string>> rows = {{"ID", "TENANT", "STATE", "MODELS", "RPM", "TPM",
                                                 "PRIORITY", "OBJECTIVE", "FAIRNESS", "TRUSTED",
                                                 "EXPIRES"}};
  for (const KeyRecord& key : *keys) {
    rows.push_back({key.id, key.tenant, StateOf(key), key.models.empty() ? "*" : Joined(key.models),
                    Limit(key.requests_per_minute), Limit(key.tokens_per_minute),
                    key.priority ? std::to_string(*key.priority) : "-",
                    key.objective.empty() ? "-" : key.objective,
                    key.fairness_id.empty() ? key.tenant : key.fairness_id,
                    key.trusted ? "yes" : "no",
                    key.expires_unix_s ? FormatRfc3339(*key.expires_unix_s * 1'000'000'000) : "-"});
  }
  std::fputs(TextTable(rows).c_str(), stdout);
  return 0;
}

// The commands that take a key's id.
template <typename Change>
int Change1(const char* name, const char* summary, int argc, const char* const* argv,
            const Change& change) {
  std::string file, id;
  FlagSet set(std::string("llmd key ") + name, summary);
  set.String("file", &file, kFileHelp);
  set.Positional("ID", &id, "of the key");
  bool stop = false;
  const int code = Parsed(set, argc, argv, file, &stop);
  if (stop) return code;
  if (id.empty()) return services::Fail(InvalidArgument("the key's id is missing")), 2;
  const Status status = Edit(file, false, [&](Keys& keys) -> Status {
    LLMD_ASSIGN_OR_RETURN(const Keys::iterator key, Find(keys, id));
    change(keys, key);
    return OkStatus();
  });
  return status.ok() ? 0 : services::Fail(status);
}

int Remove(int argc, const char* const* argv) {
  return Change1("remove", "Removes a key for good.", argc, argv,
                 [](Keys& keys, Keys::iterator key) { keys.erase(key); });
}
int Disable(int argc, const char* const* argv) {
  return Change1("disable", "Lets a key no longer in, until it is enabled.", argc, argv,
                 [](Keys&, Keys::iterator key) { key->disabled = true; });
}
int Enable(int argc, const char* const* argv) {
  return Change1("enable", "Lets a key in again that was disabled.", argc, argv,
                 [](Keys&, Keys::iterator key) { key->disabled = false; });
}

struct Command {
  const char* name;
  int (*run)(int argc, const char* const* argv);
  const char* help;
};
constexpr Command kCommands[] = {
    {"add", Add, "make a key and show its secret, once"},
    {"list", List, "list the keys, never their secrets"},
    {"disable", Disable, "let a key no longer in"},
    {"enable", Enable, "let it in again"},
    {"remove", Remove, "remove a key for good"},
};

}  // namespace

int RunKey(int argc, const char* const* argv) {
  const std::string_view word = argc > 1 ? argv[1] : "";
  std::vector<std::string> names;
  for (const Command& command : kCommands) {
    if (word == command.name) return command.run(argc - 1, argv + 1);
    names.emplace_back(command.name);
  }
  if (word.empty() || word == "--help" || word == "-h" || word == "help") {
    std::puts("usage: llmd key COMMAND --file FILE [flags]\n");
    for (const Command& command : kCommands) std::printf("  %-8s %s\n", command.name, command.help);
    return word.empty() ? 2 : 0;
  }
  std::fprintf(stderr, "llmd key: unknown command '%.*s'%s\n", static_cast<int>(word.size()),
               word.data(), DidYouMean(word, names).c_str());
  return 2;
}

}  // namespace llmd::cli
