// Unicode normalisation form C, as Hugging Face `tokenizers` applies it before the Qwen2 splits
// (its tables stop at Unicode 9, so do these). Pure functions over immutable tables; thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace llmd::text {

// `text` in form C: `text` itself where it surely is already, else a view of `scratch`, which is
// overwritten. `text` must be valid UTF-8.
std::string_view Nfc(std::string_view text, std::string& scratch);

}  // namespace llmd::text
