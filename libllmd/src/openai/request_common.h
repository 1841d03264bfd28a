// Shared by the request parsers: the fields every generating request has, and the rules over them.
#pragma once

#include <span>

#include "llmd/openai/coerce.h"
#include "llmd/openai/request.h"

namespace llmd::openai {

// The body as an object, or the error.
MaybeError ParseBody(std::string_view body, json::Value* out);
// Reads the common members. Schema failures collect in `reader`; a broken rule is returned.
MaybeError ReadCommon(FieldReader& reader, const ParseLimits& limits, CommonRequest* out);
// Rules across fields, after everything was read.
MaybeError CheckCommon(const CommonRequest& request, const ParseLimits& limits);
// 501 for the first of these members that asks for something: not null, false, empty or zero.
MaybeError RefuseFields(const FieldReader& reader, std::span<const std::string_view> keys);
// `logprobs`-like members: strings are refused before coercion.
MaybeError ReadStrictInt(FieldReader& reader, std::string_view key, std::optional<int>* out);
// Reads a chat prompt's members.
MaybeError ReadChatPrompt(FieldReader& reader, const ParseLimits& limits, ChatPrompt* out);

std::string NumberText(double value);

}  // namespace llmd::openai
