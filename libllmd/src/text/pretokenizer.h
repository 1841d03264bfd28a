// Splits text into the words BPE works on, as the regular expressions of published tokenizers do,
// but by hand-written scanners: linear time, no allocation. Thread-safe.
#pragma once

#include <optional>
#include <string_view>

namespace llmd::text {

enum class PreTokenizer {
  kGpt2,    // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  kSmollm,  // Digits(individual), then kGpt2 on each part
  kLlama3,  // (?i:'s|…)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
            // ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  kQwen2,   // the same with single \p{N}
};

// By GGUF's tokenizer.ggml.pre; nullopt when unknown.
std::optional<PreTokenizer> PreTokenizerByName(std::string_view name);

// The end of the word that starts at `at`. `at` < `end`, text valid UTF-8.
const char* NextWord(PreTokenizer kind, const char* at, const char* end);

}  // namespace llmd::text
