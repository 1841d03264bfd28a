#include "llmd/kv/block_hash.h"

#include <gtest/gtest.h>

#include <numeric>

#include "vllm_chain.h"

namespace llmd::kv {
namespace {

template <typename T = int32_t>
std::vector<T> Range(int first, int count) {
  std::vector<T> tokens(count);
  std::iota(tokens.begin(), tokens.end(), static_cast<T>(first));
  return tokens;
}

std::unique_ptr<EngineHasher> Engine(std::string_view algorithm, std::string_view seed) {
  auto hasher = MakeEngineHasher(algorithm, seed);
  EXPECT_TRUE(hasher.ok()) << hasher.status().ToString();
  return std::move(*hasher);
}

std::unique_ptr<RequestHasher> Router(std::string_view algorithm, std::string_view seed) {
  auto hasher = MakeRequestHasher(algorithm, seed);
  EXPECT_TRUE(hasher.ok()) << hasher.status().ToString();
  return std::move(*hasher);
}

TEST(EngineHasher, Sha256CborMatchesVllmGoldenChain) {
  auto hasher = Engine("sha256_cbor", "0");
  EXPECT_EQ(hasher->None().Hex(),
            "4e1195df020de59e0d65a33a4279f1183e7ae4e5d980e309f8b55adff2e61c3e");
  const Digest first = hasher->Hash(hasher->None(), Range(0, 16), {});
  EXPECT_EQ(first.Hex(), "d830de3d42c00f25a2949b5d12d98642664a44872c1614c5b0147556276afc9c");
  EXPECT_EQ(first.Low64(), 12687895063098490012u);
  const Digest second = hasher->Hash(first, Range(16, 16), {});
  EXPECT_EQ(second.Hex(), "fedd9e4abebebbe6f6cf96b682f08d316063fe2f22a5c552192dd62904fcccac");
  EXPECT_EQ(second.Low64(), 1814341696565857452u);
}

TEST(EngineHasher, Sha256CborMatchesVectorV13) {
  auto hasher = Engine("sha256_cbor", "0");
  const Digest first = hasher->Hash(hasher->None(), Range(1, 16), {});
  EXPECT_EQ(first.Low64(), 3236607068019569386u);
  EXPECT_EQ(hasher->Hash(first, Range(17, 16), {}).Low64(), 2758186210834249151u);
}

TEST(EngineHasher, NoneHashOfSeed42MatchesV11) {
  EXPECT_EQ(Engine("sha256_cbor", "42")->None().Hex(),
            "9fa6eb003f14425eb9c8e6baacfbcaab26257357b829c7bfa74ffcc4f31c1780");
}

TEST(EngineHasher, UnsetSeedIsVllmsFixedStringForSha256) {
  const std::string none = Engine("sha256_cbor", "")->None().Hex();
  EXPECT_EQ(none.substr(0, 8), "9bd96a48");
  EXPECT_EQ(none.substr(none.size() - 5), "1eef0");
  EXPECT_EQ(none, Engine("sha256_cbor", "vllm-none-hash")->None().Hex());
}

TEST(EngineHasher, UnsetSeedIsRandomForXxhash) {
  const Digest one = Engine("xxhash_cbor", "")->None(), two = Engine("xxhash_cbor", "")->None();
  EXPECT_EQ(one.size, 32);
  EXPECT_NE(one, two);
}

TEST(EngineHasher, OlderUntaggedLoraMatchesGolden) {
  auto hasher = Engine("sha256_cbor", "0");
  ExtraKeys extra;
  extra.lora_name = "my-lora";
  extra.tagged = false;
  EXPECT_EQ(hasher->Hash(hasher->None(), Range(0, 16), extra).Hex(),
            "8b4227ad680a61cde1060f9e82d7d2994ea655458dd28e17c756e32d62e77a73");
}

TEST(EngineHasher, OlderUntaggedMultiModalAndSaltMatchV14) {
  auto hasher = Engine("sha256_cbor", "0");
  ExtraKeys extra;
  extra.multimodal = {{"hash1", -3}};
  extra.cache_salt = "salt";
  extra.tagged = false;
  EXPECT_EQ(hasher->Hash(hasher->None(), Range(1, 16), extra).Hex(),
            "ff404e93f478277d150899761ba3b48451442fa4903cb197a867e215de7136e5");
}

TEST(EngineHasher, TagsKeepALoraNameAndAnEqualSaltApart) {
  auto hasher = Engine("sha256_cbor", "0");
  ExtraKeys lora, salt;
  lora.lora_name = salt.cache_salt = "same";
  EXPECT_NE(hasher->Hash(hasher->None(), Range(0, 16), lora),
            hasher->Hash(hasher->None(), Range(0, 16), salt));
  lora.tagged = salt.tagged = false;
  EXPECT_EQ(hasher->Hash(hasher->None(), Range(0, 16), lora),
            hasher->Hash(hasher->None(), Range(0, 16), salt));
}

TEST(EngineHasher, XxhashCborMatchesVectorV15) {
  auto hasher = Engine("xxhash_cbor", "0");
  EXPECT_EQ(hasher->None().Hex(), "1ebe36576dcb573f26b99533a20aaeca");
  const Digest first = hasher->Hash(hasher->None(), Range(1, 16), {});
  EXPECT_EQ(first.Hex(), "c2d7a75070fc6d6b0c3fb0af456c1009");
  EXPECT_EQ(first.Low64(), 882618318818381833u);
}

ExtraKeys AllExtras() {
  ExtraKeys extra;
  extra.lora_name = "adapter";
  extra.lora_path = "/p";
  extra.multimodal = {{"id0", 5}, {"id1", 4}};
  extra.cache_salt = "pepper";
  return extra;
}

// Digests of what Python's cbor2 and pickle write.
TEST(EngineHasher, TaggedExtrasMatchPython) {
  const Digest none = Engine("sha256_cbor", "0")->None();
  EXPECT_EQ(Engine("sha256_cbor", "0")->Hash(none, Range(1, 16), AllExtras()).Hex(),
            "479c4770318347a98d11d6af712695db842c40a4305b72276352608d2ce1c791");
  auto pickled = Engine("sha256", "0");
  EXPECT_EQ(
      pickled->Hash(pickled->None(), std::vector<int32_t>{0, 255, 256, 65535, 65536}, AllExtras())
          .Hex(),
      "81ddc1677c86359458da0fd5e22665e7c86f3afd7caacc8e7bbfa3af2c33a9da");
}

TEST(EngineHasher, PickledSha256MatchesVectorV16) {
  auto hasher = Engine("sha256", "0");
  EXPECT_EQ(hasher->None().Hex(),
            "1973e23848344dc43a988a9b478663803cfffe1243480253f9a3cf004b14aa7c");
  const Digest first = hasher->Hash(hasher->None(), Range(1, 16), {});
  EXPECT_EQ(first.Hex(), "bea72b7d33de03c1aa715efbb492d0e0d3801f00c1f985756896072ae8b31325");
  EXPECT_EQ(first.Low64(), 7536218907325174565u);
}

TEST(EngineHasher, PickledUnsetSeedIsTheFixedString) {
  EXPECT_EQ(Engine("sha256", "")->None().Hex(),
            "066b1e8987e027138e98701c46128929378935f9b6cd1549105ae6b4f0d71198");
  EXPECT_NE(Engine("xxhash", "")->None(), Engine("xxhash", "")->None());
}

TEST(EngineHasher, PickledLongTextsAndNumbersMatchPython) {
  auto hasher = Engine("sha256", "0");
  ExtraKeys extra;
  extra.tagged = false;
  extra.lora_name = std::string(300, 'x');
  extra.multimodal = {{"h", -(int64_t{1} << 31) - 1},
                      {"g", int64_t{1} << 31},
                      {"f", -(int64_t{1} << 39)},
                      {"e", int64_t{1} << 39}};
  EXPECT_EQ(hasher->Hash(hasher->None(), Range(7, 1), extra).Hex(),
            "8bf8bf453da4c617887475cdf4b8caaff8f137597c97298b94bf9702f76261aa");
}

// 400 tokens of Qwen3-0.6B as vLLM named their blocks, seed 42, blocks of 16, with and without
// LoRA.
void ExpectChain(const ExtraKeys& extra, std::span<const uint64_t> want) {
  auto hasher = Engine("sha256_cbor", "42");
  Digest parent = hasher->None();
  for (size_t i = 0; i < std::size(kQwenTokens) / 16; ++i) {
    parent = hasher->Hash(parent, std::span(kQwenTokens).subspan(16 * i, 16), extra);
    ASSERT_EQ(parent.Low64(), want[i]) << i;
  }
}

TEST(EngineHasher, AWholeChainMatchesV11) {
  ExpectChain({}, kQwenBlocks);
}

TEST(EngineHasher, AWholeChainWithLoraMatchesV12) {
  ExtraKeys extra;
  extra.lora_name = "Alice";
  extra.tagged = false;
  ExpectChain(extra, kQwenLoraBlocks);
}

TEST(EngineHasher, BlocksBeyondTheStackBufferHashAsTheirPrefixDoes) {
  auto hasher = Engine("sha256_cbor", "0");
  const auto tokens = Range(100'000, 4096);
  const Digest whole = hasher->Hash(hasher->None(), tokens, {});
  EXPECT_EQ(whole, hasher->Hash(hasher->None(), tokens, {}));
  auto changed = tokens;
  changed.back() += 1;
  EXPECT_NE(whole, hasher->Hash(hasher->None(), changed, {}));
}

TEST(EngineHasher, UnknownAlgorithmListsTheKnownOnes) {
  const Status status = MakeEngineHasher("md5", "0").status();
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
  EXPECT_NE(status.message().find("'md5'"), std::string::npos);
  EXPECT_NE(status.message().find("sha256_cbor, sha256, xxhash_cbor or xxhash"), std::string::npos);
}

struct ChainCase {
  const char* name;
  const char* algorithm;
  const char* seed;
  std::vector<std::string> extra;  // of block 0
  uint64_t init, first, second;
};

class RequestChain : public ::testing::TestWithParam<ChainCase> {};

TEST_P(RequestChain, MatchesItsVector) {
  const ChainCase& c = GetParam();
  auto hasher = Router(c.algorithm, c.seed);
  EXPECT_EQ(hasher->Init("test-model"), c.init);
  const uint64_t first = hasher->Hash(c.init, Range<uint32_t>(1, 16), c.extra);
  EXPECT_EQ(first, c.first);
  EXPECT_EQ(hasher->Hash(first, Range<uint32_t>(17, 16), {}), c.second);
}

INSTANTIATE_TEST_SUITE_P(Vectors, RequestChain,
                         ::testing::Values(ChainCase{"V3",
                                                     "cbor-fnv",
                                                     "",
                                                     {},
                                                     17515353698173365712u,
                                                     9540012594951042066u,
                                                     16921089685996993662u},
                                           ChainCase{"V4",
                                                     "",
                                                     "test-seed",
                                                     {},
                                                     12573725349078860493u,
                                                     9813823192409008620u,
                                                     682745025325898328u},
                                           ChainCase{"V5",
                                                     "cbor-fnv",
                                                     "test-seed",
                                                     {"mm-hash-a"},
                                                     12573725349078860493u,
                                                     6661987469926989014u,
                                                     4015567736758660505u},
                                           ChainCase{"V6",
                                                     "cbor-fnv",
                                                     "test-seed",
                                                     {"ab", "c"},
                                                     12573725349078860493u,
                                                     10953675974290970679u,
                                                     10146156083096516870u},
                                           ChainCase{"V8",
                                                     "xxh64",
                                                     "",
                                                     {},
                                                     658786475292698776u,
                                                     13553460584553255540u,
                                                     9887990258693334188u},
                                           ChainCase{"V9",
                                                     "xxh64",
                                                     "test-seed",
                                                     {},
                                                     13373400314837912325u,
                                                     11694654239915353807u,
                                                     15308833439905929429u},
                                           ChainCase{"V9extra",
                                                     "xxh64",
                                                     "test-seed",
                                                     {"mm-hash-a"},
                                                     13373400314837912325u,
                                                     13787950175933556825u,
                                                     17120375645933259329u}),
                         [](const auto& param) { return std::string(param.param.name); });

TEST(RequestHasher, MatchesGoldenV1) {
  auto hasher = Router("cbor-fnv", "");
  const uint64_t init = hasher->Init("ibm-granite/granite-3.1-8b-instruct");
  EXPECT_EQ(init, 2648472209273074206u);
  const std::vector<uint32_t> tokens = {8197, 438, 322, 18926};
  EXPECT_EQ(hasher->Hash(init, tokens, {}), 1334984470577408192u);
}

TEST(RequestHasher, MatchesV7WithAForeignParent) {
  EXPECT_EQ(Router("cbor-fnv", "test-seed")->Hash(999999, Range<uint32_t>(1, 16), {}),
            11449225822763995540u);
}

TEST(RequestHasher, UnknownAlgorithmListsTheKnownOnes) {
  const Status status = MakeRequestHasher("md5", "").status();
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
  EXPECT_NE(status.message().find("cbor-fnv or xxh64"), std::string::npos);
}

TEST(ApproxHashes, MatchesV10WithItsPartialBlock) {
  std::vector<uint64_t> out;
  ApproxHashes("test-model", "", Range<uint32_t>(1, 130), 64, 2048, out);
  EXPECT_EQ(out, (std::vector<uint64_t>{3520800852488867500u, 3093390089735223102u,
                                        14650355052424360075u}));
}

TEST(ApproxHashes, StopsAtMaxBlocksAndAppends) {
  std::vector<uint64_t> out = {7};
  ApproxHashes("test-model", "", Range<uint32_t>(1, 130), 64, 1, out);
  EXPECT_EQ(out, (std::vector<uint64_t>{7, 3520800852488867500u}));
  ApproxHashes("test-model", "", {}, 64, 10, out);
  EXPECT_EQ(out.size(), 2u);
}

TEST(ApproxHashes, SaltSeparatesTenants) {
  std::vector<uint64_t> plain, salted;
  ApproxHashes("test-model", "", Range<uint32_t>(1, 64), 64, 10, plain);
  ApproxHashes("test-model", "tenant", Range<uint32_t>(1, 64), 64, 10, salted);
  EXPECT_NE(plain, salted);
}

}  // namespace
}  // namespace llmd::kv
