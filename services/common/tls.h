// Certificates for what llmd serves over TLS: read from files, followed when they change, or made
// for this process.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "llmd/clock.h"
#include "llmd/log.h"
#include "llmd/status.h"

namespace llmd::services {

// PEM text.
struct Certificate {
  std::string chain, key;
  std::string client_ca;  // "" = clients need no certificate
  bool operator==(const Certificate&) const = default;
};

struct CertificateFiles {
  std::string dir;         // holds tls.crt and tls.key
  std::string client_ca;   // file; for calls upstream: of whom to believe; "" = none
  std::string chain, key;  // files; without them those of `dir`, if there is one

  bool has_pair() const { return !dir.empty() || !chain.empty(); }
  bool none() const { return !has_pair() && client_ca.empty(); }
  std::string chain_path() const {
    return chain.empty() && !dir.empty() ? dir + "/tls.crt" : chain;
  }
  std::string key_path() const { return chain.empty() && !dir.empty() ? dir + "/tls.key" : key; }
  std::string ToString() const;  // the paths, for messages
};

// A P-256 key and its certificate for localhost, its addresses and `host`, valid for ten years.
StatusOr<Certificate> SelfSigned(std::string_view host);
// NOT_FOUND or INVALID_ARGUMENT name the file; the key must be the certificate's. Without a pair
// only the authority is read.
StatusOr<Certificate> LoadCertificate(const CertificateFiles& files);
// A file's text, of at most 1 MiB.
StatusOr<std::string> ReadPemFile(const std::string& path);
// Unix time when the first certificate of the PEM text expires; 0 = there is none.
int64_t ExpiryOf(const std::string& chain);
// The PEM text of a file that must hold a certificate.
StatusOr<std::string> LoadAuthority(const std::string& path);

// What to accept in a handshake, from flags spelled as Kubernetes spells them.
struct TlsPolicy {
  bool tls13_only = false;
  std::string ciphers;  // OpenSSL's names of the TLS 1.2 suites; "" = the library's choice
};
// `min_version`: "", VersionTLS12 or VersionTLS13. `suites`: comma-separated IANA names; those of
// TLS 1.3 cannot be limited, so a list of them alone means TLS 1.3 only.
StatusOr<TlsPolicy> ParseTlsPolicy(std::string_view min_version, std::string_view suites);

// The certificate to use now. Files are looked at when asked, at most once per kDebounce, and taken
// once they have been left alone for as long; a broken pair keeps what was and logs why.
// Thread-safe.
class CertificateSource {
 public:
  static constexpr Duration kDebounce = std::chrono::milliseconds(250);

  // Never changes.
  explicit CertificateSource(Certificate certificate);
  struct Hooks {
    // A certificate that would be used from now on, the first one too; an error keeps what was.
    std::function<Status(const Certificate&)> take;
    // A change of the files was taken or refused.
    std::function<void(bool taken)> looked;
  };
  // The hooks run with a lock held.
  static StatusOr<std::shared_ptr<CertificateSource>> Follow(CertificateFiles files, Logger logger,
                                                             const Clock& clock = SystemClock(),
                                                             Hooks hooks = {});

  // Never null; the same pointer until the certificate changes.
  std::shared_ptr<const Certificate> Current();

 private:
  int64_t Stamp() const;
  void Look();
  StatusOr<Certificate> Read() const;

  const CertificateFiles files_;
  const Logger logger_;
  const Clock* const clock_ = nullptr;  // null = the certificate never changes
  const Hooks hooks_;
  CertificateSource(CertificateFiles files, Logger logger, const Clock& clock, Hooks hooks);

  std::mutex mutex_;  // guards what follows
  std::shared_ptr<const Certificate> current_;
  int64_t stamp_ = 0;  // of the files as they were last read
  TimePoint looked_{};
};

}  // namespace llmd::services
