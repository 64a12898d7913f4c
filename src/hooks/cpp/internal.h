// Shared by the files of the shim.
//
// TorchScript has no hooks: a module does not hand out the tensors inside it. But its
// graph can be rewritten. Freezing and inlining leave one flat list of operators, and
// any value in it can be registered as a further output.
#pragma once
#include "shim.h"

#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/runtime/interpreter.h>

#include <array>
#include <chrono>
#include <unordered_map>

namespace torch::jit {
class AliasDb;
}

// The modules whose code a graph came from. If an operator fails, the interpreter looks
// up its place in the source there.
using Sources = std::shared_ptr<const void>;

struct prism_graph {
  Sources sources; // destroyed last
  std::shared_ptr<torch::jit::Graph> graph;
  bool on_cpu = true;
  // By input position, everything but the image batch: the module itself, if the graph
  // still reads it, and default arguments.
  std::vector<c10::IValue> fixed_inputs;
  size_t batch_input = 0;
  std::vector<std::string> put_into_inference; // operators that were in training mode
};

struct prism_program {
  Sources sources; // destroyed last
  torch::jit::Code code;
  std::vector<c10::IValue> fixed_inputs;
  size_t batch_input = 0;
  size_t count = 0;
  std::string unoptimised;   // why libtorch's passes could not make it faster, if they could not
  bool has_tap = false;      // the last value returned is a leaf of autograd
  bool writes_state = false; // an operator would change attributes, which the next run would find
  bool writes_input = false; // an in-place operator would change the caller's batch
};

// A value of the graph, or a list of such, whose type the operator that takes it decides.
struct prism_built {
  torch::jit::Value *value = nullptr;
  std::vector<int64_t> items;
};

struct prism_builder {
  std::shared_ptr<torch::jit::Graph> graph = std::make_shared<torch::jit::Graph>();
  at::Device device = at::kCPU;
  std::vector<prism_built> values;
  // With examples: constants are computed at once, and what is seen for each example is stored.
  bool folds = false;
  int64_t left = 0; // numbers that constants may still make
  std::array<std::unordered_map<const torch::jit::Value *, c10::IValue>, PRISM_EXAMPLES> seen;
  std::string failure; // of the first operator that cannot run on the first example
};

