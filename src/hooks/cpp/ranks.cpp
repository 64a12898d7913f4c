// The ranks of a joint run: a store that all of them reach, and messages between any two. Both are
// libtorch's own (c10d), with Gloo as the transport.

#define USE_C10D_GLOO 1
#include "internal.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <ATen/ops/empty.h>

// libtorch's level of messages on standard error.
extern int FLAGS_caffe2_log_level;

struct prism_store {
  c10::intrusive_ptr<c10d::Store> store;
};

struct prism_ranks {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::Backend> backend;
};

namespace prism {

namespace {

std::vector<uint8_t> bytes_of(const void *bytes, size_t length) {
  const auto *begin = static_cast<const uint8_t *>(bytes);
  return {begin, begin + length};
}

at::Tensor tensor_of(const std::vector<uint8_t> &bytes) {
  auto tensor = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
  std::copy(bytes.begin(), bytes.end(), tensor.data_ptr<uint8_t>());
  return tensor;
}

} // namespace

prism_store *open_store(const char *host, int port, int listener, const char *prefix,
                        milliseconds timeout) {
  // Its warnings and traces address the authors of distributed training.
  FLAGS_caffe2_log_level = 3;
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(port);
  options.isServer = listener >= 0;
  if (options.isServer)
    options.masterListenFd = listener;
  options.waitWorkers = false;
  options.timeout = timeout;
  auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
  return new prism_store{c10::make_intrusive<c10d::PrefixStore>(prefix, store)};
}

prism_store *clone(const prism_store &from, milliseconds timeout) {
  auto store = from.store->clone();
  store->setTimeout(timeout);
  return new prism_store{store};
}

void set(prism_store &to, const char *key, const void *bytes, size_t length) {
  to.store->set(key, bytes_of(bytes, length));
}

at::Tensor claim(prism_store &store, const char *key, const void *bytes, size_t length) {
  return tensor_of(store.store->compareSet(key, {}, bytes_of(bytes, length)));
}

std::vector<at::Tensor> read(prism_store &from, const std::vector<std::string> &keys,
                             milliseconds timeout) {
  if (timeout.count() > 0)
    from.store->wait(keys, timeout);
  else if (!from.store->check(keys))
    return {};
  std::vector<at::Tensor> values;
  for (const auto &value : from.store->multiGet(keys))
    values.push_back(tensor_of(value));
  return values;
}

prism_ranks *join(const prism_store &at, int rank, int size, const char *address,
                  milliseconds joining, milliseconds waiting) {
  // Not the default device, which has the address of the host's own name: often a loopback one.
  auto options = c10d::ProcessGroupGloo::Options::create(joining);
  options->devices = {c10d::ProcessGroupGloo::createDeviceForHostname(address)};
  options->threads = 2;
  auto backend = c10::make_intrusive<c10d::ProcessGroupGloo>(at.store, rank, size, options);
  backend->setTimeout(waiting);
  return new prism_ranks{at.store, backend};
}

void send(prism_ranks &ranks, const at::Tensor &values, int to) {
  std::vector<at::Tensor> tensors{values.contiguous()};
  ranks.backend->send(tensors, to, 0)->wait();
}

void receive(prism_ranks &ranks, at::Tensor &values, int from) {
  std::vector<at::Tensor> tensors{values};
  ranks.backend->recv(tensors, from, 0)->wait();
}

void add_up(prism_ranks &ranks, at::Tensor &values) {
  std::vector<at::Tensor> tensors{values};
  ranks.backend->reduce(tensors)->wait();
}

void broadcast(prism_ranks &ranks, at::Tensor &values) {
  std::vector<at::Tensor> tensors{values};
  ranks.backend->broadcast(tensors)->wait();
}

} // namespace prism

void prism_store_free(prism_store *store) { delete store; }
void prism_ranks_free(prism_ranks *ranks) { delete ranks; }
