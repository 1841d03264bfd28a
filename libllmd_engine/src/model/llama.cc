#include "model/llama.h"

#include <algorithm>
#include <cmath>

namespace llmd::engine {
namespace {

constexpr int kInterleave =
    16;  // gate and up rows alternate in runs of this many (Epilogue::kSiluMul)

StatusOr<TensorView> Matrix(const ModelFile& file, const std::string& name, int64_t rows,
                            int64_t cols) {
  const TensorView* tensor = file.Tensor(name);
  if (tensor == nullptr) return InvalidArgument("tensor " + name + " is missing");
  if (tensor->rows() != rows || tensor->cols() != cols) {
    return InvalidArgument("tensor " + name + " is " + std::to_string(tensor->rows()) + " × " +
                           std::to_string(tensor->cols()) + ", expected " + std::to_string(rows) +
                           " × " + std::to_string(cols));
  }
  return *tensor;
}

// GGUF row 2i + j of a head is row j · head_dim / 2 + i of the half-split order.
void AddUnpermuted(WeightSpec& spec, uint32_t part, int heads, int head_dim) {
  for (int head = 0; head < heads; ++head) {
    for (int j = 0; j < 2; ++j) {
      for (int i = 0; i < head_dim / 2; ++i) {
        spec.rows.push_back({part, static_cast<uint32_t>(head * head_dim + 2 * i + j)});
      }
    }
  }
}

Status CheckShape(const ModelConfig& c) {
  if (c.kv_heads < 1) return InvalidArgument("there are no key-value heads");
  constexpr int kMost = 1 << 20;
  for (const int n : {c.hidden, c.heads, c.kv_heads, c.ffn}) {
    if (n > kMost) {
      return Unimplemented("embedding_length, feed_forward_length or a head count is " +
                           std::to_string(n) + ", expected at most 2^20");
    }
  }
  if (c.heads % c.kv_heads != 0) {
    return InvalidArgument(std::to_string(c.heads) + " heads are no multiple of " +
                           std::to_string(c.kv_heads) + " key-value heads");
  }
  if (c.head_dim % 16 != 0 || c.head_dim > 256) {
    return Unimplemented("head dimension " + std::to_string(c.head_dim) +
                         ", expected a multiple of 16 up to 256");
  }
  if (c.ffn % kInterleave != 0) {
    return Unimplemented("feed-forward length " + std::to_string(c.ffn) +
                         ", expected a multiple of 16");
  }
  if (!c.rope_freq_factors.empty() &&
      c.rope_freq_factors.size() != static_cast<size_t>(c.head_dim / 2)) {
    return InvalidArgument("tensor rope_freqs.weight has " +
                           std::to_string(c.rope_freq_factors.size()) + " values, expected " +
                           std::to_string(c.head_dim / 2));
  }
  return OkStatus();
}

}  // namespace

StatusOr<std::unique_ptr<Model>> LlamaModel::Create(const ModelFile& file,
                                                    const ModelOptions& options,
                                                    std::unique_ptr<Backend> backend) {
  if (options.max_tokens_per_step < 1 || options.max_tokens_per_step > (1 << 20)) {
    return InvalidArgument("max_tokens_per_step is " + std::to_string(options.max_tokens_per_step) +
                           ", expected 1 to 2^20");
  }
  std::unique_ptr<LlamaModel> model(new LlamaModel());
  model->config_ = file.config();
  model->config_.fingerprint += options.dtype == DType::kFloat32 ? "-f32" : "-bf16";
  if (options.quantization == Quantization::kW8A8) model->config_.fingerprint += "-w8a8";
  model->max_tokens_ = options.max_tokens_per_step;
  model->rope_rows_ = model->config_.max_position;
  if (options.max_position > 0)
    model->rope_rows_ = std::min(model->rope_rows_, options.max_position);
  model->backend_ = std::move(backend);
  if (Status status = model->Load(file); !status.ok()) return status.WithContext(file.path());
  return std::unique_ptr<Model>(std::move(model));
}

Status LlamaModel::Load(const ModelFile& file) {
  const ModelConfig& c = config_;
  LLMD_RETURN_IF_ERROR(CheckShape(c));
  if (static_cast<size_t>(c.layers) > file.tensors().size()) {
    return InvalidArgument("block_count is " + std::to_string(c.layers) + ", but there are only " +
                           std::to_string(file.tensors().size()) + " tensors");
  }
  LLMD_ASSIGN_OR_RETURN(TensorView embedding, Matrix(file, "token_embd.weight", c.vocab, c.hidden));
  LLMD_ASSIGN_OR_RETURN(embedding_, backend_->Pack(ConcatRows({embedding})));
  if (!c.tied_embeddings) {
    LLMD_ASSIGN_OR_RETURN(TensorView output, Matrix(file, "output.weight", c.vocab, c.hidden));
    LLMD_ASSIGN_OR_RETURN(output_, backend_->Pack(ConcatRows({output})));
  }
  LLMD_ASSIGN_OR_RETURN(output_norm_, LoadVector(file, "output_norm.weight"));
  layers_.resize(c.layers);
  for (int i = 0; i < c.layers; ++i) LLMD_RETURN_IF_ERROR(LoadLayer(file, i, layers_[i]));
  stream_ = backend_->CreateStream();
  return MakeScratch();
}

Status LlamaModel::LoadLayer(const ModelFile& file, int index, Layer& layer) {
  const ModelConfig& c = config_;
  std::string prefix = "blk." + std::to_string(index) + ".";
  LLMD_ASSIGN_OR_RETURN(layer.attention_norm, LoadVector(file, prefix + "attn_norm.weight"));
  LLMD_ASSIGN_OR_RETURN(layer.ffn_norm, LoadVector(file, prefix + "ffn_norm.weight"));
  LLMD_ASSIGN_OR_RETURN(layer.qkv, LoadQkv(file, prefix));
  LLMD_ASSIGN_OR_RETURN(layer.gate_up, LoadGateUp(file, prefix));
  LLMD_ASSIGN_OR_RETURN(TensorView output, Matrix(file, prefix + "attn_output.weight", c.hidden,
                                                  c.heads * c.head_dim));
  LLMD_ASSIGN_OR_RETURN(layer.output, backend_->Pack(ConcatRows({output})));
  LLMD_ASSIGN_OR_RETURN(TensorView down, Matrix(file, prefix + "ffn_down.weight", c.hidden, c.ffn));
  LLMD_ASSIGN_OR_RETURN(layer.down, backend_->Pack(ConcatRows({down})));
  return OkStatus();
}

StatusOr<std::unique_ptr<Weight>> LlamaModel::LoadQkv(const ModelFile& file,
                                                      const std::string& prefix) {
  const ModelConfig& c = config_;
  LLMD_ASSIGN_OR_RETURN(TensorView q,
                        Matrix(file, prefix + "attn_q.weight", c.heads * c.head_dim, c.hidden));
  LLMD_ASSIGN_OR_RETURN(TensorView k,
                        Matrix(file, prefix + "attn_k.weight", c.kv_heads * c.head_dim, c.hidden));
  LLMD_ASSIGN_OR_RETURN(TensorView v,
                        Matrix(file, prefix + "attn_v.weight", c.kv_heads * c.head_dim, c.hidden));
  for (const char* part : {"attn_q.bias", "attn_k.bias", "attn_v.bias"}) {
    if (file.Tensor(prefix + part) != nullptr)
      return Unimplemented("tensor " + prefix + part + ": biases are not known");
  }
  WeightSpec spec;
  spec.parts = {q, k, v};
  AddUnpermuted(spec, 0, c.heads, c.head_dim);
  AddUnpermuted(spec, 1, c.kv_heads, c.head_dim);
  for (uint32_t row = 0; row < v.rows(); ++row) spec.rows.push_back({2, row});
  return backend_->Pack(spec);
}

StatusOr<std::unique_ptr<Weight>> LlamaModel::LoadGateUp(const ModelFile& file,
                                                         const std::string& prefix) {
  const ModelConfig& c = config_;
  LLMD_ASSIGN_OR_RETURN(TensorView gate, Matrix(file, prefix + "ffn_gate.weight", c.ffn, c.hidden));
  LLMD_ASSIGN_OR_RETURN(TensorView up, Matrix(file, prefix + "ffn_up.weight", c.ffn, c.hidden));
  WeightSpec spec;
  spec.parts = {gate, up};
  for (uint32_t first = 0; first < static_cast<uint32_t>(c.ffn); first += kInterleave) {
    for (uint32_t part = 0; part < 2; ++part) {
      for (uint32_t i = 0; i < kInterleave; ++i) spec.rows.push_back({part, first + i});
    }
  }
  return backend_->Pack(spec);
}

StatusOr<Tensor> LlamaModel::LoadVector(const ModelFile& file, const std::string& name) {
  LLMD_ASSIGN_OR_RETURN(TensorView view, Matrix(file, name, 1, config_.hidden));
  std::vector<float> values(config_.hidden);
  DequantizeRow(view, 0, values);
  LLMD_ASSIGN_OR_RETURN(
      auto buffer, backend_->Allocate(values.size() * sizeof(float), backend_->preferred_kind()));
  Tensor tensor(*buffer, ElementType::kF32, 1, config_.hidden);
  auto stream = backend_->CreateStream();
  stream->CopyIn(std::as_bytes(std::span(values)), tensor);
  LLMD_RETURN_IF_ERROR(stream->Synchronize());
  buffers_.push_back(std::move(buffer));
  return tensor;
}

Status LlamaModel::MakeRopeTable() {
  int half = config_.head_dim / 2;
  std::vector<double> frequency(half);
  for (int i = 0; i < half; ++i) {
    frequency[i] = std::pow(static_cast<double>(config_.rope_theta), -2.0 * i / config_.head_dim);
    if (!config_.rope_freq_factors.empty()) frequency[i] /= config_.rope_freq_factors[i];
  }
  std::vector<float> table(static_cast<size_t>(rope_rows_) * config_.head_dim);
  for (int p = 0; p < rope_rows_; ++p) {
    float* row = table.data() + static_cast<size_t>(p) * config_.head_dim;
    for (int i = 0; i < half; ++i) {
      row[i] = static_cast<float>(std::cos(p * frequency[i]));
      row[half + i] = static_cast<float>(std::sin(p * frequency[i]));
    }
  }
  LLMD_ASSIGN_OR_RETURN(
      auto buffer, backend_->Allocate(table.size() * sizeof(float), backend_->preferred_kind()));
  rope_ = Tensor(*buffer, ElementType::kF32, rope_rows_, config_.head_dim);
  auto stream = backend_->CreateStream();
  stream->CopyIn(std::as_bytes(std::span(table)), rope_);
  buffers_.push_back(std::move(buffer));
  return stream->Synchronize();
}

Status LlamaModel::MakeScratch() {
  const ModelConfig& c = config_;
  auto make = [&](int64_t cols, Tensor& tensor) -> Status {
    size_t bytes = static_cast<size_t>(max_tokens_) * cols * sizeof(float);
    LLMD_ASSIGN_OR_RETURN(auto buffer, backend_->Allocate(bytes, backend_->preferred_kind()));
    tensor = Tensor(*buffer, ElementType::kF32, max_tokens_, cols);
    buffers_.push_back(std::move(buffer));
    return OkStatus();
  };
  LLMD_RETURN_IF_ERROR(make(c.hidden, hidden_));
  LLMD_RETURN_IF_ERROR(make(c.hidden, normed_));
  LLMD_RETURN_IF_ERROR(make((c.heads + 2 * c.kv_heads) * c.head_dim, qkv_));
  LLMD_RETURN_IF_ERROR(make(c.heads * c.head_dim, attention_));
  return make(c.ffn, activation_);
}

KvGeometry LlamaModel::kv_geometry(int block_size) const {
  return {config_.layers, config_.kv_heads, config_.head_dim, block_size,
          static_cast<int>(ElementBytes(backend_->kv_type()))};
}

Status LlamaModel::AttachKv(std::byte* pool, size_t block_stride, int num_blocks, int block_size) {
  if (pool == nullptr || num_blocks < 1 || block_size < 1) {
    return InvalidArgument("a KV pool needs at least one block of one token");
  }
  KvGeometry geometry = kv_geometry(block_size);
  if (block_stride < geometry.block_bytes()) {
    return InvalidArgument("KV blocks are " + std::to_string(block_stride) +
                           " bytes apart, expected at least " +
                           std::to_string(geometry.block_bytes()));
  }
  size_t bytes = block_stride * (num_blocks - 1) + geometry.block_bytes();
  LLMD_ASSIGN_OR_RETURN(kv_pool_, backend_->WrapHost({pool, bytes}));
  cache_ = {kv_pool_.get(), block_stride, num_blocks, geometry};
  // No sequence is longer than the pool.
  rope_rows_ = static_cast<int>(std::min<int64_t>(rope_rows_, int64_t{num_blocks} * block_size));
  return MakeRopeTable();
}

Status LlamaModel::CheckSequence(const StepBatch& batch, size_t s) const {
  int block_size = cache_.geometry.block_size;
  int32_t begin = batch.query_start[s], end = batch.query_start[s + 1];
  if (begin > end || end > static_cast<int32_t>(batch.tokens.size())) {
    return InvalidArgument("sequence " + std::to_string(s) + " has rows " + std::to_string(begin) +
                           " to " + std::to_string(end));
  }
  int context = batch.context_len[s];
  if (context < 0 || context > batch.table_width * block_size) {
    return InvalidArgument("sequence " + std::to_string(s) + " has context " +
                           std::to_string(context) + ", its block table holds " +
                           std::to_string(batch.table_width * block_size));
  }
  for (int32_t row = begin; row < end; ++row) {
    bool ascending = row == begin || batch.positions[row] > batch.positions[row - 1];
    if (batch.positions[row] < 0 || batch.positions[row] >= std::min(context, rope_rows_) ||
        !ascending) {
      return InvalidArgument(
          "row " + std::to_string(row) + " has position " + std::to_string(batch.positions[row]) +
          ", expected ascending ones below " + std::to_string(std::min(context, rope_rows_)));
    }
  }
  for (int b = 0; b < (context + block_size - 1) / block_size; ++b) {
    int32_t block = batch.block_table[s * batch.table_width + b];
    if (block < 0 || block >= cache_.num_blocks) {
      return InvalidArgument("sequence " + std::to_string(s) + " names KV block " +
                             std::to_string(block) + " of " + std::to_string(cache_.num_blocks));
    }
  }
  return OkStatus();
}

Status LlamaModel::Check(const StepBatch& batch, std::span<float> logits) const {
  if (cache_.pool == nullptr) return FailedPrecondition("no KV pool is attached");
  size_t rows = batch.tokens.size(), sequences = batch.context_len.size();
  if (rows > static_cast<size_t>(max_tokens_)) {
    return InvalidArgument(std::to_string(rows) + " tokens in a step, at most " +
                           std::to_string(max_tokens_));
  }
  if (batch.positions.size() != rows || batch.slots.size() != rows ||
      batch.query_start.size() != sequences + 1 || batch.table_width < 0 ||
      batch.block_table.size() != sequences * batch.table_width || batch.query_start[0] != 0 ||
      batch.query_start[sequences] != static_cast<int32_t>(rows) ||
      logits.size() != batch.logit_rows.size() * config_.vocab) {
    return InvalidArgument("the arrays of a step do not fit together");
  }
  int64_t slots = static_cast<int64_t>(cache_.num_blocks) * cache_.geometry.block_size;
  for (size_t i = 0; i < rows; ++i) {
    if (batch.tokens[i] < 0 || batch.tokens[i] >= config_.vocab || batch.slots[i] < -1 ||
        batch.slots[i] >= slots) {
      return InvalidArgument("row " + std::to_string(i) + " has token " +
                             std::to_string(batch.tokens[i]) + " and slot " +
                             std::to_string(batch.slots[i]));
    }
  }
  for (int32_t row : batch.logit_rows) {
    if (row < 0 || row >= static_cast<int32_t>(rows))
      return InvalidArgument("logit row " + std::to_string(row));
  }
  for (size_t s = 0; s < sequences; ++s) LLMD_RETURN_IF_ERROR(CheckSequence(batch, s));
  return OkStatus();
}

StatusOr<StepTensors> LlamaModel::Upload(const StepBatch& batch) {
  size_t bytes = batch.slots.size_bytes() + batch.positions.size_bytes() +
                 batch.query_start.size_bytes() + batch.context_len.size_bytes() +
                 batch.block_table.size_bytes() + batch.logit_rows.size_bytes() + 8 * 6;
  if (step_buffer_ == nullptr || step_buffer_->size_bytes() < bytes) {
    LLMD_ASSIGN_OR_RETURN(step_buffer_, backend_->Allocate(bytes * 2, backend_->preferred_kind()));
  }
  size_t offset = 0;
  auto put = [&](auto span, ElementType type) {
    Tensor tensor(*step_buffer_, type, 1, static_cast<int64_t>(span.size()), offset);
    stream_->CopyIn(std::as_bytes(span), tensor);
    offset += (span.size_bytes() + 7) / 8 * 8;
    return tensor;
  };
  StepTensors step;
  step.slots = put(batch.slots, ElementType::kI64);
  step.positions = put(batch.positions, ElementType::kI32);
  step.query_start = put(batch.query_start, ElementType::kI32);
  step.context_len = put(batch.context_len, ElementType::kI32);
  step.block_table = put(batch.block_table, ElementType::kI32);
  step.logit_rows = put(batch.logit_rows, ElementType::kI32);
  step.sequences = static_cast<int>(batch.context_len.size());
  step.table_width = batch.table_width;
  return step;
}

void LlamaModel::RunLayer(const Layer& layer, int index, const StepTensors& step, int64_t rows) {
  const ModelConfig& c = config_;
  Tensor hidden = hidden_.Rows(0, rows), normed = normed_.Rows(0, rows), qkv = qkv_.Rows(0, rows);
  Tensor attention = attention_.Rows(0, rows), activation = activation_.Rows(0, rows);
  stream_->RmsNorm(hidden, layer.attention_norm, c.rms_eps, normed);
  stream_->MatMul(normed, *layer.qkv, Epilogue::kStore, qkv);
  stream_->RopeAndStoreKv(qkv, c.heads, rope_, step, cache_, index);
  stream_->Attention(qkv.Columns(0, c.heads * c.head_dim), c.heads, step, cache_, index, attention);
  stream_->MatMul(attention, *layer.output, Epilogue::kAdd, hidden);
  stream_->RmsNorm(hidden, layer.ffn_norm, c.rms_eps, normed);
  stream_->MatMul(normed, *layer.gate_up, Epilogue::kSiluMul, activation);
  stream_->MatMul(activation, *layer.down, Epilogue::kAdd, hidden);
}

Status LlamaModel::MakeLogits(Tensor logit_rows, std::span<float> logits) {
  int64_t wanted = logit_rows.cols;
  if (wanted == 0) return OkStatus();
  Tensor last = normed_.Rows(0, wanted), gathered = attention_.Rows(0, wanted);
  // The attention buffer is free by now, but may be narrower than a hidden row.
  if (gathered.cols < last.cols) gathered = activation_.Rows(0, wanted);
  gathered.cols = last.cols;
  stream_->GatherRows(hidden_, logit_rows, gathered);
  stream_->RmsNorm(gathered, output_norm_, config_.rms_eps, last);
  LLMD_ASSIGN_OR_RETURN(auto out, backend_->WrapHost(std::as_writable_bytes(logits)));
  stream_->MatMul(last, output_ ? *output_ : *embedding_, Epilogue::kStore,
                  Tensor(*out, ElementType::kF32, wanted, config_.vocab));
  return stream_->Synchronize();
}

Status LlamaModel::Forward(const StepBatch& batch, std::span<float> logits) {
  LLMD_RETURN_IF_ERROR(Check(batch, logits));
  auto rows = static_cast<int64_t>(batch.tokens.size());
  if (rows == 0) return OkStatus();
  LLMD_ASSIGN_OR_RETURN(StepTensors step, Upload(batch));
  // Token ids are needed once: they ride in the activation buffer, which is written only later.
  Tensor tokens(*activation_.buffer, ElementType::kI32, 1, rows);
  stream_->CopyIn(std::as_bytes(batch.tokens), tokens);
  stream_->Embed(*embedding_, tokens, hidden_.Rows(0, rows));
  for (int i = 0; i < config_.layers; ++i) RunLayer(layers_[i], i, step, rows);
  LLMD_RETURN_IF_ERROR(MakeLogits(step.logit_rows, logits));
  return stream_->Synchronize();
}

std::string LlamaModel::Describe() const {
  size_t bytes = embedding_->size_bytes() + (output_ ? output_->size_bytes() : 0);
  for (const Layer& layer : layers_) {
    bytes += layer.qkv->size_bytes() + layer.output->size_bytes() + layer.gate_up->size_bytes() +
             layer.down->size_bytes();
  }
  return config_.architecture + " on " + backend_->Describe() + ", " + std::to_string(bytes >> 20) +
         " MiB of weights";
}

}  // namespace llmd::engine
