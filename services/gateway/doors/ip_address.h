// Addresses of clients and blocks of them. Strict: what is not exactly an address is none.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmd/status.h"

namespace llmd::doors {

// An IPv4 address also when it comes as an IPv6 one that is mapped (::ffff:1.2.3.4), as sockets
// for both give it. Value type.
class IpAddress {
 public:
  IpAddress() = default;  // no address
  // Network order: 4 bytes or 16; anything else is no address.
  static IpAddress FromBytes(std::span<const uint8_t> bytes);
  // "1.2.3.4" or "2001:db8::1", without port, brackets or zone.
  static std::optional<IpAddress> Parse(std::string_view text);
  // The same with what proxies write around it: "1.2.3.4:80", "[::1]", "[::1]:80".
  static std::optional<IpAddress> ParseNode(std::string_view text);

  bool valid() const { return size_ != 0; }
  bool v6() const { return size_ == 16; }
  std::span<const uint8_t> bytes() const { return {bytes_.data(), size_}; }
  std::string ToString() const;
  // What counts as one client: IPv4 the address, IPv6 its /64, since whoever has one has them all.
  IpAddress Client() const;
  uint64_t Hash() const;
  friend bool operator==(const IpAddress&, const IpAddress&) = default;

 private:
  std::array<uint8_t, 16> bytes_{};
  uint8_t size_ = 0;
};

// Blocks of addresses. Immutable once made.
class CidrSet {
 public:
  static constexpr size_t kMaxBlocks = 1024;
  // Items as "10.0.0.0/8", "2001:db8::/32", or an address alone; a comma may separate several.
  // INVALID_ARGUMENT names the item and the rule: bits behind the prefix must be zero.
  static StatusOr<CidrSet> Parse(const std::vector<std::string>& items);
  bool Contains(const IpAddress& address) const;
  bool empty() const { return blocks_.empty(); }

 private:
  struct Block {
    IpAddress base;
    int bits = 0;
  };
  static StatusOr<Block> ParseBlock(std::string_view text);
  std::vector<Block> blocks_;
};

}  // namespace llmd::doors
