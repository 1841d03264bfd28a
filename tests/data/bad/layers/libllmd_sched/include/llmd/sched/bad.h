#pragma once
#include <absl/strings/string_view.h>
#include "llmd/engine/engine.h"
