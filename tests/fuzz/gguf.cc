#include "llmd/engine/weights/gguf.h"

#include "fuzz/fuzz.h"

FUZZ_TARGET(gguf) {
  const auto bytes = std::as_bytes(std::span(input.data(), input.size()));
  const auto file = llmd::engine::GgufFile::Parse(bytes);
  if (!file.ok()) return;
  FUZZ_EXPECT((*file)->head().size() <= input.size());
  for (const auto& tensor : (*file)->tensors()) {
    FUZZ_EXPECT((*file)->Tensor(tensor.name) != nullptr);
  }
  for (const char* key : {"a", "general.architecture", "general.alignment", ""}) {
    (void)(*file)->Int(key);
    (void)(*file)->Float(key);
    (void)(*file)->String(key);
    (void)(*file)->Strings(key);
    (void)(*file)->Ints(key);
  }
}
