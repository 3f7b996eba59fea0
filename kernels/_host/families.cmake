# How kernels are compiled: one mechanism for this repository, for families elsewhere and for shipped bundles.
#
#   tw_add_core(OUT)                  the objects of kernels/_host that kernels need
#   tw_add_ceilings(OUT)              those that measure what the machine can do
#   tw_add_family(NAME FOLDER OUT)    the objects of one family, exporting tw_host_<NAME>, and of those it needs;
#                                     a list of several families' objects may name some twice
#   tw_export_only(TARGET PATTERN...) everything else is local to the shared library
#
# In a folder, *_simd.cpp is compiled once per ISA level with TW_ISA set to its name; of a family, every other
# host*.cpp is compiled once at the baseline, of kernels/_host every other *.cpp.
include_guard(GLOBAL)

set(TW_HOST_DIR "${CMAKE_CURRENT_LIST_DIR}")
get_filename_component(TW_KERNELS_DIR "${TW_HOST_DIR}" DIRECTORY)

set(_tw_avx2 -mavx2 -mfma -mf16c)
set(TW_ISA_FLAGS_scalar "")
set(TW_ISA_FLAGS_avx2 ${_tw_avx2})
set(TW_ISA_FLAGS_avx2vnni ${_tw_avx2} -mavxvnni)
set(TW_ISA_FLAGS_avx512 -march=x86-64-v4 -mavx512vnni -mavx512bf16)
set(TW_ISA_FLAGS_amx ${TW_ISA_FLAGS_avx512}) # tile instructions are written out, see simd/tiles.hpp
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  set(TW_ISA_LEVELS scalar avx2 avx2vnni avx512 amx)
else()
  message(FATAL_ERROR "host kernels are written for x86-64; this is ${CMAKE_SYSTEM_PROCESSOR}")
endif()

# Contraction is off so that every level rounds where the source says so; kernels ask for fma by name.
set(TW_CXX_FLAGS -O3 -Wall -Wextra -Werror -fno-math-errno -ffp-contract=off -fno-gnu-unique)

