/* The C surface of the shim: TorchScript graphs that return tensors inside them.
 * Every function that can fail returns NULL on success, else a message that the
 * caller releases with prism_message_free. No C++ exception leaves the shim.
 * Tensors are passed as `at::Tensor *`, which is tch's C_tensor. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A frozen, inlined forward graph. Its values are numbered: first the inputs,
 * then the outputs of every top-level node in execution order. */
typedef struct prism_graph prism_graph;

/* A graph compiled to return selected values. */
typedef struct prism_program prism_program;

/* The form in which a program returns a value [N,C,h,w]. */
enum prism_reading {
  PRISM_WHOLE = 0,        /* the tensor itself */
  PRISM_CHANNEL_MEAN = 1, /* its mean over the channels, [N,1,h,w] */
  PRISM_SIGNED_SUMS = 2,  /* sums of its channels with random signs, [N,min(16,C),h,w] */
};

/* How a value is laid out. All zero: as PRISM reads it. */
typedef struct prism_layout {
  int32_t permuted;  /* whether `order` is used */
  int32_t space;     /* the dimension that holds height and width at once, or -1 */
  int64_t height, width; /* of `space` */
  int64_t order[4];  /* the dimensions of N, C, h and w, after `space` is divided */
  int32_t mirrored[2]; /* whether rows and columns run against those of the image */
} prism_layout;

typedef struct prism_output {
  int64_t value;
  int32_t reading; /* enum prism_reading */
  prism_layout layout;
} prism_output;

/* How excitation backpropagation takes the winning probability back through one
 * operator (see excitation_backprop.cpp). Operators without a rule keep their
 * gradient. */
enum prism_backprop_rule {
  PRISM_Z_PLUS = 0,             /* z-plus rule: layers with weights, average pooling */
  PRISM_Z_PLUS_CONTRASTIVE = 1, /* z-plus, minus z-plus with negated weights */
  PRISM_PASS = 2,               /* unchanged, to one input */
  PRISM_SPLIT_POSITIVE = 3,     /* to inputs 0 and 1, in proportion to their positive parts */
};

typedef struct prism_node_rule {
  int64_t value;      /* the operator's output */
  int32_t rule;       /* enum prism_backprop_rule */
  int32_t input;      /* the position of the input that receives the probability */
  int64_t batch_norm; /* the output of the batch-norm folded into the weights, or -1 */
} prism_node_rule;

enum prism_execution {
  PRISM_PLAIN = 0,     /* the operators of the graph, one by one */
  PRISM_OPTIMISED = 1, /* with libtorch's passes for frozen graphs */
  PRISM_BF16 = 2,      /* the same, in bfloat16 */
  PRISM_F16 = 3,       /* the same, in float16 */
};

/* Readies a device: -1 for the CPU, else a CUDA index. Fails if it does not compute. */
char *prism_device_prepare(int device);

/* Loads a TorchScript file. `device` is -1 for the CPU, else a CUDA index. */
char *prism_graph_load(const char *path, int device, prism_graph **out);

/* Starts to record the operators that this thread calls on `*input`, a new tensor:
 * of the shape of `example`, without values. */
char *prism_trace_begin(const void *example, void **input);
/* Ends the trace, also on failure. `output` is NULL if the forward pass failed. */
char *prism_trace_end(const void *output, int on_cpu, prism_graph **out);
/* Makes the trace a graph. The values of its weights must not change afterwards. */
char *prism_trace_finish(prism_graph *trace);

/* A graph that is built operator by operator. Its values are numbered as they are made. */
typedef struct prism_builder prism_builder;

enum prism_constant_kind {
  PRISM_NONE = 0,
  PRISM_BOOL = 1,
  PRISM_INTEGER = 2,
  PRISM_FLOAT = 3,
  PRISM_TEXT = 4,
  PRISM_DEVICE = 5, /* the builder's */
  PRISM_TENSOR = 6,
};

typedef struct prism_constant {
  int32_t kind; /* enum prism_constant_kind */
  int64_t integer;
  double number;
  const char *text;
  const void *tensor;
} prism_constant;

typedef struct prism_argument {
  const char *name; /* of the operator's schema; NULL: by position */
  int64_t value;
} prism_argument;

typedef struct prism_result {
  const char *name; /* empty if it has none */
  int64_t value;
} prism_result;

/* In place of an overload: the one for the kinds of the numbers that are given (sizes). */
#define PRISM_OF_NUMBERS "number"

/* The shapes of a value are found for so many example batches. */
#define PRISM_EXAMPLES 2
#define PRISM_MOST_DIMENSIONS 16

typedef struct prism_shape {
  int32_t kind;       /* libtorch's number of the type of the values */
  int32_t dimensions; /* -1: not known */
  int64_t sizes[PRISM_MOST_DIMENSIONS];
} prism_shape;

char *prism_builder_new(int device, prism_builder **out);
/* The batch of images. */
char *prism_builder_input(prism_builder *builder, int64_t *value);
char *prism_builder_constant(prism_builder *builder, const prism_constant *constant, int64_t *value);
char *prism_builder_list(prism_builder *builder, const int64_t *items, size_t count, int64_t *value);
/* Calls an operator of the namespace `aten`, of the module `path`. Arguments that are not given have
 * their defaults. A result that is a list is given item by item. Operators that are not on a list
 * are refused: they may reach beyond their tensors, or draw random numbers. */
