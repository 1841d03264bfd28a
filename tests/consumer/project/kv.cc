#include "llmd/kv/block_hash.h"
#include "llmd/kv/region.h"

int main() {
  return llmd::kv::MakeEngineHasher("sha256_cbor", "0").ok() ? 0 : 1;
}
