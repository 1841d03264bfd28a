#include "common/followed_tls.h"

#include <utility>

#include "llmd/worker_pool.h"

namespace llmd::services {

FollowedTls::FollowedTls(Options options, MetricsRegistry& metrics)
    : options_(std::move(options)),
      reloaded_(metrics.AddCounter("llmd_tls_reloads_total",
                                   "Changes of certificate files, taken or refused.",
                                   {{"side", options_.side}, {"result", "taken"}})),
      refused_(metrics.AddCounter("llmd_tls_reloads_total",
                                  "Changes of certificate files, taken or refused.",
                                  {{"side", options_.side}, {"result", "refused"}})),
      expires_(metrics.AddGauge("llmd_tls_certificate_expires_timestamp_seconds",
                                "Unix time when the certificate that is shown expires; 0 = none.",
                                {{"side", options_.side}})) {}

StatusOr<std::shared_ptr<FollowedTls>> FollowedTls::Create(Options options, Logger logger,
                                                           MetricsRegistry& metrics,
                                                           const Clock& clock) {
  std::shared_ptr<FollowedTls> out(new FollowedTls(std::move(options), metrics));
  const CertificateFiles& files = out->options_.files;
  if (files.none()) {
    LLMD_RETURN_IF_ERROR(out->Take(out->options_.fixed));
    return out;
  }
  if (!out->options_.follow) {
    LLMD_ASSIGN_OR_RETURN(const Certificate read, LoadCertificate(files));
    LLMD_RETURN_IF_ERROR(out->Take(read).WithContext(files.ToString()));
    return out;
  }
  FollowedTls* const self = out.get();
  CertificateSource::Hooks hooks;
  hooks.take = [self](const Certificate& read) { return self->Take(read); };
  hooks.looked = [self](bool taken) { (taken ? self->reloaded_ : self->refused_).Add(); };
  LLMD_ASSIGN_OR_RETURN(
      out->source_,
      CertificateSource::Follow(files, logger.With("side", out->options_.side), clock, hooks));
  out->thread_ = std::thread([self] { self->Run(); });
  return out;
}

FollowedTls::~FollowedTls() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Status FollowedTls::Take(const Certificate& files) {
  LLMD_ASSIGN_OR_RETURN(std::shared_ptr<const http::TlsContext> made, options_.make(files));
  expires_.Set(
      static_cast<double>(ExpiryOf(files.chain.empty() ? options_.fixed.chain : files.chain)));
  const std::lock_guard lock(mutex_);
  context_ = std::move(made);
  return OkStatus();
}

std::shared_ptr<const http::TlsContext> FollowedTls::Current() const {
  const std::lock_guard lock(mutex_);
  return context_;
}

void FollowedTls::Look() {
  if (source_) (void)source_->Current();
}

void FollowedTls::Run() {
  SetThreadName("tls/" + options_.side);
  std::unique_lock lock(mutex_);
  while (!stop_.wait_for(lock, CertificateSource::kDebounce, [this] { return stopping_; })) {
    lock.unlock();
    Look();
    lock.lock();
  }
}

http::TlsProvider FollowedTls::Provider(std::shared_ptr<const FollowedTls> tls) {
  return [tls = std::move(tls)] { return tls->Current(); };
}

}  // namespace llmd::services
