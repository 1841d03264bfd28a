#include "weights/fingerprint.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "hash128.h"

namespace llmd::engine {
namespace {

void AddTensors(const GgufFile& gguf, Hash128& hash) {
  std::vector<const TensorView*> tensors;
  for (const TensorView& tensor : gguf.tensors()) tensors.push_back(&tensor);
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorView* a, const TensorView* b) { return a->name < b->name; });
  for (const TensorView* tensor : tensors) {
    hash.Text(tensor->name);
    hash.Number(tensor->type);
    hash.Number(tensor->rank);
    for (const int64_t dim : tensor->dims) hash.Number(dim);
    hash.Bytes(tensor->data);
  }
}

// As read: what a file leaves out has the default of this version.
void AddConfig(const ModelConfig& c, Hash128& hash) {
  hash.Text(c.architecture);
  for (const int n : {c.hidden, c.layers, c.heads, c.kv_heads, c.head_dim, c.ffn, c.vocab})
    hash.Number(n);
  hash.Number(c.rms_eps);
  hash.Number(c.rope_theta);
  hash.Bytes(std::as_bytes(std::span(c.rope_freq_factors)));
}

}  // namespace

std::string Fingerprint(const GgufFile& gguf, const ModelConfig& config) {
  Hash128 hash;
  AddTensors(gguf, hash);
  for (const auto& [key, value] : gguf.RawKeys(config.architecture + ".")) {
    hash.Text(key);
    hash.Bytes(value);
  }
  AddConfig(config, hash);
  return hash.Hex();
}

}  // namespace llmd::engine
