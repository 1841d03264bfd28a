#include "gateway/doors/door_flags.h"

namespace llmd::doors {
namespace {

constexpr Duration kLeastInterval = std::chrono::milliseconds(100),
                   kMostInterval = std::chrono::hours(1), kMostAge = std::chrono::hours(24);
constexpr int64_t kMostConnections = 1 << 22, kMostBytes = int64_t{1} << 40;

void AddBounds(services::FlagSet& set, DoorFlags& flags) {
  set.Int("max-connections", &flags.connections, 1, kMostConnections,
          "clients' connections, of all together");
  set.Int("max-connections-per-client", &flags.connections_each, 0, kMostConnections,
          "of one client's address (IPv6: its /64); 0 = no bound but that of all");
  set.Int("max-header-bytes-in-flight", &flags.header_bytes, 0, kMostBytes,
          "bytes of heads being read, of all clients together; 0 = no bound");
  set.Int("max-header-bytes-per-client", &flags.header_bytes_each, 0, kMostBytes,
          "the same of one client; 0 = no bound");
  set.Int("max-body-bytes-in-flight", &flags.body_bytes, 0, kMostBytes,
          "bytes of request bodies in memory, of all clients together; 0 = no bound");
  set.Int("max-body-bytes-per-client", &flags.body_bytes_each, 0, kMostBytes,
          "the same of one client; 0 = no bound");
}

}  // namespace

void AddDoorFlags(services::FlagSet& set, DoorFlags& flags) {
  set.String("api-keys-file", &flags.api_keys_file,
             "keys that clients must show (llmd key writes it); changes are followed; without it "
             "there are no keys");
  set.String("engine-api-key-file", &flags.engine_api_key_file,
             "file with the key that engines are sent as Authorization; changes are followed");
  set.List("trusted-cidrs", &flags.trusted_cidrs,
           "addresses (CIDR, commas between) whose headers may steer requests, besides trusted "
           "keys");
  set.List("trusted-proxies", &flags.trusted_proxies,
           "addresses (CIDR, commas between) of proxies whose word on the client's address counts");
  set.String("client-address-header", &flags.client_address_header,
             "where those proxies write it: x-forwarded-for or forwarded (RFC 7239)");
  set.List("cors-origin", &flags.cors_origins,
           "origin of web pages that may call the gateway, or *; may be repeated; none by default");
  set.List("cors-allow-header", &flags.cors_headers,
           "header that such pages may send, instead of those the SDKs send; may be repeated");
  set.Duration("cors-max-age", &flags.cors_max_age,
               "how long a browser keeps the answer to a preflight");
  set.List("allow-path", &flags.allow_paths,
           "pattern of paths that go to engines besides the OpenAI and Anthropic ones, instead of "
           "the default list; may be repeated; '/*' = every path");
  set.List("deny-path", &flags.deny_paths,
           "pattern of paths that are answered with 404 in any case; may be repeated");
  set.Bool("refuse-unknown-models", &flags.refuse_unknown_models,
           "404 for a model that no engine lists, once every ready engine has told its list");
  set.Duration("model-refresh-interval", &flags.model_refresh_interval,
               "how often each engine's /v1/models is read, besides when it joins");
  AddBounds(set, flags);
}

StatusOr<DoorOptions> ToDoorOptions(const DoorFlags& flags, RouteFiles routes, uint64_t seed) {
  DoorOptions out;
  if (flags.client_address_header == "forwarded") {
    out.address_header = AddressHeader::kForwarded;
  } else if (flags.client_address_header != "x-forwarded-for") {
    return InvalidArgument("--client-address-header '" + flags.client_address_header +
                           "': expected x-forwarded-for or forwarded");
  }
  if (flags.model_refresh_interval < kLeastInterval || flags.model_refresh_interval > kMostInterval)
    return InvalidArgument("--model-refresh-interval: expected 100ms to 1h");
  if (flags.cors_max_age < Duration::zero() || flags.cors_max_age > kMostAge)
    return InvalidArgument("--cors-max-age: expected 0s to 24h");
  out.keys_file = flags.api_keys_file;
  out.engine_key_file = flags.engine_api_key_file;
  out.trusted_cidrs = flags.trusted_cidrs;
  out.trusted_proxies = flags.trusted_proxies;
  out.cors = {flags.cors_origins, flags.cors_headers, flags.cors_max_age};
  out.paths = {flags.allow_paths, flags.deny_paths};
  out.refuse_unknown_models = flags.refuse_unknown_models;
  out.model_interval = flags.model_refresh_interval;
  out.routes = std::move(routes);
  out.each_client = {flags.connections_each, flags.header_bytes_each, flags.body_bytes_each};
  out.all_clients = {flags.connections, flags.header_bytes, flags.body_bytes};
  out.seed = seed;
  return out;
}

}  // namespace llmd::doors
