// A graph as JSON, for src/hooks/graph.rs.

#include "internal.h"

#include <c10/util/StringUtil.h>
#include <torch/csrc/jit/ir/constants.h>

namespace prism {
namespace {

std::string json(const std::string &text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      quoted += '\\';
    quoted += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return quoted + '"';
}

std::string json(int64_t number) { return std::to_string(number); }

template <typename T> std::string json(const std::optional<T> &value);

template <typename T> std::string json(const std::vector<T> &items) {
  std::vector<std::string> texts;
  for (const T &item : items)
    texts.push_back(json(item));
  return '[' + c10::Join(",", texts) + ']';
}

template <typename T> std::string json(const std::optional<T> &value) {
  return value ? json(*value) : "null";
}

// Names, and values that are JSON already.
using Field = std::pair<std::string, std::string>;

std::string object(const std::vector<Field> &fields) {
  std::vector<std::string> texts;
  for (const auto &[name, value] : fields)
    texts.push_back(json(name) + ':' + value);
  return '{' + c10::Join(",", texts) + '}';
}

using Numbers = std::unordered_map<const Value *, int64_t>;

// The path of the module whose code made this node, such as features.0.
std::string module_path(const Node *node) {
  std::vector<std::string> names;
  if (auto stack = node->callstack()) {
    for (const auto &entry : (*stack)->vec()) {
      const auto &instance = std::get<torch::jit::kModuleInstanceInfo>(entry);
      const std::string name = instance ? instance->instance_name() : "";
      // SELF: another method of the same module.
      if (!name.empty() && name != "SELF" && name != "INSTANCE_NAME_UNKNOWN")
        names.push_back(name);
    }
  }
  return c10::Join(".", names);
}

// The numbers of the top-level values that a node reads, nested blocks included.
void append_inputs(const Node *node, const Numbers &numbers, std::vector<int64_t> &found) {
  for (const Value *value : node->inputs())
    if (const auto number = numbers.find(value); number != numbers.end())
      found.push_back(number->second);
  for (const Block *block : node->blocks()) {
    for (const Node *inner : block->nodes())
      append_inputs(inner, numbers, found);
    append_inputs(block->return_node(), numbers, found);
  }
}

// The numbers of the tensors that a returned value consists of, in order.
void append_returned(const Value *value, const Numbers &numbers, std::vector<int64_t> &found) {
  const auto kind = value->node()->kind();
  const auto items = value->node()->inputs();
  if (kind == c10::prim::TupleConstruct || kind == c10::prim::ListConstruct) {
    for (const Value *item : items)
      append_returned(item, numbers, found);
  } else if (kind == c10::prim::DictConstruct) { // key, value, key, value, ...
    for (size_t i = 1; i < items.size(); i += 2)
      append_returned(items[i], numbers, found);
    for (const auto &use : value->uses()) // d["scores"] = ...
      if (use.user->kind() == c10::aten::_set_item && use.offset == 0)
        append_returned(use.user->input(2), numbers, found);
  } else if (is_tensor(value)) {
    found.push_back(numbers.at(value));
  }
}

std::string describe_node(const Node *node, const Numbers &numbers) {
  std::vector<int64_t> inputs, outputs, parameters;
  std::vector<std::string> within;
  std::vector<Field> arguments;
  append_inputs(node, numbers, inputs);
  for (const Value *output : node->outputs())
    outputs.push_back(numbers.at(output));
  for (const Block *block : node->blocks())
    for (const Node *inner : all_nodes(const_cast<Block *>(block)))
      within.push_back(inner->kind().toQualString());
  // The addresses of constant tensors identify the parameters that a traced node reads.
  for (const Value *input : node->inputs())
    if (const at::Tensor tensor = constant_tensor(input); tensor.defined() && tensor.dim() > 0)
      parameters.push_back(reinterpret_cast<int64_t>(tensor.data_ptr()));
  const at::Tensor weight = node->inputs().size() > 1 ? constant_tensor(node->input(1)) : at::Tensor();
  if (const auto *schema = node->maybeSchema())
    for (size_t i = 0; i < schema->arguments().size() && i < node->inputs().size(); i++)
      if (const auto integers = constant_integers(node->input(i)))
        arguments.push_back({schema->arguments()[i].name(), json(*integers)});
  return object({
      {"operator", json(std::string(node->kind().toQualString()))},
      {"path", json(module_path(node))},
      {"inputs", json(inputs)},
      {"outputs", json(outputs)},
      {"within", json(within)},
      {"parameters", json(parameters)},
      {"weight", json(weight.defined() ? Sizes(weight.sizes().vec()) : std::nullopt)},
      {"arguments", object(arguments)},
  });
}

} // namespace

std::string describe(const prism_graph &source, at::IntArrayRef shape, at::Device device) {
  Graph &graph = *source.graph;
  Numbers numbers;
  for (const Value *value : numbered_values(graph))
    numbers.emplace(value, numbers.size());
  std::vector<int64_t> returned;
  for (const Value *output : graph.outputs())
    append_returned(output, numbers, returned);
  std::vector<std::string> nodes;
  for (const Node *node : graph.nodes())
    if (node->kind() != c10::prim::Constant)
      nodes.push_back(describe_node(node, numbers));
  return object({
      {"input", json(static_cast<int64_t>(source.batch_input))},
      {"outputs", json(returned)},
      {"sizes", json(shape.empty() ? std::vector<Sizes>(numbers.size()) : sizes_of_values(source, shape, device))},
      {"nodes", '[' + c10::Join(",", nodes) + ']'},
  });
}

} // namespace prism