namespace prism {

using c10::IValue;
using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Stack;
using torch::jit::Value;

inline bool is_tensor(const Value *value) {
  return value->type()->isSubtypeOf(*c10::TensorType::get());
}

// ir.cpp: questions to a graph
std::vector<Value *> numbered_values(Graph &graph);
std::vector<Node *> all_nodes(Block *block); // nested blocks included
Node *after(Graph &graph, const Value *value); // the node after the one that makes the value
std::optional<std::vector<int64_t>> constant_integers(const Value *value);
at::Tensor constant_tensor(const Value *value); // undefined if it is no constant tensor
Value *insert(Graph &graph, const char *name, at::ArrayRef<torch::jit::NamedValue> arguments);
void erase_outputs(Graph &graph);
// The inputs of a graph. With a state of its own, a run that changes attributes leaves the next
// one what the file holds.
Stack stack_for(const std::vector<IValue> &fixed_inputs, size_t batch_input, const at::Tensor &batch,
                bool own_state);

// device.cpp: checks that the device computes, in the precision that is asked for
void prepare(at::Device device);

// load.cpp
std::unique_ptr<prism_graph> load(const char *path, at::Device device);
void simplify(std::shared_ptr<Graph> &graph);
void bind_inputs(prism_graph &result, const IValue *module, const c10::FunctionSchema *schema);

// builder.cpp: graphs that are built operator by operator
int64_t add_input(prism_builder &builder);
int64_t add_constant(prism_builder &builder, const prism_constant &constant);
int64_t add_list(prism_builder &builder, at::ArrayRef<int64_t> items);
std::vector<int64_t> call(prism_builder &builder, const char *name, const char *overload,
                          const char *path, at::ArrayRef<prism_argument> arguments, size_t results);
std::unique_ptr<prism_graph> finish(prism_builder &builder, at::ArrayRef<prism_result> outputs);

// examples.cpp: what is known of a graph while it is built
void set_examples(prism_builder &builder, at::ArrayRef<std::vector<int64_t>> shapes, int64_t most);
// What an operator makes, if it reads constants alone.
std::optional<std::vector<IValue>> folded(prism_builder &builder, const Node *node);
void see(prism_builder &builder, const Node *node);
bool shape_of(prism_builder &builder, int64_t value, size_t example, prism_shape &shape);
at::Tensor known_tensor(const prism_builder &builder, int64_t value); // undefined if it is no constant

// allowed.cpp: throws if a file may not call the operator
void require_allowed(const c10::FunctionSchema &schema);

// inference.cpp
void to_this_machine(Graph &graph, at::Device device); // devices and number formats; no quantised ones
void to_float(Graph &graph);                            // constants
std::vector<std::string> to_inference(Graph &graph);    // the operators that were changed
bool uses_batch_statistics(const Node *node);
bool may_vary(const Node *node); // what it makes may differ between two runs
std::vector<int64_t> built_in_batches(Graph &graph);    // sizes that may be that of a batch

// floating.cpp: what follows from the kind of numbers that a tensor holds
void settle_floating_point(std::shared_ptr<Graph> &graph, const Value *images);

// trace.cpp
at::Tensor begin_trace(const at::Tensor &example);
std::unique_ptr<prism_graph> end_trace(const at::Tensor &output, bool on_cpu);
void abandon_trace();
void finish_trace(prism_graph &trace);

// mutation.cpp: operators that write into a tensor
bool is_in_place(const Node *node);
void remove_in_place(std::shared_ptr<Graph> &graph);

// sizes.cpp and describe.cpp
using Sizes = std::optional<std::vector<int64_t>>;
struct Facts {
  Sizes sizes;                    // of a tensor
  std::optional<int64_t> integer; // the value of an integer
};
// The facts of every value, for an input of `shape`.
std::vector<Facts> facts_of_values(const prism_graph &source, at::IntArrayRef shape, at::Device device);
std::string describe(const prism_graph &source, at::IntArrayRef shape, at::Device device);
std::string sizes(const prism_graph &source, at::IntArrayRef shape, at::Device device);
std::string batches(const prism_graph &source);

// capture.cpp
std::unique_ptr<prism_program> compile(const prism_graph &source, at::ArrayRef<prism_output> outputs,
                                       int64_t tap, at::ArrayRef<prism_node_rule> rules,
                                       int32_t execution);
std::unique_ptr<prism_program> compile_head(const prism_graph &source,
                                            at::ArrayRef<prism_output> outputs, int64_t value,
                                            const prism_layout &layout);
std::vector<at::Tensor> run(const prism_program &program, const at::Tensor &batch);

// optimise.cpp
struct Optimised {
  std::shared_ptr<Graph> graph;
  std::string failure; // why it computes plainly, if it does
};
Optimised optimised(const std::shared_ptr<Graph> &plain, size_t batch_input, bool on_cpu,
                    std::optional<at::ScalarType> rounding);

// ranks.cpp
using std::chrono::milliseconds;
prism_store *open_store(const char *host, int port, int listener, const char *prefix,
                        milliseconds timeout);
prism_store *clone(const prism_store &from, milliseconds timeout);
void set(prism_store &to, const char *key, const void *bytes, size_t length);
at::Tensor claim(prism_store &store, const char *key, const void *bytes, size_t length);
std::vector<at::Tensor> read(prism_store &from, const std::vector<std::string> &keys,
                             milliseconds timeout);
prism_ranks *join(const prism_store &at, int rank, int size, const char *address,
                  milliseconds joining, milliseconds waiting);
void send(prism_ranks &ranks, const at::Tensor &values, int to);
void receive(prism_ranks &ranks, at::Tensor &values, int from);
void add_up(prism_ranks &ranks, at::Tensor &values);
void broadcast(prism_ranks &ranks, at::Tensor &values);

// excitation_backprop.cpp: makes the gradient of an operator what `rule` says. `values`
// are the graph's, as the rule numbers them.
void apply_rule(Graph &graph, const std::vector<Value *> &values, const prism_node_rule &rule);

} // namespace prism
