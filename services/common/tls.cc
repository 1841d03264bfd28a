#include "common/tls.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <fstream>
#include <sstream>
#include <vector>

namespace llmd::services {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr long kTenYears = 10L * 365 * 24 * 3600;

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Bio = std::unique_ptr<BIO, Deleter<BIO_free_all>>;
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
using Cert = std::unique_ptr<X509, Deleter<X509_free>>;

std::string LastError() {
  const unsigned long code = ERR_peek_last_error();
  ERR_clear_error();
  const char* reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
  return reason != nullptr ? reason : "malformed PEM";
}

Bio View(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::string Text(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(size)};
}

Cert ReadCert(const std::string& pem) {
  return Cert(PEM_read_bio_X509(View(pem).get(), nullptr, nullptr, nullptr));
}

Status CheckPair(const Certificate& pair, const CertificateFiles& files) {
  const Cert cert = ReadCert(pair.chain);
  if (!cert)
    return InvalidArgument("'" + files.chain_path() + "' holds no certificate: " + LastError());
  const Key key(PEM_read_bio_PrivateKey(View(pair.key).get(), nullptr, nullptr, nullptr));
  if (!key)
    return InvalidArgument("'" + files.key_path() + "' holds no private key: " + LastError());
  if (X509_check_private_key(cert.get(), key.get()) != 1) {
    ERR_clear_error();
    return InvalidArgument("the key in '" + files.key_path() +
                           "' is not that of its certificate, '" + files.chain_path() + "'");
  }
  return OkStatus();
}

bool AddExtension(X509* cert, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, cert, cert, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  const bool added = extension != nullptr && X509_add_ext(cert, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return added;
}

std::string AlternativeNames(std::string_view host) {
  std::string names = "DNS:localhost,IP:127.0.0.1,IP:::1";
  if (host.empty() || host == "localhost" || host == "127.0.0.1" || host == "::1") return names;
  ASN1_OCTET_STRING* address = a2i_IPADDRESS(std::string(host).c_str());
  names += (address != nullptr ? ",IP:" : ",DNS:") + std::string(host);
  ASN1_OCTET_STRING_free(address);
  ERR_clear_error();
  return names;
}

bool Fill(X509* cert, EVP_PKEY* key, std::string_view host) {
  ASN1_INTEGER_set_uint64(
      X509_get_serialNumber(cert),
      static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()));
  X509_NAME* name = X509_get_subject_name(cert);
  return X509_set_version(cert, X509_VERSION_3) == 1 &&
         X509_gmtime_adj(X509_getm_notBefore(cert), -3600) != nullptr &&
         X509_gmtime_adj(X509_getm_notAfter(cert), kTenYears) != nullptr &&
         X509_set_pubkey(cert, key) == 1 &&
         X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC,
                                    reinterpret_cast<const unsigned char*>("llmd"), -1, -1,
                                    0) == 1 &&
         X509_set_issuer_name(cert, name) == 1 &&
         AddExtension(cert, NID_subject_alt_name, AlternativeNames(host)) &&
         AddExtension(cert, NID_key_usage, "critical,digitalSignature,keyCertSign") &&
         AddExtension(cert, NID_ext_key_usage, "serverAuth") &&
         X509_sign(cert, key, EVP_sha256()) > 0;
}

bool IsTls13(const char* name) {
  return std::strncmp(name, "TLS_", 4) == 0;  // OpenSSL keeps the IANA name for these alone
}

}  // namespace

