#include "llmd/engine/weights/gguf.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

static_assert(std::endian::native == std::endian::little,
              "GGUF is read in place and is little endian");

namespace llmd::engine {
namespace {

constexpr uint64_t kMaxKeys = 1 << 16;
constexpr uint64_t kMaxTensors = 1 << 20;
constexpr uint64_t kMaxTensorName = 256;
constexpr uint64_t kMaxDimension = uint64_t{1} << 40;

size_t ScalarBytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

template <typename T>
T Load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

std::optional<int64_t> LoadInt(GgufType type, const std::byte* p) {
  switch (type) {
    case GgufType::kUint8:
      return Load<uint8_t>(p);
    case GgufType::kInt8:
      return Load<int8_t>(p);
    case GgufType::kUint16:
      return Load<uint16_t>(p);
    case GgufType::kInt16:
      return Load<int16_t>(p);
    case GgufType::kUint32:
      return Load<uint32_t>(p);
    case GgufType::kInt32:
      return Load<int32_t>(p);
    case GgufType::kInt64:
      return Load<int64_t>(p);
    case GgufType::kUint64: {
      auto value = Load<uint64_t>(p);
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

std::string_view LoadString(const std::byte* p) {
  return {reinterpret_cast<const char*>(p + 8), static_cast<size_t>(Load<uint64_t>(p))};
}

}  // namespace

// A cursor that never passes the end of the file.
class GgufFile::Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  size_t offset() const { return offset_; }
  size_t left() const { return bytes_.size() - offset_; }

  Status Skip(uint64_t count, std::string_view what) {
    if (count > left()) return Short(what, count);
    offset_ += count;
    return OkStatus();
  }
  template <typename T>
  Status Read(std::string_view what, T& out) {
    if (sizeof(T) > left()) return Short(what, sizeof(T));
    out = Load<T>(bytes_.data() + offset_);
    offset_ += sizeof(T);
    return OkStatus();
  }
  Status ReadString(std::string_view what, std::string_view& out) {
    uint64_t length = 0;
    LLMD_RETURN_IF_ERROR(Read(what, length));
    const char* begin = reinterpret_cast<const char*>(bytes_.data() + offset_);
    LLMD_RETURN_IF_ERROR(Skip(length, what));
    out = {begin, static_cast<size_t>(length)};
    return OkStatus();
  }
  Status ReadType(std::string_view what, GgufType& out) {
    uint32_t number = 0;
    LLMD_RETURN_IF_ERROR(Read(what, number));
    if (number > static_cast<uint32_t>(GgufType::kFloat64)) {
      return InvalidArgument("GGUF: value type " + std::to_string(number) + " of " +
                             std::string(what) + " is unknown, expected 0 to 12");
    }
    out = static_cast<GgufType>(number);
    return OkStatus();
  }
  Status ReadValue(std::string_view key, Value& out) {
    LLMD_RETURN_IF_ERROR(ReadType(key, out.type));
    size_t begin = offset_;
    out.element = out.type;
    out.count = 1;
    if (out.type == GgufType::kArray) {
      LLMD_RETURN_IF_ERROR(ReadType(key, out.element));
      LLMD_RETURN_IF_ERROR(Read(key, out.count));
      begin = offset_;
      if (out.element == GgufType::kArray) {
        return Unimplemented("GGUF: key " + std::string(key) + " is an array of arrays");
      }
    }
    LLMD_RETURN_IF_ERROR(SkipElements(key, out.element, out.count));
    out.bytes = bytes_.subspan(begin, offset_ - begin);
    return OkStatus();
  }

 private:
  Status SkipElements(std::string_view key, GgufType type, uint64_t count) {
    if (size_t size = ScalarBytes(type)) {
      if (count > left() / size) return Short(key, count);
      return Skip(count * size, key);
    }
    if (count > left() / 8) return Short(key, count);
    std::string_view ignored;
    for (uint64_t i = 0; i < count; ++i) LLMD_RETURN_IF_ERROR(ReadString(key, ignored));
    return OkStatus();
  }
  Status Short(std::string_view what, uint64_t wanted) const {
    return InvalidArgument("GGUF: the file ends within " + std::string(what.substr(0, 64)) + ": " +
                           std::to_string(wanted) + " wanted at byte " + std::to_string(offset_) +
                           " of " + std::to_string(bytes_.size()));
  }

  std::span<const std::byte> bytes_;
  size_t offset_ = 0;
};

StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open model file " + path);
  struct stat info{};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size < 4) {
    ::close(fd);
    return InvalidArgument("model file " + path +
                           " is no GGUF file: expected a regular file of at least 4 bytes");
  }
  auto size = static_cast<size_t>(info.st_size);
  void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  int error = errno;
  ::close(fd);
  if (mapping == MAP_FAILED) return ErrnoStatus(error, "cannot map model file " + path);
  std::unique_ptr<GgufFile> file(new GgufFile());
  file->mapping_ = mapping;
  file->mapping_bytes_ = size;
  file->bytes_ = {static_cast<const std::byte*>(mapping), size};
  if (Status status = file->Read(); !status.ok()) return status.WithContext(path);
  return file;
}

StatusOr<std::unique_ptr<GgufFile>> GgufFile::Parse(std::span<const std::byte> bytes) {
  std::unique_ptr<GgufFile> file(new GgufFile());
  file->bytes_ = bytes;
  LLMD_RETURN_IF_ERROR(file->Read());
  return file;
}

GgufFile::~GgufFile() {
  if (mapping_ != nullptr) ::munmap(mapping_, mapping_bytes_);
}

Status GgufFile::Read() {
  Reader reader(bytes_);
  uint32_t magic = 0;
  uint64_t tensors = 0, keys = 0;
  LLMD_RETURN_IF_ERROR(reader.Read("the magic", magic));
  if (magic != 0x46554747) return InvalidArgument("GGUF: the file does not begin with \"GGUF\"");
  LLMD_RETURN_IF_ERROR(reader.Read("the version", version_));
  if (version_ != 2 && version_ != 3) {
    return Unimplemented("GGUF: version " + std::to_string(version_) +
                         ", expected 2 or 3 (little endian)");
  }
  LLMD_RETURN_IF_ERROR(reader.Read("the tensor count", tensors));
  LLMD_RETURN_IF_ERROR(reader.Read("the key count", keys));
  if (tensors > kMaxTensors || keys > kMaxKeys) {
    return InvalidArgument("GGUF: " + std::to_string(tensors) + " tensors and " +
                           std::to_string(keys) + " keys, expected at most " +
                           std::to_string(kMaxTensors) + " and " + std::to_string(kMaxKeys));
  }
  LLMD_RETURN_IF_ERROR(ReadKeys(reader, keys));
  return ReadTensors(reader, tensors);
}

Status GgufFile::ReadKeys(Reader& reader, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    std::string_view key;
    Value value{};
    LLMD_RETURN_IF_ERROR(reader.ReadString("a key", key));
    LLMD_RETURN_IF_ERROR(reader.ReadValue(key, value));
    if (!keys_.emplace(key, value).second)
      return InvalidArgument("GGUF: key " + std::string(key) + " stands twice");
  }
  return OkStatus();
}

