#include "llmd/http/server.h"

int main() {
  auto runtime = llmd::http::Runtime::Create(1);
  if (!runtime.ok()) return 1;
  (*runtime)->Stop();
  return 0;
}
