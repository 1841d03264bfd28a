// The doors as one loop of the gateway uses them: what its clients' connections hold, what was
// decided about each request, and the head as it leaves the doors. Loop thread only; in steady
// state nothing is allocated.
#pragma once

#include <memory>
#include <vector>

#include "gateway/doors/doors.h"
#include "llmd/http/relay/policy.h"

namespace llmd::gateway {

class DoorKeeper {
 public:
  // One request at the doors, and on its way while anything of it is still needed.
  struct Visit {
    doors::Admission admission;
    // The client's head with the admission's edits, where there are any; views as of the call's.
    http::RequestView head;
    std::vector<http::HeaderLine> lines;
  };

  // The doors outlive it.
  DoorKeeper(doors::Doors& doors, int loop) : doors_(doors), lane_(doors, loop) {}

  // As the hooks of relay::Policy.
  bool OnConnect(relay::Connection& connection, relay::Refusal& refusal);
  void OnDisconnect(relay::Connection& connection);
  bool OnTake(relay::Connection& connection, relay::Held what, size_t bytes,
              relay::Refusal& refusal);
  void OnGiveBack(relay::Connection& connection, relay::Held what, size_t bytes);

  // The head is whole: see Admission::verdict.
  Visit& Enter(const relay::Call& call);
  // The body is whole. `members` as of Lane::AdmitBody. The verdict stays kForward, or becomes
  // kRefuse.
  void Admit(const relay::Call& call, const std::vector<json::ScannedMember>* members,
             Visit& visit);
  // Settles what the request cost; the visit is over.
  void Leave(Visit& visit, const doors::DoorUsage& usage, TimePoint now);

  doors::Doors& doors() { return doors_; }

 private:
  // Of a client's connection.
  struct Guest {
    doors::IpAddress address;
    doors::ClientShare share;
  };
  static doors::DoorRequest RequestOf(const relay::Call& call);
  relay::Refusal Told() const;

  doors::Doors& doors_;
  doors::Lane lane_;
  doors::Refusal refusal_;  // that the relay was told last
  std::vector<std::unique_ptr<Guest>> guests_;
  std::vector<Guest*> free_guests_;
  std::vector<std::unique_ptr<Visit>> visits_;
  std::vector<Visit*> free_visits_;
};

}  // namespace llmd::gateway
