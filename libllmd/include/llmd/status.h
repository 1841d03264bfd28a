// Status and StatusOr<T>: how every public function of llmd reports failure. No exception crosses a
// public function. The codes are gRPC's, so that one table each maps them to HTTP, gRPC, C and
// Python.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace llmd {

enum class StatusCode : int {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

// The code's name as gRPC spells it, "INVALID_ARGUMENT".
std::string_view StatusCodeName(StatusCode code);

// A code and a message that says what failed, on which input, and what was expected. Cheap to move.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  // "INVALID_ARGUMENT: message", or "OK".
  std::string ToString() const;
  // The same status with "context: " before its message. Ok stays ok.
  Status WithContext(std::string_view context) const;

  friend bool operator==(const Status& a, const Status& b) {
    return a.code_ == b.code_ && a.message_ == b.message_;
  }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status OkStatus() {
  return {};
}
inline Status InvalidArgument(std::string m) {
  return {StatusCode::kInvalidArgument, std::move(m)};
}
inline Status NotFound(std::string m) {
  return {StatusCode::kNotFound, std::move(m)};
}
inline Status AlreadyExists(std::string m) {
  return {StatusCode::kAlreadyExists, std::move(m)};
}
inline Status Unavailable(std::string m) {
  return {StatusCode::kUnavailable, std::move(m)};
}
inline Status ResourceExhausted(std::string m) {
  return {StatusCode::kResourceExhausted, std::move(m)};
}
inline Status FailedPrecondition(std::string m) {
  return {StatusCode::kFailedPrecondition, std::move(m)};
}
inline Status DeadlineExceeded(std::string m) {
  return {StatusCode::kDeadlineExceeded, std::move(m)};
}
inline Status Cancelled(std::string m) {
  return {StatusCode::kCancelled, std::move(m)};
}
inline Status Aborted(std::string m) {
  return {StatusCode::kAborted, std::move(m)};
}
inline Status OutOfRange(std::string m) {
  return {StatusCode::kOutOfRange, std::move(m)};
}
inline Status Unimplemented(std::string m) {
  return {StatusCode::kUnimplemented, std::move(m)};
}
inline Status Internal(std::string m) {
  return {StatusCode::kInternal, std::move(m)};
}
inline Status DataLoss(std::string m) {
  return {StatusCode::kDataLoss, std::move(m)};
}
inline Status PermissionDenied(std::string m) {
  return {StatusCode::kPermissionDenied, std::move(m)};
}
inline Status Unauthenticated(std::string m) {
  return {StatusCode::kUnauthenticated, std::move(m)};
}
// UNAVAILABLE, NOT_FOUND, PERMISSION_DENIED … by errno value, "what: strerror".
Status ErrnoStatus(int error_number, std::string_view what);

namespace internal {
[[noreturn]] void CheckFailed(const char* file, int line, const char* expression,
                              std::string_view detail);
}  // namespace internal

// A value or the Status that says why there is none. Thread-compatible.
template <typename T>
class [[nodiscard]] StatusOr {
 public:
  using value_type = T;

  StatusOr(Status status)
      : state_(std::in_place_index<0>, std::move(status)) {  // NOLINT: implicit by design
    if (std::get<0>(state_).ok())
      internal::CheckFailed(__FILE__, __LINE__, "!status.ok()", "StatusOr made from an ok Status");
  }
  StatusOr(T value)
      : state_(std::in_place_index<1>, std::move(value)) {}  // NOLINT: implicit by design
  template <typename U>
    requires(std::is_constructible_v<T, U &&> &&
             !std::is_same_v<std::remove_cvref_t<U>, StatusOr> &&
             !std::is_same_v<std::remove_cvref_t<U>, Status> && std::is_convertible_v<U &&, T>)
  StatusOr(U&& value)
      : state_(std::in_place_index<1>, std::forward<U>(value)) {}  // NOLINT: implicit by design

  bool ok() const { return state_.index() == 1; }
  Status status() const { return ok() ? Status() : std::get<0>(state_); }

  T& value() & { return Checked(); }
  const T& value() const& { return const_cast<StatusOr*>(this)->Checked(); }
  T&& value() && { return std::move(Checked()); }
  T& operator*() & { return Checked(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(Checked()); }
  T* operator->() { return &Checked(); }
  const T* operator->() const { return &value(); }
  template <typename U>
  T value_or(U&& fallback) const& {
    return ok() ? std::get<1>(state_) : static_cast<T>(std::forward<U>(fallback));
  }

 private:
  T& Checked() {
    if (!ok()) internal::CheckFailed(__FILE__, __LINE__, "ok()", std::get<0>(state_).ToString());
    return std::get<1>(state_);
  }
  std::variant<Status, T> state_;
};

}  // namespace llmd

#define LLMD_CONCAT_INNER_(a, b) a##b
#define LLMD_CONCAT_(a, b) LLMD_CONCAT_INNER_(a, b)

// Returns from the function with the Status of `expression` when it is not ok.
#define LLMD_RETURN_IF_ERROR(expression)                                                     \
  do {                                                                                       \
    if (::llmd::Status llmd_status_ = (expression); !llmd_status_.ok()) return llmd_status_; \
  } while (false)

// LLMD_ASSIGN_OR_RETURN(auto x, Make()): x is the value, or the function returns Make's Status.
#define LLMD_ASSIGN_OR_RETURN(declaration, expression) \
  LLMD_ASSIGN_OR_RETURN_(LLMD_CONCAT_(llmd_or_, __LINE__), declaration, expression)
#define LLMD_ASSIGN_OR_RETURN_(temp, declaration, expression) \
  auto temp = (expression);                                   \
  if (!temp.ok()) return temp.status();                       \
  declaration = std::move(*temp)

// For our own bugs only; input, network, configuration and peers give a Status.
#define LLMD_CHECK(condition) \
  ((condition) ? (void)0 : ::llmd::internal::CheckFailed(__FILE__, __LINE__, #condition, ""))
