#include "llmd/http/connection_names.h"

#include <algorithm>

#include "http/list_member.h"
#include "llmd/http/message.h"

namespace llmd::http {
namespace {

bool NamesALine(std::string_view member) {
  return !EqualsIgnoreCase(member, "close") && !EqualsIgnoreCase(member, "keep-alive");
}

}  // namespace

ConnectionNames::ConnectionNames(const HeaderLines& headers) {
  for (const HeaderLine& line : headers.lines) {
    if (line.known != Known::kConnection) continue;
    ForEachListMember(line.value, [this](std::string_view member) {
      if (count_ < kMax && NamesALine(member)) names_[count_++] = member;
    });
  }
}

bool ConnectionNames::Contain(std::string_view name) const {
  return std::any_of(names_.begin(), names_.begin() + static_cast<ptrdiff_t>(count_),
                     [name](std::string_view each) { return EqualsIgnoreCase(each, name); });
}

size_t ConnectionNames::CountIn(std::string_view value) {
  size_t count = 0;
  ForEachListMember(value,
                    [&count](std::string_view member) { count += NamesALine(member) ? 1 : 0; });
  return count;
}

}  // namespace llmd::http
