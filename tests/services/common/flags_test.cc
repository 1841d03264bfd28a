#include "common/flags.h"

#include <gtest/gtest.h>

#include <optional>

namespace llmd::services {
namespace {

// Every kind of flag once, on targets of its own.
struct Fixture {
  Fixture() {
    flags.String("config-file", &config_file, "a file");
    flags.Int("max-num-seqs", &max_seqs, 1, 1000, "sequences");
    flags.Port("grpc-port", &port, "a port");
    flags.Double("ratio", &ratio, "a ratio");
    flags.Bool("secure-serving", &secure, "TLS");
    flags.Bool("enable-prefix-caching", &caching, "prefix caching");
    flags.Duration("drain-timeout", &drain, "drain");
    flags.List("served-model-name", &names, "names", true);
    flags.List("header", &headers, "headers");
    flags.Custom(
        "mode",
        [this](std::string_view text) {
          mode = text;
          return text == "bad" ? InvalidArgument("expected good") : OkStatus();
        },
        "a mode");
    flags.Int("v", &verbosity, 0, 10, "verbosity");
    flags.Alias("connector", "mode", true);
    flags.Alias("p", "grpc-port");
    flags.Accepted("swap-space", true, "no swap here");
    flags.Accepted("enforce-eager", false, "no graphs here");
    flags.NotYet("tensor-parallel-size", true, "one device so far");
    flags.NotYet("enable-lora", false, "no adapters so far");
    flags.Positional("MODEL", &model, "the model");
  }

  FlagSet::Outcome Parse(std::vector<const char*> words) {
    words.insert(words.begin(), "prog");
    testing::internal::CaptureStderr();
    testing::internal::CaptureStdout();
    auto outcome = flags.Parse(static_cast<int>(words.size()), words.data());
    out = testing::internal::GetCapturedStdout();
    err = testing::internal::GetCapturedStderr();
    return outcome;
  }
  // The error of a command line that must fail.
  std::string Error(std::vector<const char*> words) {
    const auto outcome = Parse(std::move(words));
    EXPECT_TRUE(outcome.exit);
    EXPECT_EQ(outcome.code, 2);
    return err;
  }

