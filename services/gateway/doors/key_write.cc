#define OPENSSL_SUPPRESS_DEPRECATED
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "gateway/doors/key_file.h"
#include "llmd/uuid.h"

namespace llmd::doors {
namespace {

constexpr std::string_view kPrefix = "sk-llmd-";
constexpr size_t kSecretBytes = 32;

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

Status WriteAll(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, "cannot write '" + path + "'");
    text.remove_prefix(static_cast<size_t>(written));
  }
  return OkStatus();
}

// A file of the same owner as `path` where that exists: the gateway may run as another user.
Status WriteFresh(const std::string& fresh, const std::string& path, std::string_view text) {
  Descriptor file{open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
  if (file.fd < 0) return ErrnoStatus(errno, "cannot create '" + fresh + "'");
  struct stat before;
  if (stat(path.c_str(), &before) == 0 && before.st_uid != geteuid() &&
      fchown(file.fd, before.st_uid, before.st_gid) != 0) {
    return ErrnoStatus(errno, "cannot give '" + path + "' to its owner");
  }
  LLMD_RETURN_IF_ERROR(WriteAll(file.fd, text, fresh));
  if (fsync(file.fd) != 0) return ErrnoStatus(errno, "cannot write '" + fresh + "'");
  return OkStatus();
}

}  // namespace

Status WriteKeyFile(const std::string& path, const std::vector<KeyRecord>& keys) {
  std::error_code error;
  std::filesystem::path target = std::filesystem::weakly_canonical(path, error);
  if (error) target = path;
  const std::string fresh = target.string() + "." + NewUuid() + ".new";
  Status status = WriteFresh(fresh, target.string(), FormatKeyFile(keys));
  if (status.ok() && rename(fresh.c_str(), target.c_str()) != 0)
    status = ErrnoStatus(errno, "cannot replace '" + target.string() + "'");
  if (!status.ok()) {
    unlink(fresh.c_str());
    return status;
  }
  // That the name survives a power cut, too.
  const Descriptor directory{open(target.parent_path().empty() ? "." : target.parent_path().c_str(),
                                  O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (directory.fd >= 0) (void)fsync(directory.fd);
  return OkStatus();
}

StatusOr<std::string> NewSecret() {
  unsigned char bytes[kSecretBytes];
  if (RAND_bytes(bytes, sizeof(bytes)) != 1)
    return Unavailable("the system has no random bytes for a secret");
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::string out(kPrefix);
  uint32_t bits = 0;
  int have = 0;
  for (const unsigned char byte : bytes) {
    bits = bits << 8 | byte;
    for (have += 8; have >= 6; have -= 6) out += kDigits[bits >> (have - 6) & 63];
  }
  if (have > 0) out += kDigits[bits << (6 - have) & 63];
  return out;
}

// EVP's contexts allocate for each digest, these do not; they are deprecated since 3.0 and there.
SecretHash HashSecret(std::string_view secret) {
  SecretHash out;
  SHA256_CTX context;
  SHA256_Init(&context);
  SHA256_Update(&context, secret.data(), secret.size());
  SHA256_Final(out.data(), &context);
  OPENSSL_cleanse(&context, sizeof(context));
  return out;
}

}  // namespace llmd::doors