namespace {

// Rows of whole blocks; bytes_out is the tensor's size, checked against overflow.
Status TensorBytes(const TensorView& tensor, uint64_t& bytes_out) {
  uint64_t elements = 1;
  for (int64_t dim : tensor.dims) {
    if (dim <= 0 || static_cast<uint64_t>(dim) > kMaxDimension ||
        elements > kMaxDimension / static_cast<uint64_t>(dim)) {
      return InvalidArgument("GGUF: tensor " + std::string(tensor.name) +
                             " has an impossible dimension " + std::to_string(dim));
    }
    elements *= static_cast<uint64_t>(dim);
  }
  int block = BlockElements(tensor.type);
  if (tensor.dims[0] % block != 0) {
    return InvalidArgument("GGUF: tensor " + std::string(tensor.name) + " of type " +
                           std::string(TensorTypeName(tensor.type)) + " has rows of " +
                           std::to_string(tensor.dims[0]) + " elements, expected a multiple of " +
                           std::to_string(block));
  }
  bytes_out = elements / block * BlockBytes(tensor.type);
  return OkStatus();
}

}  // namespace

Status GgufFile::ReadTensors(Reader& reader, uint64_t count) {
  uint64_t alignment = static_cast<uint64_t>(Int("general.alignment").value_or(32));
  if (alignment == 0 || alignment > (1 << 20) || !std::has_single_bit(alignment)) {
    return InvalidArgument("GGUF: general.alignment is " + std::to_string(alignment) +
                           ", expected a power of two");
  }
  // 24 bytes is the shortest directory entry; a count beyond that cannot be true.
  if (count > reader.left() / 24) {
    return InvalidArgument("GGUF: " + std::to_string(count) + " tensors do not fit the file");
  }
  tensors_.resize(count);
  std::vector<uint64_t> offsets(count);
  for (uint64_t i = 0; i < count; ++i) {
    TensorView& tensor = tensors_[i];
    uint32_t rank = 0, type = 0;
    LLMD_RETURN_IF_ERROR(reader.ReadString("a tensor name", tensor.name));
    LLMD_RETURN_IF_ERROR(reader.Read(tensor.name, rank));
    if (rank == 0 || rank > 4 || tensor.name.size() > kMaxTensorName) {
      return InvalidArgument("GGUF: tensor " + std::string(tensor.name.substr(0, 64)) + " has " +
                             std::to_string(rank) + " dimensions, expected 1 to 4");
    }
    tensor.rank = static_cast<int>(rank);
    for (uint32_t d = 0; d < rank; ++d)
      LLMD_RETURN_IF_ERROR(reader.Read(tensor.name, tensor.dims[d]));
    LLMD_RETURN_IF_ERROR(reader.Read(tensor.name, type));
    LLMD_RETURN_IF_ERROR(reader.Read(tensor.name, offsets[i]));
    if (!TensorTypeKnown(type)) {
      return Unimplemented("GGUF: tensor " + std::string(tensor.name) + " has type " +
                           std::to_string(type) +
                           ", known are F32, F16, BF16, Q4_0, Q4_1 and Q8_0");
    }
    tensor.type = static_cast<TensorType>(type);
  }
  head_bytes_ = reader.offset();
  uint64_t data_start = (head_bytes_ + alignment - 1) / alignment * alignment;
  for (uint64_t i = 0; i < count; ++i) {
    TensorView& tensor = tensors_[i];
    uint64_t size = 0;
    LLMD_RETURN_IF_ERROR(TensorBytes(tensor, size));
    uint64_t room = data_start <= bytes_.size() ? bytes_.size() - data_start : 0;
    if (offsets[i] % alignment != 0 || offsets[i] > room || size > room - offsets[i]) {
      return InvalidArgument("GGUF: tensor " + std::string(tensor.name) + " lies at " +
                             std::to_string(offsets[i]) + " with " + std::to_string(size) +
                             " bytes, outside the " + std::to_string(room) +
                             " data bytes or not aligned to " + std::to_string(alignment));
    }
    tensor.data = bytes_.subspan(data_start + offsets[i], size);
    if (!tensor_index_.emplace(tensor.name, i).second) {
      return InvalidArgument("GGUF: tensor " + std::string(tensor.name) + " stands twice");
    }
  }
  return OkStatus();
}

