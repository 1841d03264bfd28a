// Where the tests find the checkout and what was built. Only paths.cc holds the folders' names, so that the objects of all
// other tests are the same in every checkout and a compile cache knows them.
#pragma once

#include <string>

namespace llmd::testing {

// `relative` within the checkout; the checkout itself for "".
std::string SourcePath(const std::string& relative = "");
// `relative` within the build folder.
std::string BinaryPath(const std::string& relative);

}  // namespace llmd::testing
