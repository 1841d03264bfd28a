#include "gateway/door_keeper.h"

#include <algorithm>
#include <utility>

namespace llmd::gateway {
namespace {

doors::Bound BoundOf(relay::Held what) {
  return what == relay::Held::kHead ? doors::Bound::kHeaderBytes : doors::Bound::kBodyBytes;
}

template <typename T>
T& TakeFrom(std::vector<std::unique_ptr<T>>& all, std::vector<T*>& free) {
  if (free.empty()) {
    all.push_back(std::make_unique<T>());
    free.push_back(all.back().get());
  }
  T* const out = free.back();
  free.pop_back();
  return *out;
}

bool IsEdited(std::string_view name, std::span<const doors::HeaderEdit> edits) {
  return std::any_of(edits.begin(), edits.end(), [name](const doors::HeaderEdit& edit) {
    return EqualsIgnoreCase(edit.name, name);
  });
}

void ApplyEdits(const http::RequestView& client, DoorKeeper::Visit& visit) {
  const std::span<const doors::HeaderEdit> edits = visit.admission.request_edits();
  visit.lines.clear();
  for (const http::HeaderLine& line : client.headers.lines) {
    if (!IsEdited(line.name, edits)) visit.lines.push_back(line);
  }
  for (const doors::HeaderEdit& edit : edits) {
    if (!edit.remove) visit.lines.push_back({edit.name, edit.value, http::KnownHeader(edit.name)});
  }
  visit.head = client;
  visit.head.headers.lines = visit.lines;
}

}  // namespace

relay::Refusal DoorKeeper::Told() const {
  return {refusal_.status, refusal_.message, refusal_.code, refusal_.retry_after_s};
}

bool DoorKeeper::OnConnect(relay::Connection& connection, relay::Refusal& refusal) {
  Guest& guest = TakeFrom(guests_, free_guests_);
  connection.context = &guest;
  guest.address = doors::IpAddress::ParseNode(connection.peer).value_or(doors::IpAddress());
  guest.share = doors_.bounds().Open(guest.address, refusal_);
  if (guest.share.open()) return true;
  refusal = Told();
  return false;
}

void DoorKeeper::OnDisconnect(relay::Connection& connection) {
  auto* const guest = static_cast<Guest*>(std::exchange(connection.context, nullptr));
  guest->share.Close();
  free_guests_.push_back(guest);
}

bool DoorKeeper::OnTake(relay::Connection& connection, relay::Held what, size_t bytes,
                        relay::Refusal& refusal) {
  auto& guest = *static_cast<Guest*>(connection.context);
  if (guest.share.Take(BoundOf(what), static_cast<int64_t>(bytes), refusal_)) return true;
  refusal = Told();
  return false;
}

void DoorKeeper::OnGiveBack(relay::Connection& connection, relay::Held what, size_t bytes) {
  static_cast<Guest*>(connection.context)
      ->share.GiveBack(BoundOf(what), static_cast<int64_t>(bytes));
}

doors::DoorRequest DoorKeeper::RequestOf(const relay::Call& call) {
  const http::RequestView& head = call.request();
  const relay::Connection* const from = call.connection();
  const auto* const guest = from != nullptr ? static_cast<const Guest*>(from->context) : nullptr;
  return {head.method, head.target, head.headers.lines,
          guest != nullptr ? guest->address : doors::IpAddress(), call.now()};
}

DoorKeeper::Visit& DoorKeeper::Enter(const relay::Call& call) {
  Visit& visit = TakeFrom(visits_, free_visits_);
  lane_.AdmitHead(RequestOf(call), visit.admission);
  return visit;
}

void DoorKeeper::Admit(const relay::Call& call, const std::vector<json::ScannedMember>* members,
                       Visit& visit) {
  lane_.AdmitBody(RequestOf(call), call.body(), members, visit.admission);
  if (!visit.admission.request_edits().empty()) ApplyEdits(call.request(), visit);
}

void DoorKeeper::Leave(Visit& visit, const doors::DoorUsage& usage, TimePoint now) {
  doors_.Settle(visit.admission, usage, now);
  visit.admission.Clear();
  free_visits_.push_back(&visit);
}

}  // namespace llmd::gateway
