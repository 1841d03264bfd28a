// Builds GGUF files in memory for tests: keys, tensors from floats in any supported type, and a
// small random Llama.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "llmd/engine/weights/gguf.h"

namespace llmd::engine::testing {

inline void Append(std::vector<std::byte>& out, const void* data, size_t size) {
  const auto* p = static_cast<const std::byte*>(data);
  out.insert(out.end(), p, p + size);
}

template <typename T>
void AppendValue(std::vector<std::byte>& out, T value) {
  Append(out, &value, sizeof(value));
}

// Encodes floats (whole blocks for blocked types) the plain way.
inline std::vector<std::byte> Quantize(TensorType type, const std::vector<float>& values) {
  std::vector<std::byte> out;
  size_t block = BlockElements(type);
  for (size_t at = 0; at < values.size(); at += block) {
    const float* x = values.data() + at;
    float low = x[0], high = x[0];
    for (size_t i = 0; i < block; ++i) {
      low = std::min(low, x[i]);
      high = std::max(high, x[i]);
    }
    auto put_nibbles = [&](float d, float m) {
      for (int i = 0; i < 16; ++i) {
        auto q = [&](float v) {
          return d > 0 ? std::min(15, std::max(0, static_cast<int>((v - m) / d + 0.5f))) : 0;
        };
        AppendValue<uint8_t>(out, static_cast<uint8_t>(q(x[i]) | q(x[i + 16]) << 4));
      }
    };
    switch (type) {
      case TensorType::kF32:
        AppendValue(out, *x);
        break;
      case TensorType::kF16:
        AppendValue(out, FloatToHalf(*x));
        break;
      case TensorType::kBF16:
        AppendValue(out, FloatToBFloat16(*x));
        break;
      case TensorType::kQ4_0: {
        uint16_t d = FloatToHalf(std::max(std::fabs(low), std::fabs(high)) / 7.5f);
        AppendValue(out, d);
        put_nibbles(HalfToFloat(d), -8 * HalfToFloat(d));
        break;
      }
      case TensorType::kQ4_1: {
        uint16_t d = FloatToHalf((high - low) / 15), m = FloatToHalf(low);
        AppendValue(out, d);
        AppendValue(out, m);
        put_nibbles(HalfToFloat(d), HalfToFloat(m));
        break;
      }
      case TensorType::kQ8_0: {
        uint16_t d = FloatToHalf(std::max(std::fabs(low), std::fabs(high)) / 127);
        AppendValue(out, d);
        float scale = HalfToFloat(d);
        for (int i = 0; i < 32; ++i) {
          float q = scale > 0 ? std::nearbyint(x[i] / scale) : 0;
          AppendValue(out, static_cast<int8_t>(std::min(127.0f, std::max(-127.0f, q))));
        }
        break;
      }
    }
  }
  return out;
}

class GgufBuilder {
 public:
  void String(const std::string& key, const std::string& value) {
    Key(key, GgufType::kString);
    Text(keys_, value);
  }
  void Uint32(const std::string& key, uint32_t value) {
    Key(key, GgufType::kUint32);
    AppendValue(keys_, value);
  }
  void Float32(const std::string& key, float value) {
    Key(key, GgufType::kFloat32);
    AppendValue(keys_, value);
  }
  void Bool(const std::string& key, bool value) {
    Key(key, GgufType::kBool);
    AppendValue<uint8_t>(keys_, value);
  }
  template <typename T>
  void Scalar(const std::string& key, GgufType type, T value) {
    Key(key, type);
    AppendValue(keys_, value);
  }
  void Strings(const std::string& key, const std::vector<std::string>& values) {
    Key(key, GgufType::kArray);
    AppendValue(keys_, static_cast<uint32_t>(GgufType::kString));
    AppendValue<uint64_t>(keys_, values.size());
    for (const std::string& value : values) Text(keys_, value);
  }
  void Int32s(const std::string& key, const std::vector<int32_t>& values) {
    Key(key, GgufType::kArray);
    AppendValue(keys_, static_cast<uint32_t>(GgufType::kInt32));
    AppendValue<uint64_t>(keys_, values.size());
    for (int32_t value : values) AppendValue(keys_, value);
  }
  // dims[0] is contiguous, as in the file.
  void Tensor(const std::string& name, const std::vector<uint64_t>& dims, TensorType type,
              const std::vector<float>& values) {
    Text(directory_, name);
    AppendValue(directory_, static_cast<uint32_t>(dims.size()));
    for (uint64_t dim : dims) AppendValue(directory_, dim);
    AppendValue(directory_, static_cast<uint32_t>(type));
    AppendValue<uint64_t>(directory_, data_.size());
    std::vector<std::byte> bytes = Quantize(type, values);
    Append(data_, bytes.data(), bytes.size());
    data_.resize((data_.size() + 31) / 32 * 32);
    ++tensors_;
  }
  std::vector<std::byte> Build(uint32_t version = 3) const {
    std::vector<std::byte> out;
    Append(out, "GGUF", 4);
    AppendValue(out, version);
    AppendValue<uint64_t>(out, tensors_);
    AppendValue<uint64_t>(out, key_count_);
    Append(out, keys_.data(), keys_.size());
    Append(out, directory_.data(), directory_.size());
    out.resize((out.size() + 31) / 32 * 32);
    Append(out, data_.data(), data_.size());
    return out;
  }

