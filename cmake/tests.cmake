# One executable per tests/c/test_*.c, linked with the core's objects so that tests reach internal functions; each is a
# ctest. tests/c/tool_*.c are programs that Python tests run (not ctests).
file(GLOB C_TESTS CONFIGURE_DEPENDS tests/c/test_*.c tests/c/tool_*.c)
set(WRAPPED malloc calloc realloc posix_memalign free mmap munmap mprotect pread pthread_create pthread_join pthread_mutex_unlock)
if(APPLE) # its linker cannot put a function in the place of another
  list(FILTER C_TESTS EXCLUDE REGEX "test_fault.c$")
endif()
foreach(source ${C_TESTS})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source} $<TARGET_OBJECTS:pymtp_core>)
  target_include_directories(${name} PRIVATE csrc tests/c)
  target_link_libraries(${name} PRIVATE Threads::Threads m)
  if(name STREQUAL "test_fault")
    foreach(function ${WRAPPED})
      target_link_options(${name} PRIVATE -Wl,--wrap=${function})
    endforeach()
  endif()
  if(name MATCHES "^test_")
    add_test(NAME ${name} COMMAND ${name})
  endif()
endforeach()

# tests/c/interpose.c is loaded into a Python process by tests/fault_tasks.py.
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  add_library(interpose MODULE tests/c/interpose.c)
endif()