# Sanitizers for a build that is only run to look for errors, such as `address,undefined`.
set(TW_SANITIZE "" CACHE STRING "sanitizers to compile kernels with")
if(TW_SANITIZE)
  list(APPEND TW_CXX_FLAGS -O1 -g1 -fno-omit-frame-pointer -fsanitize=${TW_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${TW_SANITIZE})
endif()

# Functions that got a new version after glibc 2.28 are bound to the old one, so that one binary runs from 2.28 on.
set(_tw_glibc "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  foreach(symbol pthread_create pthread_join pthread_detach pthread_once pthread_key_create pthread_key_delete
                 pthread_setaffinity_np dlopen dlsym dlclose dlerror exp exp2 log log2 pow)
    set(version 2.2.5)
    if(symbol STREQUAL "pthread_setaffinity_np")
      set(version 2.3.4)
    endif()
    string(APPEND _tw_glibc "__asm__(\".symver ${symbol},${symbol}@GLIBC_${version}\");\n")
  endforeach()
endif()

# A header that is included first: `symbols` binds symbol versions, a family's declares its exported function.
function(_tw_prelude name text out)
  set(path "${CMAKE_BINARY_DIR}/prelude/${name}.hpp")
  set(content "#pragma once\n${text}")
  if(name STREQUAL "symbols")
    set(content "#pragma once\n${_tw_glibc}")
  endif()
  if(EXISTS "${path}")
    file(READ "${path}" before)
  else()
    set(before "")
  endif()
  if(NOT before STREQUAL content)
    file(WRITE "${path}" "${content}")
  endif()
  set(${out} "${path}" PARENT_SCOPE)
endfunction()

# Flags of every target: hidden symbols, no path of this machine, the same bytes on every build.
function(tw_compile_flags target root)
  _tw_prelude(symbols "" prelude)
  target_compile_features(${target} PRIVATE cxx_std_20)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON
                        CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_compile_options(${target} PRIVATE ${TW_CXX_FLAGS} "-ffile-prefix-map=${root}=."
                         "-ffile-prefix-map=${TW_KERNELS_DIR}=kernels" "-ffile-prefix-map=${CMAKE_BINARY_DIR}=build"
                         "SHELL:-include \"${prelude}\"")
  target_include_directories(${target} PRIVATE "${TW_KERNELS_DIR}")
  get_target_property(sources ${target} SOURCES)
  foreach(source IN LISTS sources)
    get_filename_component(file "${source}" NAME)
    set_property(SOURCE "${source}" TARGET_DIRECTORY ${target} PROPERTY COMPILE_OPTIONS "-frandom-seed=${file}")
  endforeach()
endfunction()

# A family or the core that was added before is not added again: its objects serve every library of the build.
function(_tw_objects name folder text out)
  get_property(objects GLOBAL PROPERTY TW_OBJECTS_${name})
  if(objects)
    set(${out} ${objects} PARENT_SCOPE)
    return()
  endif()
  set(baseline ${ARGN})
  set(simd ${ARGN})
  list(FILTER baseline EXCLUDE REGEX "_simd\\.cpp$")
  list(FILTER simd INCLUDE REGEX "_simd\\.cpp$")
  _tw_prelude(family_${name} "${text}" prelude)
  set(objects "")
  if(baseline)
    add_library(tw_${name} OBJECT ${baseline})
    tw_compile_flags(tw_${name} "${folder}")
    target_compile_options(tw_${name} PRIVATE "SHELL:-include \"${prelude}\"")
    list(APPEND objects $<TARGET_OBJECTS:tw_${name}>)
  endif()
  if(simd)
    foreach(level IN LISTS TW_ISA_LEVELS)
      set(target tw_${name}_${level})
      add_library(${target} OBJECT ${simd})
      tw_compile_flags(${target} "${folder}")
      target_compile_definitions(${target} PRIVATE TW_ISA=${level})
      target_compile_options(${target} PRIVATE ${TW_ISA_FLAGS_${level}} "SHELL:-include \"${prelude}\"")
      list(APPEND objects $<TARGET_OBJECTS:${target}>)
    endforeach()
  endif()
  set_property(GLOBAL PROPERTY TW_OBJECTS_${name} ${objects})
  set(${out} ${objects} PARENT_SCOPE)
endfunction()

function(tw_add_core out)
  file(GLOB sources CONFIGURE_DEPENDS "${TW_HOST_DIR}/*.cpp")
  list(FILTER sources EXCLUDE REGEX "/ceilings[^/]*$")
  _tw_objects(_host "${TW_HOST_DIR}" "" objects ${sources})
  set(${out} ${objects} PARENT_SCOPE)
endfunction()

function(tw_add_ceilings out)
  file(GLOB sources CONFIGURE_DEPENDS "${TW_HOST_DIR}/ceilings*.cpp")
  _tw_objects(_ceilings "${TW_HOST_DIR}" "" objects ${sources})
  set(${out} ${objects} PARENT_SCOPE)
endfunction()

function(tw_add_family name folder out)
  # Declared here so that a family's host.cpp is exported, and has the right type, by writing extern "C" alone.
  set(text "#include \"_host/abi.h\"\nextern \"C\" __attribute__((visibility(\"default\"))) int tw_host_${name}(const tw_call*);\n")
  file(GLOB sources CONFIGURE_DEPENDS "${folder}/host*.cpp" "${folder}/*_simd.cpp")
  list(REMOVE_DUPLICATES sources)
  _tw_objects(${name} "${folder}" "${text}" objects ${sources})
  if(NOT objects)
    message(FATAL_ERROR "family ${name} has no host.cpp in ${folder}")
  endif()
  # Families beside kernels/_host whose functions this one calls, one a line.
  set(needed "")
  if(EXISTS "${folder}/host_needs.txt")
    file(STRINGS "${folder}/host_needs.txt" needed)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${folder}/host_needs.txt")
  endif()
  foreach(other IN LISTS needed)
    tw_add_family(${other} "${TW_KERNELS_DIR}/${other}" others)
    list(APPEND objects ${others})
  endforeach()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()

function(tw_export_only target)
  set(patterns "")
  foreach(pattern IN LISTS ARGN)
    string(APPEND patterns " ${pattern};")
  endforeach()
  set(script "${CMAKE_BINARY_DIR}/prelude/${target}.map")
  file(WRITE "${script}" "{ global:${patterns} local: *; };\n")
  target_link_options(${target} PRIVATE "-Wl,--version-script=${script}" -Wl,-z,now -Wl,--build-id=none)
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CXX LINK_DEPENDS "${script}")
endfunction()
