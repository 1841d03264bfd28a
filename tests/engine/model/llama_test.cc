#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <random>

#include "engine/model/model_support.h"
#include "engine/weights/gguf_builder.h"
#include "model/registry.h"

namespace llmd::engine {
namespace {

using testing::AllModes;
using testing::BlockRange;
using testing::Driver;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::Mode;
using testing::Piece;
using testing::TinyLlama;
using testing::TinyShape;

constexpr TensorType kTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16,
                                 TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ8_0};

StatusOr<std::unique_ptr<Model>> Load(const GgufBuilder& builder, const ModelOptions& options) {
  std::vector<std::byte> bytes = builder.Build();
  LLMD_ASSIGN_OR_RETURN(auto gguf, GgufFile::Parse(bytes));
  LLMD_ASSIGN_OR_RETURN(auto file, ModelFile::FromGguf(std::move(gguf), "memory"));
  return LoadModel(*file, options);
}

Driver Tiny(TensorType type, const Mode& mode, int threads = 2, int block_size = 16,
            const TinyShape& shape = {}) {
  auto model = Load(TinyLlama(type, shape), mode.Options(threads));
  EXPECT_TRUE(model.ok()) << model.status().ToString();
  return Driver(std::move(*model), 64, block_size);
}

std::vector<int32_t> Tokens(int count, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 113);
  return tokens;
}

// The tiny model in double precision from the same file, rotating neighbours as GGUF orders them.
class Reference {
 public:
  explicit Reference(const ModelFile& file) : file_(file), c_(file.config()) {}

  std::vector<double> Logits(const std::vector<int32_t>& tokens) {
    std::vector<std::vector<double>> x;
    for (int32_t token : tokens) x.push_back(Row("token_embd.weight", token));
    for (int layer = 0; layer < c_.layers; ++layer) Layer("blk." + std::to_string(layer) + ".", x);
    std::vector<double> last = Norm(x.back(), "output_norm.weight");
    return Times(c_.tied_embeddings ? "token_embd.weight" : "output.weight", last);
  }

