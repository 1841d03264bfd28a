#include "cli/bench/text.h"

#include <array>

namespace llmd::bench {
namespace {

constexpr std::array<std::string_view, kWords> kWordList = {
    " the",     " of",        " and",    " to",      " in",       " is",        " that",
    " for",     " it",        " as",     " was",     " with",     " be",        " by",
    " on",      " not",       " he",     " his",     " but",      " at",        " are",
    " this",    " have",      " had",    " from",    " or",       " one",       " which",
    " you",     " were",      " her",    " all",     " she",      " there",     " would",
    " their",   " we",        " him",    " been",    " has",      " when",      " who",
    " will",    " more",      " no",     " if",      " out",      " so",        " said",
    " what",    " up",        " its",    " about",   " into",     " than",      " them",
    " can",     " only",      " other",  " new",     " some",     " could",     " time",
    " these",   " two",       " may",    " then",    " do",       " first",     " any",
    " my",      " now",       " such",   " like",    " our",      " over",      " man",
    " me",      " even",      " most",   " made",    " after",    " also",      " did",
    " many",    " before",    " must",   " through", " back",     " years",     " where",
    " much",    " your",      " way",    " well",    " down",     " should",    " because",
    " each",    " just",      " those",  " people",  " how",      " too",       " little",
    " state",   " good",      " very",   " make",    " world",    " still",     " own",
    " see",     " men",       " work",   " long",    " get",      " here",      " between",
    " both",    " life",      " being",  " under",   " never",    " day",       " same",
    " another", " know",      " while",  " last",    " might",    " us",        " great",
    " old",     " year",      " off",    " come",    " since",    " against",   " go",
    " came",    " right",     " used",   " take",    " three",    " states",    " himself",
    " few",     " house",     " use",    " during",  " without",  " again",     " place",
    " around",  " however",   " home",   " small",   " found",    " thought",   " went",
    " say",     " part",      " once",   " general", " high",     " upon",      " school",
    " every",   " don",       " does",   " got",     " united",   " left",      " number",
    " course",  " war",       " until",  " always",  " away",     " something", " fact",
    " though",  " water",     " less",   " public",  " put",      " think",     " almost",
    " hand",    " enough",    " far",    " took",    " head",     " yet",       " government",
    " system",  " better",    " set",    " told",    " nothing",  " night",     " end",
    " why",     " called",    " find",   " going",   " look",     " asked",     " later",
    " point",   " knew",      " next",   " city",    " business", " group",     " give",
    " toward",  " young",     " days",   " let",     " room",     " side",      " social",
    " several", " given",     " order",  " rather",  " second",   " face",      " per",
    " early",   " important", " form",   " best",    " white",    " case",      " large",
    " power",   " need",      " big",    " money",   " car",      " book",      " body",
    " friend",  " father",    " hour",   " game",    " line",     " member",    " law",
    " name",    " team",      " minute", " idea",
};

}  // namespace

std::string_view WordWithBlank(size_t index) {
  return kWordList[index % kWords];
}

void AppendWords(std::string& out, Random random, uint64_t words, bool begins_text) {
  out.reserve(out.size() + words * 6);
  uint64_t bits = 0;
  for (uint64_t i = 0; i < words; ++i, bits >>= 8) {
    if (i % 8 == 0) bits = random.Next();
    std::string_view word = kWordList[bits & 0xff];
    if (begins_text && i == 0) word.remove_prefix(1);
    out += word;
  }
}

}  // namespace llmd::bench
