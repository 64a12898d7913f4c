// Programs: a graph that returns values inside it, and one of them as the point at which
// gradients begin.

#include "internal.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <string>
#include <tuple>

namespace prism {
namespace {

// The values per pixel of PRISM_SIGNED_SUMS.
constexpr int64_t SUMS = 16;

// The signs of a channel in the sums, a bit each: the output of splitmix64 (Steele, Lea and Flood,
// OOPSLA 2014) for the counter `channel`.
uint64_t signs_of(int64_t channel) {
  uint64_t bits = (static_cast<uint64_t>(channel) + 1) * 0x9E3779B97F4A7C15u;
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9u;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBu;
  return bits ^ (bits >> 31);
}

// The signs of all channels, [sums,C], divided by sqrt(C). They are remembered: a copy to a GPU
// waits until it has done all its work. Never freed, because at the end of the process a GPU's
// driver may be gone before they are.
at::Tensor signs(int64_t sums, int64_t channels, at::Device device) {
  static std::mutex mutex;
  static auto &known = *new std::map<std::tuple<int64_t, int64_t, std::string>, at::Tensor>;
  const std::lock_guard<std::mutex> lock(mutex);
  at::Tensor &made = known[{sums, channels, device.str()}];
  if (made.defined())
    return made;
  at::Tensor on_cpu = at::empty({sums, channels}, at::kFloat);
  float *sign = on_cpu.mutable_data_ptr<float>();
  const float one = 1 / std::sqrt(static_cast<float>(channels));
  for (int64_t channel = 0; channel < channels; channel++)
    for (int64_t sum = 0; sum < sums; sum++)
      sign[sum * channels + channel] = signs_of(channel) >> sum & 1 ? one : -one;
  return made = on_cpu.to(device);
}

// Sums of the channels with random signs, [N,C,h,w] -> [N,k,h,w]: distances between pixels over
// all channels are kept (Achlioptas, 2003). No more channels than sums stay as they are.
at::Tensor signed_sums(const at::Tensor &input, int64_t sums) {
  const int64_t channels = input.size(1);
  const at::Tensor whole = input.to(at::kFloat).contiguous();
  if (channels <= sums)
    return whole.is_same(input) ? whole.clone() : whole;
  const at::Tensor made = at::matmul(signs(sums, channels, whole.device()), whole.flatten(2));
  return made.view({input.size(0), sums, input.size(2), input.size(3)});
}

// A tensor at which gradients begin.
at::Tensor leaf(const at::Tensor &value) { return value.detach().requires_grad_(); }

TORCH_LIBRARY_FRAGMENT(prism, library) {
  library.def("signed_sums(Tensor input, int sums) -> Tensor", &signed_sums);
  library.def("leaf(Tensor(a) value) -> Tensor(a)", &leaf);
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

// The node before which a value is read. In-place operators that follow the value's maker
// (also through a view) are part of the value, up to the first operator that computes
// something from it without changing it or making a view. If there is none, the value is
// read where it is made.
Node *reading_point(Graph &graph, Value *value, const torch::jit::AliasDb &aliases) {
  Node *next = after(graph, value);
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

// The place at which gradients begin.
struct GradientTap {
  std::vector<Value *> names; // the value, and the names that in-place operators gave its tensor
  Node *point;                // nodes from here on read the leaf
  bool written;
};

// After the last in-place operator that is part of the value.
GradientTap find_tap(Graph &graph, Value *value, const torch::jit::AliasDb &aliases) {
  GradientTap tap{{value}, after(graph, value), aliases.hasWriters(value)};
  const Node *end = reading_point(graph, value, aliases);
  for (Node *node = tap.point; node != end; node = node->next()) {
    if (!aliases.writesToAlias(node, {value}))
      continue;
    tap.point = node->next();
    auto &names = tap.names;
    if (is_in_place(node) && std::find(names.begin(), names.end(), node->input(0)) != names.end())
      names.push_back(node->output(0));
  }
  return tap;
}

// Lets all operators after that of `read` take it in place of the value of the tap.
void replace_after(const GradientTap &tap, Value *read) {
  for (Value *value : tap.names)
    for (const auto &use : std::vector<torch::jit::Use>(value->uses()))
      if (use.user->isAfter(read->node()))
        use.user->replaceInput(use.offset, read);
}

// Replaces the value after the tap by a leaf of autograd, so that nothing before it is
// recorded. Returns the leaf.
Value *insert_leaf(Graph &graph, const GradientTap &tap) {
  torch::jit::WithInsertPoint here(tap.point);
  Value *leaf = insert(graph, "prism::leaf", {tap.names[0]});
  // autograd forbids in-place operators on a leaf
  replace_after(tap, tap.written ? graph.insert(c10::aten::clone, {leaf}) : leaf);
  return leaf;
}

// Gives a layer whose weights are integers the gradient of the layer whose weights they stand
// for. What it computes stays the same: the sum adds y - y.
void add_gradients(Graph &graph) {
  for (Node *node : all_nodes(graph.block())) {
    const std::string name = node->kind().toQualString();
    if (name.rfind("quantized::linear_", 0) != 0 || name.find("dynamic") == std::string::npos)
      continue;
    const bool half = name.find("fp16") != std::string::npos;
    Value *input = node->input(0);
    {
      torch::jit::WithInsertPoint before(node);
      node->replaceInput(0, graph.insert(c10::aten::detach, {input}));
    }
    torch::jit::WithInsertPoint here(node->next());
    const auto unpack = c10::Symbol::fromQualString(half ? "quantized::linear_unpack_fp16"
                                                         : "quantized::linear_unpack");
    Node *unpacked = graph.insertNode(graph.create(unpack, {node->input(1)}, 2));
    unpacked->output(0)->setType(c10::TensorType::get());
    unpacked->output(1)->setType(c10::OptionalType::ofTensor());
    Value *weights = unpacked->output(0);
    if (!half)
      weights = graph.insert(c10::aten::dequantize, {weights});
    Value *like = graph.insert(c10::aten::linear, {input, weights});
    if (name.find("relu") != std::string::npos) // where the layer lets values through
      like = graph.insert(c10::aten::mul, {like, graph.insert(c10::aten::sign, {node->output()})});
    Value *zero = graph.insert(c10::aten::sub, {like, graph.insert(c10::aten::detach, {like})});
    Value *sum = graph.insert(c10::aten::add, {node->output(), zero});
    node->output()->replaceAllUsesAfterNodeWith(sum->node(), sum);
  }
}

bool writes_attributes(Graph &graph, const torch::jit::AliasDb &aliases) {
  const auto nodes = all_nodes(graph.block());
  return std::any_of(nodes.begin(), nodes.end(), [&](Node *node) {
    return node->kind() == c10::prim::SetAttr ||
           (node->kind() == c10::prim::GetAttr && is_tensor(node->output()) &&
            aliases.hasWriters(node->output()));
  });
}

// Refuses weights that are not finite. The scores would not show them: the relu that
// oneDNN fuses with a convolution turns NaN into 0.
void require_finite_weights(Graph &graph) {
  for (const Node *node : all_nodes(graph.block())) {
    const std::string kind = node->kind().toUnqualString();
    if (kind.find("conv") == std::string::npos && kind != "batch_norm")
      continue;
    for (const Value *input : node->inputs()) {
      const at::Tensor weights = constant_tensor(input);
      if (!weights.defined() || !weights.is_floating_point())
        continue;
      // The sum is quicker, but finite numbers can overflow in it.
      const bool finite =
          weights.sum().isfinite().item<bool>() || weights.isfinite().all().item<bool>();
      TORCH_CHECK(finite, "its weights are not finite (NaN or infinity): the training has "
                          "diverged, or the file is damaged");
    }
  }
}

// The value as [N,C,h,w], upright.
Value *insert_layout(Graph &graph, Value *value, const prism_layout &layout) {
  if (layout.permuted && layout.space >= 0)
    value = insert(graph, "aten::unflatten", {value, int64_t{layout.space},
                                              std::vector<int64_t>{layout.height, layout.width}});
  if (layout.permuted)
    value = graph.insert(c10::aten::permute,
                         {value, std::vector<int64_t>(layout.order, layout.order + 4)});
  std::vector<int64_t> against;
  for (const int64_t side : {0, 1})
    if (layout.mirrored[side])
      against.push_back(2 + side);
  return against.empty() ? value : insert(graph, "aten::flip", {value, against});
}

// The inverse of insert_layout.
Value *insert_own_layout(Graph &graph, Value *value, const prism_layout &layout) {
  std::vector<int64_t> against;
  for (const int64_t side : {0, 1})
    if (layout.mirrored[side])
      against.push_back(2 + side);
  if (!against.empty())
    value = insert(graph, "aten::flip", {value, against});
  if (!layout.permuted)
    return value;
  std::vector<int64_t> back(4);
  for (int64_t at = 0; at < 4; at++)
    back[static_cast<size_t>(layout.order[at])] = at;
  value = graph.insert(c10::aten::permute, {value, back});
  if (layout.space >= 0)
    value = graph.insert(c10::aten::flatten,
                         {value, int64_t{layout.space}, int64_t{layout.space + 1}});
  return value;
}

// The value that is given lies in memory in another order than the one that the network makes, and
// a view may then be none: reshape copies it.
void reshape_for_view(Graph &graph) {
  for (Node *node : all_nodes(graph.block())) {
    if (!node->matches("aten::view(Tensor self, int[] size) -> Tensor"))
      continue;
    torch::jit::WithInsertPoint here(node);
    node->output()->replaceAllUsesWith(insert(graph, "aten::reshape", {node->input(0), node->input(1)}));
    node->destroy();
  }
}

// Whether an operator takes nothing of the images but their number.
bool counts_images(const Node *node) {
  if (node->kind() != c10::aten::size || node->inputs().size() != 2)
    return false;
  const auto dimension = torch::jit::toIValue(node->input(1));
  return dimension && dimension->isInt() && dimension->toInt() == 0;
}

Value *insert_reading(Graph &graph, Value *made, const prism_output &output,
                      const torch::jit::AliasDb &aliases) {
  Value *value = insert_layout(graph, made, output.layout);
  if (output.reading == PRISM_CHANNEL_MEAN)
    return graph.insert(c10::aten::mean, {value, std::vector<int64_t>{1}, true});
  if (output.reading == PRISM_SIGNED_SUMS)
    return insert(graph, "prism::signed_sums", {value, SUMS});
  // A later in-place operator must not change it.
  return aliases.hasWriters(made) ? graph.insert(c10::aten::clone, {value}) : value;
}

// The kind of numbers to which a program rounds, if it does.
std::optional<at::ScalarType> rounding_of(int32_t execution) {
  if (execution == PRISM_BF16)
    return at::kBFloat16;
  return execution == PRISM_F16 ? std::optional(at::kHalf) : std::nullopt;
}

} // namespace

std::unique_ptr<prism_program> compile(const prism_graph &source, at::ArrayRef<prism_output> outputs,
                                       int64_t tap, at::ArrayRef<prism_node_rule> rules,
                                       int32_t execution) {
  auto graph = source.graph->copy();
  const auto values = numbered_values(*graph);
  erase_outputs(*graph);
  torch::jit::AliasDb aliases(graph);
  // All places are found before the graph changes.
  std::vector<Node *> points;
  for (const prism_output &output : outputs)
    points.push_back(reading_point(*graph, values.at(static_cast<size_t>(output.value)), aliases));
  std::optional<GradientTap> gradient_tap;
  if (tap >= 0)
    gradient_tap = find_tap(*graph, values.at(static_cast<size_t>(tap)), aliases);
  for (size_t i = 0; i < outputs.size(); i++) {
    torch::jit::WithInsertPoint here(points[i]);
    Value *value = values[static_cast<size_t>(outputs[i].value)];
    graph->registerOutput(insert_reading(*graph, value, outputs[i], aliases));
  }
  auto program = std::make_unique<prism_program>();
  program->writes_input = aliases.hasWriters(graph->inputs()[source.batch_input]);
  program->writes_state = writes_attributes(*graph, aliases);
  if (gradient_tap) {
    graph->registerOutput(insert_leaf(*graph, *gradient_tap));
    add_gradients(*graph);
  }
  for (const prism_node_rule &rule : rules)
    apply_rule(*graph, values, rule);
  if (!rules.empty()) // computes the rules' weights
    torch::jit::ConstantPropagation(graph);
  torch::jit::EliminateDeadCode(graph);
  require_finite_weights(*graph);
  if (execution != PRISM_PLAIN && !gradient_tap) {
    Optimised made = optimised(graph, source.batch_input, source.on_cpu, rounding_of(execution));
    graph = made.graph;
    program->unoptimised = made.failure;
  }
  program->sources = source.sources;
  program->code = torch::jit::Code(graph, "prism_forward");
  program->fixed_inputs = source.fixed_inputs;
  program->batch_input = source.batch_input;
  program->count = graph->outputs().size();
  program->has_tap = gradient_tap.has_value();
  return program;
}

std::unique_ptr<prism_program> compile_head(const prism_graph &source,
                                            at::ArrayRef<prism_output> outputs, int64_t value,
                                            const prism_layout &layout) {
  auto graph = source.graph->copy();
  const auto values = numbered_values(*graph);
  erase_outputs(*graph);
  torch::jit::AliasDb aliases(graph);
  const GradientTap tap = find_tap(*graph, values.at(static_cast<size_t>(value)), aliases);
  std::vector<Node *> points;
  for (const prism_output &output : outputs)
    points.push_back(reading_point(*graph, values.at(static_cast<size_t>(output.value)), aliases));
  for (size_t i = 0; i < outputs.size(); i++) {
    torch::jit::WithInsertPoint here(points[i]);
    Value *made = values[static_cast<size_t>(outputs[i].value)];
    graph->registerOutput(insert_reading(*graph, made, outputs[i], aliases));
  }
  Value *input = graph->inputs()[source.batch_input];
  torch::jit::WithInsertPoint here(tap.point);
  Value *copy = graph->insert(c10::aten::clone, {input}); // operators may write into it
  const Node *copying = copy->node();                     // gone below if nothing reads it
  replace_after(tap, insert_own_layout(*graph, copy, layout));
  // Dead code, but for checks of what comes before, which do not count as dead.
  std::vector<Node *> checks;
  for (Node *node : graph->nodes())
    if (node->isBefore(copying) && node->outputs().empty())
      checks.push_back(node);
  for (Node *node : checks)
    node->destroy();
  reshape_for_view(*graph);
  torch::jit::EliminateDeadCode(graph);
  bool is_read = false;
  for (const auto &use : input->uses()) {
    is_read |= use.user == copying;
    TORCH_CHECK(use.user == copying || counts_images(use.user),
                "the outputs also depend on other values");
  }
  TORCH_CHECK(is_read, "the outputs do not depend on the value");
  auto program = std::make_unique<prism_program>();
  program->writes_state = writes_attributes(*graph, aliases);
  program->sources = source.sources;
  program->code = torch::jit::Code(graph, "prism_head");
  program->fixed_inputs = source.fixed_inputs;
  program->batch_input = source.batch_input;
  program->count = graph->outputs().size();
  return program;
}

std::vector<at::Tensor> run(const prism_program &program, const at::Tensor &batch) {
  at::AutoGradMode gradients(program.has_tap);
  Stack stack = stack_for(program.fixed_inputs, program.batch_input,
                          program.writes_input ? batch.clone() : batch, program.writes_state);
  torch::jit::InterpreterState(program.code).run(stack);
  TORCH_CHECK(stack.size() == program.count, "the graph returned ", stack.size(), " values for ",
              program.count);
  std::vector<at::Tensor> tensors;
  for (const IValue &value : stack)
    tensors.push_back(value.toTensor());
  return tensors;
}

} // namespace prism
