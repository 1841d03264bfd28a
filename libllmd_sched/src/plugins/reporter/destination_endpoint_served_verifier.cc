// For the gateway conformance tests: shows the client which endpoint the proxy says it used.
#include "llmd/sched/hooks.h"
#include "plugins/builtin.h"
#include "plugins/common.h"

namespace llmd::sched {
namespace {

class DestinationEndpointServedVerifier final : public ResponseHook {
 public:
  void OnHeaders(RequestContext&, const ResponseInfo& response, HeaderList& set_headers) override {
    set_headers.emplace_back("x-conformance-test-served-endpoint", Verdict(response));
  }

 private:
  static std::string Verdict(const ResponseInfo& response) {
    if (response.served == nullptr) return "fail: missing envoy lb metadata";
    if (response.served->empty()) return "fail: missing destination endpoint served metadata";
    return *response.served;
  }
};

}  // namespace

Status RegisterDestinationEndpointServedVerifier(PluginRegistry& registry) {
  return AddPlugin(
      registry,
      {.type = "destination-endpoint-served-verifier",
       .kind = "reporter",
       .help = "Conformance tests only: copies the proxy's word on the endpoint that answered to "
               "response header x-conformance-test-served-endpoint.",
       .make = Simple<DestinationEndpointServedVerifier>()});
}

}  // namespace llmd::sched
