#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "engine/weights/gguf_builder.h"
#include "llmd/engine/weights/chat_templates.h"
#include "llmd/engine/weights/gguf.h"

namespace llmd::engine {
namespace {

using ::testing::ElementsAre;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::TinyLlama;

struct Opened {
  std::vector<std::byte> bytes;
  std::unique_ptr<ModelFile> file;
  Status status;
};

Opened OpenBuilt(const GgufBuilder& builder) {
  Opened opened;
  opened.bytes = builder.Build();
  auto gguf = GgufFile::Parse(opened.bytes);
  EXPECT_TRUE(gguf.ok()) << gguf.status().ToString();
  auto file = ModelFile::FromGguf(std::move(*gguf), "memory");
  opened.status = file.status();
  if (file.ok()) opened.file = std::move(*file);
  return opened;
}

TEST(ModelFile, ReadsTheConfiguration) {
  testing::TinyShape shape;
  shape.rope_factors = true;
  GgufBuilder b = TinyLlama(TensorType::kQ4_1, shape);
  b.Uint32("tokenizer.ggml.eos_token_id", 2);
  b.Uint32("tokenizer.ggml.eot_token_id", 7);
  b.Uint32("tokenizer.ggml.bos_token_id", 1);
  Opened opened = OpenBuilt(b);
  ASSERT_TRUE(opened.status.ok()) << opened.status.ToString();
  const ModelConfig& c = opened.file->config();
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.name, "tiny");
  EXPECT_EQ(c.hidden, 96);
  EXPECT_EQ(c.layers, 2);
  EXPECT_EQ(c.heads, 3);
  EXPECT_EQ(c.kv_heads, 1);
  EXPECT_EQ(c.head_dim, 32);
  EXPECT_EQ(c.ffn, 160);
  EXPECT_EQ(c.vocab, 113);
  EXPECT_EQ(c.max_position, 256);
  EXPECT_TRUE(c.tied_embeddings);
  EXPECT_EQ(c.rope_freq_factors.size(), 16u);
  EXPECT_THAT(c.eos_ids, ElementsAre(2, 7));
  EXPECT_EQ(opened.file->bos_id(), 1);
  EXPECT_EQ(opened.file->eos_id(), 2);
  EXPECT_EQ(opened.file->chat_template(), "");
}

TEST(ModelFile, NamesTheMissingKey) {
  GgufBuilder b;
  b.String("general.architecture", "llama");
  EXPECT_THAT(OpenBuilt(b).status.message(), HasSubstr("llama.embedding_length"));
  EXPECT_THAT(OpenBuilt(GgufBuilder()).status.message(), HasSubstr("general.architecture"));
}

TEST(ModelFile, ReadsTheTokenizer) {
  GgufBuilder b = TinyLlama(TensorType::kF32);
  b.String("tokenizer.ggml.model", "gpt2");
  b.String("tokenizer.ggml.pre", "smollm");
  b.Strings("tokenizer.ggml.tokens", {"<s>", "a", "b", "ab"});
  b.Int32s("tokenizer.ggml.token_type", {3, 1, 1, 1});
  b.Strings("tokenizer.ggml.merges", {"a b"});
  b.Bool("tokenizer.ggml.add_bos_token", true);
  b.String("tokenizer.chat_template", "{{ x }}");
  Opened opened = OpenBuilt(b);
  ASSERT_TRUE(opened.status.ok());
  auto spec = opened.file->tokenizer();
  ASSERT_TRUE(spec.ok()) << spec.status().ToString();
  EXPECT_EQ(spec->pre, "smollm");
  EXPECT_THAT(spec->tokens, ElementsAre("<s>", "a", "b", "ab"));
  EXPECT_EQ(spec->types[0], text::TokenType::kControl);
  EXPECT_THAT(spec->merges, ElementsAre("a b"));
  EXPECT_TRUE(spec->add_bos);
  EXPECT_EQ(spec->pad, -1);
  EXPECT_EQ(opened.file->chat_template(), "{{ x }}");
}

GgufBuilder WithVocabulary(const std::vector<std::string>& tokens,
                           const std::vector<int32_t>& types, const std::string& pre = "smollm") {
  GgufBuilder b = TinyLlama(TensorType::kF32);
  b.String("tokenizer.ggml.model", "gpt2");
  b.String("tokenizer.ggml.pre", pre);
  b.Strings("tokenizer.ggml.tokens", tokens);
  b.Int32s("tokenizer.ggml.token_type", types);
  b.Strings("tokenizer.ggml.merges", {"a b"});
  return b;
}

TEST(ModelFile, KnowsEndsOfTurnsByTheirText) {
  GgufBuilder b =
      WithVocabulary({"<|endoftext|>", "a", "<|im_end|>", "</s>", "<eos>"}, {3, 1, 3, 1, 3});
  b.Uint32("tokenizer.ggml.eos_token_id", 0);
  // "</s>" is ordinary text here.
  EXPECT_THAT(OpenBuilt(b).file->config().eos_ids, ElementsAre(0, 2, 4));
  const GgufBuilder harmony =
      WithVocabulary({"<|return|>", "<|call|>", "<|end|>", "<|endoftext|>"}, {3, 3, 3, 3});
  EXPECT_THAT(OpenBuilt(harmony).file->config().eos_ids, ElementsAre(0, 1, 3));
}

TEST(ModelFile, Llama3BeginsWithBosUnlessTheFileSaysOtherwise) {
  const auto adds = [](GgufBuilder b) { return OpenBuilt(b).file->tokenizer()->add_bos; };
  GgufBuilder llama = WithVocabulary({"a", "b", "ab"}, {1, 1, 1}, "llama-bpe");
  EXPECT_TRUE(adds(llama));
  llama.Bool("tokenizer.ggml.add_bos_token", false);
  EXPECT_FALSE(adds(llama));
  EXPECT_FALSE(adds(WithVocabulary({"a", "b", "ab"}, {1, 1, 1}, "qwen2")));
}

TEST(ModelFile, RefusesKeysOfAnotherType) {
  const auto error = [](const auto& add) {
    GgufBuilder b = TinyLlama(TensorType::kF32);
    add(b);
    return OpenBuilt(b).status.message();
  };
  EXPECT_THAT(error([](GgufBuilder& b) { b.Strings("tokenizer.ggml.token_type", {"1"}); }),
              HasSubstr("tokenizer.ggml.token_type is no list of integers"));
  EXPECT_THAT(error([](GgufBuilder& b) { b.Uint32("tokenizer.ggml.add_bos_token", 1); }),
              HasSubstr("tokenizer.ggml.add_bos_token is no boolean"));
  EXPECT_THAT(error([](GgufBuilder& b) { b.String("tokenizer.ggml.eos_token_id", "2"); }),
              HasSubstr("tokenizer.ggml.eos_token_id is no integer"));
  const GgufBuilder b = WithVocabulary({"a", "b", "ab"}, {1, 1, 7});
  EXPECT_THAT(OpenBuilt(b).file->tokenizer().status().message(),
              HasSubstr("token_type of token 2 is 7"));
}

TEST(ModelFile, RefusesNumbersThatMakeNoSense) {
  const auto error = [](std::string_view key, float value) {
    std::vector<std::byte> bytes = TinyLlama(TensorType::kF32).Build();
    std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    std::memcpy(bytes.data() + text.find(key) + key.size() + 4, &value, sizeof value);
    auto gguf = GgufFile::Parse(bytes);
    return ModelFile::FromGguf(std::move(*gguf), "memory").status().message();
  };
  for (const char* key : {"llama.rope.freq_base", "llama.attention.layer_norm_rms_epsilon"}) {
    for (const float value : {0.0f, -1.0f, NAN, INFINITY})
      EXPECT_THAT(error(key, value), HasSubstr(std::string(key) + " is ")) << value;
  }
}

TEST(ModelFile, NamesAnUnknownArchitecture) {
  GgufBuilder b;
  b.String("general.architecture", "rwkv7");
  EXPECT_THAT(OpenBuilt(b).status.message(),
              HasSubstr("architecture \"rwkv7\" is not known; known: llama"));
}

TEST(ModelFile, ReadsTheNamedChatTemplates) {
  GgufBuilder b = TinyLlama(TensorType::kF32);
  b.String("tokenizer.chat_template", "{% bad");
  b.Strings("tokenizer.chat_templates", {"tool_use", "absent"});
  b.String("tokenizer.chat_template.tool_use", "tools");
  const Opened opened = OpenBuilt(b);
  const text::ChatTemplates templates = ReadChatTemplates(*opened.file);
  EXPECT_TRUE(templates.Choose(/*with_tools=*/true).ok());
  EXPECT_EQ(templates.Choose(/*with_tools=*/false).status().code(), StatusCode::kInvalidArgument);
}

TEST(ModelFile, RefusesOtherTokenizers) {
  GgufBuilder b = TinyLlama(TensorType::kF32);
  b.String("tokenizer.ggml.model", "llama");
  EXPECT_EQ(OpenBuilt(b).file->tokenizer().status().code(), StatusCode::kUnimplemented);
  EXPECT_EQ(OpenBuilt(TinyLlama(TensorType::kF32)).file->tokenizer().status().code(),
            StatusCode::kInvalidArgument);
}

TEST(ModelFile, FingerprintTellsModelsApart) {
  Opened a = OpenBuilt(TinyLlama(TensorType::kQ8_0, {}, 1)),
         b = OpenBuilt(TinyLlama(TensorType::kQ8_0, {}, 1));
  Opened c = OpenBuilt(TinyLlama(TensorType::kQ8_0, {}, 2)),
         d = OpenBuilt(TinyLlama(TensorType::kQ4_1, {}, 1));
  EXPECT_EQ(a.file->fingerprint().size(), 32u);
  EXPECT_EQ(a.file->fingerprint(), b.file->fingerprint());
  EXPECT_NE(a.file->fingerprint(), c.file->fingerprint());
  EXPECT_NE(a.file->fingerprint(), d.file->fingerprint());
}

// The tiny model with `edit` done to its bytes.
template <typename Edit>
std::string FingerprintAfter(const Edit& edit) {
  std::vector<std::byte> bytes = TinyLlama(TensorType::kQ8_0).Build();
  edit(bytes);
  auto gguf = GgufFile::Parse(bytes);
  EXPECT_TRUE(gguf.ok()) << gguf.status().ToString();
  auto file = ModelFile::FromGguf(std::move(*gguf), "memory");
  EXPECT_TRUE(file.ok()) << file.status().ToString();
  return (*file)->fingerprint();
}

TEST(ModelFile, FingerprintSeesEveryByteOfTheWeights) {
  const std::string before = FingerprintAfter([](auto&) {});
  EXPECT_NE(before,
            FingerprintAfter([](auto& bytes) { bytes[bytes.size() - 64] ^= std::byte{1}; }));
  EXPECT_NE(before, FingerprintAfter([](auto& bytes) {
              bytes[bytes.size() - 5000] ^= std::byte{1};  // far from the start of its tensor
            }));
}

TEST(ModelFile, FingerprintSeesWhatElseChangesKeysAndValues) {
  const auto of = [](const auto& add) {
    GgufBuilder b = TinyLlama(TensorType::kQ8_0);
    add(b);
    return OpenBuilt(b).file->fingerprint();
  };
  const std::string before = of([](GgufBuilder&) {});
  EXPECT_NE(before, of([](GgufBuilder& b) { b.String("llama.rope.scaling.type", "linear"); }));
  EXPECT_NE(before, of([](GgufBuilder& b) { b.Uint32("llama.attention.sliding_window", 64); }));
  EXPECT_EQ(before, of([](GgufBuilder& b) { b.String("tokenizer.chat_template", "{{ x }}"); }));
  const auto patched = [](std::string_view key, float value) {
    return FingerprintAfter([&](std::vector<std::byte>& bytes) {
      std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      std::memcpy(bytes.data() + text.find(key) + key.size() + 4, &value, sizeof value);
    });
  };
  EXPECT_EQ(before, patched("llama.rope.freq_base", 10000.0f));
  EXPECT_NE(before, patched("llama.rope.freq_base", 10001.0f));
  EXPECT_NE(before, patched("llama.attention.layer_norm_rms_epsilon", 0.5f));
}

}  // namespace
}  // namespace llmd::engine
