// Certificates, and servers that show them, for tests.
#pragma once

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>

#include "llmd/http/server.h"
#include "llmd/http/tls.h"

namespace llmd::http::testing {

inline std::string TextOf(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string out(data, static_cast<size_t>(size));
  BIO_free(bio);
  return out;
}

// A fresh self-signed pair, made out to `names` ("IP:127.0.0.1", "DNS:a", between commas), that
// expires in `seconds`. `subject` is its common name; null = none.
inline TlsOptions MakePair(const char* names = "DNS:test", long seconds = 3600,
                           const char* subject = "test") {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* cert = X509_new();
  X509_set_version(cert, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
  X509_gmtime_adj(X509_getm_notBefore(cert), -7200);
  X509_gmtime_adj(X509_getm_notAfter(cert), seconds);
  X509_set_pubkey(cert, key);
  if (subject != nullptr) {
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(subject), -1, -1, 0);
  }
  X509_set_issuer_name(cert, X509_get_subject_name(cert));
  X509_EXTENSION* alt = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, names);
  X509_add_ext(cert, alt, -1);
  X509_EXTENSION_free(alt);
  X509_sign(cert, key, EVP_sha256());
  BIO* chain = BIO_new(BIO_s_mem());
  BIO* secret = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(chain, cert);
  PEM_write_bio_PrivateKey(secret, key, nullptr, nullptr, 0, nullptr, nullptr);
  X509_free(cert);
  EVP_PKEY_free(key);
  return {TextOf(chain), TextOf(secret), ""};
}

inline ServerOptions With(const TlsOptions& tls) {
  std::shared_ptr<const TlsContext> context = *TlsContext::Create(tls);
  ServerOptions options;
  options.tls = [context] { return context; };
  return options;
}

}  // namespace llmd::http::testing
