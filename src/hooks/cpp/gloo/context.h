// Names of Gloo that ProcessGroupGloo.hpp mentions. libtorch_cpu.so holds Gloo, but libtorch comes
// without its headers. libtorch's classes hold Gloo's types behind pointers, so these declarations
// take part in no layout.
#pragma once
#include <chrono>

namespace gloo {
class Context {
public:
  void setTimeout(std::chrono::milliseconds timeout);
};
namespace transport {
class Device;
class UnboundBuffer {
public:
  virtual ~UnboundBuffer() = 0;
};
} // namespace transport
} // namespace gloo