  FlagSet flags{"llmd-test", "A test program."};
  std::string config_file = "c.yaml", mode, model, out, err;
  int64_t max_seqs = 16, verbosity = 2;
  uint16_t port = 9002;
  double ratio = 0.5;
  bool secure = true, caching = false;
  std::chrono::nanoseconds drain = std::chrono::seconds(30);
  std::vector<std::string> names = {"default"}, headers;
};

TEST(FlagSet, KeepsDefaultsWithoutArguments) {
  Fixture f;
  const auto outcome = f.Parse({});
  EXPECT_FALSE(outcome.exit);
  EXPECT_TRUE(outcome.given.empty());
  EXPECT_EQ(f.port, 9002);
  EXPECT_EQ(f.names, std::vector<std::string>{"default"});
}

TEST(FlagSet, TakesValuesBehindEqualsOrBlank) {
  Fixture f;
  const auto outcome = f.Parse(
      {"--config-file=a=b", "--max-num-seqs", "7", "--ratio", "-0.25", "--drain-timeout=1m30s"});
  EXPECT_FALSE(outcome.exit) << f.err;
  EXPECT_EQ(f.config_file, "a=b");
  EXPECT_EQ(f.max_seqs, 7);
  EXPECT_EQ(f.ratio, -0.25);
  EXPECT_EQ(f.drain, std::chrono::seconds(90));
  EXPECT_TRUE(outcome.Given("config-file"));
  EXPECT_FALSE(outcome.Given("grpc-port"));
}

TEST(FlagSet, ReadsDashesUnderscoresAndSingleDashesAlike) {
  Fixture f;
  EXPECT_FALSE(f.Parse({"--max_num_seqs=3", "-grpc_port", "80", "-v=5"}).exit);
  EXPECT_EQ(f.max_seqs, 3);
  EXPECT_EQ(f.port, 80);
  EXPECT_EQ(f.verbosity, 5);
  EXPECT_FALSE(f.Parse({"--v", "4", "-p", "81"}).exit);
  EXPECT_EQ(f.verbosity, 4);
  EXPECT_EQ(f.port, 81);
  // Only names are normalised, values are not.
  EXPECT_FALSE(f.Parse({"--config_file", "a_b.yaml"}).exit);
  EXPECT_EQ(f.config_file, "a_b.yaml");
}

TEST(FlagSet, TakesUniquePrefixesAndRefusesAmbiguousOnes) {
  Fixture f;
  EXPECT_FALSE(f.Parse({"--max-num=9", "--drain=1s", "--enable-pref"}).exit) << f.err;
  EXPECT_EQ(f.max_seqs, 9);
  EXPECT_TRUE(f.caching);
  EXPECT_NE(f.Error({"--enable"}).find("ambiguous: --enable-lora, --enable-prefix-caching"),
            std::string::npos);
  EXPECT_NE(f.Error({"--no-e"}).find("ambiguous"), std::string::npos);
}

TEST(FlagSet, AnExactNameWinsOverLongerOnes) {
  FlagSet flags("p", "s");
  std::string a, b;
  flags.String("port", &a, "");
  flags.String("port-range", &b, "");
  const char* argv[] = {"p", "--port", "1"};
  EXPECT_FALSE(flags.Parse(3, argv).exit);
  EXPECT_EQ(a, "1");
}

TEST(FlagSet, SwitchesTurnOnAndOff) {
  Fixture f;
  f.Parse({"--secure-serving=false", "--enable-prefix-caching"});
  EXPECT_FALSE(f.secure);
  EXPECT_TRUE(f.caching);
  f.Parse({"--secure-serving", "--no-enable-prefix-caching"});
  EXPECT_TRUE(f.secure);
  EXPECT_FALSE(f.caching);
  f.Parse({"--no_secure"});
  EXPECT_FALSE(f.secure);
  EXPECT_NE(f.Error({"--secure-serving=maybe"}).find("expected true or false, got 'maybe'"),
            std::string::npos);
  EXPECT_NE(f.Error({"--no-secure-serving=true"}).find("takes no value"), std::string::npos);
  EXPECT_NE(f.Error({"--no-grpc-port"}).find("unknown flag --no-grpc-port"), std::string::npos);
}

TEST(FlagSet, ASwitchDoesNotEatTheNextWord) {
  Fixture f;
  f.Parse({"--enable-prefix-caching", "some/model"});
  EXPECT_EQ(f.model, "some/model");
  EXPECT_NE(f.Error({"m", "--secure-serving", "false"}).find("--name=false"), std::string::npos);
}

TEST(FlagSet, RefusesBadValuesAndNamesTheFlag) {
  Fixture f;
  EXPECT_EQ(f.Error({"--max-num-seqs=0"}),
            "llmd-test: --max-num-seqs: expected an integer from 1 to 1000, got '0' (see llmd-test "
            "--help)\n");
  for (const char* bad : {"--grpc-port=65536", "--grpc-port=-1", "--grpc-port=80x", "--grpc-port=",
                          "--max-num-seqs=1e3", "--ratio=x", "--drain-timeout=5", "--mode=bad"}) {
    EXPECT_NE(f.Error({bad}).find("expected"), std::string::npos) << bad;
  }
  EXPECT_NE(f.Error({"--config-file"}).find("--config-file: expected a value"), std::string::npos);
  EXPECT_NE(f.Error({"--config-file", "--ratio=1"}).find("expected a value"), std::string::npos);
}

TEST(FlagSet, UnknownFlagsNameTheNearest) {
  Fixture f;
  EXPECT_NE(
      f.Error({"--config-fiel=x"}).find("unknown flag --config-fiel; did you mean --config-file?"),
      std::string::npos);
  const std::string error = f.Error({"--zzzzzzzzz"});
  EXPECT_NE(error.find("unknown flag --zzzzzzzzz"), std::string::npos);
  EXPECT_EQ(error.find("did you mean"), std::string::npos);
}

TEST(FlagSet, ListsReplaceTheDefaultAndAdd) {
  Fixture f;
  f.Parse({"--header=a", "--header", "b", "--served-model-name", "x", "y", "z", "--v=1"});
  EXPECT_EQ(f.headers, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(f.names, (std::vector<std::string>{"x", "y", "z"}));
  EXPECT_EQ(f.verbosity, 1);
  Fixture g;
  g.Parse({"--header", "a", "model"});
  EXPECT_EQ(g.headers, std::vector<std::string>{"a"});
  EXPECT_EQ(g.model, "model");
}

TEST(FlagSet, AcceptedFlagsWarnOnceAndEatTheirValue) {
  Fixture f;
  const auto outcome = f.Parse({"--swap-space", "4", "--swap-space=5", "--enforce-eager", "model"});
  EXPECT_FALSE(outcome.exit) << f.err;
  EXPECT_EQ(outcome.warnings,
            (std::vector<std::string>{"flag --swap-space has no effect: no swap here",
                                      "flag --enforce-eager has no effect: no graphs here"}));
  EXPECT_EQ(f.model, "model");
}

TEST(FlagSet, KnownButNotYetIsAnErrorThatSaysSo) {
  Fixture f;
  EXPECT_NE(f.Error({"--tensor-parallel-size", "2"})
                .find("is known but not built yet: one device so far"),
            std::string::npos);
  EXPECT_NE(f.Error({"--enable-lora"}).find("not built yet"), std::string::npos);
  EXPECT_FALSE(f.Parse({"--enable-lora=false"}).exit);
  EXPECT_FALSE(f.Parse({"--no-enable-lora"}).exit);
}

TEST(FlagSet, DeprecatedAliasesWarn) {
  Fixture f;
  const auto outcome = f.Parse({"-connector=nixlv2", "-p", "1"});
  EXPECT_EQ(f.mode, "nixlv2");
  EXPECT_EQ(outcome.warnings,
            std::vector<std::string>{"flag --connector is deprecated; use --mode"});
  EXPECT_EQ(outcome.given, (std::vector<std::string>{"mode", "grpc-port"}));
}

TEST(FlagSet, OnePositionalAndADoubleDash) {
  Fixture f;
  f.Parse({"--", "--odd-model"});
  EXPECT_EQ(f.model, "--odd-model");
  EXPECT_NE(f.Error({"a", "b"}).find("unexpected argument 'b'"), std::string::npos);
  FlagSet none("p", "s");
  const char* argv[] = {"p", "x"};
  testing::internal::CaptureStderr();
  EXPECT_EQ(none.Parse(2, argv).code, 2);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("unexpected argument 'x'"),
            std::string::npos);
}

TEST(FlagSet, HelpPrintsThreeLists) {
  Fixture f;
  const auto outcome = f.Parse({"--help"});
  EXPECT_TRUE(outcome.exit);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(f.out, f.flags.Help());
  const size_t works = f.out.find("Flags:"), accepted = f.out.find("Accepted without effect"),
               later = f.out.find("Known, not built yet");
  ASSERT_NE(later, std::string::npos);
  EXPECT_LT(works, f.out.find("--grpc-port"));
  EXPECT_LT(f.out.find("--grpc-port"), accepted);
  EXPECT_LT(accepted, f.out.find("--swap-space"));
  EXPECT_LT(f.out.find("--swap-space"), later);
  EXPECT_LT(later, f.out.find("--tensor-parallel-size"));
  for (const char* text : {"(default 9002)", "(default 30s)", "(default true)", "(default 0.5)",
                           "[deprecated: --connector]", "[also: -p]", "  MODEL  the model"}) {
    EXPECT_NE(f.out.find(text), std::string::npos) << text << "\n" << f.out;
  }
  EXPECT_TRUE(f.Parse({"-h"}).exit);
}

TEST(FlagSet, VersionPrintsProgramAndVersion) {
  Fixture f;
  const auto outcome = f.Parse({"--version", "--unknown"});
  EXPECT_TRUE(outcome.exit);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(f.out, std::string("llmd-test ") + LLMD_EXPECTED_VERSION + "\n");
}

TEST(FlagSetDeathTest, RefusesANameTwice) {
  Fixture f;
  EXPECT_DEATH(f.flags.String("grpc-port", &f.mode, ""), "check failed");
  EXPECT_DEATH(f.flags.Alias("x", "absent"), "check failed");
}

}  // namespace
}  // namespace llmd::services
