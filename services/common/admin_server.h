// The server of the admin port, as the picker's flags ask for it.
#pragma once

#include <memory>

#include "common/picker_flags.h"
#include "llmd/http/server.h"

namespace llmd::services {

// Clear text, or TLS with --metrics-cert-dir. Errors name the flag. The router must outlive it.
StatusOr<std::unique_ptr<http::Server>> StartAdminServer(http::Runtime& runtime,
                                                         const PickerFlags& flags,
                                                         const http::Router& router,
                                                         const Logger& logger,
                                                         MetricsRegistry& metrics);

}  // namespace llmd::services