const GgufFile::Value* GgufFile::Find(std::string_view key) const {
  auto found = keys_.find(key);
  return found == keys_.end() ? nullptr : &found->second;
}

bool GgufFile::Has(std::string_view key) const {
  return Find(key) != nullptr;
}

std::optional<int64_t> GgufFile::Int(std::string_view key) const {
  const Value* value = Find(key);
  return value == nullptr ? std::nullopt : LoadInt(value->type, value->bytes.data());
}

std::optional<double> GgufFile::Float(std::string_view key) const {
  const Value* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type == GgufType::kFloat32) return Load<float>(value->bytes.data());
  if (value->type == GgufType::kFloat64) return Load<double>(value->bytes.data());
  auto integer = LoadInt(value->type, value->bytes.data());
  if (!integer) return std::nullopt;
  return static_cast<double>(*integer);
}

std::optional<bool> GgufFile::Bool(std::string_view key) const {
  const Value* value = Find(key);
  if (value == nullptr || value->type != GgufType::kBool) return std::nullopt;
  return value->bytes[0] != std::byte{0};
}

std::optional<std::string_view> GgufFile::String(std::string_view key) const {
  const Value* value = Find(key);
  if (value == nullptr || value->type != GgufType::kString) return std::nullopt;
  return LoadString(value->bytes.data());
}

std::optional<std::vector<std::string_view>> GgufFile::Strings(std::string_view key) const {
  const Value* value = Find(key);
  if (value == nullptr || value->type != GgufType::kArray || value->element != GgufType::kString)
    return std::nullopt;
  std::vector<std::string_view> out;
  out.reserve(value->count);
  const std::byte* p = value->bytes.data();
  for (uint64_t i = 0; i < value->count; ++i) {
    out.push_back(LoadString(p));
    p += 8 + out.back().size();
  }
  return out;
}

std::optional<std::vector<int64_t>> GgufFile::Ints(std::string_view key) const {
  const Value* value = Find(key);
  if (value == nullptr || value->type != GgufType::kArray) return std::nullopt;
  std::vector<int64_t> out;
  size_t size = ScalarBytes(value->element);
  for (uint64_t i = 0; i < value->count; ++i) {
    auto number = LoadInt(value->element, value->bytes.data() + i * size);
    if (!number) return std::nullopt;
    out.push_back(*number);
  }
  return out;
}

std::vector<std::pair<std::string_view, std::span<const std::byte>>> GgufFile::RawKeys(
    std::string_view prefix) const {
  std::vector<std::pair<std::string_view, std::span<const std::byte>>> out;
  for (auto it = keys_.lower_bound(prefix); it != keys_.end() && it->first.starts_with(prefix);
       ++it)
    out.emplace_back(it->first, it->second.bytes);
  return out;
}

const TensorView* GgufFile::Tensor(std::string_view name) const {
  auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace llmd::engine
