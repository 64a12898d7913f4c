// TorchScript files: loading, freezing, and which input takes the images.

#include "internal.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/freeze_module.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/passes/lower_tuples.h>
#include <torch/csrc/jit/passes/peephole.h>
#include <torch/csrc/jit/passes/peephole_list_idioms.h>
#include <torch/csrc/jit/passes/remove_mutation.h>
#include <torch/csrc/jit/runtime/operator.h>
#include <torch/csrc/jit/runtime/print_handler.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>

namespace prism {
namespace {

// A TorchScript file is a program, and loading runs a part of it (__setstate__). These
// operators read and write files, or write to our standard output.
constexpr const char *FORBIDDEN[] = {"aten::save", "aten::from_file", "aten::_print"};

void forbid_input_output() {
  static const bool done = [] {
    for (const char *name : FORBIDDEN) {
      // A copy, because deregistering changes the list.
      const auto operators = torch::jit::getAllOperatorsFor(c10::Symbol::fromQualString(name));
      for (const auto &one : std::vector(operators))
        torch::jit::deregisterOperator(one->schema());
    }
    torch::jit::setPrintHandler([](const std::string &) {});
    return true;
  }();
  (void)done;
}

// Layers with 8-bit weights end the process on a GPU: with libtorch 2.11 by a segmentation fault.
void require_a_cpu_for_8_bits(const std::string &path) {
  caffe2::serialize::PyTorchStreamReader archive(path);
  for (const std::string &record : archive.getAllRecords()) {
    if (record.size() < 3 || record.compare(record.size() - 3, 3, ".py") != 0)
      continue;
    const auto [data, size] = archive.getRecord(record);
    const std::string_view code(static_cast<const char *>(data.get()), size);
    TORCH_CHECK(code.find("ops.quantized.") == std::string_view::npos, "8-bit weights on a GPU");
  }
}

torch::jit::Module load_module(const char *path, at::Device device) {
  forbid_input_output();
  try {
    return torch::jit::load(path, device);
  } catch (const std::exception &error) {
    const std::string reason = error.what();
    for (const char *name : FORBIDDEN)
      TORCH_CHECK(reason.find(std::string("Unknown builtin op: ") + name + ".") == std::string::npos,
                  "it uses ", name,
                  ", which reads or writes outside the network; prism runs no such network");
    throw;
  }
}

// Gives `replacement` to the attributes whose values are chosen.
void set_attributes(torch::jit::Module &module, bool (*is_chosen)(const at::IValue &),
                    const at::IValue &replacement) {
  for (torch::jit::Module part : module.modules()) {
    std::vector<std::string> names;
    for (const auto &attribute : part.named_attributes(/*recurse=*/false))
      if (is_chosen(attribute.value))
        names.push_back(attribute.name);
    for (const std::string &name : names)
      part.setattr(name, replacement);
  }
}

// The images are float32 on `device`. Weights may have half or double precision, and a device
// may be an attribute.
void move_attributes(torch::jit::Module &module, at::Device device) {
  at::NoGradGuard no_grad;
  const auto to_float = [](at::Tensor tensor) {
    if (tensor.is_floating_point() && tensor.scalar_type() != at::kFloat)
      tensor.set_data(tensor.to(at::kFloat));
  };
  for (const auto &parameter : module.parameters())
    to_float(parameter);
  for (const auto &buffer : module.buffers())
    to_float(buffer);
  set_attributes(module, [](const at::IValue &value) { return value.isDevice(); }, device);
}

// Frees the weights of a module of which only the code is needed.
void forget_weights(torch::jit::Module &module) {
  set_attributes(module, [](const at::IValue &value) { return value.isTensor(); }, at::empty({0}));
}

} // namespace

void simplify(std::shared_ptr<Graph> &graph) {
  // libtorch's interpreter nests a call for each operator of a chain: 21,000 overflow the stack.
  constexpr size_t MOST_OPERATORS = 10'000;
  torch::jit::Inline(*graph);
  torch::jit::LowerSimpleTuples(graph);
  torch::jit::ConstantPropagation(graph);
  torch::jit::RemoveListMutation(graph);
  torch::jit::PeepholeOptimizeListIdioms(graph);
  torch::jit::PeepholeOptimize(graph);
  torch::jit::EliminateDeadCode(graph);
  const auto nodes = all_nodes(graph->block());
  const auto operators = std::count_if(nodes.begin(), nodes.end(), [](const Node *node) {
    return node->kind() != c10::prim::Constant;
  });
  TORCH_CHECK(static_cast<size_t>(operators) <= MOST_OPERATORS, "it has ", operators,
              " operators; prism runs networks of up to ", MOST_OPERATORS);
}

void bind_inputs(prism_graph &result, const IValue *module, const c10::FunctionSchema *schema) {
  Graph &graph = *result.graph;
  std::optional<size_t> batch;
  for (size_t i = 0; i < graph.inputs().size(); i++) {
    Value *input = graph.inputs()[i];
    IValue &fixed = result.fixed_inputs.emplace_back();
    if (i == 0 && module) {
      fixed = *module;
    } else if (!batch) {
      TORCH_CHECK(is_tensor(input), "its forward takes ", input->type()->repr_str(),
                  ", not a batch of images [N,C,H,W]");
      batch = i;
    } else {
      const auto *argument =
          schema && i < schema->arguments().size() ? &schema->arguments()[i] : nullptr;
      TORCH_CHECK(argument && argument->default_value(), "its forward takes more than one input (",
                  argument ? argument->name() : input->debugName(),
                  " has no default); prism gives it one batch of images [N,C,H,W]");
      fixed = *argument->default_value();
      torch::jit::WithInsertPoint here(*graph.nodes().begin());
      if (auto constant = torch::jit::tryInsertConstant(graph, fixed))
        input->replaceAllUsesWith(*constant);
    }
  }
  TORCH_CHECK(batch, "its forward takes no input; prism gives it one batch of images [N,C,H,W]");
  result.batch_input = *batch;
}

std::unique_ptr<prism_graph> load(const char *path, at::Device device) {
  prepare(device);
  if (!device.is_cpu())
    require_a_cpu_for_8_bits(path);
  auto module = load_module(path, device);
  TORCH_CHECK(module.find_method("forward"), "it has no forward method");
  module.eval();
  move_attributes(module, device);
  // Freezing destroys the methods that it inlines, although operators still refer to them.
  // If they are inlined before, operators refer to those of `module`, which stays.
  Graph &forward = *module.get_method("forward").graph();
  torch::jit::Inline(forward);
  to_this_machine(forward, device); // before constants are computed
  auto frozen = torch::jit::freeze_module(module);
  auto result = std::make_unique<prism_graph>();
  result->on_cpu = device.is_cpu();
  result->sources = std::make_shared<const std::vector<torch::jit::Module>>(
      std::vector<torch::jit::Module>{module, frozen});
  result->graph = frozen.get_method("forward").graph()->copy();
  const IValue self = frozen._ivalue();
  const auto schema = module.get_method("forward").function().getSchema();
  bind_inputs(*result, &self, &schema);
  to_this_machine(*result->graph, device);
  simplify(result->graph);
  to_float(*result->graph);
  result->put_into_inference = to_inference(*result->graph);
  settle_floating_point(result->graph, result->graph->inputs()[result->batch_input]);
  remove_in_place(result->graph);
  torch::jit::EliminateDeadCode(result->graph);
  forget_weights(module);
  return result;
}

} // namespace prism
