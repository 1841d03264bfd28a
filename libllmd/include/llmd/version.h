// The version of these headers, for code that is built against more than one.
#pragma once

#define LLMD_VERSION_MAJOR 0
#define LLMD_VERSION_MINOR 1
#define LLMD_VERSION_PATCH 0
#define LLMD_VERSION_STRING "0.1.0"
