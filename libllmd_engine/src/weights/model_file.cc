#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "llmd/engine/weights/gguf.h"
#include "llmd/text/special_tokens.h"
#include "model/registry.h"
#include "weights/fingerprint.h"

namespace llmd::engine {
namespace {

text::TokenId TokenIdOf(const GgufFile& gguf, std::string_view key) {
  return static_cast<text::TokenId>(gguf.Int(key).value_or(-1));
}

// Reads `prefix`.`name` into `out`; absent keeps the default.
class ConfigReader {
 public:
  ConfigReader(const GgufFile& gguf, std::string prefix)
      : gguf_(gguf), prefix_(std::move(prefix)) {}

  Status Required(std::string_view name, int& out) {
    LLMD_RETURN_IF_ERROR(Optional(name, out));
    if (out > 0) return OkStatus();
    return InvalidArgument("GGUF: key " + prefix_ + std::string(name) +
                           " is missing or not positive");
  }
  Status Optional(std::string_view name, int& out) {
    std::string key = prefix_ + std::string(name);
    auto value = gguf_.Int(key);
    if (!value)
      return gguf_.Has(key) ? InvalidArgument("GGUF: key " + key + " is no integer") : OkStatus();
    if (*value < 0 || *value > (1 << 28)) {
      return InvalidArgument("GGUF: key " + key + " is " + std::to_string(*value) +
                             ", expected 0 to 2^28");
    }
    out = static_cast<int>(*value);
    return OkStatus();
  }
  // What divides or is divided by: finite and above zero.
  Status Optional(std::string_view name, float& out) {
    std::string key = prefix_ + std::string(name);
    auto value = gguf_.Float(key);
    if (!value)
      return gguf_.Has(key) ? InvalidArgument("GGUF: key " + key + " is no number") : OkStatus();
    out = static_cast<float>(*value);
    if (std::isfinite(out) && out > 0) return OkStatus();
    return InvalidArgument("GGUF: key " + key + " is " + std::to_string(*value) +
                           ", expected a number above zero");
  }

 private:
  const GgufFile& gguf_;
  std::string prefix_;
};

// The factors divide frequencies.
Status ReadFreqFactors(const TensorView& factors, std::vector<float>& out) {
  out.resize(static_cast<size_t>(factors.cols()));
  DequantizeRow(factors, 0, out);
  for (const float factor : out) {
    if (!(std::isfinite(factor) && factor > 0)) {
      return InvalidArgument("GGUF: tensor rope_freqs.weight holds " + std::to_string(factor) +
                             ", expected numbers above zero");
    }
  }
  return OkStatus();
}

// A key that is there with another type than the one it is read as would be as good as absent.
template <typename T>
Status CheckType(const GgufFile& gguf, std::string_view key, const std::optional<T>& read,
                 std::string_view expected) {
  if (read || !gguf.Has(key)) return OkStatus();
  return InvalidArgument("GGUF: key " + std::string(key) + " is no " + std::string(expected));
}

Status CheckTokenizerKeys(const GgufFile& gguf) {
  for (const char* key : {"tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.chat_template"})
    LLMD_RETURN_IF_ERROR(CheckType(gguf, key, gguf.String(key), "text"));
  for (const char* key :
       {"tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.chat_templates"})
    LLMD_RETURN_IF_ERROR(CheckType(gguf, key, gguf.Strings(key), "list of texts"));
  for (const char* key : {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                          "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id",
                          "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id"})
    LLMD_RETURN_IF_ERROR(CheckType(gguf, key, gguf.Int(key), "integer"));
  for (const char* key : {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"})
    LLMD_RETURN_IF_ERROR(CheckType(gguf, key, gguf.Bool(key), "boolean"));
  const char* types = "tokenizer.ggml.token_type";
  return CheckType(gguf, types, gguf.Ints(types), "list of integers");
}

// Numbered as in the file; 0 is undefined, which is normal.
Status ReadTokenTypes(const std::vector<int64_t>& types, text::TokenizerSpec& spec) {
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] < 0 || types[i] > 6) {
      return InvalidArgument("GGUF: tokenizer.ggml.token_type of token " + std::to_string(i) +
                             " is " + std::to_string(types[i]) + ", expected 0 to 6");
    }
    spec.types.push_back(types[i] == 0 ? text::TokenType::kNormal
                                       : static_cast<text::TokenType>(types[i]));
  }
  return OkStatus();
}

// The end-of-turn tokens that the vocabulary has, whatever the keys say: a file may name none of
// them.
void AddEndOfTurnTokens(const GgufFile& gguf, std::vector<int32_t>& eos_ids) {
  text::TokenizerSpec spec;
  const auto tokens = gguf.Strings("tokenizer.ggml.tokens");
  if (!tokens) return;
  spec.tokens.assign(tokens->begin(), tokens->end());
  const auto types = gguf.Ints("tokenizer.ggml.token_type");
  if (types && !ReadTokenTypes(*types, spec).ok()) spec.types.clear();
  for (const text::TokenId id : text::EndOfTurnTokens(spec)) {
    if (std::find(eos_ids.begin(), eos_ids.end(), id) == eos_ids.end()) eos_ids.push_back(id);
  }
}

}  // namespace

StatusOr<std::unique_ptr<ModelFile>> ModelFile::Open(const std::string& path) {
  LLMD_ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> gguf, GgufFile::Open(path));
  return FromGguf(std::move(gguf), path);
}