StatusOr<Certificate> SelfSigned(std::string_view host) {
  const Key key(EVP_EC_gen("P-256"));
  const Cert cert(X509_new());
  if (!key || !cert || !Fill(cert.get(), key.get(), host))
    return Internal("cannot make a certificate: " + LastError());
  const Bio chain(BIO_new(BIO_s_mem())), secret(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(chain.get(), cert.get()) != 1 ||
      PEM_write_bio_PrivateKey(secret.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return Internal("cannot write a certificate: " + LastError());
  return Certificate{Text(chain.get()), Text(secret.get()), ""};
}

StatusOr<std::string> ReadPemFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return NotFound("cannot read '" + path + "'");
  std::stringstream text;
  text << in.rdbuf();
  if (text.str().size() > kMaxFileBytes)
    return InvalidArgument("'" + path + "' is larger than 1 MiB");
  return text.str();
}

StatusOr<Certificate> LoadCertificate(const CertificateFiles& files) {
  Certificate out;
  if (files.has_pair()) {
    LLMD_ASSIGN_OR_RETURN(out.chain, ReadPemFile(files.chain_path()));
    LLMD_ASSIGN_OR_RETURN(out.key, ReadPemFile(files.key_path()));
    LLMD_RETURN_IF_ERROR(CheckPair(out, files));
  }
  if (!files.client_ca.empty()) {
    LLMD_ASSIGN_OR_RETURN(out.client_ca, LoadAuthority(files.client_ca));
  }
  return out;
}

std::string CertificateFiles::ToString() const {
  std::string out;
  for (const std::string& path : {chain_path(), key_path(), client_ca}) {
    if (!path.empty()) out += (out.empty() ? "'" : ", '") + path + "'";
  }
  return out;
}

int64_t ExpiryOf(const std::string& chain) {
  const Cert cert = ReadCert(chain);
  ERR_clear_error();
  std::tm when{};
  if (!cert || ASN1_TIME_to_tm(X509_get0_notAfter(cert.get()), &when) != 1) return 0;
  return ::timegm(&when);
}

StatusOr<std::string> LoadAuthority(const std::string& path) {
  LLMD_ASSIGN_OR_RETURN(std::string pem, ReadPemFile(path));
  if (!ReadCert(pem)) return InvalidArgument("'" + path + "' holds no certificate: " + LastError());
  return pem;
}

StatusOr<TlsPolicy> ParseTlsPolicy(std::string_view min_version, std::string_view suites) {
  TlsPolicy out;
  if (min_version == "VersionTLS13") {
    out.tls13_only = true;
  } else if (!min_version.empty() && min_version != "VersionTLS12") {
    return InvalidArgument("--tls-min-version '" + std::string(min_version) +
                           "': expected VersionTLS12 or VersionTLS13; older ones are not served");
  }
  const bool limited = !suites.empty();
  while (!suites.empty()) {
    const std::string name(suites.substr(0, suites.find(',')));
    suites.remove_prefix(std::min(name.size() + 1, suites.size()));
    const char* known = OPENSSL_cipher_name(name.c_str());
    if (std::strcmp(known, "(NONE)") == 0)
      return InvalidArgument("--tls-cipher-suites: no suite is named '" + name + "'");
    if (!IsTls13(known)) out.ciphers += (out.ciphers.empty() ? "" : ":") + std::string(known);
  }
  if (limited && out.ciphers.empty()) out.tls13_only = true;
  return out;
}

CertificateSource::CertificateSource(Certificate certificate)
    : current_(std::make_shared<const Certificate>(std::move(certificate))) {}

CertificateSource::CertificateSource(CertificateFiles files, Logger logger, const Clock& clock,
                                     Hooks hooks)
    : files_(std::move(files)),
      logger_(std::move(logger)),
      clock_(&clock),
      hooks_(std::move(hooks)) {}

StatusOr<std::shared_ptr<CertificateSource>> CertificateSource::Follow(CertificateFiles files,
                                                                       Logger logger,
                                                                       const Clock& clock,
                                                                       Hooks hooks) {
  std::shared_ptr<CertificateSource> source(
      new CertificateSource(std::move(files), std::move(logger), clock, std::move(hooks)));
  LLMD_ASSIGN_OR_RETURN(Certificate first, source->Read());
  source->current_ = std::make_shared<const Certificate>(std::move(first));
  source->stamp_ = source->Stamp();
  source->looked_ = clock.Now();
  return source;
}

// Of times and inodes, since a mounted secret is replaced by a link; 0 = still being written.
int64_t CertificateSource::Stamp() const {
  uint64_t stamp = 0;  // wraps round
  for (const std::string& path : {files_.chain_path(), files_.key_path(), files_.client_ca}) {
    struct stat info{};
    if (path.empty() || ::stat(path.c_str(), &info) != 0) continue;
    const int64_t modified = info.st_mtim.tv_sec * 1'000'000'000L + info.st_mtim.tv_nsec;
    const int64_t age = clock_->UnixNanos() - modified;
    if (age >= 0 && age < kDebounce.count()) return 0;
    stamp = stamp * 31 + static_cast<uint64_t>(modified) + info.st_ino;
  }
  return static_cast<int64_t>(stamp);
}

StatusOr<Certificate> CertificateSource::Read() const {
  LLMD_ASSIGN_OR_RETURN(Certificate read, LoadCertificate(files_));
  if (current_ && read == *current_) return read;
  if (hooks_.take) {
    LLMD_RETURN_IF_ERROR(hooks_.take(read).WithContext(files_.ToString()));
  }
  return read;
}

void CertificateSource::Look() {
  const TimePoint now = clock_->Now();
  if (now - looked_ < kDebounce) return;
  looked_ = now;
  const int64_t stamp = Stamp();
  if (stamp == 0 || stamp == stamp_) return;
  stamp_ = stamp;
  auto fresh = Read();
  if (fresh.ok() && *fresh == *current_) return;
  if (hooks_.looked) hooks_.looked(fresh.ok());
  if (!fresh.ok()) {
    logger_.Error("the new certificate is not usable, the old one stays",
                  {{"error", fresh.status().message()}});
    return;
  }
  current_ = std::make_shared<const Certificate>(std::move(*fresh));
  logger_.Info("TLS certificate reloaded", {{"path", files_.ToString()}});
}

std::shared_ptr<const Certificate> CertificateSource::Current() {
  std::lock_guard lock(mutex_);
  if (clock_ != nullptr) Look();
  return current_;
}

}  // namespace llmd::services
