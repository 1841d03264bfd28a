// Tables for people who read a terminal.
#pragma once

#include <string>
#include <vector>

namespace llmd {

// One line a row: columns as wide as their widest cell, two blanks between, four before the first,
// none at the end. Rows may be shorter than others. Widths are bytes.
std::string TextTable(const std::vector<std::vector<std::string>>& rows);

}  // namespace llmd