 private:
  const std::vector<std::vector<float>>& Rows(const std::string& name) {
    auto& rows = rows_[name];
    const TensorView* tensor = file_.Tensor(name);
    for (int64_t row = static_cast<int64_t>(rows.size()); row < tensor->rows(); ++row) {
      DequantizeRow(*tensor, row, rows.emplace_back(tensor->cols()));
    }
    return rows;
  }
  std::vector<double> Row(const std::string& name, int64_t row) {
    const std::vector<float>& values = Rows(name)[row];
    return {values.begin(), values.end()};
  }
  std::vector<double> Times(const std::string& name, const std::vector<double>& x) {
    const auto& rows = Rows(name);
    std::vector<double> out(rows.size());
    for (size_t n = 0; n < out.size(); ++n) {
      for (size_t k = 0; k < x.size(); ++k) out[n] += rows[n][k] * x[k];
    }
    return out;
  }
  std::vector<double> Norm(const std::vector<double>& x, const std::string& name) {
    std::vector<double> w = Row(name, 0), out(x.size());
    double sum = 0;
    for (double value : x) sum += value * value;
    for (size_t i = 0; i < x.size(); ++i)
      out[i] = x[i] / std::sqrt(sum / static_cast<double>(x.size()) + c_.rms_eps) * w[i];
    return out;
  }
  void Rotate(std::vector<double>& x, int position) {
    for (size_t h = 0; h < x.size(); h += c_.head_dim) {
      for (int i = 0; i < c_.head_dim / 2; ++i) {
        double frequency = std::pow(c_.rope_theta, -2.0 * i / c_.head_dim);
        if (!c_.rope_freq_factors.empty()) frequency /= c_.rope_freq_factors[i];
        double cos = std::cos(position * frequency), sin = std::sin(position * frequency);
        double a = x[h + 2 * i], b = x[h + 2 * i + 1];
        x[h + 2 * i] = a * cos - b * sin;
        x[h + 2 * i + 1] = b * cos + a * sin;
      }
    }
  }
  void Layer(const std::string& p, std::vector<std::vector<double>>& x) {
    std::vector<std::vector<double>> keys, values;
    for (size_t t = 0; t < x.size(); ++t) {
      std::vector<double> h = Norm(x[t], p + "attn_norm.weight"), q = Times(p + "attn_q.weight", h);
      keys.push_back(Times(p + "attn_k.weight", h));
      values.push_back(Times(p + "attn_v.weight", h));
      Rotate(q, static_cast<int>(t));
      Rotate(keys.back(), static_cast<int>(t));
      Add(x[t], Times(p + "attn_output.weight", Attend(q, keys, values)));
    }
    for (auto& row : x) {
      std::vector<double> h = Norm(row, p + "ffn_norm.weight"), g = Times(p + "ffn_gate.weight", h);
      std::vector<double> u = Times(p + "ffn_up.weight", h);
      for (size_t i = 0; i < g.size(); ++i) u[i] *= g[i] / (1 + std::exp(-g[i]));
      Add(row, Times(p + "ffn_down.weight", u));
    }
  }
  std::vector<double> Attend(const std::vector<double>& q,
                             const std::vector<std::vector<double>>& keys,
                             const std::vector<std::vector<double>>& values) {
    std::vector<double> out(q.size());
    for (int h = 0; h < c_.heads; ++h) {
      int kv = h / (c_.heads / c_.kv_heads) * c_.head_dim, at = h * c_.head_dim;
      std::vector<double> scores(keys.size());
      double total = 0;
      for (size_t t = 0; t < keys.size(); ++t) {
        for (int d = 0; d < c_.head_dim; ++d) scores[t] += q[at + d] * keys[t][kv + d];
        total += scores[t] = std::exp(scores[t] / std::sqrt(c_.head_dim));
      }
      for (size_t t = 0; t < keys.size(); ++t) {
        for (int d = 0; d < c_.head_dim; ++d) out[at + d] += scores[t] / total * values[t][kv + d];
      }
    }
    return out;
  }
  static void Add(std::vector<double>& to, const std::vector<double>& from) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
  }

  const ModelFile& file_;
  const ModelConfig& c_;
  std::map<std::string, std::vector<std::vector<float>>> rows_;
};

TEST(Llama, MatchesADoublePrecisionForwardPass) {
  TinyShape untied;
  untied.tied = false;
  untied.rope_factors = true;
  std::vector<int32_t> tokens = Tokens(40);
  for (const TinyShape& shape : {TinyShape{}, untied}) {
    for (TensorType type : kTypes) {
      std::vector<std::byte> bytes = TinyLlama(type, shape).Build();
      auto file = ModelFile::FromGguf(std::move(*GgufFile::Parse(bytes)), "memory");
      ASSERT_TRUE(file.ok());
      std::vector<double> want = Reference(**file).Logits(tokens);
      for (const Mode& mode : AllModes()) {
        SCOPED_TRACE(mode.Name() + " " + std::string(TensorTypeName(type)));
        double tolerance = mode.quantization == Quantization::kW8A8 ? 0.15
                           : mode.dtype == DType::kFloat32          ? 2e-5
                                                                    : 0.05;
        Driver driver = Tiny(type, mode, 2, 16, shape);
        std::vector<float> got = driver.Run({{tokens, 0, BlockRange(0, 3)}})[0];
        for (size_t i = 0; i < want.size(); ++i)
          ASSERT_NEAR(got[i], want[i], tolerance) << "logit " << i;
      }
    }
  }
}

class LlamaModes : public ::testing::TestWithParam<Mode> {};

TEST_P(LlamaModes, ARowIsTheSameAloneAndAmongSixteen) {
  for (TensorType type : {TensorType::kQ4_1, TensorType::kQ8_0, TensorType::kF32}) {
    Driver alone = Tiny(type, GetParam()), together = Tiny(type, GetParam());
    std::vector<Piece> pieces;
    for (int s = 0; s < 16; ++s) pieces.push_back({Tokens(3 + s * 2, s), 0, BlockRange(s * 3, 3)});
    auto batch = together.Run(pieces);
    for (int s = 0; s < 16; ++s) ASSERT_EQ(alone.Run({pieces[s]})[0], batch[s]) << "sequence " << s;
    std::vector<Piece> decode;
    for (int s = 0; s < 16; ++s) decode.push_back({{s}, 3 + s * 2, BlockRange(s * 3, 3)});
    auto next = together.Run(decode);
    for (int s = 0; s < 16; ++s) ASSERT_EQ(alone.Run({decode[s]})[0], next[s]) << "sequence " << s;
  }
}

