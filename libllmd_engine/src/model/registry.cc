#include "model/registry.h"

#include <iterator>

#include "model/llama.h"

namespace llmd::engine {
namespace {

constexpr struct {
  const char* name;
  ModelFactory factory;
} kArchitectures[] = {{"llama", LlamaModel::Create}};

}  // namespace

std::vector<std::string> KnownArchitectures() {
  std::vector<std::string> names;
  for (const auto& architecture : kArchitectures) names.emplace_back(architecture.name);
  return names;
}

StatusOr<ModelFactory> FindArchitecture(const std::string& name) {
  std::string known;
  for (const auto& architecture : kArchitectures) {
    if (name == architecture.name) return architecture.factory;
    known += known.empty() ? "" : ", ";
    known += architecture.name;
  }
  return Unimplemented("model architecture \"" + name + "\" is not known; known: " + known);
}

StatusOr<std::unique_ptr<Model>> LoadModel(const ModelFile& file, const ModelOptions& options) {
  LLMD_ASSIGN_OR_RETURN(ModelFactory factory, FindArchitecture(file.config().architecture));
  LLMD_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, CreateCpuBackend(options));
  return factory(file, options, std::move(backend));
}

}  // namespace llmd::engine
