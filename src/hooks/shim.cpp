// TorchScript has no hooks: a module cannot be asked for a tensor inside it.
// But its graph can be rewritten. Freezing and inlining leave one flat list of
// operators; any value in it can be registered as a further output and read.

#include "backprop.h"
#include "shim.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/fixup_trace_scope_blocks.h>
#include <torch/csrc/jit/passes/freeze_module.h>
#include <torch/csrc/jit/passes/frozen_graph_optimizations.h>
#include <torch/csrc/jit/passes/frozen_ops_to_mkldnn.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/passes/lower_tuples.h>
#include <torch/csrc/jit/passes/normalize_ops.h>
#include <torch/csrc/jit/passes/peephole.h>
#include <torch/csrc/jit/passes/peephole_list_idioms.h>
#include <torch/csrc/jit/passes/remove_mutation.h>
#include <torch/csrc/jit/runtime/custom_operator.h>
#include <torch/csrc/jit/runtime/interpreter.h>
#include <torch/csrc/jit/runtime/operator.h>
#include <torch/csrc/jit/runtime/print_handler.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstring>
#include <functional>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <sstream>

using prism::is_tensor;
using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::IValue;
using torch::jit::Node;
using torch::jit::Stack;
using torch::jit::Value;

// The modules whose code the graph came from: when an operator fails, the
// interpreter looks up in them where that was.
using Sources = std::shared_ptr<const std::vector<torch::jit::Module>>;

struct prism_graph {
  Sources sources; // destroyed last
  std::shared_ptr<Graph> graph;
  bool on_cpu = true;
  // Everything the graph is fed beside the image batch, by input position:
  // the module itself where the graph still reads it, and default arguments.
  std::vector<IValue> fixed_inputs;
  size_t batch_input = 0;
};

struct prism_program {
  Sources sources; // destroyed last
  torch::jit::Code code;
  std::vector<IValue> fixed_inputs;
  size_t batch_input = 0;
  size_t count = 0;
  bool watches = false;      // the last value returned is a leaf of autograd
  bool writes_input = false; // an in-place operator would change the caller's batch
};

namespace {

// Numbers kept of each pixel of a guide of the regression.
constexpr int64_t GROUPS = 4;

char *message(const char *text) {
  return strdup(text && *text ? text : "libtorch gave no reason");
}

// libtorch's warnings are for those who write networks.
struct Silence : c10::WarningHandler {
  void process(const c10::Warning &) override {}
};

// The border that no exception crosses.
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

// Zeros of the size that a convolution would make: all that is asked of it
// where only sizes matter, and most of a network's work.
at::Tensor convolution_size(const at::Tensor &input, const at::Tensor &weight,
                            at::IntArrayRef stride, at::IntArrayRef padding,
                            at::IntArrayRef dilation, int64_t groups) {
  TORCH_CHECK(input.dim() == weight.dim(), "a convolution with weights ", weight.sizes(),
              " cannot take ", input.sizes());
  TORCH_CHECK(input.size(1) == weight.size(1) * groups, "a convolution expects ",
              weight.size(1) * groups, " channels, but gets ", input.size(1));
  for (at::IntArrayRef values : {stride, padding, dilation})
    TORCH_CHECK(values.size() == 1 || static_cast<int64_t>(values.size()) == input.dim() - 2,
                "a convolution over ", input.dim() - 2, " dimensions has the arguments ", values);
  auto at = [](at::IntArrayRef values, int64_t i) { return values[values.size() == 1 ? 0 : i]; };
  std::vector<int64_t> size{input.size(0), weight.size(0)};
  for (int64_t i = 0; i + 2 < input.dim(); i++) {
    TORCH_CHECK(at(stride, i) > 0, "a convolution has the stride ", at(stride, i));
    const int64_t room = input.size(i + 2) + 2 * at(padding, i) -
                         at(dilation, i) * (weight.size(i + 2) - 1) - 1;
    TORCH_CHECK(room >= 0, "a convolution with weights ", weight.sizes(),
                " is larger than its input ", input.sizes());
    size.push_back(room / at(stride, i) + 1);
  }
  return at::zeros(size, input.options());
}

// Adds the positive part of `count` numbers, which a compiler can do several at a time.
inline void add_positive(float *sums, const float *values, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    sums[i] += values[i] < 0 ? 0 : values[i]; // NaN stays
}

// The means of the positive parts of runs of channels, [N,C,h,w] -> [N,g,h,w] with
// g = min(groups, C): channel c belongs to run floor(c g / C).
at::Tensor group_means(const at::Tensor &input, int64_t groups) {
  const int64_t images = input.size(0), channels = input.size(1);
  groups = std::min(groups, channels);
  const auto begin_of = [&](int64_t group) { return (group * channels + groups - 1) / groups; };
  if (input.is_cpu() && input.scalar_type() == at::kFloat && input.is_contiguous()) {
    // One pass over the numbers, where relu and mean would take three.
    constexpr int64_t TILE = 1024; // sums that stay in the nearest cache
    const int64_t pixels = input.size(2) * input.size(3);
    const int64_t tiles = (pixels + TILE - 1) / TILE;
    auto means = at::zeros({images, groups, input.size(2), input.size(3)}, input.options());
    const float *in = input.const_data_ptr<float>();
    float *out = means.mutable_data_ptr<float>();
    at::parallel_for(0, images * groups * tiles, 4, [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; task++) {
        const int64_t tile = task % tiles, plane = task / tiles;
        const int64_t image = plane / groups, group = plane % groups;
        const int64_t at = tile * TILE, count = std::min(TILE, pixels - at);
        float *sums = out + plane * pixels + at;
        const int64_t begin = begin_of(group), end = begin_of(group + 1);
        for (int64_t channel = begin; channel < end; channel++)
          add_positive(sums, in + (image * channels + channel) * pixels + at, count);
        for (int64_t i = 0; i < count; i++)
          sums[i] /= static_cast<float>(end - begin);
      }
    });
    return means;
  }
  std::vector<at::Tensor> means;
  const at::Tensor positive = input.relu();
  for (int64_t group = 0; group < groups; group++) {
    const int64_t begin = begin_of(group);
    const at::Tensor run = positive.narrow(1, begin, begin_of(group + 1) - begin);
    means.push_back(run.mean(1, true, at::kFloat));
  }
  return at::cat(means, 1);
}

