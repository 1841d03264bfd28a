#include "director/body_edits.h"

#include "plugins/parser/body_reader.h"
#include "sched/director_support.h"

namespace llmd::sched {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// What the edits make of a body.
std::string Edited(const std::string& body, const std::string& model) {
  RequestContext request;
  request.body = body;
  request.api = Api::kCompletions;
  EXPECT_TRUE(ReadBody(request).ok()) << body;
  const std::vector<BodyEdit> edits = EditsOf(request, model);
  for (size_t i = 1; i < edits.size(); ++i) EXPECT_LE(edits[i - 1].end, edits[i].begin) << body;
  return Applied(body, edits);
}

TEST(BodyEdits, LeaveTheBodyAloneWhenNothingChanges) {
  const std::string body = R"( { "model" : "m" , "x" : [1, 2] } )";
  EXPECT_EQ(Edited(body, ""), body);
  EXPECT_EQ(Edited(body, "m"), body);
}

TEST(BodyEdits, SpliceTheModelOnly) {
  EXPECT_EQ(Edited(R"({"a":1e400,"model":"m","b":"\u0000"})", "n"),
            R"({"a":1e400,"model":"n","b":"\u0000"})");
  EXPECT_EQ(Edited(R"({"model":"m"})", "quo\"te\n"), R"({"model":"quo\"te\n"})");
  EXPECT_EQ(Edited(R"({"model":"a","model":"b"})", "n"), R"({"model":"a","model":"n"})");
}

TEST(BodyEdits, InsertAMissingModel) {
  EXPECT_EQ(Edited("{}", "n"), R"({"model":"n"})");
  EXPECT_EQ(Edited(R"( { "x":1})", "n"), R"( {"model":"n", "x":1})");
}

TEST(BodyEdits, DropTheClientsTransferParametersWhereverTheyStand) {
  const std::string k = R"("kv_transfer_params":{"do":[1,"}"]})";
  EXPECT_EQ(Edited("{" + k + "}", ""), "{}");
  EXPECT_EQ(Edited("{" + k + R"(,"a":1})", ""), R"({"a":1})");
  EXPECT_EQ(Edited(R"({"a":1,)" + k + "}", ""), R"({"a":1})");
  EXPECT_EQ(Edited(R"({"a":1, )" + k + R"( ,"b":2})", ""), R"({"a":1, "b":2})");
  EXPECT_EQ(Edited("{" + k + "," + k + R"(,"a":1,)" + k + "}", ""), R"({"a":1})");
  EXPECT_EQ(Edited(R"({"a":{"kv_transfer_params":1}})", ""), R"({"a":{"kv_transfer_params":1}})");
}

TEST(BodyEdits, DropTheTransferParametersHoweverTheirKeyIsSpelled) {
  EXPECT_EQ(Edited(R"({"a":1,"kv_transfer_param\u0073":{"do_remote_prefill":true}})", ""),
            R"({"a":1})");
  EXPECT_EQ(Edited(R"({"\u006Bv\u005ftransfer_params":1,"kv_transfer_params":2,"a":1})", ""),
            R"({"a":1})");
  EXPECT_EQ(Edited(R"({"kv_transfer_param\u0073":1})", "n"), R"({"model":"n"})");
  EXPECT_EQ(Edited(R"({"kv_transfer_params\u0000":1,"\"kv_transfer_params":2})", ""),
            R"({"kv_transfer_params\u0000":1,"\"kv_transfer_params":2})");
}

// What the edits make of a body that no parser has read.
std::string EditedUnread(std::string body) {
  RequestContext request;
  request.body = body;
  return Applied(body, EditsOf(request, "n"));
}

TEST(BodyEdits, DropTheTransferParametersOfUnreadBodies) {
  const std::string k = R"("kv_transfer_params":{"do":[1,"}\""]})";
  EXPECT_EQ(EditedUnread("{" + k + "}"), "{}");
  EXPECT_EQ(EditedUnread(R"( { "model":"m", )" + k + R"( , "b":[{"x":1}]} )"),
            R"( { "model":"m", "b":[{"x":1}]} )");
  EXPECT_EQ(EditedUnread(R"({"a":"\\","kv_transfer_param\u0073":1,)" + k + "}"), R"({"a":"\\"})");
  // What some readers of JSON take though it is none.
  EXPECT_EQ(EditedUnread(R"({"t":NaN,)" + k + R"(,"u":-Infinity})"), R"({"t":NaN,"u":-Infinity})");
  EXPECT_EQ(EditedUnread("{\"t\":\"\xff\"," + k + "}"), "{\"t\":\"\xff\"}");
  EXPECT_EQ(EditedUnread("\xEF\xBB\xBF{" + k + ",\"a\":1}"), "\xEF\xBB\xBF{\"a\":1}");
}

