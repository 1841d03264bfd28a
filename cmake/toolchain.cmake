# Which compilers build llmd, and the compile cache. Included before project(llmd): what a launcher is must stand before the
# languages are enabled.

# ccache on its own when it is installed and nobody named a launcher (presets and other builds do). Compared by content and not
# by folder, so that a second checkout, or pip's copy of one, finds what the first one compiled.
option(LLMD_CCACHE "Compile through ccache when it is installed and no launcher is given" ON)
if(LLMD_CCACHE AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER AND NOT DEFINED ENV{CMAKE_CXX_COMPILER_LAUNCHER})
  find_program(LLMD_CCACHE_PROGRAM ccache)
  if(LLMD_CCACHE_PROGRAM)
    set(CMAKE_C_COMPILER_LAUNCHER
      env CCACHE_BASEDIR=${CMAKE_CURRENT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${LLMD_CCACHE_PROGRAM})
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_C_COMPILER_LAUNCHER})
  endif()
endif()

# Ends the configuration for a compiler that does not build llmd, with what to do about it.
function(llmd_check_compiler)
  set(found "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION} (${CMAKE_CXX_COMPILER})")
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 12)
    return()
  elseif(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 19)
    return()
  endif()
  message(FATAL_ERROR "llmd needs g++ 12 or newer, or clang 19 or newer; this is ${found}.\n"
    "On Debian 12:  apt-get install g++            (then CC=gcc CXX=g++)\n"
    "           or  apt-get install clang-19 lld-19 (then CC=clang-19 CXX=clang++-19)")
endfunction()
