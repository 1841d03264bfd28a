#include "llmd/http/relay/relay.h"

namespace {

class Hello final : public llmd::relay::Policy {
 public:
  void OnRequest(llmd::relay::Call& call) override { call.Answer(200, {}, "hello"); }
  void OnFailure(llmd::relay::Call& call, llmd::relay::Failure, std::string_view) override {
    call.Abort();
  }
  void OnResponseHead(llmd::relay::Call& call, const llmd::http::ResponseView&) override {
    call.Forward({}, llmd::relay::BodyMode::kPass);
  }
  void OnEnd(llmd::relay::Call&, const llmd::relay::Outcome&) override {}
};

}  // namespace

int main() {
  auto relay = llmd::relay::Relay::Create(
      {}, [](llmd::relay::Loop&) { return std::make_unique<Hello>(); }, llmd::Logger());
  if (!relay.ok()) return 1;
  (*relay)->Stop(llmd::Duration::zero());
  return 0;
}