char *prism_builder_call(prism_builder *builder, const char *name, const char *overload,
                         const char *path, const prism_argument *arguments, size_t count,
                         int64_t *results, size_t result_count);
/* The examples, `[N,C,H,W]` each, after the input was added. From now on operators on constants are
 * computed at once; they may make `most` numbers in all. */
char *prism_builder_examples(prism_builder *builder, const int64_t *shapes, int64_t most);
/* The shape of a tensor for an example. */
char *prism_builder_shape(prism_builder *builder, int64_t value, size_t example, prism_shape *shape);
/* The values of a constant tensor, on the CPU; NULL if it depends on the images. */
char *prism_builder_known(const prism_builder *builder, int64_t value, void **tensor);
/* Why the first operator that cannot run on the first example cannot; null if there is none. */
char *prism_builder_failure(const prism_builder *builder);
/* The graph that returns `outputs`, simplified as one of a file. Leaves the builder unusable. */
char *prism_builder_finish(prism_builder *builder, const prism_result *outputs, size_t count,
                           prism_graph **out);
void prism_builder_free(prism_builder *builder);

/* The graph as JSON, with the shape of every value for an input of `shape`
 * (four numbers) on `device`; without shapes if `shape` is NULL. */
char *prism_graph_describe(prism_graph *graph, const int64_t *shape, int device, char **json);

/* The shapes alone, as in the description. */
char *prism_graph_sizes(prism_graph *graph, const int64_t *shape, int device, char **json);
/* Constants above 1 of the graph that may be the size of a batch, as a JSON list. */
char *prism_graph_batches(prism_graph *graph, char **json);

/* Compiles the graph to return `outputs`. Unless `tap` is negative, the program
 * also returns, last, the value `tap` as a leaf of autograd: results can be
 * differentiated with respect to it, with gradients as `rules` (in execution order)
 * say. Such a program computes plainly. */
char *prism_program_new(prism_graph *graph, const prism_output *outputs, size_t count, int64_t tap,
                        const prism_node_rule *rules, size_t rule_count, int32_t execution,
                        prism_program **out);
/* Why libtorch's passes could not make the program faster; NULL if they could, or were not asked. */
char *prism_program_unoptimised(const prism_program *program);
/* Compiles what follows the activation `value`, which is laid out as `layout`, as a program
 * that takes it as [N,C,h,w], upright, in place of the images. Fails if the outputs depend
 * on the images in another way. It computes plainly. */
char *prism_head_new(prism_graph *graph, const prism_output *outputs, size_t count, int64_t value,
                     const prism_layout *layout, prism_program **out);
/* Writes `count` new tensors into `results`, and one more if there is a tap. */
char *prism_program_run(prism_program *program, const void *input, void **results);

/* A float32 tensor on the CPU that uses `values` without a copy. `drop` is called with
 * `owner` when the last tensor that uses them is gone; on failure it is not called. */
char *prism_tensor_of_floats(float *values, const int64_t *shape, size_t dimensions,
                             void (*drop)(void *), void *owner, void **out);

/* A copy of a CPU tensor in memory that a GPU reads by itself. */
char *prism_pinned(const void *values, void **out);

/* While on, tensors of zeros, ones, uniform or normal values that this thread makes
 * have a shape but no memory of their own. */
void prism_skip_init(int on);

/* What the ranks of a joint run know of each other. */
typedef struct prism_store prism_store;
/* Messages between the ranks. */
typedef struct prism_ranks prism_ranks;

/* Reaches the store at `host` and `port`; serves it if `listener`, a bound socket, is not negative.
 * Keys begin with `prefix`. */
char *prism_store_open(const char *host, int port, int listener, const char *prefix,
                       int64_t milliseconds, prism_store **out);
/* A connection of its own, whose answers take at most that long. */
char *prism_store_clone(const prism_store *store, int64_t milliseconds, prism_store **out);
char *prism_store_set(prism_store *store, const char *key, const void *bytes, size_t length);
/* Sets a key that has no value; `value` is the value that it has then, uint8 [n]. */
char *prism_store_claim(prism_store *store, const char *key, const void *bytes, size_t length,
                        void **value);
/* The values of all keys, uint8 [n] each; none if a key has no value after that time. */
char *prism_store_read(prism_store *store, const char *const *keys, size_t count,
                       int64_t milliseconds, void **values);
void prism_store_free(prism_store *store);

/* Waits for all ranks, `joining` milliseconds at most. Later calls wait `waiting` at most. */
char *prism_ranks_join(const prism_store *store, int rank, int size, const char *address,
                       int64_t joining, int64_t waiting, prism_ranks **out);
/* The receiver has a tensor of the same shape and type. */
char *prism_ranks_send(prism_ranks *ranks, const void *values, int to);
char *prism_ranks_receive(prism_ranks *ranks, void *values, int from);
/* Rank 0 gets the sum; the values of the others are undefined then. */
char *prism_ranks_add_up(prism_ranks *ranks, void *values);
/* All get the values of rank 0. */
char *prism_ranks_broadcast(prism_ranks *ranks, void *values);
void prism_ranks_free(prism_ranks *ranks);

void prism_graph_free(prism_graph *graph);
void prism_program_free(prism_program *program);
void prism_message_free(char *message);

#ifdef __cplusplus
}
#endif