TEST(BodyEdits, LeaveOtherUnreadBodiesAlone) {
  for (const std::string body :
       {R"({"a":{"kv_transfer_params":1},"b":[{"kv_transfer_params":1}]})",
        R"([{"kv_transfer_params":1}])", R"("kv_transfer_params")", "kv_transfer_params=1",
        R"({"a":"kv_transfer_params","b":"\u0041"})", R"({"kv_transfer_params":{"a":1)", "{", ""})
    EXPECT_EQ(EditedUnread(body), body);
}

// `ascii` in `width` bytes a character.
std::string Wide(std::string_view ascii, size_t width, bool big) {
  std::string out;
  for (const char c : ascii) {
    std::string unit(width, '\0');
    unit[big ? width - 1 : 0] = c;
    out += unit;
  }
  return out;
}

TEST(BodyEdits, DropTheTransferParametersOfUnreadWideBodies) {
  const std::string beyond_ascii = "\x22\x7b";  // two bytes that look like a quote and a bracket
  for (const bool big : {false, true}) {
    const std::string head = Wide(R"({"a":")", 2, big) + beyond_ascii;
    const std::string with = head + Wide(R"(","kv_transfer_param\u0073":{"b":1}})", 2, big);
    EXPECT_EQ(EditedUnread(with), head + Wide(R"("})", 2, big));
    const std::string mark = big ? "\xFE\xFF" : "\xFF\xFE";
    EXPECT_EQ(EditedUnread(mark + with), mark + head + Wide(R"("})", 2, big));
    EXPECT_EQ(EditedUnread(Wide(R"({"a":1,"kv_transfer_params":1})", 4, big)),
              Wide(R"({"a":1})", 4, big));
  }
}

TEST(BodyEdits, DropAndRewriteTogether) {
  EXPECT_EQ(Edited(R"({"kv_transfer_params":1,"model":"m","kv_transfer_params":2})", "n"),
            R"({"model":"n"})");
  EXPECT_EQ(Edited(R"({"kv_transfer_params":1})", "n"), R"({"model":"n"})");
  EXPECT_EQ(Edited(R"({"kv_transfer_params":1,"x":2})", "n"), R"({"model":"n","x":2})");
}

TEST(BodyEdits, OpaqueBodiesAreNotTouched) {
  RequestContext request;
  request.body = "not json";
  EXPECT_THAT(EditsOf(request, "n"), IsEmpty());
}

TEST(ControlHeaders, AreNamedOnceAndNotWhenWeSetThem) {
  const HeaderList headers = {{"x-prefiller-host-port", "a"},
                              {"accept", "b"},
                              {"x-slo-ttft-ms", "1"},
                              {"x-prefiller-host-port", "c"}};
  EXPECT_THAT(ControlHeadersOf(headers, {}), ElementsAre("x-prefiller-host-port", "x-slo-ttft-ms"));
  EXPECT_THAT(ControlHeadersOf(headers, {{"x-prefiller-host-port", "ours"}}),
              ElementsAre("x-slo-ttft-ms"));
  EXPECT_FALSE(IsControlHeader("x-request-id"));
  EXPECT_FALSE(IsControlHeader("authorization"));
}

TEST(EitherHeader, PrefersTheNewSpelling) {
  const HeaderList headers = {{"old", "1"}, {"new", "2"}, {"only-old", "3"}};
  RequestContext request;
  request.headers = &headers;
  EXPECT_EQ(EitherHeader(request, "new", "old"), "2");
  EXPECT_EQ(EitherHeader(request, "missing", "only-old"), "3");
  EXPECT_EQ(EitherHeader(request, "missing", "too"), "");
}

}  // namespace
}  // namespace llmd::sched