// A fully connected layer by oneDNN. The library that libtorch gives it to otherwise first
// copies the weights, on one core, where few images are forwarded together.
at::Tensor linear(const at::Tensor &input, const at::Tensor &weight,
                  const std::optional<at::Tensor> &bias) {
  using Linear = at::Tensor(const at::Tensor &, const at::Tensor &,
                            const std::optional<at::Tensor> &, std::string_view,
                            c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static const auto onednn =
      c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  const bool dense = input.is_cpu() && input.layout() == at::kStrided && weight.is_contiguous();
  const bool single = input.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat;
  if (!onednn || !dense || !single || weight.dim() != 2 || input.dim() < 2 || input.numel() == 0)
    return at::linear(input, weight, bias);
  TORCH_CHECK(input.size(-1) == weight.size(1), "a layer with weights ", weight.sizes(),
              " cannot take ", input.sizes());
  return onednn->typed<Linear>().call(input, weight, bias, "none",
                                     c10::List<std::optional<at::Scalar>>(), "");
}

TORCH_LIBRARY(prism, library) {
  library.def("linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor", &linear);
  library.def("adaptive_avg_pool2d(Tensor input, int[2] size) -> Tensor",
              &at::adaptive_avg_pool2d);
  library.def("avg_pool2d(Tensor input, int[2] kernel, int[2] stride, int[2] padding, "
              "bool ceil, bool count_padding, int? divisor) -> Tensor",
              &at::avg_pool2d);
  library.def("max_pool2d(Tensor input, int[2] kernel, int[2] stride, int[2] padding, "
              "int[2] dilation, bool ceil) -> Tensor",
              &at::max_pool2d);
  library.def("group_means(Tensor input, int groups) -> Tensor", &group_means);
}

// Layers are made with random values, which those of a file soon take the place of.
// DeferredInit is the dispatch key that libtorch reserves for doing without: while it
// is on, tensors that are made to be filled have their size but no memory of their own,
// and whoever asks for that is refused.
TORCH_LIBRARY_IMPL(_, DeferredInit, library) {
  library.fallback(torch::CppFunction::makeFallthrough());
}

at::Tensor empty_without_memory(at::IntArrayRef size, std::optional<at::ScalarType> kind,
                                std::optional<at::Layout> layout,
                                std::optional<at::Device> device, std::optional<bool> pinned,
                                std::optional<at::MemoryFormat>) {
  c10::impl::ExcludeDispatchKeyGuard off(c10::DispatchKey::DeferredInit);
  const at::Tensor nothing = at::zeros({}, kind, layout, device, pinned);
  nothing.storage().unsafeGetStorageImpl()->set_throw_on_mutable_data_ptr();
  return nothing.expand(size);
}

TORCH_LIBRARY_IMPL(aten, DeferredInit, library) {
  library.impl("empty.memory_format", &empty_without_memory);
  library.impl("zero_", [](at::Tensor &self) -> at::Tensor & { return self; });
  library.impl("fill_.Scalar",
               [](at::Tensor &self, const at::Scalar &) -> at::Tensor & { return self; });
  const auto unfilled = [](at::Tensor &self, double, double,
                           std::optional<at::Generator>) -> at::Tensor & { return self; };
  library.impl("uniform_", unfilled);
  library.impl("normal_", unfilled);
}

// Where only the operators that are called matter, or the sizes of what they make, Fake is
// on: the dispatch key that libtorch reserves for doing without (below that of a trace). What
// costs most of a network's time makes zeros of the right size then, and reads no weights.
TORCH_LIBRARY_IMPL(_, Fake, library) {
  library.fallback(torch::CppFunction::makeFallthrough());
}

void set_arithmetic(bool on) {
  c10::impl::tls_set_dispatch_key_included(c10::DispatchKey::Fake, !on);
}

using MaybeTensor = const std::optional<at::Tensor> &;

at::Tensor convolution_by_size(const at::Tensor &input, const at::Tensor &weight, MaybeTensor bias,
                               at::IntArrayRef stride, at::IntArrayRef padding,
                               at::IntArrayRef dilation, bool transposed,
                               at::IntArrayRef output_padding, int64_t groups, bool benchmark,
                               bool deterministic, bool cudnn, bool tf32) {
  if (!transposed)
    return convolution_size(input, weight, stride, padding, dilation, groups);
  c10::impl::ExcludeDispatchKeyGuard off(c10::DispatchKey::Fake);
  return at::_convolution(input, weight, bias, stride, padding, dilation, transposed,
                          output_padding, groups, benchmark, deterministic, cudnn, tf32);
}

at::Tensor product_size(const at::Tensor &left, const at::Tensor &right) {
  TORCH_CHECK(left.dim() == 2 && right.dim() == 2 && left.size(1) == right.size(0),
              "a layer with weights ", right.sizes(), " cannot take ", left.sizes());
  return at::zeros({left.size(0), right.size(1)}, left.options());
}

at::Tensor normalised_size(const at::Tensor &input, MaybeTensor mean) {
  const bool fits = !mean || !mean->defined() || mean->numel() == input.size(1);
  TORCH_CHECK(fits, "a normalisation of ", mean->numel(), " channels cannot take ", input.sizes());
  return at::zeros_like(input);
}

TORCH_LIBRARY_IMPL(aten, Fake, library) {
  library.impl("_convolution", &convolution_by_size);
  library.impl("mm", &product_size);
  library.impl("addmm", [](const at::Tensor &, const at::Tensor &left, const at::Tensor &right,
                           const at::Scalar &, const at::Scalar &) {
    return product_size(left, right);
  });
  library.impl("native_batch_norm", [](const at::Tensor &input, MaybeTensor, MaybeTensor,
                                       MaybeTensor mean, MaybeTensor, bool, double, double) {
    const at::Tensor none = at::empty({0}, input.options());
    return std::make_tuple(normalised_size(input, mean), none, none);
  });
  library.impl("cudnn_batch_norm", [](const at::Tensor &input, const at::Tensor &, MaybeTensor,
                                      MaybeTensor mean, MaybeTensor, bool, double, double) {
    const at::Tensor none = at::empty({0}, input.options());
    return std::make_tuple(normalised_size(input, mean), none, none, none);
  });
  const auto same_size = [](const at::Tensor &input) { return at::zeros_like(input); };
  for (const char *name : {"relu", "hardswish"})
    library.impl(name, same_size);
  library.impl("hardtanh", [](const at::Tensor &input, const at::Scalar &, const at::Scalar &) {
    return at::zeros_like(input);
  });
  library.impl("_adaptive_avg_pool2d", [](const at::Tensor &input, at::IntArrayRef size) {
    TORCH_CHECK(input.dim() > 2 && size.size() == 2, "a pooling to ", size, " cannot take ",
                input.sizes());
    auto sizes = input.sizes().vec();
    std::copy(size.begin(), size.end(), sizes.end() - 2);
    return at::zeros(sizes, input.options());
  });
}

// The sizes of a value, or [-1] where it holds no tensor: what a branch that was
// not taken leaves (prim::Uninitialized).
const torch::jit::RegisterOperators sizes_or_none({torch::jit::Operator(
    "prism::sizes(Any value) -> int[]",
    [](Stack &stack) {
      const IValue value = torch::jit::pop(stack);
      const bool tensor = value.isTensor() && value.toTensor().defined();
      torch::jit::push(stack, tensor ? value.toTensor().sizes().vec() : std::vector<int64_t>{-1});
    },
    c10::AliasAnalysisKind::FROM_SCHEMA)});

c10::Device device_of(int index) {
  return index < 0 ? c10::Device(c10::kCPU)
                   : c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

std::vector<Value *> numbered_values(Graph &graph) {
  std::vector<Value *> values(graph.inputs().begin(), graph.inputs().end());
  for (Node *node : graph.nodes())
    values.insert(values.end(), node->outputs().begin(), node->outputs().end());
  return values;
}

void simplify(std::shared_ptr<Graph> &graph) {
  torch::jit::Inline(*graph);
  torch::jit::LowerSimpleTuples(graph);
  torch::jit::ConstantPropagation(graph);
  torch::jit::RemoveListMutation(graph);
  torch::jit::PeepholeOptimizeListIdioms(graph);
  torch::jit::PeepholeOptimize(graph);
  torch::jit::EliminateDeadCode(graph);
}

void all_nodes(Block *block, std::vector<Node *> &nodes) {
  for (Node *node : block->nodes()) {
    nodes.push_back(node);
    for (Block *inner : node->blocks())
      all_nodes(inner, nodes);
  }
}

// Whether the operator is one like relu_, which gives back its first input, changed.
bool is_in_place(const Node *node) {
  const auto *schema = node->maybeSchema();
  if (!schema || schema->returns().size() != 1 || node->inputs().empty())
    return false;
  const auto *returned = schema->returns()[0].alias_info();
  const auto *first = schema->arguments()[0].alias_info();
  return returned && returned->isWrite() && first && first->isWrite() &&
         is_tensor(node->output(0)) && node->kind().is_aten();
}

// relu for relu_, before it in the graph; nullptr where there is no such operator.
Node *out_of_place(Graph &graph, Node *node) {
  std::string name = node->kind().toUnqualString();
  if (name.back() != '_' || name == "set_" || name == "resize_")
    return nullptr;
  name.pop_back();
  Node *made = graph.create(c10::Symbol::aten(name), node->inputs(), 1);
  made->insertBefore(node);
  if (!made->maybeSchema()) {
    made->destroy();
    return nullptr;
  }
  made->output()->setType(node->output()->type());
  made->copyMetadata(node);
  return made;
}

// One tensor in a graph: the operators that write to it, and its values.
struct Storage {
  std::vector<Node *> writers; // in execution order
  std::vector<Value *> values;
};

bool puts_into_container(const Node *node) {
  const auto kind = node->kind();
  if (kind == c10::aten::append || kind == c10::aten::_set_item || kind == c10::aten::insert)
    return true;
  const auto outputs = node->outputs();
  return std::any_of(outputs.begin(), outputs.end(), [](const Value *output) {
    return !is_tensor(output) && output->type()->containedTypes().size() > 0;
  });
}

// Whether the writers can become operators that make new tensors: all are plain
// in-place operators of the top level, and no view of the tensor is made and it
// is put into no container before the last of them.
bool can_be_split(Graph &graph, const Storage &storage) {
  for (Node *writer : storage.writers)
    if (writer->owningBlock() != graph.block() || !is_in_place(writer))
      return false;
  Node *last = storage.writers.back();
  const auto is_later = [&](const Node *node) {
    return node->owningBlock() == graph.block() && node->isAfter(last);
  };
  const auto writes = [&](const Node *node) {
    return std::find(storage.writers.begin(), storage.writers.end(), node) !=
           storage.writers.end();
  };
  // What is put into a container may alias the graph's inputs, says the alias
  // analysis; an operator's own result does not.
  const Value *first = storage.writers.front()->input(0);
  const bool own = first->node()->maybeSchema() && !first->node()->schema().returns().empty() &&
                   !first->node()->schema().returns()[0].alias_info();
  size_t fresh = 0;
  for (Value *value : storage.values) {
    const Node *maker = value->node();
    const bool is_input = maker->kind() == c10::prim::Param;
    if (is_input && maker->owningBlock() != graph.block())
      return false;
    if (!writes(maker) && !is_later(maker) && !(is_input && own))
      fresh++;
    for (const auto &use : value->uses())
      if (!writes(use.user) && puts_into_container(use.user) && !is_later(use.user) &&
          !(is_input && own))
        return false;
  }
  return fresh == 1;
}

// Gives in-place operators tensors of their own, so that every value is what its
// operator made. Unlike libtorch's RemoveTensorMutation it moves no operator: the
// order of execution has a meaning here. Writes through views, in branches or
// loops, or into containers are left.
void without_mutation(std::shared_ptr<Graph> &graph) {
  torch::jit::AliasDb aliases(graph);
  std::vector<Node *> nodes;
  all_nodes(graph->block(), nodes);
  std::vector<Value *> tensors;
  for (Value *input : graph->inputs())
    if (is_tensor(input))
      tensors.push_back(input);
  for (Node *node : nodes)
    for (Value *value : node->outputs())
      if (is_tensor(value))
        tensors.push_back(value);
  std::vector<Node *> writers;
  for (Node *node : nodes)
    if (is_in_place(node))
      writers.push_back(node);

  std::vector<Storage> storages;
  std::unordered_set<const Node *> seen;
  for (Node *writer : writers) {
    if (seen.count(writer))
      continue;
    Storage storage;
    for (Value *value : tensors)
      if (aliases.mayAlias(value, writer->input(0)))
        storage.values.push_back(value);
    for (Node *node : nodes)
      if (aliases.writesToAlias(node, {storage.values.begin(), storage.values.end()})) {
        storage.writers.push_back(node);
        seen.insert(node);
      }
    if (!storage.writers.empty() && can_be_split(*graph, storage))
      storages.push_back(std::move(storage));
  }
  for (const Storage &storage : storages) {
    // The tensor's names so far: it has no views before the last writer.
    std::vector<Value *> names{storage.writers.front()->input(0)};
    for (Node *writer : storage.writers) {
      Node *made = out_of_place(*graph, writer);
      if (!made)
        break; // the later ones then write to what this one returns
      for (Value *value : names)
        for (const auto &use : std::vector<torch::jit::Use>(value->uses()))
          if (use.user != writer && use.user->isAfter(writer))
            use.user->replaceInput(use.offset, made->output());
      names.push_back(made->output());
      writer->output(0)->replaceAllUsesWith(made->output());
      writer->destroy();
    }
  }
}

// ---------------------------------------------------------------- description

void append_string(std::ostream &json, const std::string &text) {
  json << '"';
  for (unsigned char c : text) {
    if (c == '"' || c == '\\')
      json << '\\' << c;
    else if (c < 0x20)
      json << ' ';
    else
      json << c;
  }
  json << '"';
}

template <typename T, typename F>
void append_list(std::ostream &json, const T &items, F &&append) {
  json << '[';
  bool first = true;
  for (const auto &item : items) {
    if (!first)
      json << ',';
    first = false;
    append(item);
  }
  json << ']';
}

// A constant input's integers: a number, a flag, or a list of numbers.
std::optional<std::vector<int64_t>> constant_integers(const Value *value) {
  auto one = [](const IValue &constant) -> std::optional<int64_t> {
    if (constant.isInt())
      return constant.toInt();
    if (constant.isBool())
      return constant.toBool();
    return std::nullopt;
  };
  if (auto constant = torch::jit::toIValue(value)) {
    if (constant->isIntList())
      return constant->toIntVector();
    if (auto number = one(*constant))
      return std::vector<int64_t>{*number};
    return std::nullopt;
  }
  if (value->node()->kind() != c10::prim::ListConstruct)
    return std::nullopt;
  std::vector<int64_t> numbers;
  for (const Value *item : value->node()->inputs()) {
    auto constant = torch::jit::toIValue(item);
    auto number = constant ? one(*constant) : std::nullopt;
    if (!number)
      return std::nullopt;
    numbers.push_back(*number);
  }
  return numbers;
}

// The path of the module whose code made this node, such as features.0.
std::string module_path(const Node *node) {
  std::string path;
  auto append = [&path](const std::string &name) {
    if (!path.empty())
      path += '.';
    path += name;
  };
  if (auto stack = node->callstack()) {
    for (const auto &entry : (*stack)->vec()) {
      const auto &instance = std::get<torch::jit::kModuleInstanceInfo>(entry);
      if (!instance)
        continue;
      const std::string name = instance->instance_name();
      // SELF: another method of the same module.
      if (!name.empty() && name != "SELF" && name != "INSTANCE_NAME_UNKNOWN")
        append(name);
    }
  }
  return path;
}

// The values of the top-level block that a node reads, nested blocks included.
void top_level_inputs(const Node *node, const std::unordered_map<const Value *, size_t> &numbers,
                      std::vector<size_t> &found) {
  for (const Value *value : node->inputs()) {
    auto number = numbers.find(value);
    if (number != numbers.end())
      found.push_back(number->second);
  }
  for (const Block *block : node->blocks()) {
    for (const Node *inner : block->nodes())
      top_level_inputs(inner, numbers, found);
    top_level_inputs(block->return_node(), numbers, found);
  }
}

// The tensors that make up what the graph returns, in order.
void returned_tensors(const Value *value, std::vector<const Value *> &leaves) {
  const auto kind = value->node()->kind();
  if (kind == c10::prim::TupleConstruct || kind == c10::prim::ListConstruct) {
    for (const Value *item : value->node()->inputs())
      returned_tensors(item, leaves);
  } else if (kind == c10::prim::DictConstruct) { // key, value, key, value, ...
    for (size_t i = 1; i < value->node()->inputs().size(); i += 2)
      returned_tensors(value->node()->input(i), leaves);
    for (const auto &use : value->uses()) // d["scores"] = ...
      if (use.user->kind() == c10::aten::_set_item && use.offset == 0)
        returned_tensors(use.user->input(2), leaves);
  } else if (value->type()->isSubtypeOf(*c10::TensorType::get())) {
    leaves.push_back(value);
  }
}

void fill_stack(Stack &stack, const std::vector<IValue> &fixed, size_t batch_input,
                const at::Tensor &batch) {
  stack.insert(stack.end(), fixed.begin(), fixed.end());
  stack.at(batch_input) = batch;
}

// Runs a graph without its arithmetic on zeros.
Stack run_for_sizes(const std::shared_ptr<Graph> &graph, const prism_graph &source,
                    at::IntArrayRef shape, c10::Device device) {
  struct WithoutArithmetic {
    WithoutArithmetic() { set_arithmetic(false); }
    ~WithoutArithmetic() { set_arithmetic(true); }
  } without_arithmetic;
  torch::NoGradGuard no_grad;
  Stack stack;
  fill_stack(stack, source.fixed_inputs, source.batch_input,
             torch::zeros(shape, torch::TensorOptions().device(device)));
  torch::jit::InterpreterState(torch::jit::Code(graph, "prism_sizes")).run(stack);
  return stack;
}

// Leaves of a graph's weights nothing but their sizes. Single numbers may be asked for.
void without_memory(Graph &graph) {
  std::vector<Node *> nodes;
  all_nodes(graph.block(), nodes);
  for (Node *node : nodes) {
    // What a network puts aside would be found there by its next run.
    TORCH_CHECK(node->kind() != c10::prim::SetAttr && node->kind() != c10::prim::GetAttr);
    if (node->kind() == c10::prim::Constant && node->hasAttribute(c10::attr::value) &&
        node->kindOf(c10::attr::value) == torch::jit::AttributeKind::t &&
        node->t(c10::attr::value).dim() > 0)
      node->t_(c10::attr::value, node->t(c10::attr::value).to(c10::kMeta));
  }
}

// The sizes of every tensor for one input shape.
std::vector<std::optional<std::vector<int64_t>>>
sizes_of_values(const prism_graph &source, at::IntArrayRef shape, c10::Device device) {
  auto graph = source.graph->copy();
  auto values = numbered_values(*graph);
  for (size_t i = graph->outputs().size(); i-- > 0;)
    graph->eraseOutput(i);
  std::vector<size_t> read;
  std::vector<Value *> sizes;
  for (size_t i = 0; i < values.size(); i++) {
    Node *maker = values[i]->node();
    if (!is_tensor(values[i]) || maker->kind() == c10::prim::Constant)
      continue;
    Node *next = maker->kind() == c10::prim::Param ? *graph->nodes().begin() : maker->next();
    torch::jit::WithInsertPoint after(next);
    read.push_back(i);
    sizes.push_back(graph->insert(c10::Symbol::fromQualString("prism::sizes"), {values[i]}));
  }
  for (Value *size : sizes)
    graph->registerOutput(size);
  torch::jit::EliminateDeadCode(graph);

  Stack stack;
  try {
    auto of_sizes = graph->copy();
    without_memory(*of_sizes);
    stack = run_for_sizes(of_sizes, source, shape, c10::kMeta);
  } catch (const std::exception &) { // not every operator can tell sizes alone
    stack = run_for_sizes(graph, source, shape, device);
  }
  std::vector<std::optional<std::vector<int64_t>>> result(values.size());
  for (size_t i = 0; i < read.size(); i++)
    if (auto size = stack.at(i).toIntVector(); size != std::vector<int64_t>{-1})
      result[read[i]] = std::move(size);
  return result;
}

std::string describe(const prism_graph &source, at::IntArrayRef shape, c10::Device device) {
  Graph &graph = *source.graph;
  auto values = numbered_values(graph);
  auto sizes = sizes_of_values(source, shape, device);
  std::unordered_map<const Value *, size_t> numbers;
  for (size_t i = 0; i < values.size(); i++)
    numbers[values[i]] = i;

  std::vector<const Value *> leaves;
  for (const Value *output : graph.outputs())
    returned_tensors(output, leaves);

  std::ostringstream json;
  json << "{\"input\":" << source.batch_input << ",\"outputs\":";
  append_list(json, leaves, [&](const Value *leaf) { json << numbers.at(leaf); });
  json << ",\"sizes\":";
  append_list(json, sizes, [&](const std::optional<std::vector<int64_t>> &size) {
    if (size)
      append_list(json, *size, [&](int64_t n) { json << n; });
    else
      json << "null";
  });
  json << ",\"nodes\":";
  std::vector<const Node *> operators;
  for (const Node *node : graph.nodes())
    if (node->kind() != c10::prim::Constant)
      operators.push_back(node);
  append_list(json, operators, [&](const Node *node) {
    json << "{\"operator\":";
    append_string(json, node->kind().toQualString());
    json << ",\"path\":";
    append_string(json, module_path(node));
    std::vector<size_t> inputs;
    top_level_inputs(node, numbers, inputs);
    json << ",\"inputs\":";
    append_list(json, inputs, [&](size_t n) { json << n; });
    json << ",\"outputs\":";
    append_list(json, node->outputs(), [&](const Value *v) { json << numbers.at(v); });
    std::vector<Node *> within;
    for (const Block *block : node->blocks())
      all_nodes(const_cast<Block *>(block), within);
    json << ",\"within\":";
    append_list(json, within, [&](const Node *inner) {
      append_string(json, inner->kind().toQualString());
    });
    // Addresses of constant tensors: they tell which parameter a traced node reads.
    json << ",\"parameters\":";
    std::vector<uintptr_t> parameters;
    for (const Value *value : node->inputs()) {
      auto constant = torch::jit::toIValue(value);
      if (constant && constant->isTensor() && constant->toTensor().defined() &&
          constant->toTensor().dim() > 0)
        parameters.push_back(reinterpret_cast<uintptr_t>(constant->toTensor().data_ptr()));
    }
    append_list(json, parameters, [&](uintptr_t address) { json << address; });
    json << ",\"weight\":";
    auto weight = node->inputs().size() > 1 ? torch::jit::toIValue(node->input(1)) : std::nullopt;
    if (weight && weight->isTensor() && weight->toTensor().defined())
      append_list(json, weight->toTensor().sizes(), [&](int64_t n) { json << n; });
    else
      json << "null";
    json << ",\"arguments\":{";
    if (const auto *schema = node->maybeSchema()) {
      bool first = true;
      const auto &arguments = schema->arguments();
      for (size_t i = 0; i < arguments.size() && i < node->inputs().size(); i++) {
        auto numbers_of = constant_integers(node->input(i));
        if (!numbers_of)
          continue;
        if (!first)
          json << ',';
        first = false;
        append_string(json, arguments[i].name());
        json << ':';
        append_list(json, *numbers_of, [&](int64_t n) { json << n; });
      }
    }
    json << "}}";
  });
  json << '}';
  return json.str();
}

bool reads(const Node *node, const Value *value) {
  const auto inputs = node->inputs();
  if (std::find(inputs.begin(), inputs.end(), value) != inputs.end())
    return true;
  for (const Block *block : node->blocks())
    for (const Node *inner : block->nodes())
      if (reads(inner, value))
        return true;
  return false;
}

bool holds_tensor(const c10::TypePtr &type) {
  const auto inner = type->containedTypes();
  return type->isSubtypeOf(*c10::TensorType::get()) ||
         std::any_of(inner.begin(), inner.end(), holds_tensor);
}

// Where a value is what the network's author means by it: before the first
// operator that computes with it, changing nothing and making no view of it
// (in-place operators before that one, also through a view, are part of it),
// else right where it is made.
Node *reading_point(Graph &graph, Value *value, const torch::jit::AliasDb &aliases) {
  Node *maker = value->node();
  Node *next = maker->kind() == c10::prim::Param ? *graph.nodes().begin() : maker->next();
  for (Node *node = next; node != graph.return_node(); node = node->next()) {
    if (!reads(node, value) || aliases.writesToAlias(node, {value}))
      continue;
    const auto outputs = node->outputs();
    const auto computed = [&](Value *output) {
      return holds_tensor(output->type()) && !aliases.mayAlias(output, value);
    };
    if (std::any_of(outputs.begin(), outputs.end(), computed))
      return node;
  }
  return next;
}

// A value that gradients are to begin at, and where.
struct Cut {
  std::vector<Value *> value; // and the same tensor under the names that in-place operators gave it
  Node *point;                // what reads the value from here on reads the leaf
  bool written;
};

// After the last in-place operator that is part of the value.
Cut cut(Graph &graph, Value *value, const torch::jit::AliasDb &aliases) {
  Node *maker = value->node();
  Node *point = maker->kind() == c10::prim::Param ? *graph.nodes().begin() : maker->next();
  Cut result{{value}, point, aliases.hasWriters(value)};
  const Node *end = reading_point(graph, value, aliases);
  for (Node *node = point; node != end; node = node->next()) {
    if (!aliases.writesToAlias(node, {value}))
      continue;
    result.point = node->next();
    auto &same = result.value;
    if (is_in_place(node) && std::find(same.begin(), same.end(), node->input(0)) != same.end())
      same.push_back(node->output(0));
  }
  return result;
}

// Hands everything behind the cut a leaf of autograd in place of the value:
// gradients begin there, and nothing before it is recorded.
Value *watch(Graph &graph, const Cut &cut) {
  torch::jit::WithInsertPoint here(cut.point);
  Value *leaf = graph.insert(c10::Symbol::fromQualString("prism::leaf"), {cut.value[0]});
  // autograd forbids in-place operators on a leaf
  Value *read = cut.written ? graph.insert(c10::aten::clone, {leaf}) : leaf;
  for (Value *value : cut.value)
    for (const auto &use : std::vector<torch::jit::Use>(value->uses()))
      if (use.user->isAfter(read->node()))
        use.user->replaceInput(use.offset, read);
  return leaf;
}

// --------------------------------------------------------------- optimisation

// An operator that asks for float32 by name (mean(dtype), to) asks for bfloat16.
void ask_for_bfloat16(Graph &graph, Node *node) {
  const auto *schema = node->maybeSchema();
  if (!schema)
    return;
  for (size_t i = 0; i < node->inputs().size() && i < schema->arguments().size(); i++) {
    if (schema->arguments()[i].name() != "dtype")
      continue;
    const auto kind = torch::jit::toIValue(node->input(i));
    if (!kind || !kind->isInt() || kind->toInt() != static_cast<int64_t>(at::kFloat))
      continue;
    torch::jit::WithInsertPoint here(node);
    node->replaceInput(i, graph.insertConstant(at::kBFloat16));
  }
}

// bfloat16 weights and images, whatever the outputs are brought to later.
void to_bfloat16(Graph &graph, size_t batch_input) {
  std::vector<Node *> nodes;
  all_nodes(graph.block(), nodes);
  for (Node *node : nodes) {
    ask_for_bfloat16(graph, node);
    if (node->kind() != c10::prim::Constant)
      continue;
    auto constant = torch::jit::toIValue(node->output());
    if (!constant->isTensor() || constant->toTensor().scalar_type() != at::kFloat)
      continue;
    torch::jit::WithInsertPoint here(node);
    Value *rounded = graph.insertConstant(constant->toTensor().to(at::kBFloat16));
    node->output()->replaceAllUsesWith(rounded);
  }
  Value *images = graph.inputs()[batch_input];
  torch::jit::WithInsertPoint here(*graph.nodes().begin());
  Value *rounded = graph.insert(c10::aten::to, {images, at::kBFloat16});
  images->replaceAllUsesAfterNodeWith(rounded->node(), rounded);
}

// Whether every number of a constant argument is `wanted`.
bool all_are(const Value *value, int64_t wanted) {
  const auto numbers = constant_integers(value);
  return numbers && std::all_of(numbers->begin(), numbers->end(),
                                [&](int64_t number) { return number == wanted; });
}

// Whether oneDNN computes a pooling as libtorch does. libtorch's pass gives it all of them:
// most others it refuses when it runs, but it divides by another area where windows reach
// over the padded edge.
bool pools_as_onednn(const Node *node) {
  if (node->kind() == c10::aten::adaptive_avg_pool2d) // else it depends on the input's size
    return all_are(node->input(1), 1);
  if (node->kind() == c10::aten::max_pool2d)
    return all_are(node->namedInput("dilation"), 1);
  const bool divides = node->namedInput("divisor_override")->mustBeNone();
  return divides && (all_are(node->namedInput("ceil_mode"), 0) ||
                     all_are(node->namedInput("count_include_pad"), 0));
}

// Lets our operator of a name make what a node makes, from the same arguments.
void replace(Graph &graph, Node *node, const std::string &name) {
  torch::jit::WithInsertPoint here(node);
  const std::vector<torch::jit::NamedValue> inputs(node->inputs().begin(), node->inputs().end());
  Value *made = graph.insert(c10::Symbol::fromQualString("prism::" + name), inputs);
  node->output()->replaceAllUsesWith(made);
}

// Hides the other poolings from the pass, behind a name that it does not know.
void keep_from_onednn(Graph &graph) {
  std::vector<Node *> nodes;
  all_nodes(graph.block(), nodes);
  for (Node *node : nodes) {
    const auto kind = node->kind();
    const bool pools = kind == c10::aten::adaptive_avg_pool2d || kind == c10::aten::avg_pool2d ||
                       kind == c10::aten::max_pool2d;
    if (pools && node->outputs().size() == 1 && !pools_as_onednn(node))
      replace(graph, node, kind.toUnqualString());
  }
}

void linear_by_onednn(Graph &graph) {
  std::vector<Node *> nodes;
  all_nodes(graph.block(), nodes);
  for (Node *node : nodes)
    if (node->matches("aten::linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor"))
      replace(graph, node, "linear");
}

// Batch-norms, sums and products folded into the convolutions before them (but
// where their result is read), and on the CPU oneDNN's layouts from one operator
// to the next. libtorch's passes do not take every graph (they throw at padding in
// words, say); such a graph runs as it is.
std::shared_ptr<Graph> optimised(const std::shared_ptr<Graph> &plain, size_t batch_input,
                                 bool on_cpu, bool bfloat16) {
  auto graph = plain->copy();
  try {
    torch::jit::RemoveTensorMutation(graph);
    torch::jit::OptimizeFrozenGraph(graph, true);
    if (on_cpu && !bfloat16) {
      keep_from_onednn(*graph);
      torch::jit::ConvertFrozenOpsToMKLDNN(graph);
    }
  } catch (const std::exception &) {
    graph = plain->copy();
  }
  if (on_cpu && !bfloat16)
    linear_by_onednn(*graph);
  if (bfloat16)
    to_bfloat16(*graph, batch_input);
  torch::jit::EliminateDeadCode(graph);
  return graph;
}

// ------------------------------------------------------------------- creation

// Refuses weights that are no numbers. The network would not show them: the relu that oneDNN
// computes with a convolution makes 0 of NaN.
void require_finite_weights(Graph &graph) {
  std::vector<Node *> nodes;
  all_nodes(graph.block(), nodes);
  for (const Node *node : nodes) {
    const std::string kind = node->kind().toUnqualString();
    if (kind.find("conv") == std::string::npos && kind != "batch_norm")
      continue;
    for (const Value *input : node->inputs()) {
      const auto constant = torch::jit::toIValue(input);
      if (!constant || !constant->isTensor())
        continue;
      const at::Tensor &weights = constant->toTensor();
      if (!weights.defined() || !weights.is_floating_point())
        continue;
      // Finite numbers can overflow in the sum, which is the quicker question.
      const bool finite =
          weights.sum().isfinite().item<bool>() || weights.isfinite().all().item<bool>();
      TORCH_CHECK(finite, "its weights are not finite (NaN or infinity): the training has "
                          "diverged, or the file is damaged");
    }
  }
}

// Lets go of the weights of a module whose code alone is still needed.
void forget_weights(torch::jit::Module &module) {
  for (torch::jit::Module part : module.modules()) {
    std::vector<std::string> names;
    for (const auto &attribute : part.named_attributes(/*recurse=*/false))
      if (attribute.value.isTensor())
        names.push_back(attribute.name);
    for (const std::string &name : names)
      part.setattr(name, at::empty({0}));
  }
}

// Which input takes the images, and what the others are fed.
void bind_inputs(prism_graph &result, const torch::jit::Module *module,
                 const c10::FunctionSchema *schema) {
  Graph &graph = *result.graph;
  std::optional<size_t> batch;
  for (size_t i = 0; i < graph.inputs().size(); i++) {
    const Value *input = graph.inputs()[i];
    result.fixed_inputs.emplace_back();
    if (i == 0 && module) {
      result.fixed_inputs.back() = module->_ivalue();
    } else if (!batch) {
      TORCH_CHECK(is_tensor(input), "its forward takes ", input->type()->repr_str(),
                  " where a batch of images [N,3,H,W] belongs");
      batch = i;
    } else {
      const auto *argument =
          schema && i < schema->arguments().size() ? &schema->arguments()[i] : nullptr;
      TORCH_CHECK(argument && argument->default_value(), "its forward takes more than one input (",
                  argument ? argument->name() : input->debugName(),
                  " has no default); prism gives it one batch of images [N,3,H,W]");
      const IValue &value = *argument->default_value();
      torch::jit::WithInsertPoint here(*graph.nodes().begin());
      if (auto constant = torch::jit::tryInsertConstant(graph, value))
        graph.inputs()[i]->replaceAllUsesWith(*constant);
      result.fixed_inputs.back() = value;
    }
  }
  TORCH_CHECK(batch, "its forward takes no input; prism gives it one batch of images [N,3,H,W]");
  result.batch_input = *batch;
}

// Code that was traced with a batch of one and asked for its size writes
// view(x, [1, -1]); flatten keeps whatever batch it is given.
void free_batch_size(Graph &graph) {
  for (Node *node : graph.nodes()) {
    if (node->kind() != c10::aten::view && node->kind() != c10::aten::reshape)
      continue;
    auto sizes = constant_integers(node->input(1));
    if (!sizes || *sizes != std::vector<int64_t>{1, -1})
      continue;
    torch::jit::WithInsertPoint here(node);
    Value *flat = graph.insert(c10::aten::flatten, {node->input(0), 1, -1});
    flat->node()->copyMetadata(node);
    node->output()->replaceAllUsesWith(flat);
  }
  torch::jit::EliminateDeadCode(graph.block());
}

// A TorchScript file is a program, and runs from its loading on (__setstate__). These are the
// operators by which it could read and write files, or write among what we print.
constexpr const char *OUTSIDE[] = {"aten::save", "aten::from_file", "aten::_print"};

void shut_off_the_outside() {
  static const bool done = [] {
    for (const char *name : OUTSIDE) {
      // A copy: taking one away changes the list.
      const auto operators = torch::jit::getAllOperatorsFor(c10::Symbol::fromQualString(name));
      for (const auto &one : std::vector(operators))
        torch::jit::deregisterOperator(one->schema());
    }
    torch::jit::setPrintHandler([](const std::string &) {});
    return true;
  }();
  (void)done;
}

torch::jit::Module load(const char *path, at::Device device) {
  shut_off_the_outside();
  try {
    return torch::jit::load(path, device);
  } catch (const std::exception &error) {
    const std::string reason = error.what();
    for (const char *name : OUTSIDE)
      TORCH_CHECK(reason.find(std::string("Unknown builtin op: ") + name + ".") == std::string::npos,
                  "it uses ", name,
                  ", which reads or writes outside the network; prism runs no such network");
    throw;
  }
}

} // namespace

char *prism_graph_load(const char *path, int device, prism_graph **out) {
  return guarded([&] {
    auto module = load(path, device_of(device));
    TORCH_CHECK(module.find_method("forward"), "it has no forward method");
    module.eval();
    {
      torch::NoGradGuard no_grad;
      // Half and double precision: the images are float32.
      auto to_float = [](at::Tensor tensor) {
        if (tensor.is_floating_point() && tensor.scalar_type() != at::kFloat)
          tensor.set_data(tensor.to(at::kFloat));
      };
      for (const auto &parameter : module.parameters())
        to_float(parameter);
      for (const auto &buffer : module.buffers())
        to_float(buffer);
    }
    // Freezing throws away the methods that it has inlined, to which the
    // operators still point; inlined before, they point to `module`'s, which
    // stay.
    torch::jit::Inline(*module.get_method("forward").graph());
    auto frozen = torch::jit::freeze_module(module);
    auto result = std::make_unique<prism_graph>();
    result->on_cpu = device < 0;
    result->sources = std::make_shared<const std::vector<torch::jit::Module>>(
        std::vector<torch::jit::Module>{module, frozen});
    auto forward = frozen.get_method("forward");
    result->graph = forward.graph()->copy();
    const auto schema = module.get_method("forward").function().getSchema();
    bind_inputs(*result, &frozen, &schema);
    simplify(result->graph);
    without_mutation(result->graph);
    torch::jit::EliminateDeadCode(result->graph);
    forget_weights(module);
    *out = result.release();
  });
}

char *prism_trace_begin(const void *input) {
  char *failure = guarded([&] {
    auto state = std::make_shared<torch::jit::tracer::TracingState>();
    torch::jit::tracer::setTracingState(state);
    set_arithmetic(false);
    Value *value = state->graph->addInput();
    value->setType(c10::TensorType::get());
    state->setValue(*static_cast<const at::Tensor *>(input), value);
  });
  if (failure)
    prism_trace_abandon();
  return failure;
}

char *prism_trace_end(const void *output, prism_graph **out) {
  char *failure = guarded([&] {
    auto state = torch::jit::tracer::getTracingState();
    TORCH_CHECK(state, "no trace was begun");
    state->graph->registerOutput(state->getOutput(*static_cast<const at::Tensor *>(output), 0));
    auto result = std::make_unique<prism_graph>();
    result->graph = state->graph;
    result->on_cpu = static_cast<const at::Tensor *>(output)->is_cpu();
    *out = result.release();
  });
  prism_trace_abandon();
  return failure;
}

void prism_trace_abandon(void) {
  set_arithmetic(true);
  torch::jit::tracer::abandon();
}

char *prism_trace_finish(prism_graph *trace) {
  return guarded([&] {
    for (Node *node : trace->graph->nodes())
      if (node->kind() == c10::prim::Constant && is_tensor(node->output()))
        node->output()->inferTypeFrom(node->t(c10::attr::value)); // it had no values
    torch::jit::NormalizeOps(trace->graph);
    simplify(trace->graph);
    free_batch_size(*trace->graph);
    without_mutation(trace->graph);
    bind_inputs(*trace, nullptr, nullptr);
  });
}

char *prism_graph_describe(prism_graph *graph, const int64_t *shape, int device, char **json) {
  return guarded([&] {
    *json = strdup(describe(*graph, at::IntArrayRef(shape, 4), device_of(device)).c_str());
  });
}

char *prism_program_new(prism_graph *source, const prism_output *outputs, size_t count,
                        int64_t watched, const prism_rule *rules, size_t rule_count,
                        int32_t execution, prism_program **out) {
  return guarded([&] {
    auto graph = source->graph->copy();
    auto values = numbered_values(*graph);
    for (size_t i = graph->outputs().size(); i-- > 0;)
      graph->eraseOutput(i);
    torch::jit::AliasDb aliases(graph);
    std::vector<Node *> points;
    for (size_t i = 0; i < count; i++) {
      Value *value = values.at(static_cast<size_t>(outputs[i].value));
      points.push_back(reading_point(*graph, value, aliases));
    }
    std::optional<Cut> cut_at;
    if (watched >= 0)
      cut_at = cut(*graph, values.at(static_cast<size_t>(watched)), aliases);
    std::vector<Value *> read;
    for (size_t i = 0; i < count; i++) {
      Value *value = values.at(static_cast<size_t>(outputs[i].value));
      torch::jit::WithInsertPoint here(points[i]);
      if (outputs[i].reading == PRISM_CHANNEL_MEAN)
        read.push_back(graph->insert(c10::aten::mean, {value, std::vector<int64_t>{1}, true}));
      else if (outputs[i].reading == PRISM_GROUP_MEANS)
        read.push_back(
            graph->insert(c10::Symbol::fromQualString("prism::group_means"), {value, GROUPS}));
      else if (aliases.hasWriters(value)) // or a later in-place operator would change it
        read.push_back(graph->insert(c10::aten::clone, {value}));
      else
        read.push_back(value);
    }
    for (Value *value : read)
      graph->registerOutput(value);
    const bool writes_input = aliases.hasWriters(graph->inputs()[source->batch_input]);
    if (cut_at)
      graph->registerOutput(watch(*graph, *cut_at));
    for (size_t i = 0; i < rule_count; i++)
      prism::redirect(*graph, values, rules[i]);
    if (rule_count > 0) // of weights
      torch::jit::ConstantPropagation(graph);
    torch::jit::EliminateDeadCode(graph);
    require_finite_weights(*graph);
    if (execution != PRISM_PLAIN && watched < 0)
      graph = optimised(graph, source->batch_input, source->on_cpu, execution == PRISM_BF16);
    auto program = std::make_unique<prism_program>();
    program->sources = source->sources;
    program->code = torch::jit::Code(graph, "prism_forward");
    program->fixed_inputs = source->fixed_inputs;
    program->batch_input = source->batch_input;
    program->count = count + (watched >= 0);
    program->watches = watched >= 0;
    program->writes_input = writes_input;
    *out = program.release();
  });
}

char *prism_program_run(prism_program *program, const void *input, void **results) {
  return guarded([&] {
    torch::AutoGradMode gradients(program->watches);
    Stack stack;
    fill_stack(stack, program->fixed_inputs, program->batch_input,
               program->writes_input ? static_cast<const at::Tensor *>(input)->clone()
                                     : *static_cast<const at::Tensor *>(input));
    torch::jit::InterpreterState(program->code).run(stack);
    TORCH_CHECK(stack.size() == program->count, "the graph returned ", stack.size(), " values for ",
                program->count);
    std::vector<std::unique_ptr<at::Tensor>> tensors;
    for (const IValue &value : stack)
      tensors.push_back(std::make_unique<at::Tensor>(value.toTensor()));
    for (size_t i = 0; i < tensors.size(); i++)
      results[i] = tensors[i].release();
  });
}

char *prism_tensor_of_floats(float *values, const int64_t *shape, size_t dimensions,
                             void (*drop)(void *), void *owner, void **out) {
  return guarded([&] {
    auto tensor = std::make_unique<at::Tensor>();
    *tensor = at::from_blob(
        values, at::IntArrayRef(shape, dimensions), [drop, owner](void *) { drop(owner); },
        at::TensorOptions(at::kFloat));
    *out = tensor.release();
  });
}

void prism_defer_values(int on) {
  c10::impl::tls_set_dispatch_key_included(c10::DispatchKey::DeferredInit, on != 0);
}

#ifdef __GLIBC__
// The highest that glibc goes by itself; before 2.35 it takes no higher one either.
constexpr int OWN_LIMIT = 32 << 20;
constexpr int NO_LIMIT = 1 << 30;

// From `mapped` bytes on, what is freed goes back at once; of the rest `unused` stay.
static void set_thresholds(int mapped, int unused) {
  if (mallopt(M_MMAP_THRESHOLD, mapped) == 0)
    mallopt(M_MMAP_THRESHOLD, OWN_LIMIT);
  mallopt(M_TRIM_THRESHOLD, unused);
}
#endif

void prism_reuse_freed_memory(int on) {
#ifdef __GLIBC__
  malloc_trim(0);
  if (on)
    set_thresholds(NO_LIMIT, NO_LIMIT);
  else
    set_thresholds(OWN_LIMIT, 2 * OWN_LIMIT);
#else
  (void)on;
#endif
}

void prism_graph_free(prism_graph *graph) { delete graph; }
void prism_program_free(prism_program *program) { delete program; }
void prism_message_free(char *message) { free(message); }
