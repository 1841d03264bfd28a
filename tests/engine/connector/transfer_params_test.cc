#include "llmd/engine/connector/transfer_params.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace llmd::engine {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

StatusOr<TransferParams> ParseText(std::string_view text) {
  return ParseTransferParams(*json::Parse(text));
}

constexpr std::string_view kDecode =
    R"({"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":BLOCKS,"remote_engine_id":"e1",)"
    R"("remote_request_id":"r-1","remote_host":"127.0.0.1","remote_port":5600,"tp_size":1,"remote_num_tokens":40,)"
    R"("future_member":{"x":1}})";

std::string WithBlocks(std::string_view blocks) {
  std::string text(kDecode);
  return text.replace(text.find("BLOCKS"), 6, blocks);
}

TEST(TransferParams, ReadsThePrefillLegOfTheSidecarWithItsNulls) {
  const auto p = ParseText(
      R"({"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,)"
      R"("remote_host":null,"remote_port":null})");
  ASSERT_TRUE(p.ok()) << p.status().ToString();
  EXPECT_TRUE(p->do_remote_decode);
  EXPECT_FALSE(p->do_remote_prefill);
}

TEST(TransferParams, ReadsNestedAndFlatBlockIds) {
  for (const char* blocks : {"[[8,9,10]]", "[8,9,10]"}) {
    const auto p = ParseText(WithBlocks(blocks));
    ASSERT_TRUE(p.ok()) << p.status().ToString();
    EXPECT_THAT(p->remote_block_ids, ElementsAre(8, 9, 10));
    EXPECT_EQ(p->remote_port, 5600);
    EXPECT_EQ(p->remote_num_tokens, 40);
  }
  EXPECT_TRUE(ParseText(WithBlocks("[]"))->remote_block_ids.empty());
  EXPECT_TRUE(ParseText(WithBlocks("[[]]"))->remote_block_ids.empty());
}

TEST(TransferParams, IsEmptyForNull) {
  const auto p = ParseTransferParams(json::Value());
  ASSERT_TRUE(p.ok());
  EXPECT_FALSE(p->do_remote_decode || p->do_remote_prefill);
}

TEST(TransferParams, NamesTheMemberThatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"([1])", "kv_transfer_params must be an object, got array"},
      {R"({"do_remote_prefill":1})", "kv_transfer_params.do_remote_prefill must be a boolean"},
      {R"({"do_remote_decode":"true"})", "kv_transfer_params.do_remote_decode"},
      {R"({"remote_engine_id":5})", "kv_transfer_params.remote_engine_id must be a string"},
      {R"({"remote_port":0})",
       "kv_transfer_params.remote_port must be an integer from 1 to 65535, got 0"},
      {R"({"remote_port":"5600"})", "kv_transfer_params.remote_port"},
      {R"({"remote_port":18446744073709551615})", "kv_transfer_params.remote_port"},
      {R"({"tp_size":2})", "kv_transfer_params.tp_size must be an integer from 1 to 1, got 2"},
      {R"({"remote_num_tokens":-1})", "kv_transfer_params.remote_num_tokens"},
      {R"({"remote_block_ids":3})", "kv_transfer_params.remote_block_ids must be an array"},
      {R"({"remote_block_ids":[1,"2"]})", "kv_transfer_params.remote_block_ids"},
      {R"({"remote_block_ids":[[1],[2]]})", "of one KV group, got 2 groups"},
      {R"({"remote_block_ids":[-1]})", "kv_transfer_params.remote_block_ids"},
      {R"({"remote_block_ids":[4294967296]})", "kv_transfer_params.remote_block_ids"},
      {R"({"do_remote_prefill":true})", "kv_transfer_params.remote_engine_id is missing"},
      {R"({"do_remote_prefill":true,"do_remote_decode":true})", "exclude each other"},
  };
  for (const auto& [text, expected] : cases) {
    const auto p = ParseText(text);
    ASSERT_FALSE(p.ok()) << text;
    EXPECT_EQ(p.status().code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(p.status().message(), HasSubstr(expected)) << text;
  }
}

TEST(TransferParams, RepliesWithWhatADecodeLegReads) {
  TransferParams p;
  p.remote_engine_id = "engine";
  p.remote_request_id = "req-1";
  p.remote_host = "127.0.0.1";
  p.remote_port = 4242;
  p.remote_block_ids = {3, 1, 2};
  p.remote_num_tokens = 50;
  const json::Value reply = TransferReply(p, 16);
  EXPECT_EQ(reply["remote_block_ids"].Dump(), "[[3,1,2]]");
  EXPECT_EQ(reply["remote_prefill_cached_tokens"].AsInt(), 16);
  EXPECT_EQ(reply["transfer_mode"].AsString(), "pull");
  EXPECT_TRUE(reply.Find("remote_blocks_expiry_time")->is_null());
  const auto back = ParseTransferParams(reply);
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_TRUE(back->do_remote_prefill);
  EXPECT_EQ(back->remote_block_ids, p.remote_block_ids);
  EXPECT_EQ(back->remote_request_id, "req-1");
  EXPECT_EQ(back->remote_port, 4242);
  EXPECT_EQ(back->remote_num_tokens, 50);
}

}  // namespace
}  // namespace llmd::engine
