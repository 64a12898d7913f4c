// A graph as JSON, for src/hooks/graph.rs.

#include "internal.h"

#include <ATen/ops/arange.h>
#include <c10/util/StringUtil.h>
#include <cmath>
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

// Infinity and NaN are not JSON.
std::string json(double number) {
  return std::isfinite(number) ? c10::str(number) : "null";
}

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

// The path of the module whose code made this node, such as features.0. In a graph that was built
// it is the scope.
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
  const auto scope = const_cast<Node *>(node)->scope();
  if (names.empty() && scope && !scope->isRoot())
    return scope->name().toUnqualString();
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

// A tensor that the network returns.
struct Returned {
  std::vector<int64_t> values;    // their numbers
  std::vector<std::string> names; // keys of dictionaries and fields of named tuples; may be empty
};

// The name of an item inside a named container, or its own.
std::string joined(const std::string &outer, const std::string &inner) {
  return outer.empty() || inner.empty() ? outer + inner : outer + '.' + inner;
}

std::string constant_text(const Value *value) {
  const auto constant = torch::jit::toIValue(value);
  return constant && constant->isString() ? constant->toStringRef() : "";
}

// The tensors that a returned value consists of, in order.
void append_returned(const Value *value, const std::string &name, const Numbers &numbers, Returned &found) {
  const auto kind = value->node()->kind();
  const auto items = value->node()->inputs();
  if (kind == c10::prim::TupleConstruct || kind == c10::prim::ListConstruct) {
    const auto tuple = value->type()->cast<c10::TupleType>();
    const auto fields = tuple ? tuple->schema() : nullptr;
    for (size_t i = 0; i < items.size(); i++) {
      const std::string position = name.empty() ? "" : std::to_string(i);
      append_returned(items[i], joined(name, fields ? fields->arguments().at(i).name() : position), numbers, found);
    }
  } else if (kind == c10::prim::DictConstruct) { // key, value, key, value, ...
    for (size_t i = 1; i < items.size(); i += 2)
      append_returned(items[i], joined(name, constant_text(items[i - 1])), numbers, found);
    for (const auto &use : value->uses()) // d["scores"] = ...
      if (use.user->kind() == c10::aten::_set_item && use.offset == 0)
        append_returned(use.user->input(2), joined(name, constant_text(use.user->input(1))), numbers, found);
  } else if (is_tensor(value)) {
    found.values.push_back(numbers.at(value));
    found.names.push_back(name);
  }
}

// A number, a flag, or a list of integers, as known for one size of the input.
std::optional<std::vector<int64_t>> known_integers(const Value *value, const Numbers &numbers,
                                                   const std::vector<Facts> &facts) {
  if (auto constant = constant_integers(value))
    return constant;
  if (value->node()->kind() != c10::prim::ListConstruct) {
    const auto number = numbers.find(value);
    const auto known = number == numbers.end() ? std::nullopt : facts.at(number->second).integer;
    return known ? std::optional(std::vector{*known}) : std::nullopt;
  }
  std::vector<int64_t> list;
  for (const Value *item : value->node()->inputs()) {
    const auto known = known_integers(item, numbers, facts);
    if (!known || known->size() != 1)
      return std::nullopt;
    list.push_back(known->front());
  }
  return list;
}

// Whether an index is n-1, ..., 1, 0.
bool counts_down(const at::Tensor &index) {
  return index.defined() && index.dim() == 1 && index.scalar_type() == at::kLong &&
         index.equal(at::arange(index.size(0) - 1, -1, -1, index.options()));
}