 private:
  static void Text(std::vector<std::byte>& out, const std::string& text) {
    AppendValue<uint64_t>(out, text.size());
    Append(out, text.data(), text.size());
  }
  void Key(const std::string& key, GgufType type) {
    Text(keys_, key);
    AppendValue(keys_, static_cast<uint32_t>(type));
    ++key_count_;
  }

  std::vector<std::byte> keys_, directory_, data_;
  uint64_t key_count_ = 0, tensors_ = 0;
};

struct TinyShape {
  int hidden = 96, layers = 2, heads = 3, kv_heads = 1, head_dim = 32, ffn = 160, vocab = 113,
      context = 256;
  bool tied = true;
  bool rope_factors = false;
};

inline std::vector<float> RandomFloats(size_t count, float scale, std::mt19937& random) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

inline GgufBuilder TinyLlama(TensorType type, const TinyShape& s = {}, uint32_t seed = 1) {
  std::mt19937 random(seed);
  GgufBuilder b;
  b.String("general.architecture", "llama");
  b.String("general.name", "tiny");
  b.Uint32("llama.embedding_length", s.hidden);
  b.Uint32("llama.block_count", s.layers);
  b.Uint32("llama.feed_forward_length", s.ffn);
  b.Uint32("llama.attention.head_count", s.heads);
  b.Uint32("llama.attention.head_count_kv", s.kv_heads);
  b.Uint32("llama.attention.key_length", s.head_dim);
  b.Uint32("llama.context_length", s.context);
  b.Float32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  b.Float32("llama.rope.freq_base", 10000.0f);
  auto matrix = [&](const std::string& name, int rows, int cols) {
    b.Tensor(name, {static_cast<uint64_t>(cols), static_cast<uint64_t>(rows)}, type,
             RandomFloats(static_cast<size_t>(rows) * cols,
                          1.0f / std::sqrt(static_cast<float>(cols)), random));
  };
  auto vector = [&](const std::string& name) {
    std::vector<float> values = RandomFloats(s.hidden, 0.1f, random);
    for (float& value : values) value += 1;
    b.Tensor(name, {static_cast<uint64_t>(s.hidden)}, TensorType::kF32, values);
  };
  matrix("token_embd.weight", s.vocab, s.hidden);
  if (!s.tied) matrix("output.weight", s.vocab, s.hidden);
  if (s.rope_factors) {
    b.Tensor("rope_freqs.weight", {static_cast<uint64_t>(s.head_dim / 2)}, TensorType::kF32,
             std::vector<float>(s.head_dim / 2, 4.0f));
  }
  vector("output_norm.weight");
  for (int i = 0; i < s.layers; ++i) {
    std::string p = "blk." + std::to_string(i) + ".";
    vector(p + "attn_norm.weight");
    vector(p + "ffn_norm.weight");
    matrix(p + "attn_q.weight", s.heads * s.head_dim, s.hidden);
    matrix(p + "attn_k.weight", s.kv_heads * s.head_dim, s.hidden);
    matrix(p + "attn_v.weight", s.kv_heads * s.head_dim, s.hidden);
    matrix(p + "attn_output.weight", s.hidden, s.heads * s.head_dim);
    matrix(p + "ffn_gate.weight", s.ffn, s.hidden);
    matrix(p + "ffn_up.weight", s.ffn, s.hidden);
    matrix(p + "ffn_down.weight", s.hidden, s.ffn);
  }
  return b;
}

}  // namespace llmd::engine::testing
