// A model with a KV pool of its own, driven step by step: what the model tests share.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "llmd/engine/backend.h"
#include "llmd/engine/model.h"
#include "llmd/engine/weights/gguf.h"
#include "support/paths.h"

namespace llmd::engine::testing {

// The real model's path: $LLMD_TEST_MODEL, else where scripts/setup.sh puts it; "" when it is not
// there.
inline std::string RealModelPath() {
  const char* given = std::getenv("LLMD_TEST_MODEL");
  std::string path =
      given != nullptr
          ? given
          : ::llmd::testing::SourcePath(".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf");
  return std::filesystem::exists(path) ? path : "";
}

// Every arithmetic this CPU has, by instruction set.
struct Mode {
  std::string isa;
  DType dtype = DType::kFloat32;
  Quantization quantization = Quantization::kNone;

  std::string Name() const {
    std::string name = isa + (dtype == DType::kFloat32 ? " float32" : " bfloat16");
    return quantization == Quantization::kW8A8 ? name + " w8a8" : name;
  }
  ModelOptions Options(int threads) const {
    ModelOptions options;
    options.isa = isa;
    options.dtype = dtype;
    options.quantization = quantization;
    options.threads = threads;
    return options;
  }
};

inline std::vector<Mode> AllModes() {
  std::vector<Mode> modes;
  for (const std::string& isa : CpuIsaNames()) {
    modes.push_back({isa, DType::kFloat32, Quantization::kNone});
    modes.push_back({isa, DType::kBFloat16, Quantization::kNone});
    modes.push_back({isa, DType::kBFloat16, Quantization::kW8A8});
  }
  return modes;
}

// One sequence's share of a step.
struct Piece {
  std::vector<int32_t> tokens;
  int first_position = 0;
  std::vector<int32_t> blocks;
  bool all_logits = false;  // else the last row's only
};

class Driver {
 public:
  Driver(std::unique_ptr<Model> model, int num_blocks, int block_size = 16)
      : model_(std::move(model)), block_size_(block_size) {
    size_t stride = model_->kv_geometry(block_size).block_bytes() + 64;
    pool_.assign(stride * num_blocks, std::byte{0xff});
    Status status = model_->AttachKv(pool_.data(), stride, num_blocks, block_size);
    EXPECT_TRUE(status.ok()) << status.ToString();
  }

  Model& model() { return *model_; }
  int block_size() const { return block_size_; }

  // The logits wanted, one vector a row, in the order of the pieces.
  std::vector<std::vector<float>> Run(const std::vector<Piece>& pieces) {
    std::vector<int32_t> tokens, positions, query{0}, context, table, rows;
    std::vector<int64_t> slots;
    size_t width = 0;
    for (const Piece& piece : pieces) width = std::max(width, piece.blocks.size());
    for (const Piece& piece : pieces) {
      for (size_t i = 0; i < piece.tokens.size(); ++i) {
        int position = piece.first_position + static_cast<int>(i);
        tokens.push_back(piece.tokens[i]);
        positions.push_back(position);
        slots.push_back(int64_t{piece.blocks[position / block_size_]} * block_size_ +
                        position % block_size_);
        if (piece.all_logits || i + 1 == piece.tokens.size())
          rows.push_back(static_cast<int32_t>(tokens.size()) - 1);
      }
      query.push_back(static_cast<int32_t>(tokens.size()));
      context.push_back(piece.first_position + static_cast<int>(piece.tokens.size()));
      table.insert(table.end(), piece.blocks.begin(), piece.blocks.end());
      table.resize(context.size() * width, 0);
    }
    size_t vocab = model_->config().vocab;
    std::vector<float> logits(rows.size() * vocab);
    StepBatch batch{tokens, positions, slots, query, context, table, static_cast<int>(width), rows};
    Status status = model_->Forward(batch, logits);
    EXPECT_TRUE(status.ok()) << status.ToString();
    std::vector<std::vector<float>> out;
    for (size_t r = 0; r < rows.size(); ++r)
      out.emplace_back(logits.begin() + r * vocab, logits.begin() + (r + 1) * vocab);
    return out;
  }

 private:
  std::unique_ptr<Model> model_;
  int block_size_;
  std::vector<std::byte> pool_;
};

inline std::vector<int32_t> BlockRange(int first, int count) {
  std::vector<int32_t> blocks(count);
  for (int i = 0; i < count; ++i) blocks[i] = first + i;
  return blocks;
}

}  // namespace llmd::engine::testing
