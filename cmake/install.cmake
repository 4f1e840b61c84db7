# Two installs of the same files: into the Python package (scikit-build-core sets SKBUILD) and into a prefix.
include(GNUInstallDirs)
if(SKBUILD)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  set(FFI ${CMAKE_BINARY_DIR}/_ffi.py)
  add_custom_command(OUTPUT ${FFI}
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/pymtp/_build_ffi.py ${CMAKE_SOURCE_DIR}/csrc/pymtp.h ${FFI}
    DEPENDS ${CMAKE_SOURCE_DIR}/pymtp/_build_ffi.py ${CMAKE_SOURCE_DIR}/csrc/pymtp.h)
  add_custom_target(ffi ALL DEPENDS ${FFI})
  install(FILES ${FFI} DESTINATION pymtp)
  install(TARGETS pymtp LIBRARY DESTINATION pymtp/lib RUNTIME DESTINATION pymtp/lib)
  install(FILES csrc/pymtp.h DESTINATION pymtp/include)
else()
  # The prefix is found from the file's own place, so that `cmake --install --prefix` and moved trees work.
  file(RELATIVE_PATH PC_TO_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
  configure_file(cmake/pymtp.pc.in ${CMAKE_BINARY_DIR}/pymtp.pc @ONLY)
  install(TARGETS pymtp LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(FILES ${CMAKE_BINARY_DIR}/pymtp.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