StatusOr<std::unique_ptr<ModelFile>> ModelFile::FromGguf(std::unique_ptr<GgufFile> gguf,
                                                         std::string path) {
  std::unique_ptr<ModelFile> file(new ModelFile());
  file->path_ = std::move(path);
  file->gguf_ = std::move(gguf);
  if (Status status = file->ReadConfig(); !status.ok()) return status.WithContext(file->path_);
  const auto begun = std::chrono::steady_clock::now();
  file->config_.fingerprint = Fingerprint(*file->gguf_, file->config_);
  file->fingerprint_time_ = std::chrono::steady_clock::now() - begun;
  return file;
}

Status ModelFile::ReadConfig() {
  auto architecture = gguf_->String("general.architecture");
  if (!architecture) return InvalidArgument("GGUF: key general.architecture is missing");
  config_.architecture = *architecture;
  LLMD_RETURN_IF_ERROR(FindArchitecture(config_.architecture).status());
  config_.name = gguf_->String("general.name").value_or("");
  ConfigReader reader(*gguf_, config_.architecture + ".");
  LLMD_RETURN_IF_ERROR(reader.Required("embedding_length", config_.hidden));
  LLMD_RETURN_IF_ERROR(reader.Required("block_count", config_.layers));
  LLMD_RETURN_IF_ERROR(reader.Required("feed_forward_length", config_.ffn));
  LLMD_RETURN_IF_ERROR(reader.Required("attention.head_count", config_.heads));
  LLMD_RETURN_IF_ERROR(reader.Required("context_length", config_.max_position));
  config_.kv_heads = config_.heads;
  LLMD_RETURN_IF_ERROR(reader.Optional("attention.head_count_kv", config_.kv_heads));
  config_.head_dim = config_.hidden / config_.heads;
  LLMD_RETURN_IF_ERROR(reader.Optional("attention.key_length", config_.head_dim));
  LLMD_RETURN_IF_ERROR(reader.Optional("attention.layer_norm_rms_epsilon", config_.rms_eps));
  LLMD_RETURN_IF_ERROR(reader.Optional("rope.freq_base", config_.rope_theta));

  const TensorView* embedding = Tensor("token_embd.weight");
  if (embedding == nullptr) return InvalidArgument("GGUF: tensor token_embd.weight is missing");
  config_.vocab = static_cast<int>(std::min<int64_t>(embedding->rows(), 1 << 28));
  config_.tied_embeddings = Tensor("output.weight") == nullptr;
  if (const TensorView* factors = Tensor("rope_freqs.weight");
      factors != nullptr && factors->rows() == 1) {
    LLMD_RETURN_IF_ERROR(ReadFreqFactors(*factors, config_.rope_freq_factors));
  }
  LLMD_RETURN_IF_ERROR(CheckTokenizerKeys(*gguf_));
  bos_id_ = TokenIdOf(*gguf_, "tokenizer.ggml.bos_token_id");
  eos_id_ = TokenIdOf(*gguf_, "tokenizer.ggml.eos_token_id");
  for (std::string_view key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                               "tokenizer.ggml.eom_token_id"}) {
    text::TokenId id = TokenIdOf(*gguf_, key);
    if (id >= 0 &&
        std::find(config_.eos_ids.begin(), config_.eos_ids.end(), id) == config_.eos_ids.end()) {
      config_.eos_ids.push_back(id);
    }
  }
  AddEndOfTurnTokens(*gguf_, config_.eos_ids);
  return OkStatus();
}

std::string_view ModelFile::chat_template() const {
  return gguf_->String("tokenizer.chat_template").value_or("");
}

StatusOr<text::TokenizerSpec> ModelFile::tokenizer() const {
  std::string_view model = gguf_->String("tokenizer.ggml.model").value_or("");
  if (model.empty()) return InvalidArgument(path_ + ": key tokenizer.ggml.model is missing");
  if (model != "gpt2") {
    return Unimplemented(path_ + ": tokenizer model \"" + std::string(model) +
                         "\", known is gpt2 (byte-level BPE)");
  }
  auto tokens = gguf_->Strings("tokenizer.ggml.tokens");
  auto merges = gguf_->Strings("tokenizer.ggml.merges");
  if (!tokens || !merges)
    return InvalidArgument(path_ + ": tokenizer.ggml.tokens or .merges is missing");
  text::TokenizerSpec spec;
  spec.pre = gguf_->String("tokenizer.ggml.pre").value_or("default");
  spec.tokens.assign(tokens->begin(), tokens->end());
  spec.merges.assign(merges->begin(), merges->end());
  if (auto types = gguf_->Ints("tokenizer.ggml.token_type"))
    LLMD_RETURN_IF_ERROR(ReadTokenTypes(*types, spec));
  spec.bos = bos_id_;
  spec.eos = eos_id_;
  spec.eot = TokenIdOf(*gguf_, "tokenizer.ggml.eot_token_id");
  spec.unk = TokenIdOf(*gguf_, "tokenizer.ggml.unknown_token_id");
  spec.pad = TokenIdOf(*gguf_, "tokenizer.ggml.padding_token_id");
  spec.add_bos =
      gguf_->Bool("tokenizer.ggml.add_bos_token").value_or(text::AddsBosByDefault(spec.pre));
  spec.add_eos = gguf_->Bool("tokenizer.ggml.add_eos_token").value_or(false);
  return spec;
}

}  // namespace llmd::engine
