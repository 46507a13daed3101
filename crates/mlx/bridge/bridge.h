// What the Rust side may ask of MLX: one table of C functions, obtained by the library's only exported symbol.
//
// It mirrors our own operations (crates/lazy/src/plan.rs and crates/backend/src/operations), not MLX's interface, which
// changes with every release. Handles are opaque; a function that can fail returns 0 or, having left a message, 1; no
// exception crosses. All calls come from one thread: MLX's streams and its cache of compiled functions belong to threads.
//
// src/ffi/table.rs repeats these declarations. Whoever changes one changes both, and raises MLXT_BRIDGE.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MLXT_BRIDGE 2

typedef struct mlxt_device mlxt_device;      // a device and its stream
typedef struct mlxt_array mlxt_array;        // values on a device
typedef struct mlxt_matrix mlxt_matrix;      // a linear layer's weights
typedef struct mlxt_norm mlxt_norm;          // a normalisation's weights
typedef struct mlxt_relative mlxt_relative;  // what attention adds to its scores by distance
typedef struct mlxt_function mlxt_function;  // arrays to arrays: a plan or one operation

enum mlxt_element { MLXT_F32, MLXT_F16, MLXT_BF16, MLXT_I32, MLXT_U32, MLXT_U8 };

// The order of Activation::ALL, of Reduction::ALL and of the variants of Mask.
enum mlxt_activation {
  MLXT_IDENTITY, MLXT_GELU, MLXT_GELU_TANH, MLXT_GELU_CLIPPED_10, MLXT_QUICK_GELU, MLXT_RELU, MLXT_RELU_6,
  MLXT_RELU_SQUARED, MLXT_LEAKY_RELU, MLXT_SILU, MLXT_SIGMOID, MLXT_TANH, MLXT_MISH, MLXT_LAPLACE, MLXT_HARD_SWISH,
  MLXT_SQRT_SOFTPLUS
};
enum mlxt_reduction { MLXT_MEAN, MLXT_MAX, MLXT_MEAN_SQRT_LENGTH, MLXT_WEIGHTED_MEAN };
enum mlxt_mask { MLXT_FULL, MLXT_CAUSAL, MLXT_WINDOW };

enum mlxt_kind {
  MLXT_INPUT, MLXT_EMBED, MLXT_LINEAR, MLXT_GATE, MLXT_NORM, MLXT_ADD_NORM, MLXT_ROTATE, MLXT_ATTENTION, MLXT_TAKE_ROWS,
  MLXT_REDUCE_ROWS
};

// Values in host memory, row-major.
typedef struct {
  int32_t element;
  int32_t dimensions;
  const int32_t *shape;
  const void *data;
} mlxt_host;

// Sequences in a program's inputs: first their lengths, [sequences], and the rows at which they begin, [sequences + 1]. Where rows do not already lie at their places in
// [sequences, longest] (`packed` is 0), three more inputs follow: the row of each place, the place of each row, and the
// position of each row in its sequence.
typedef struct {
  int32_t first;
  int32_t rows;
  int32_t sequences;
  int32_t longest;
  int32_t packed;
  int32_t full;  // every place holds a row: nothing has to be hidden
} mlxt_layout;

// One step of a plan. What a kind does not name is 0.
typedef struct {
  int32_t kind;
  int32_t result;    // the value it makes; MLXT_ADD_NORM makes the next one too
  int32_t x;         // the value it reads
  int32_t residual;  // a second value, or -1
  int32_t input;     // MLXT_INPUT, MLXT_TAKE_ROWS: of the program's
  int32_t layout;
  int32_t activation;
  int32_t reduction;
  int32_t mask;
  int32_t radius;
  int32_t heads;
  int32_t head_size;
  float scale;
  int32_t lookups;
  const mlxt_array *const *tables;  // MLXT_EMBED: as many as lookups
  const int32_t *ids;               // MLXT_EMBED: inputs, as many
  const mlxt_matrix *matrix;
  const mlxt_norm *norm;
  const mlxt_relative *relative;    // or null
  const mlxt_host *angles;          // MLXT_ROTATE: [longest, head_size], cosines and then sines of each position
} mlxt_step;

