#include "llmd/http/server.h"
Task<void> Loop() { co_await Sleep(); }
