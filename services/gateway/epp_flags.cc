#include "gateway/epp_flags.h"

#include <utility>

#include "common/tls.h"
#include "llmd/http/message.h"

namespace llmd::gateway {

void AddEppFlags(services::FlagSet& set, EppFlags& flags) {
  set.String("epp", &flags.target,
             "HOST:PORT of an endpoint picker to ask over ext_proc, as Envoy does");
  set.Bool("epp-secure", &flags.secure,
           "speak TLS to the picker; without --epp-ca-file any certificate is taken");
  set.String("epp-ca-file", &flags.ca_file,
             "authority whose certificate the picker must show for its host (PEM)");
  set.String("epp-cert-path", &flags.cert_path, "mTLS: directory with our tls.crt and tls.key");
  set.Duration("epp-timeout", &flags.asking.timeout,
               "a picker that owes an answer and gives no sign of life for so long is lost");
  set.Duration("epp-queue-timeout", &flags.asking.queue_timeout,
               "how long a live picker may keep a request before it says where it goes; longer "
               "than the TTLs of its queues");
  set.String("epp-failure-mode", &flags.failure_mode,
             "while the picker is lost: `close` refuses with 503, `open` sends requests to the "
             "known endpoints in turn");
  set.List("epp-endpoint", &flags.asking.endpoints,
           "IP:PORT known before the picker has named any, and read for its models: all of them, "
           "or none; may be repeated");
  set.Bool("no-epp", &flags.none, "schedule in process (the default without --epp)");
}

Status CheckEppFlags(const EppFlags& flags) {
  if (!flags.secure && !(flags.ca_file.empty() && flags.cert_path.empty()))
    return InvalidArgument("--epp-ca-file and --epp-cert-path need --epp-secure");
  if (flags.secure && flags.target.empty()) return InvalidArgument("--epp-secure needs --epp");
  if (flags.target.empty()) return OkStatus();
  if (flags.none) return InvalidArgument("--epp and --no-epp exclude each other");
  if (flags.failure_mode != "close" && flags.failure_mode != "open")
    return InvalidArgument("--epp-failure-mode '" + flags.failure_mode +
                           "': expected close or open");
  if (flags.asking.timeout < std::chrono::milliseconds(20))
    return InvalidArgument("--epp-timeout: expected at least 20ms");
  if (flags.asking.queue_timeout < flags.asking.timeout)
    return InvalidArgument("--epp-queue-timeout: expected no less than --epp-timeout");
  return http::ParseHostPort(flags.target).status().WithContext("--epp");
}

StatusOr<ExtProcOptions> ToExtProcOptions(const EppFlags& flags) {
  ExtProcOptions out = flags.asking;
  out.open = flags.failure_mode == "open";
  out.address.target = flags.target;
  out.address.secure = flags.secure;
  if (!flags.ca_file.empty()) {
    auto authority = services::LoadAuthority(flags.ca_file);
    if (!authority.ok()) return authority.status().WithContext("--epp-ca-file");
    out.address.authority = std::move(*authority);
  }
  if (flags.cert_path.empty()) return out;
  auto ours = services::LoadCertificate({flags.cert_path, ""});
  if (!ours.ok()) return ours.status().WithContext("--epp-cert-path");
  out.address.chain = std::move(ours->chain);
  out.address.key = std::move(ours->key);
  return out;
}

}  // namespace llmd::gateway