typedef struct {
  int32_t activations;  // the element type values are kept in
  int32_t values;
  int32_t steps;
  const mlxt_step *step;
  int32_t layouts;
  const mlxt_layout *layout;
  int32_t outputs;
  const int32_t *output;
} mlxt_plan;

typedef struct {
  size_t active;  // bytes in use
  size_t cached;  // bytes kept for later
  size_t peak;    // the most ever in use
} mlxt_memory;

typedef struct {
  uint32_t bridge;           // MLXT_BRIDGE
  const char *built_for;     // the MLX version of the headers
  const char *(*version)(void);  // of the library that is loaded
  const char *(*message)(void);  // of the last call that failed on this thread

  // `gpu` is 0 or 1. At most `cache` bytes are kept for later; `folder` is for compiled kernels; `attention` are the two texts of
  // ragged.hpp.
  int (*device_new)(int32_t gpu, size_t cache, const char *folder, const char *const *attention, mlxt_device **out);
  void (*device_free)(mlxt_device *);
  const char *(*device_name)(const mlxt_device *);
  int (*memory)(mlxt_memory *out);

  // The values are copied.
  int (*array_new)(mlxt_device *, const mlxt_host *, mlxt_array **out);
  // Arrays of i32, none of them negative. They come over together, in one copy, of which each is a part.
  int (*indices_new)(mlxt_device *, const mlxt_host *, int32_t count, mlxt_array **out);
  void (*array_free)(mlxt_array *);
  int (*array_wait)(mlxt_device *, const mlxt_array *);
  // Waits for the array's values, `count` of them at least, as `element`. They lie at `values`, row-major, for as long as `out`
  // lives; where nothing had to be converted, those are the array's own.
  int (*array_values)(mlxt_device *, const mlxt_array *, int32_t element, size_t count, mlxt_array **out,
                      const void **values);

  // A weight of [outputs, inputs], kept as `element`; or, where `bits` are not 0, quantised in groups of `group`, with scales
  // of that type.
  int (*matrix_new)(mlxt_device *, const mlxt_host *weight, const mlxt_host *bias, int32_t element, int32_t bits,
                    int32_t group, mlxt_matrix **out);
  // One that is packed already, by MLX's mode of that name: [outputs, inputs * bits / 32] of u32, and scales and biases of
  // [outputs, inputs / group], which are kept as `element` unless they are bytes. Biases may be null.
  int (*matrix_packed)(mlxt_device *, const mlxt_host *codes, const mlxt_host *scales, const mlxt_host *biases,
                       const mlxt_host *bias, const char *mode, int32_t element, int32_t bits, int32_t group,
                       mlxt_matrix **out);
  void (*matrix_free)(mlxt_matrix *);
  int (*norm_new)(mlxt_device *, int32_t root_mean_square, const mlxt_host *gain, const mlxt_host *shift, float eps,
                  mlxt_norm **out);
  void (*norm_free)(mlxt_norm *);
  // Parts may be null. `buckets` are 2 * reach + 1.
  int (*relative_new)(const int32_t *buckets, int32_t reach, const mlxt_array *keys, const mlxt_array *queries,
                      const mlxt_array *bias, mlxt_relative **out);
  void (*relative_free)(mlxt_relative *);

  // Weights are kept by the function. `compiled`: MLX fuses and caches its graph, for each combination of input shapes.
  int (*function_plan)(mlxt_device *, const mlxt_plan *, int32_t compiled, mlxt_function **out);
  // `operation` counts in the order of Operation::ALL; `setting` is its axis or number of heads.
  int (*function_operation)(mlxt_device *, int32_t operation, int32_t setting, int32_t compiled, mlxt_function **out);
  void (*function_free)(mlxt_function *);
  // Starts the computation. `outputs` has room for as many handles as the function has results.
  int (*function_call)(mlxt_device *, mlxt_function *, const mlxt_array *const *inputs, int32_t count,
                       mlxt_array **outputs);
  // Splits a weight of LinearInt8 or LinearQ4, [inputs, outputs], into packed numbers, scales and biases.
  int (*quantise)(mlxt_device *, const mlxt_host *weight, int32_t bits, int32_t group, mlxt_array **packed,
                  mlxt_array **scales, mlxt_array **biases);
} mlxt_table;

const mlxt_table *mlxt_bridge(void);

#ifdef __cplusplus
}
#endif
