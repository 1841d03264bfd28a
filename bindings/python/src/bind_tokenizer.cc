#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "llmd/engine/weights/gguf.h"
#include "llmd/text/tokenizer.h"

namespace llmd::python {
namespace {

using text::Tokenizer;

StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const std::string& path) {
  LLMD_ASSIGN_OR_RETURN(const auto file, engine::ModelFile::Open(path));
  LLMD_ASSIGN_OR_RETURN(text::TokenizerSpec spec, file->tokenizer());
  return text::MakeTokenizer(std::move(spec));
}

py::array_t<int32_t> Encode(const Tokenizer& tokenizer, const std::string& text, bool add_special,
                            bool parse_special) {
  std::vector<text::TokenId> ids;
  {
    py::gil_scoped_release release;
    tokenizer.Encode(text, add_special, parse_special, ids);
  }
  return py::array_t<int32_t>(static_cast<py::ssize_t>(ids.size()), ids.data());
}

std::string Decode(const Tokenizer& tokenizer, const std::vector<text::TokenId>& ids,
                   bool skip_special) {
  return Value(tokenizer.Decode(ids, skip_special));
}

}  // namespace

void BindTokenizer(py::module_& m) {
  py::class_<Tokenizer>(
      m, "Tokenizer", "Byte-level BPE of a GGUF file; ids equal those of Hugging Face tokenizers.")
      .def(py::init([](const std::string& path) {
             StatusOr<std::unique_ptr<Tokenizer>> made = Internal("not made");
             {
               py::gil_scoped_release release;
               made = OpenTokenizer(path);
             }
             return Value(std::move(made));
           }),
           py::arg("path"), "Reads vocabulary and merges of the GGUF file at `path`.")
      .def("encode", &Encode, py::arg("text"), py::kw_only(), py::arg("add_special") = true,
           py::arg("parse_special") = true, "Token ids of `text`, int32 array of shape [tokens].")
      .def("decode", &Decode, py::arg("ids"), py::kw_only(), py::arg("skip_special") = true,
           "Text of `ids`; invalid UTF-8 becomes U+FFFD. OutOfRangeError for an id outside the "
           "vocabulary.")
      .def_property_readonly("vocab_size", &Tokenizer::vocab_size, "Number of ids.")
      .def_property_readonly(
          "bos_id", [](const Tokenizer& t) { return t.spec().bos; }, "-1 when the model has none.")
      .def_property_readonly(
          "eos_id", [](const Tokenizer& t) { return t.spec().eos; }, "-1 when the model has none.");
}

}  // namespace llmd::python
