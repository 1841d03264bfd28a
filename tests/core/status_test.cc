#include "llmd/status.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <set>

#include "llmd/status_http.h"

namespace llmd {
namespace {

constexpr int kCodes = 17;

StatusOr<int> Half(int v) {
  if (v % 2 != 0) return InvalidArgument("expected an even number, got " + std::to_string(v));
  return v / 2;
}

StatusOr<int> Quarter(int v) {
  LLMD_ASSIGN_OR_RETURN(const int half, Half(v));
  LLMD_RETURN_IF_ERROR(Half(half).status());
  return Half(half);
}

TEST(Status, CarriesCodeAndMessage) {
  EXPECT_TRUE(Status().ok());
  EXPECT_EQ(OkStatus().ToString(), "OK");
  const Status status = NotFound("no such model");
  EXPECT_EQ(status.ToString(), "NOT_FOUND: no such model");
  EXPECT_EQ(status.WithContext("engine").message(), "engine: no such model");
  EXPECT_TRUE(OkStatus().WithContext("x").message().empty());
  EXPECT_NE(status, NotFound("another"));
}

TEST(Status, NamesEveryCodeOnce) {
  std::set<std::string_view> names;
  for (int code = 0; code < kCodes; ++code)
    names.insert(StatusCodeName(static_cast<StatusCode>(code)));
  EXPECT_EQ(names.size(), static_cast<size_t>(kCodes));
}

TEST(Status, MapsErrno) {
  EXPECT_EQ(ErrnoStatus(ENOENT, "open x").code(), StatusCode::kNotFound);
  EXPECT_EQ(ErrnoStatus(EADDRINUSE, "bind").code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(ErrnoStatus(ECONNREFUSED, "connect").code(), StatusCode::kUnavailable);
  EXPECT_EQ(ErrnoStatus(ENOENT, "open x").message().substr(0, 8), "open x: ");
}

TEST(StatusOr, HoldsAValueOrAStatus) {
  EXPECT_EQ(*Half(4), 2);
  EXPECT_EQ(Half(3).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Half(3).value_or(9), 9);
  StatusOr<std::unique_ptr<int>> moved = std::make_unique<int>(5);
  EXPECT_EQ(**moved, 5);
  const std::unique_ptr<int> out = *std::move(moved);
  EXPECT_EQ(*out, 5);
}

TEST(StatusOr, MacrosReturnTheFirstError) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(3).status().message(), "expected an even number, got 3");
  EXPECT_EQ(Quarter(6).status().message(), "expected an even number, got 3");
}

TEST(StatusOrDeathTest, ReadingAnErrorIsOurOwnBug) {
  EXPECT_DEATH(Half(3).value(), "check failed.*even number");
  EXPECT_DEATH(LLMD_CHECK(1 == 2), "check failed: 1 == 2");
}

TEST(StatusHttp, MapsCodesToStatusesAndBack) {
  const std::pair<StatusCode, int> cases[] = {{StatusCode::kOk, 200},
                                              {StatusCode::kInvalidArgument, 400},
                                              {StatusCode::kUnauthenticated, 401},
                                              {StatusCode::kPermissionDenied, 403},
                                              {StatusCode::kNotFound, 404},
                                              {StatusCode::kAborted, 409},
                                              {StatusCode::kOutOfRange, 413},
                                              {StatusCode::kResourceExhausted, 429},
                                              {StatusCode::kCancelled, 499},
                                              {StatusCode::kInternal, 500},
                                              {StatusCode::kUnimplemented, 501},
                                              {StatusCode::kUnavailable, 503},
                                              {StatusCode::kDeadlineExceeded, 504}};
  for (const auto& [code, http] : cases) {
    EXPECT_EQ(HttpStatusOf(code), http);
    EXPECT_EQ(StatusCodeOfHttp(http), code);
  }
  EXPECT_EQ(HttpStatusOf(StatusCode::kFailedPrecondition), 400);
  EXPECT_EQ(HttpStatusOf(StatusCode::kDataLoss), 500);
  EXPECT_EQ(StatusCodeOfHttp(204), StatusCode::kOk);
  EXPECT_EQ(StatusCodeOfHttp(422), StatusCode::kInvalidArgument);
  EXPECT_EQ(StatusCodeOfHttp(502), StatusCode::kUnavailable);
  EXPECT_EQ(StatusCodeOfHttp(599), StatusCode::kInternal);
  EXPECT_EQ(StatusCodeOfHttp(302), StatusCode::kUnknown);
}

TEST(StatusHttp, NamesOpenAiErrorTypes) {
  EXPECT_EQ(OpenAiErrorType(StatusCode::kInvalidArgument), "invalid_request_error");
  EXPECT_EQ(OpenAiErrorType(StatusCode::kOutOfRange), "invalid_request_error");
  EXPECT_EQ(OpenAiErrorType(StatusCode::kResourceExhausted), "rate_limit_error");
  EXPECT_EQ(OpenAiErrorType(StatusCode::kUnavailable), "server_error");
}

}  // namespace
}  // namespace llmd
