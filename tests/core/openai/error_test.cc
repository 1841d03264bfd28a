#include "llmd/openai/error.h"

#include <gtest/gtest.h>

namespace llmd::openai {
namespace {

TEST(ErrorBody, HasVllmsShape) {
  EXPECT_EQ(ErrorBody(UnknownModel("x\"y", "")),
            R"({"error":{"message":"The model `x\"y` does not exist.","type":"NotFoundError",)"
            R"("param":"model","code":404}})");
  EXPECT_EQ(ErrorBody({500, "InternalServerError", "m", std::nullopt}),
            R"({"error":{"message":"m","type":"InternalServerError","param":null,"code":500}})");
}

TEST(UnknownModel, ListsTheAliases) {
  EXPECT_EQ(UnknownModel("z", "a, b").message,
            "The model `z` does not exist. Valid aliases: a, b.");
}

TEST(BadRequest, AppendsTheValue) {
  const ApiError error = BadRequest("n must be at least 1, got 0.", "n", "0");
  EXPECT_EQ(error.message, "n must be at least 1, got 0. (parameter=n, value=0)");
  EXPECT_EQ(error.type, "BadRequestError");
  EXPECT_EQ(error.param, "n");
}

TEST(FromStatus, MapsTheCodes) {
  EXPECT_EQ(FromStatus(InvalidArgument("m")).status, 400);
  EXPECT_EQ(FromStatus(AlreadyExists("m")).status, 400);
  EXPECT_EQ(FromStatus(NotFound("m")).status, 404);
  EXPECT_EQ(FromStatus(ResourceExhausted("m")).status, 429);
  EXPECT_EQ(FromStatus(Unimplemented("m")).status, 501);
  EXPECT_EQ(FromStatus(Unavailable("m")).status, 503);
  EXPECT_EQ(FromStatus(DeadlineExceeded("m")).status, 504);
  EXPECT_EQ(FromStatus(Internal("m")).status, 500);
}

}  // namespace
}  // namespace llmd::openai
