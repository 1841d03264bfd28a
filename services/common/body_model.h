// The model that a request's body names, where nobody else reads the body.
#pragma once

#include <string>
#include <string_view>

namespace llmd::services {

// Of the last member "model" at the top level of a JSON object, as Python's and Go's readers take
// it; "" when there is none, or the body is no such object.
void ReadModel(std::string_view body, std::string& model);

}  // namespace llmd::services
