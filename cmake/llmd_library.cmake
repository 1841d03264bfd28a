# One way to declare a library, a program and a test, so that flags, aliases and install rules stand in one place.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
find_package(Threads REQUIRED)

# Scan for C++ modules is off: there are none and it costs a compiler run a file.
set(CMAKE_CXX_SCAN_FOR_MODULES OFF)

add_library(llmd_flags INTERFACE)
target_compile_options(llmd_flags INTERFACE -ffile-prefix-map=${PROJECT_SOURCE_DIR}/=
  -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety -Wno-thread-safety-analysis>
  # What g++ 12 says wrongly, of its own headers mostly (GCC bugs 105593, 105651, 100157).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized -Wno-uninitialized -Wno-restrict -Wno-array-bounds
    -Wno-mismatched-new-delete -Wno-dangling-else>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  find_program(LLMD_LLD NAMES ld.lld-19 ld.lld)
  if(LLMD_LLD)
    target_link_options(llmd_flags INTERFACE --ld-path=${LLMD_LLD})
  endif()
endif()

# llmd_repeatable(<target>): its arithmetic gives the same bits with every compiler and CPU. Without the flag a compiler may
# make one fused operation, rounded once, of a product and a sum where the CPU has it, and g++ and clang choose different ones
# (docs/reference/determinism.md).
function(llmd_repeatable target)
  target_compile_options(${target} PRIVATE -ffp-contract=off)
endfunction()

# llmd_install_component(<component>): target llmd_<component> is llmd::<component> here and in the installed package.
function(llmd_install_component name)
  add_library(llmd::${name} ALIAS llmd_${name})
  set_target_properties(llmd_${name} PROPERTIES EXPORT_NAME ${name})
  install(TARGETS llmd_${name} EXPORT llmd_${name}_targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT dev)
  install(EXPORT llmd_${name}_targets NAMESPACE llmd:: FILE llmd-${name}-targets.cmake
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/llmd COMPONENT dev)
  set_property(GLOBAL APPEND PROPERTY LLMD_COMPONENTS ${name})
endfunction()

# llmd_add_library(<component> DIR <dir> SOURCES ... [PUBLIC targets...] [PRIVATE targets...])
# makes target llmd_<component> with alias llmd::<component>, exported as component <component>.
# <dir>/include is its public include root, <dir>/src its private one.
function(llmd_add_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(llmd_${name} STATIC ${ARG_SOURCES})
  target_compile_features(llmd_${name} PUBLIC cxx_std_20)
  target_include_directories(llmd_${name}
    PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
    PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/src)
  target_link_libraries(llmd_${name} PUBLIC ${ARG_PUBLIC} Threads::Threads
    PRIVATE ${ARG_PRIVATE} $<BUILD_INTERFACE:llmd_flags>)
  llmd_install_component(${name})
  get_property(dirs GLOBAL PROPERTY LLMD_INCLUDE_DIRS)
  if(NOT CMAKE_CURRENT_SOURCE_DIR IN_LIST dirs)
    set_property(GLOBAL APPEND PROPERTY LLMD_INCLUDE_DIRS ${CMAKE_CURRENT_SOURCE_DIR})
    install(DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev)
  endif()
endfunction()

# llmd_add_program(<name> SOURCES ... LINK ... [PLUGINS]): an executable in build/<preset>/bin, installed as a service
# binary. With PLUGINS it can load plugin libraries: it holds all of llmd_core and exports what plugin_exports.list names.
function(llmd_add_program name)
  cmake_parse_arguments(ARG "PLUGINS" "" "SOURCES;LINK" ${ARGN})
  set(target ${name})
  add_executable(${target} ${ARG_SOURCES})
  if(ARG_PLUGINS)
    llmd_export_to_plugins(${target})
  endif()
  target_link_libraries(${target} PRIVATE ${ARG_LINK} llmd_flags)
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/services)
  target_compile_definitions(${target} PRIVATE LLMD_VERSION="${PROJECT_VERSION}")
  install(TARGETS ${target} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT services)
endfunction()

function(llmd_export_to_plugins target)
  set(list ${PROJECT_SOURCE_DIR}/cmake/plugin_exports.list)
  set_target_properties(${target} PROPERTIES LINK_LIBRARY_OVERRIDE_llmd_core WHOLE_ARCHIVE LINK_DEPENDS ${list})
  target_link_options(${target} PRIVATE LINKER:--dynamic-list=${list})
endfunction()

# llmd_add_test(<name> SOURCES ... LINK ... [LABELS ...]): a GoogleTest binary, one ctest entry.
function(llmd_add_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK;LABELS" ${ARGN})
  find_package(GTest REQUIRED)
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} llmd_test_paths GTest::gmock GTest::gtest_main llmd_flags)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS "unit;${ARG_LABELS}" TIMEOUT 600)
endfunction()

function(llmd_install_package)
  get_property(LLMD_COMPONENTS GLOBAL PROPERTY LLMD_COMPONENTS)
  configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/llmd-config.cmake.in ${PROJECT_BINARY_DIR}/llmd-config.cmake
    INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/llmd)
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/llmd-config-version.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${PROJECT_BINARY_DIR}/llmd-config.cmake ${PROJECT_BINARY_DIR}/llmd-config-version.cmake
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/llmd COMPONENT dev)
endfunction()