// The dimensions that x[:, :, index] picks entries of, and those that it mirrors so.
void append_indexed(const Node *node, std::vector<Field> &fields) {
  std::vector<int64_t> indexed, mirrored;
  const auto add = [&](int64_t dimension, const at::Tensor &index) {
    (counts_down(index) ? mirrored : indexed).push_back(dimension);
  };
  if (node->kind() == c10::aten::index_select) {
    if (const auto dimension = constant_integers(node->input(1)))
      add(dimension->front(), constant_tensor(node->input(2)));
  } else if (node->kind() != c10::aten::index) {
    return;
  } else if (const auto list = torch::jit::toIValue(node->input(1))) {
    const auto items = list->toListRef();
    for (size_t i = 0; i < items.size(); i++)
      if (!items[i].isNone())
        add(static_cast<int64_t>(i), items[i].toTensor());
  } else {
    const auto items = node->input(1)->node()->inputs();
    for (size_t i = 0; i < items.size(); i++)
      if (!items[i]->mustBeNone())
        add(static_cast<int64_t>(i), constant_tensor(items[i]));
  }
  fields.push_back({"indexed", json(indexed)});
  fields.push_back({"mirrored", json(mirrored)});
}

std::string describe_node(const Node *node, const Numbers &numbers, const std::vector<Facts> &facts) {
  std::vector<int64_t> inputs, outputs, parameters;
  std::vector<std::string> within;
  std::vector<Field> arguments, evaluated, scalars;
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
    for (size_t i = 0; i < schema->arguments().size() && i < node->inputs().size(); i++) {
      const std::string &name = schema->arguments()[i].name();
      if (const auto integers = constant_integers(node->input(i)))
        arguments.push_back({name, json(*integers)});
      if (const auto integers = known_integers(node->input(i), numbers, facts))
        evaluated.push_back({name, json(*integers)});
      if (const auto scalar = torch::jit::toIValue(node->input(i)); scalar && scalar->isScalar() && !scalar->isComplexDouble())
        scalars.push_back({name, json(scalar->toScalar().toDouble())});
    }
  append_indexed(node, evaluated);
  return object({
      {"operator", json(std::string(node->kind().toQualString()))},
      {"path", json(module_path(node))},
      {"inputs", json(inputs)},
      {"outputs", json(outputs)},
      {"within", json(within)},
      {"parameters", json(parameters)},
      {"weight", json(weight.defined() ? Sizes(weight.sizes().vec()) : std::nullopt)},
      {"arguments", object(arguments)},
      {"evaluated", object(evaluated)},
      {"scalars", object(scalars)},
  });
}

std::vector<Sizes> sizes_of(const std::vector<Facts> &facts) {
  std::vector<Sizes> sizes;
  for (const Facts &fact : facts)
    sizes.push_back(fact.sizes);
  return sizes;
}

} // namespace

std::string describe(const prism_graph &source, at::IntArrayRef shape, at::Device device) {
  Graph &graph = *source.graph;
  Numbers numbers;
  for (const Value *value : numbered_values(graph))
    numbers.emplace(value, numbers.size());
  Returned returned;
  for (const Value *output : graph.outputs())
    append_returned(output, "", numbers, returned);
  const auto facts =
      shape.empty() ? std::vector<Facts>(numbers.size()) : facts_of_values(source, shape, device);
  std::vector<std::string> varying;
  bool statistics = false;
  for (const Node *node : all_nodes(graph.block())) {
    statistics |= uses_batch_statistics(node);
    if (may_vary(node))
      varying.push_back(node->kind().toQualString());
  }
  std::vector<std::string> nodes;
  for (const Node *node : graph.nodes())
    if (node->kind() != c10::prim::Constant)
      nodes.push_back(describe_node(node, numbers, facts));
  return object({
      {"input", json(static_cast<int64_t>(source.batch_input))},
      {"outputs", json(returned.values)},
      {"output_names", json(returned.names)},
      {"sizes", json(sizes_of(facts))},
      {"put_into_inference", json(source.put_into_inference)},
      {"batch_statistics", statistics ? "true" : "false"},
      {"varying", json(varying)},
      {"nodes", '[' + c10::Join(",", nodes) + ']'},
  });
}

std::string sizes(const prism_graph &source, at::IntArrayRef shape, at::Device device) {
  return json(sizes_of(facts_of_values(source, shape, device)));
}

std::string batches(const prism_graph &source) { return json(built_in_batches(*source.graph)); }

} // namespace prism
