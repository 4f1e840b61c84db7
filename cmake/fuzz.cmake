# One executable per tests/fuzz/fuzz_*.c. With PYMTP_FUZZ=ON (clang) each is a libFuzzer program under AddressSanitizer and
# UndefinedBehaviorSanitizer; otherwise it is linked with replay.c, which runs the files it is given once each. Linux only: an input
# that must be a file is one in memory (memfd_create).
if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
  return()
endif()
file(GLOB FUZZ_TARGETS CONFIGURE_DEPENDS tests/fuzz/fuzz_*.c)
foreach(source ${FUZZ_TARGETS})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source} $<TARGET_OBJECTS:pymtp_core>)
  target_include_directories(${name} PRIVATE csrc tests/c tests/fuzz)
  target_link_libraries(${name} PRIVATE Threads::Threads m)
  if(PYMTP_FUZZ)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(${name} PRIVATE tests/fuzz/replay.c)
  endif()
endforeach()
