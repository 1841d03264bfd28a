// Real shared libraries (tests/sched/plugin_library/*.cc) loaded into this program.
#include "llmd/sched/plugin_library.h"

#include <filesystem>
#include <fstream>

#include "sched/support.h"
#include "support/paths.h"

namespace llmd::sched {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Library(const std::string& name) {
  return ::llmd::testing::BinaryPath("tests/plugin_libraries/") + name + ".so";
}

void ExpectRefused(const std::string& path, StatusCode code, const std::string& reason) {
  PluginRegistry registry = BuiltinPlugins();
  const size_t before = registry.Types().size();
  const Status status = LoadPluginLibrary(path, registry);
  EXPECT_EQ(status.code(), code) << status.ToString();
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("plugin library '" + path + "'"), HasSubstr(reason)));
  EXPECT_EQ(registry.Types().size(), before);
}

TEST(PluginLibrary, ItsPluginsDecide) {
  PluginRegistry registry = BuiltinPlugins();
  ASSERT_EQ(LoadPluginLibrary(Library("good"), registry), OkStatus());
  const std::string yaml = Config({"{type: last-letter-scorer, parameters: {best: b}}",
                                   "{type: header-only-filter}", "{type: queue-scorer}"});
  auto scheduler = Scheduler::FromYaml(yaml, {.registry = &registry});
  ASSERT_TRUE(scheduler.ok()) << scheduler.status().ToString();
  const std::vector<EndpointState> pool{Ep("pod-a"), Ep("pod-b"), Ep("pod-c")};
  EXPECT_EQ(Must(**scheduler, Prompt("x"), pool).picked.at(0).endpoint, "default/pod-b");
  RequestSpec only = Prompt("x");
  only.headers = {{"x-only", "POD-C"}};
  EXPECT_EQ(Must(**scheduler, only, pool).picked.at(0).endpoint, "default/pod-c");
}

TEST(PluginLibrary, ItsParametersAreCheckedLikeOurs) {
  PluginRegistry registry = BuiltinPlugins();
  ASSERT_EQ(LoadPluginLibrary(Library("good"), registry), OkStatus());
  const auto wrong = [&](const std::string& parameters) {
    return Scheduler::FromYaml(
               Config({"{type: last-letter-scorer, parameters: {" + parameters + "}}"}),
               {.registry = &registry})
        .status()
        .message();
  };
  EXPECT_THAT(wrong("best: ab"),
              HasSubstr("line 4: plugins[0].parameters.best: expected one letter"));
  EXPECT_THAT(wrong("bset: a"), HasSubstr("bset"));
}

TEST(PluginLibrary, IsInTheGeneratedPage) {
  PluginRegistry registry = BuiltinPlugins();
  ASSERT_EQ(LoadPluginLibrary(Library("good"), registry), OkStatus());
  EXPECT_THAT(PluginsMarkdown(registry), HasSubstr("`last-letter-scorer`"));
}

TEST(PluginLibrary, GivenTwiceIsADuplicate) {
  PluginRegistry registry = BuiltinPlugins();
  ASSERT_EQ(LoadPluginLibrary(Library("good"), registry), OkStatus());
  const Status again = LoadPluginLibrary(Library("good"), registry);
  EXPECT_EQ(again.code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(again.message(), HasSubstr("'header-only-filter' exists already"));
}

TEST(PluginLibrary, RefusesWhatIsNoPluginLibrary) {
  ExpectRefused("/no/such/library.so", StatusCode::kNotFound, "no such file");
  ExpectRefused("libc.so.6", StatusCode::kNotFound, "no such file");  // not searched for
  ExpectRefused(::llmd::testing::SourcePath(), StatusCode::kInvalidArgument, "no regular file");
  ExpectRefused(::llmd::testing::SourcePath("README.md"), StatusCode::kInvalidArgument,
                "no shared library");
  ExpectRefused(Library("no_entry"), StatusCode::kInvalidArgument,
                "no entry point llmd_plugin_init");
  ExpectRefused(Library("missing_symbol"), StatusCode::kInvalidArgument,
                "SomethingTheProgramDoesNotHave");
}

TEST(PluginLibrary, RefusesAnotherAbiWithBothVersions) {
  ExpectRefused(Library("other_abi"), StatusCode::kFailedPrecondition,
                "built for plugin ABI " + std::to_string(LLMD_SCHED_PLUGIN_ABI) + ".");
  ExpectRefused(Library("other_abi"), StatusCode::kFailedPrecondition,
                "this program has " + std::to_string(LLMD_SCHED_PLUGIN_ABI - 1) + ".");
}

TEST(PluginLibrary, AFailureLeavesNothingBehind) {
  ExpectRefused(Library("registers_nothing"), StatusCode::kInvalidArgument, "registers no plugin");
  ExpectRefused(Library("throws"), StatusCode::kInternal, "licence file missing on host 0");
  ExpectRefused(Library("refuses"), StatusCode::kFailedPrecondition, "no accelerator 0");
  ExpectRefused(Library("takes_a_name"), StatusCode::kAlreadyExists,
                "'queue-scorer' exists already");
  ExpectRefused(Library("incomplete"), StatusCode::kInvalidArgument,
                "'half-scorer' has no factory");
}

TEST(PluginLibrary, ANameWithoutASlashIsAFileHere) {
  const std::filesystem::path here = std::filesystem::current_path();
  std::filesystem::current_path(::llmd::testing::BinaryPath("tests/plugin_libraries"));
  PluginRegistry registry = BuiltinPlugins();
  EXPECT_EQ(LoadPluginLibrary("good.so", registry), OkStatus());
  std::filesystem::current_path(here);
}

TEST(PluginAbi, LayoutsThatDifferGiveAnotherNumber) {
  EXPECT_NE((internal::LayoutOf<int, double>()), (internal::LayoutOf<double, int>()));
  EXPECT_NE((internal::LayoutOf<int>()), (internal::LayoutOf<int, char>()));
  EXPECT_EQ(kPluginAbi >> 32, LLMD_SCHED_PLUGIN_ABI);
}

}  // namespace
}  // namespace llmd::sched
