// The TLS of one side of a process, made from files, and made anew on a thread of its own when they
// change. What cannot be used changes nothing: it is logged and counted.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "common/tls.h"
#include "llmd/http/tls.h"
#include "llmd/log.h"
#include "llmd/metrics.h"
#include "llmd/status.h"

namespace llmd::services {

// Thread-safe.
class FollowedTls {
 public:
  using Make =
      std::function<StatusOr<std::shared_ptr<const http::TlsContext>>(const Certificate& files)>;
  struct Options {
    std::string side;        // "client", "upstream": in logs and metrics
    CertificateFiles files;  // none at all = `fixed`
    Certificate fixed;
    bool follow = true;
    Make make;
  };
  // An error names the file that is missing or wrong. `metrics` outlives it.
  static StatusOr<std::shared_ptr<FollowedTls>> Create(Options options, Logger logger,
                                                       MetricsRegistry& metrics,
                                                       const Clock& clock = SystemClock());
  ~FollowedTls();  // joins the thread

  // Never null.
  std::shared_ptr<const http::TlsContext> Current() const;
  // What the thread does every 250 ms.
  void Look();
  static http::TlsProvider Provider(std::shared_ptr<const FollowedTls> tls);

 private:
  FollowedTls(Options options, MetricsRegistry& metrics);
  Status Take(const Certificate& files);
  void Run();

  const Options options_;
  Counter &reloaded_, &refused_;
  Gauge& expires_;
  std::shared_ptr<CertificateSource> source_;

  mutable std::mutex mutex_;  // guards what follows
  std::shared_ptr<const http::TlsContext> context_;
  bool stopping_ = false;
  std::condition_variable stop_;
  std::thread thread_;
};

}  // namespace llmd::services
