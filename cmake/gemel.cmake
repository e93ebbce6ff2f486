# SPDX-License-Identifier: Apache-2.0
# Compiler options shared by all of Gemel, and the functions that add its libraries and tests.

add_library(gemel_options INTERFACE)
target_compile_options(gemel_options INTERFACE
  -Wall -Wextra -Wconversion -Wshadow -Werror -Wthread-safety -Wno-missing-field-initializers -fno-omit-frame-pointer
  # An unexpected value of a Result<void> used as a statement must not go unseen.
  -Werror=unused-result)
if(GEMEL_TEST_SWITCHES)
  target_compile_definitions(gemel_options INTERFACE GEMEL_TEST_SWITCHES)
endif()

# gemel_library(NAME SOURCES a.cpp ... LIBS other ...): the library of one folder.
# Its headers are included as "folder/header.hpp" from the top of the tree.
function(gemel_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC gemel_contracts ${ARG_LIBS})
endfunction()

# tools/test --long, where tests do more: their time limits are multiplied by it.
set(GEMEL_TIMEOUT_FACTOR 1 CACHE STRING "What the time limits of ctest are multiplied by")

# gemel_time_limit(variable SECONDS)
function(gemel_time_limit out seconds)
  math(EXPR limit "${seconds} * ${GEMEL_TIMEOUT_FACTOR}")
  set(${out} ${limit} PARENT_SCOPE)
endfunction()

# gemel_tests(NAME LABEL unit SOURCES a.cpp ... LIBS ... [TIMEOUT s] [WHOLE]): one GoogleTest binary.
# Every case is a ctest entry; with WHOLE the binary is one entry.
function(gemel_tests name)
  cmake_parse_arguments(ARG "WHOLE" "LABEL;TIMEOUT" "SOURCES;LIBS;ARGS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  gemel_time_limit(ARG_TIMEOUT ${ARG_TIMEOUT})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE gemel_test_process ${ARG_LIBS} GTest::gtest_main)
  if(ARG_WHOLE)
    add_test(NAME ${name} COMMAND ${name} ${ARG_ARGS})
    set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
  else()
    gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST NO_PRETTY_VALUES
      PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
  endif()
endfunction()
