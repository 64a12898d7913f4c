// The C functions of shim.h. Each runs its task inside `guarded`.

#include "internal.h"

#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>

#include <cstring>

namespace {

char *message(const char *text) {
  return strdup(text && *text ? text : "libtorch gave no reason");
}

// libtorch's warnings address the authors of networks.
struct Silence : c10::WarningHandler {
  void process(const c10::Warning &) override {}
};

// Turns exceptions into messages.
template <typename F> char *guarded(F &&body) {
  try {
    Silence silence;
    c10::WarningUtils::WarningHandlerGuard quiet(&silence);
    body();
    return nullptr;
  } catch (const c10::Error &error) {
    return message(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return message(error.what());
  } catch (...) {
    return message("an exception of an unknown kind");
  }
}

at::Tensor &changed(void *pointer) { return *static_cast<at::Tensor *>(pointer); }

const at::Tensor &tensor(const void *pointer) { return *static_cast<const at::Tensor *>(pointer); }

at::Device device_of(int index) {
  return index < 0 ? at::Device(at::kCPU)
                   : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}

} // namespace

char *prism_device_prepare(int device) {
  return guarded([&] { prism::prepare(device_of(device)); });
}

char *prism_graph_load(const char *path, int device, prism_graph **out) {
  return guarded([&] { *out = prism::load(path, device_of(device)).release(); });
}

char *prism_trace_begin(const void *example, void **input) {
  return guarded([&] { *input = new at::Tensor(prism::begin_trace(tensor(example))); });
}

char *prism_trace_end(const void *output, int on_cpu, prism_graph **out) {
  char *failure = guarded([&] {
    TORCH_CHECK(output, "the forward pass failed");
    *out = prism::end_trace(tensor(output), on_cpu != 0).release();
  });
  prism::abandon_trace();
  return failure;
}

char *prism_trace_finish(prism_graph *trace) {
  return guarded([&] { prism::finish_trace(*trace); });
}

char *prism_graph_describe(prism_graph *graph, const int64_t *shape, int device, char **json) {
  return guarded([&] {
    const at::IntArrayRef sizes(shape, shape ? 4 : 0);
    *json = strdup(prism::describe(*graph, sizes, device_of(device)).c_str());
  });
}

char *prism_graph_sizes(prism_graph *graph, const int64_t *shape, int device, char **json) {
  return guarded([&] {
    *json = strdup(prism::sizes(*graph, at::IntArrayRef(shape, 4), device_of(device)).c_str());
  });
}

char *prism_graph_batches(prism_graph *graph, char **json) {
  return guarded([&] { *json = strdup(prism::batches(*graph).c_str()); });
}

char *prism_program_new(prism_graph *graph, const prism_output *outputs, size_t count, int64_t tap,
                        const prism_node_rule *rules, size_t rule_count, int32_t execution,
                        prism_program **out) {
  return guarded([&] {
    *out = prism::compile(*graph, {outputs, count}, tap, {rules, rule_count}, execution).release();
  });
}

char *prism_program_unoptimised(const prism_program *program) {
  return program->unoptimised.empty() ? nullptr : message(program->unoptimised.c_str());
}

char *prism_head_new(prism_graph *graph, const prism_output *outputs, size_t count, int64_t value,
                     const prism_layout *layout, prism_program **out) {
  return guarded(
      [&] { *out = prism::compile_head(*graph, {outputs, count}, value, *layout).release(); });
}

char *prism_program_run(prism_program *program, const void *input, void **results) {
  return guarded([&] {
    std::vector<std::unique_ptr<at::Tensor>> made; // all of them, before any is handed over
    for (at::Tensor &value : prism::run(*program, tensor(input)))
      made.push_back(std::make_unique<at::Tensor>(std::move(value)));
    for (auto &value : made)
      *results++ = value.release();
  });
}

char *prism_tensor_of_floats(float *values, const int64_t *shape, size_t dimensions,
                             void (*drop)(void *), void *owner, void **out) {
  return guarded([&] {
    auto made = std::make_unique<at::Tensor>();
    *made = at::from_blob(
        values, at::IntArrayRef(shape, dimensions), [drop, owner](void *) { drop(owner); },
        at::TensorOptions(at::kFloat));
    *out = made.release();
  });
}

char *prism_pinned(const void *values, void **out) {
  return guarded([&] { *out = new at::Tensor(tensor(values).pin_memory()); });
}

char *prism_builder_new(int device, prism_builder **out) {
  return guarded([&] {
    prism::prepare(device_of(device));
    *out = new prism_builder;
    (*out)->device = device_of(device);
  });
}

char *prism_builder_input(prism_builder *builder, int64_t *value) {
  return guarded([&] { *value = prism::add_input(*builder); });
}

char *prism_builder_constant(prism_builder *builder, const prism_constant *constant, int64_t *value) {
  return guarded([&] { *value = prism::add_constant(*builder, *constant); });
}

char *prism_builder_list(prism_builder *builder, const int64_t *items, size_t count, int64_t *value) {
  return guarded([&] { *value = prism::add_list(*builder, {items, count}); });
}

char *prism_builder_call(prism_builder *builder, const char *name, const char *overload,
                         const char *path, const prism_argument *arguments, size_t count,
                         int64_t *results, size_t result_count) {
  return guarded([&] {
    const auto made = prism::call(*builder, name, overload, path, {arguments, count}, result_count);
    std::copy(made.begin(), made.end(), results);
  });
}

char *prism_builder_examples(prism_builder *builder, const int64_t *shapes, int64_t most) {
  return guarded([&] {
    std::vector<std::vector<int64_t>> examples;
    for (size_t i = 0; i < PRISM_EXAMPLES; i++)
      examples.emplace_back(shapes + 4 * i, shapes + 4 * (i + 1));
    prism::set_examples(*builder, examples, most);
  });
}

char *prism_builder_shape(prism_builder *builder, int64_t value, size_t example, prism_shape *shape) {
  return guarded([&] {
    if (!prism::shape_of(*builder, value, example, *shape))
      shape->dimensions = -1;
  });
}

char *prism_builder_known(const prism_builder *builder, int64_t value, void **out) {
  return guarded([&] {
    const at::Tensor known = prism::known_tensor(*builder, value);
    *out = known.defined() ? new at::Tensor(known) : nullptr;
  });
}

char *prism_builder_failure(const prism_builder *builder) {
  return builder->failure.empty() ? nullptr : strdup(builder->failure.c_str());
}

char *prism_builder_finish(prism_builder *builder, const prism_result *outputs, size_t count,
                           prism_graph **out) {
  return guarded([&] { *out = prism::finish(*builder, {outputs, count}).release(); });
}

void prism_builder_free(prism_builder *builder) { delete builder; }

char *prism_store_open(const char *host, int port, int listener, const char *prefix, int64_t most,
                       prism_store **out) {
  return guarded(
      [&] { *out = prism::open_store(host, port, listener, prefix, prism::milliseconds(most)); });
}

char *prism_store_clone(const prism_store *store, int64_t most, prism_store **out) {
  return guarded([&] { *out = prism::clone(*store, prism::milliseconds(most)); });
}

char *prism_store_set(prism_store *store, const char *key, const void *bytes, size_t length) {
  return guarded([&] { prism::set(*store, key, bytes, length); });
}

char *prism_store_claim(prism_store *store, const char *key, const void *bytes, size_t length,
                        void **value) {
  return guarded([&] { *value = new at::Tensor(prism::claim(*store, key, bytes, length)); });
}

char *prism_store_read(prism_store *store, const char *const *keys, size_t count, int64_t most,
                       void **values) {
  return guarded([&] {
    const std::vector<std::string> all(keys, keys + count);
    for (at::Tensor &value : prism::read(*store, all, prism::milliseconds(most)))
      *values++ = new at::Tensor(std::move(value));
  });
}

char *prism_ranks_join(const prism_store *store, int rank, int size, const char *address,
                       int64_t joining, int64_t waiting, prism_ranks **out) {
  return guarded([&] {
    *out = prism::join(*store, rank, size, address, prism::milliseconds(joining),
                       prism::milliseconds(waiting));
  });
}

char *prism_ranks_send(prism_ranks *ranks, const void *values, int to) {
  return guarded([&] { prism::send(*ranks, tensor(values), to); });
}

char *prism_ranks_receive(prism_ranks *ranks, void *values, int from) {
  return guarded([&] { prism::receive(*ranks, changed(values), from); });
}

char *prism_ranks_add_up(prism_ranks *ranks, void *values) {
  return guarded([&] { prism::add_up(*ranks, changed(values)); });
}

char *prism_ranks_broadcast(prism_ranks *ranks, void *values) {
  return guarded([&] { prism::broadcast(*ranks, changed(values)); });
}

void prism_graph_free(prism_graph *graph) { delete graph; }
void prism_program_free(prism_program *program) { delete program; }
void prism_message_free(char *message) { free(message); }