TEST_P(LlamaModes, AChunkedPromptGivesTheSameLogits) {
  std::vector<int32_t> tokens = Tokens(90);
  Driver whole = Tiny(TensorType::kQ4_1, GetParam());
  std::vector<float> want = whole.Run({{tokens, 0, BlockRange(0, 6)}})[0];
  for (int chunk : {1, 7, 16, 33, 64}) {
    Driver driver = Tiny(TensorType::kQ4_1, GetParam());
    std::vector<float> got;
    for (int at = 0; at < 90; at += chunk) {
      std::vector<int32_t> part(tokens.begin() + at, tokens.begin() + std::min(90, at + chunk));
      got = driver.Run({{part, at, BlockRange(0, 6)}})[0];
    }
    ASSERT_EQ(got, want) << "chunks of " << chunk;
  }
}

TEST_P(LlamaModes, ScatteredBlocksThreadsAndBlockSizeDoNotMatter) {
  std::vector<int32_t> tokens = Tokens(70);
  Driver plain = Tiny(TensorType::kQ4_1, GetParam(), 1);
  auto want = plain.Run({{tokens, 0, BlockRange(0, 5), true}});
  Driver scattered = Tiny(TensorType::kQ4_1, GetParam(), 3);
  EXPECT_EQ(scattered.Run({{tokens, 0, {41, 3, 63, 0, 17}, true}}), want);
  Driver large = Tiny(TensorType::kQ4_1, GetParam(), 2, 32);
  EXPECT_EQ(large.Run({{tokens, 0, {9, 2, 30}, true}}), want);
}

