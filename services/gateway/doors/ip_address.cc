#include "gateway/doors/ip_address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "llmd/format.h"

namespace llmd::doors {
namespace {

constexpr size_t kMaxText = INET6_ADDRSTRLEN - 1;
constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool SamePrefix(std::span<const uint8_t> a, std::span<const uint8_t> b, int bits) {
  const auto whole = static_cast<size_t>(bits / 8);
  if (std::memcmp(a.data(), b.data(), whole) != 0) return false;
  const int rest = bits % 8;
  return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

// 1 to 5 digits, at most 65535.
bool IsPort(std::string_view text) {
  uint32_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && text.size() <= 5 &&
         port <= 65535;
}

IpAddress Masked(const IpAddress& address, int bits) {
  std::array<uint8_t, 16> out{};
  const auto from = address.bytes();
  for (size_t i = 0; i < from.size(); ++i) {
    const int left = std::clamp(bits - static_cast<int>(i) * 8, 0, 8);
    out[i] = static_cast<uint8_t>(from[i] & (0xff00 >> left));
  }
  return IpAddress::FromBytes({out.data(), from.size()});
}

}  // namespace

IpAddress IpAddress::FromBytes(std::span<const uint8_t> bytes) {
  if (bytes.size() == 16 && std::equal(kMapped.begin(), kMapped.end(), bytes.begin()))
    bytes = bytes.subspan(12);
  IpAddress out;
  if (bytes.size() != 4 && bytes.size() != 16) return out;
  std::copy(bytes.begin(), bytes.end(), out.bytes_.begin());
  out.size_ = static_cast<uint8_t>(bytes.size());
  return out;
}

std::optional<IpAddress> IpAddress::Parse(std::string_view text) {
  if (text.empty() || text.size() > kMaxText || text.find('\0') != std::string_view::npos)
    return std::nullopt;
  char terminated[kMaxText + 1];
  std::memcpy(terminated, text.data(), text.size());
  terminated[text.size()] = '\0';
  std::array<uint8_t, 16> bytes;
  const bool v6 = text.find(':') != std::string_view::npos;
  if (inet_pton(v6 ? AF_INET6 : AF_INET, terminated, bytes.data()) != 1) return std::nullopt;
  return FromBytes({bytes.data(), size_t{v6 ? 16u : 4u}});
}

std::optional<IpAddress> IpAddress::ParseNode(std::string_view text) {
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return std::nullopt;
    const std::string_view rest = text.substr(close + 1);
    if (!rest.empty() && (rest[0] != ':' || !IsPort(rest.substr(1)))) return std::nullopt;
    const std::string_view inner = text.substr(1, close - 1);
    return inner.find(':') == std::string_view::npos ? std::nullopt : Parse(inner);
  }
  const size_t colon = text.find(':');
  if (colon != std::string_view::npos && text.find(':', colon + 1) == std::string_view::npos) {
    if (!IsPort(text.substr(colon + 1))) return std::nullopt;
    text = text.substr(0, colon);
  }
  return Parse(text);
}

std::string IpAddress::ToString() const {
  if (!valid()) return "unknown";
  char text[INET6_ADDRSTRLEN];
  return inet_ntop(v6() ? AF_INET6 : AF_INET, bytes_.data(), text, sizeof(text));
}

IpAddress IpAddress::Client() const {
  return v6() ? Masked(*this, 64) : *this;
}

uint64_t IpAddress::Hash() const {
  uint64_t hash = 0xcbf29ce484222325 + size_;  // FNV-1a
  for (const uint8_t byte : bytes()) hash = (hash ^ byte) * 0x100000001b3;
  return hash ^ (hash >> 32);
}

StatusOr<CidrSet::Block> CidrSet::ParseBlock(std::string_view text) {
  const size_t slash = text.find('/');
  const std::string quoted = "'" + std::string(text) + "'";
  const auto address = IpAddress::Parse(text.substr(0, slash));
  if (!address)
    return InvalidArgument(quoted + ": expected an IPv4 or IPv6 address, or one with /bits");
  const bool mapped = !address->v6() && text.find(':') != std::string_view::npos;
  const int most = address->v6() ? 128 : 32;
  if (slash == std::string_view::npos) return Block{*address, most};
  if (mapped) return InvalidArgument(quoted + ": write a mapped IPv4 block as IPv4");
  const std::string_view digits = text.substr(slash + 1);
  int bits = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
  if (digits.empty() ||
      !std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; }) ||
      (digits.size() > 1 && digits[0] == '0') || error != std::errc() || bits > most) {
    return InvalidArgument(quoted + ": expected a prefix of 0 to " + std::to_string(most) +
                           " bits");
  }
  const IpAddress base = Masked(*address, bits);
  if (base != *address) {
    return InvalidArgument(quoted + ": bits behind the prefix are set; the block is " +
                           base.ToString() + "/" + std::to_string(bits));
  }
  return Block{base, bits};
}

StatusOr<CidrSet> CidrSet::Parse(const std::vector<std::string>& items) {
  CidrSet out;
  for (const std::string& item : items) {
    std::string_view rest = item;
    for (bool more = true; more;) {
      const size_t comma = rest.find(',');
      more = comma != std::string_view::npos;
      LLMD_ASSIGN_OR_RETURN(const Block block, ParseBlock(Trim(rest.substr(0, comma))));
      if (out.blocks_.size() == kMaxBlocks)
        return InvalidArgument("more than " + std::to_string(kMaxBlocks) + " blocks of addresses");
      out.blocks_.push_back(block);
      if (more) rest.remove_prefix(comma + 1);
    }
  }
  return out;
}

bool CidrSet::Contains(const IpAddress& address) const {
  return address.valid() && std::any_of(blocks_.begin(), blocks_.end(), [&](const Block& b) {
           return b.base.bytes().size() == address.bytes().size() &&
                  SamePrefix(b.base.bytes(), address.bytes(), b.bits);
         });
}

}  // namespace llmd::doors
