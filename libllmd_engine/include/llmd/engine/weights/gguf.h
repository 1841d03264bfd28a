// GGUF files (ggml's format, versions 2 and 3, little endian): a bounds-checked reader over a
// private read-only mapping, and ModelFile, which says what a serving process wants to know of one:
// configuration, tokenizer, template, tensors. Every length in the file is checked against the file
// before it is used; a malformed file gives INVALID_ARGUMENT naming the place. Views borrow from
// the mapping and live as long as the object. Thread-safe once opened.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llmd/clock.h"
#include "llmd/engine/model_config.h"
#include "llmd/engine/weights/tensor_view.h"
#include "llmd/status.h"
#include "llmd/text/tokenizer.h"

namespace llmd::engine {

// The value types of a GGUF key, numbered as in the file.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};

class GgufFile {
 public:
  static StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);
  // The same over bytes in memory, which must outlive the object.
  static StatusOr<std::unique_ptr<GgufFile>> Parse(std::span<const std::byte> bytes);
  ~GgufFile();
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  bool Has(std::string_view key) const;
  // Nothing when the key is absent or holds another kind of value. Integers of any width convert
  // when they fit.
  std::optional<int64_t> Int(std::string_view key) const;
  std::optional<double> Float(std::string_view key) const;  // integers too
  std::optional<bool> Bool(std::string_view key) const;
  std::optional<std::string_view> String(std::string_view key) const;
  std::optional<std::vector<std::string_view>> Strings(std::string_view key) const;
  std::optional<std::vector<int64_t>> Ints(std::string_view key) const;

  const TensorView* Tensor(std::string_view name) const;  // nullptr when absent
  const std::vector<TensorView>& tensors() const { return tensors_; }
  // The keys that begin with `prefix` and their values as they stand in the file, by name.
  std::vector<std::pair<std::string_view, std::span<const std::byte>>> RawKeys(
      std::string_view prefix) const;
  uint32_t version() const { return version_; }
  // The part before the tensor data: header, keys and tensor directory.
  std::span<const std::byte> head() const { return bytes_.first(head_bytes_); }

 private:
  struct Value {
    GgufType type;
    GgufType element;  // of an array
    uint64_t count;    // of an array
    std::span<const std::byte> bytes;
  };
  class Reader;

  GgufFile() = default;
  Status Read();
  Status ReadKeys(Reader& reader, uint64_t count);
  Status ReadTensors(Reader& reader, uint64_t count);
  const Value* Find(std::string_view key) const;

  std::span<const std::byte> bytes_;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  size_t head_bytes_ = 0;
  uint32_t version_ = 0;
  std::map<std::string_view, Value, std::less<>> keys_;
  std::vector<TensorView> tensors_;
  std::map<std::string_view, size_t, std::less<>> tensor_index_;
};

// A model on disk. Today that is a single GGUF file.
class ModelFile {
 public:
  // NOT_FOUND, PERMISSION_DENIED or INVALID_ARGUMENT name the path.
  static StatusOr<std::unique_ptr<ModelFile>> Open(const std::string& path);
  // Takes a parsed file, for tests.
  static StatusOr<std::unique_ptr<ModelFile>> FromGguf(std::unique_ptr<GgufFile> gguf,
                                                       std::string path);

  const std::string& path() const { return path_; }
  const ModelConfig& config() const { return config_; }
  // The tokenizer's description. INVALID_ARGUMENT when the file has none, UNIMPLEMENTED for another
  // than byte-level BPE.
  StatusOr<text::TokenizerSpec> tokenizer() const;
  std::string_view chat_template() const;           // "" when the file has none
  text::TokenId bos_id() const { return bos_id_; }  // -1 when the file names none
  text::TokenId eos_id() const { return eos_id_; }
  // 32 hex digits, XXH3-128 over every byte of every tensor, all keys of the architecture and the
  // configuration as read: two files share them only if they give the same keys and values for the
  // same tokens. Names, tokenizer and template do not count. No protection against forgery.
  const std::string& fingerprint() const { return config_.fingerprint; }
  // What the pass over the weights took.
  Duration fingerprint_time() const { return fingerprint_time_; }

  const TensorView* Tensor(std::string_view name) const { return gguf_->Tensor(name); }
  const std::vector<TensorView>& tensors() const { return gguf_->tensors(); }
  const GgufFile& gguf() const { return *gguf_; }

 private:
  ModelFile() = default;
  Status ReadConfig();

  std::string path_;
  std::unique_ptr<GgufFile> gguf_;
  ModelConfig config_;
  text::TokenId bos_id_ = -1, eos_id_ = -1;
  Duration fingerprint_time_{};
};

}  // namespace llmd::engine