TEST_P(LlamaModes, ManyLogitRowsEqualSingleOnes) {
  std::vector<int32_t> tokens = Tokens(20);
  Driver driver = Tiny(TensorType::kQ8_0, GetParam());
  auto all = driver.Run({{tokens, 0, BlockRange(0, 2), true}});
  ASSERT_EQ(all.size(), 20u);
  for (int i = 0; i < 20; ++i) {
    std::vector<int32_t> prefix(tokens.begin(), tokens.begin() + i + 1);
    ASSERT_EQ(driver.Run({{prefix, 0, BlockRange(2, 2)}})[0], all[i]) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Paths, LlamaModes, ::testing::ValuesIn(AllModes()), [](const auto& info) {
  std::string name = info.param.Name();
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
});

TEST(Llama, RefusesStepsThatDoNotFit) {
  auto model = Load(TinyLlama(TensorType::kF32), {});
  ASSERT_TRUE(model.ok());
  std::vector<int32_t> tokens{1, 2}, positions{0, 1}, query{0, 2}, context{2}, table{0}, rows{1};
  std::vector<int64_t> slots{0, 1};
  std::vector<float> logits(113);
  auto run = [&] {
    return (*model)->Forward({tokens, positions, slots, query, context, table, 1, rows}, logits);
  };
  EXPECT_EQ(run().code(), StatusCode::kFailedPrecondition) << "no pool yet";
  std::vector<std::byte> pool((*model)->kv_geometry(16).block_bytes() * 2);
  EXPECT_FALSE((*model)->AttachKv(pool.data(), 16, 2, 16).ok()) << "stride too small";
  ASSERT_TRUE((*model)->AttachKv(pool.data(), pool.size() / 2, 2, 16).ok());
  ASSERT_TRUE(run().ok());
  auto refuse = [&](auto& value, auto wrong, const char* what) {
    auto kept = value;
    value = wrong;
    EXPECT_EQ(run().code(), StatusCode::kInvalidArgument) << what;
    value = kept;
  };
  refuse(tokens[0], 113, "token");
  refuse(tokens[0], -1, "token");
  refuse(positions[1], 2, "position beyond the context");
  refuse(positions[1], 0, "position not ascending");
  refuse(slots[0], 32, "slot");
  refuse(context[0], 17, "context beyond the table");
  refuse(table[0], 2, "block");
  refuse(query[1], 1, "rows left over");
  refuse(rows[0], 2, "logit row");
  EXPECT_TRUE(run().ok());
}

TEST(LoadModel, ListsTheArchitecturesItKnows) {
  GgufBuilder b;
  b.String("general.architecture", "mamba");
  for (const char* key : {"embedding_length", "block_count", "feed_forward_length",
                          "attention.head_count", "context_length"}) {
    b.Uint32(std::string("mamba.") + key, 32);
  }
  b.Tensor("token_embd.weight", {32, 4}, TensorType::kF32, std::vector<float>(128));
  auto model = Load(b, {});
  EXPECT_EQ(model.status().code(), StatusCode::kUnimplemented);
  EXPECT_THAT(model.status().message(), HasSubstr("llama"));
  EXPECT_THAT(KnownArchitectures(), ::testing::Contains("llama"));
}

TEST(LoadModel, NamesAMissingOrMisshapenTensor) {
  GgufBuilder b;
  b.String("general.architecture", "llama");
  for (const char* key :
       {"embedding_length", "feed_forward_length", "attention.head_count", "context_length"}) {
    b.Uint32(std::string("llama.") + key, 32);
  }
  b.Uint32("llama.block_count", 1);
  b.Uint32("llama.attention.key_length", 32);
  b.Tensor("token_embd.weight", {32, 4}, TensorType::kF32, std::vector<float>(128));
  EXPECT_THAT(Load(b, {}).status().message(), HasSubstr("output_norm.weight is missing"));
  b.Tensor("output_norm.weight", {16}, TensorType::kF32, std::vector<float>(16));
  EXPECT_THAT(Load(b, {}).status().message(), HasSubstr("expected 1 × 32"));
}

TEST(LoadModel, DescribesItself) {
  ModelOptions options;
  options.dtype = DType::kFloat32;
  options.threads = 1;
  auto model = Load(TinyLlama(TensorType::kQ4_1), options);
  ASSERT_TRUE(model.ok());
  EXPECT_THAT((*model)->Describe(), HasSubstr("float32"));
  EXPECT_EQ((*model)->kv_geometry(16).element_bytes, 4);
}

Status LoadPatched(std::string_view key, uint32_t value, const ModelOptions& options = {}) {
  std::vector<std::byte> bytes = TinyLlama(TensorType::kQ8_0).Build();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::memcpy(bytes.data() + text.find(key) + key.size() + 4, &value, sizeof value);
  LLMD_ASSIGN_OR_RETURN(auto gguf, GgufFile::Parse(bytes));
  LLMD_ASSIGN_OR_RETURN(auto file, ModelFile::FromGguf(std::move(gguf), "memory"));
  return LoadModel(*file, options).status();
}

TEST(LlamaModel, OddNumbersAreRefusedAndDoNotKill) {
  EXPECT_THAT(LoadPatched("llama.attention.head_count_kv", 0).message(), HasSubstr("key-value"));
  EXPECT_THAT(LoadPatched("llama.block_count", 1 << 28).message(), HasSubstr("block_count"));
  for (const char* key : {"llama.embedding_length", "llama.feed_forward_length",
                          "llama.attention.head_count", "llama.attention.head_count_kv"}) {
    EXPECT_FALSE(LoadPatched(key, 1 << 28).ok()) << key;
  }
}

TEST(LlamaModel, ALongContextCostsNothingUntilItIsUsed) {
  EXPECT_TRUE(LoadPatched("llama.context_length", 1 << 28).ok());
  ModelOptions options;
  options.max_position = 100;
  auto model = Load(TinyLlama(TensorType::kQ8_0), options);
  ASSERT_TRUE(model.ok());
  Driver driver(std::move(*model), 64);
  EXPECT_EQ(driver.model().config().max_position, 256);
}

}  // namespace
}  // namespace llmd::engine
