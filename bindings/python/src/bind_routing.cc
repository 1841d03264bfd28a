#include <pybind11/stl.h>

#include <optional>

#include "director_core.h"
#include "llmd/json.h"

namespace llmd::python {
namespace {

void CancelPending(const PyPending& self) {
  // Taken while nobody else can touch it.
  const std::shared_ptr<sched::RequestState> state = self.asked->state;
  if (state == nullptr) return;
  self.core->Run([&](sched::Director& d) { d.Cancel(state); });
}

std::map<std::string, std::string> FirstToken(PyRouting& self, int status) {
  const auto state = self.routing.state;
  sched::HeaderList out;
  if (state == nullptr || std::exchange(self.begun, true)) return {};
  self.core->Run([&](sched::Director& d) {
    std::string replaced;
    out = d.OnResponseHeaders(state, status, {});
    d.OnResponseBody(state, " ", false, &replaced);
  });
  return {out.begin(), out.end()};
}

int64_t Tokens(const char* what, int64_t count) {
  if (count < 0)
    Raise(
        InvalidArgument(std::string(what) + "=" + std::to_string(count) + ": expected 0 or more"));
  return count;
}

// The end of an answer that says so, as the parsers of JSON bodies read it.
std::string UsageText(const std::optional<int64_t>& prompt,
                      const std::optional<int64_t>& completion,
                      const std::optional<int64_t>& cached) {
  json::Value usage{json::Object()};
  if (prompt) usage.Set("prompt_tokens", Tokens("prompt_tokens", *prompt));
  if (completion) usage.Set("completion_tokens", Tokens("completion_tokens", *completion));
  if (cached)
    usage.Set("prompt_tokens_details",
              json::Object{{"cached_tokens", Tokens("cached_tokens", *cached)}});
  return "{\"usage\":" + usage.Dump() + "}";
}

void EndAnswer(PyRouting& self, const std::optional<int64_t>& prompt,
               const std::optional<int64_t>& completion, const std::optional<int64_t>& cached,
               int status) {
  const std::string last = UsageText(prompt, completion, cached);
  if (status < 100 || status > 599)
    Raise(InvalidArgument("status=" + std::to_string(status) + ": expected 100 to 599"));
  auto state = std::exchange(self.routing.state, nullptr);
  if (state == nullptr) return;
  const bool begun = self.begun;
  self.core->Run([&](sched::Director& d) {
    std::string replaced;
    if (!begun) d.OnResponseHeaders(state, status, {});
    d.OnResponseBody(state, last, true, &replaced);
    state.reset();
  });
}

void CancelRouting(PyRouting& self) {
  auto state = std::exchange(self.routing.state, nullptr);
  if (state == nullptr) return;
  self.core->Run([&](sched::Director& d) {
    d.Cancel(state);
    state.reset();
  });
}

py::object OrNone(const std::string& text) {
  return text.empty() ? py::object(py::none()) : py::str(text);
}

const std::string& Reason(const sched::Denial& denial) {
  return denial.dropped_reason.empty() ? denial.message : denial.dropped_reason;
}

std::string RoutingRepr(const PyRouting& r) {
  const std::string id = "<llmd.Routing " + Repr(py::str(r.routing.request_id)) + ": ";
  if (!r.routing.ok)
    return id + "refused, " + std::to_string(r.routing.denial.http_status) + " " +
           Reason(r.routing.denial) + ">";
  return id + r.names[0] + (r.prefill.empty() ? "" : ", prefill " + r.prefill) +
         (r.routing.state ? ">" : ", ended>");
}

void BindAnswer(py::class_<PyRouting, std::shared_ptr<PyRouting>>& c) {
  c.def("first_token", &FirstToken, py::kw_only(), py::arg("status") = 200,
        "Its answer has begun. Returns headers for the client. A second call does nothing, nor "
        "does one for a request that was refused or has ended.")
      .def("end", &EndAnswer, py::kw_only(), py::arg("prompt_tokens") = py::none(),
           py::arg("completion_tokens") = py::none(), py::arg("cached_tokens") = py::none(),
           py::arg("status") = 200,
           "Its answer is complete, and its place free; what waited for it is answered in this "
           "call. status: HTTP status, of an answer that first_token did not begin. Without "
           "effect when it was refused or has ended.")
      .def("cancel", &CancelRouting,
           "The client left: it ends at once, aborted. So does one whose Routing nobody holds.")
      .def("__repr__", &RoutingRepr);
}

void BindAnswers(py::module_& m) {
  using R = PyRouting;
  py::class_<R, std::shared_ptr<R>> c(m, "Routing",
                                      "What a director answered: where a request goes, or why it "
                                      "is refused. It is in flight until it ends.");
  c.def_property_readonly("ok", [](const R& r) { return r.routing.ok; })
      .def_property_readonly(
          "endpoint", [](const R& r) { return OrNone(r.names.empty() ? "" : r.names[0]); },
          "namespace/name of the chosen endpoint; None when refused.")
      .def_property_readonly(
          "endpoints", [](const R& r) { return r.names; }, "That and its fallbacks, best first.")
      .def_property_readonly(
          "addresses", [](const R& r) { return r.routing.endpoints; }, "address:port of endpoints.")
      .def_property_readonly(
          "prefill", [](const R& r) { return OrNone(r.prefill); },
          "The prefill endpoint; None when the request is not disaggregated.")
      .def_property_readonly(
          "denied_status", [](const R& r) { return r.routing.denial.http_status; },
          "HTTP status of a refusal, else 0.")
      .def_property_readonly(
          "denied_reason", [](const R& r) { return Reason(r.routing.denial); },
          "x-llm-d-request-dropped-reason, or the message of a refusal that has none.")
      .def_property_readonly("denied_message", [](const R& r) { return r.routing.denial.message; })
      .def_property_readonly(
          "retry_after",
          [](const R& r) -> std::optional<int> {
            if (r.routing.denial.retry_after_s == 0) return std::nullopt;
            return r.routing.denial.retry_after_s;
          },
          "Seconds, of a refusal; None = not said.")
      .def_property_readonly("request_id", [](const R& r) { return r.routing.request_id; })
      .def_property_readonly(
          "set_headers",
          [](const R& r) {
            return std::map<std::string, std::string>(r.routing.set_headers.begin(),
                                                      r.routing.set_headers.end());
          },
          "Headers to set on the request.");
  BindAnswer(c);
}

void BindPending(py::module_& m) {
  py::class_<PyPending>(m, "Pending", "A request that waits for its answer.")
      .def_property_readonly(
          "routing", [](const PyPending& p) { return p.asked->routing; },
          "The answer; None while it waits.")
      .def("cancel", &CancelPending,
           "The client left: it is refused with 503, now or when its producers are done. Without "
           "effect once it is answered.")
      .def("__repr__", [](const PyPending& p) {
        return std::string("<llmd.Pending, ") +
               (p.asked->routing.is_none() ? "waiting>" : "answered>");
      });
}

}  // namespace

void BindRouting(py::module_& m) {
  BindAnswers(m);
  BindPending(m);
}

}  // namespace llmd::python
