// Plays operations on an index and prints what it answers, for models in other languages:
//   index_replay run|flat FILE
// Lines of FILE: store E T N P K… , engine keys alike, P a key or -; evict E T N K…; clear E; guess
// E N K…; unguess E N FROM K…; query N K… with endpoints E, tiers T and namespaces N by number. A
// query prints, for endpoints 0 to 7, blocks:score.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

#include "kv/index_world.h"

int main(int argc, char** argv) {
  using namespace llmd::kv;
  if (argc != 3) return std::fprintf(stderr, "usage: index_replay run|flat FILE\n"), 2;
  Played played(std::strcmp(argv[1], "run") == 0 ? MakeRunIndex() : MakeFlatIndex());
  std::ifstream file(argv[2]);
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line);
    std::string verb, parent = "-";
    WorldOp op;
    in >> verb;
    if (verb != "query") in >> op.engine;
    if (verb == "store" || verb == "evict") in >> op.tier;
    if (verb != "clear") in >> op.ns;
    if (verb == "store") in >> parent;
    if (verb == "unguess") in >> op.from;
    if (parent != "-") op.parent = std::stoull(parent);
    for (uint64_t key; in >> key;) op.keys.push_back(key);
    op.engine_keys = op.keys;
    op.kind = verb == "store"     ? WorldOp::kStore
              : verb == "evict"   ? WorldOp::kEvict
              : verb == "clear"   ? WorldOp::kClear
              : verb == "guess"   ? WorldOp::kGuess
              : verb == "unguess" ? WorldOp::kUnguess
                                  : WorldOp::kQuery;
    const llmd::Status status = played.Apply(op);
    if (op.kind != WorldOp::kQuery) {
      std::printf("%s\n", status.ok() ? "ok" : "refused");
      continue;
    }
    std::vector<size_t> all(kWorldEngines);
    for (size_t i = 0; i < all.size(); ++i) all[i] = i;
    for (const PrefixMatch& m : played.Score(op.ns, op.keys, all))
      std::printf("%u:%.3f ", m.blocks, m.score);
    std::printf("\n");
  }
  return 0;
}
