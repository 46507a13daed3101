// What is computed by kernels of ours where MLX runs on CUDA, and why.
//
// - Norms: MLX rounds to what activations are after each of its three steps, which for 16 bits is up to 4.5 times further off than
//   rounding once at the end; and it takes another kernel for a sum.
// - Rows by index: MLX's own takes a value for each thread, 49 us for 4096 rows of 1536 numbers of 16 bits on an H100, where memory
//   needs 8; an embedding is one for each of its tables, and a sum.
//
// Each is one kernel: beside what it computes, MLX needs some 15 us of the host to start one.
#pragma once

#include <algorithm>
#include <bit>
#include <functional>
#include <utility>

#include "arithmetic.hpp"

namespace mlxt::cuda {

using Settings = std::vector<std::pair<std::string, mx::fast::TemplateArg>>;

// A kernel. MLX keeps compiled ones by their names, on disk too: another text is another name. What settings leave open has to be
// in `variant`.
inline mx::fast::CustomKernelFunction kernel(const std::string &variant, const std::vector<std::string> &inputs,
                                             const std::vector<std::string> &outputs, const std::string &text,
                                             const std::string &header = "", int shared = 0) {
  std::string name = "mlxt_" + variant + "_" + std::to_string(std::hash<std::string>{}(header + text));
  return mx::fast::cuda_kernel(name, inputs, outputs, text, header, true, shared);
}

// Numbers that a thread moves at a time: 16 bytes of them.
inline int width(const array &x) {
  int most = 16 / x.itemsize();
  return x.shape(1) % most == 0 ? most : 1;
}

// Threads for a row of so many parts, if each takes about `each`: whole warps.
inline int threads(int parts, int each) { return std::clamp((parts + 32 * each - 1) / (32 * each) * 32, 32, 1024); }

// Whether these kernels can be asked: on CUDA, with a block of threads for each row, and rows that fit what such a block holds.
inline bool takes(int rows, int cols) { return kind() == Kind::cuda && cols <= 16 * 1024 && rows <= (1 << 20); }

// A row for each block. What a thread has of it stays in its registers: the mean comes first, and then the deviations from it.
inline const std::string norm_text = R"(
  struct alignas(sizeof(T) * WIDTH) Part { T values[WIDTH]; };
  __shared__ float parts[3][32];
  const int cols = x_shape[1], warps = blockDim.x / 32, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const size_t row = size_t(blockIdx.x) * cols;
  auto total = [&](float value, float *part) {
    for (int other = 16; other > 0; other /= 2) value += __shfl_xor_sync(~0u, value, other);
    if (lane == 0) part[warp] = value;
    __syncthreads();
    value = lane < warps ? part[lane] : 0.0f;
    for (int other = 16; other > 0; other /= 2) value += __shfl_xor_sync(~0u, value, other);
    return value;
  };
  float v[EACH][WIDTH];
  float sums = 0.0f;
  for (int i = 0; i < EACH; ++i) {
    const int col = (i * blockDim.x + threadIdx.x) * WIDTH;
    if (col >= cols) break;
    const Part a = *reinterpret_cast<const Part *>(x + row + col);
    Part b = a;
    if (ADD) b = *reinterpret_cast<const Part *>(residual + row + col);
    for (int k = 0; k < WIDTH; ++k) {
      v[i][k] = float(a.values[k]) + (ADD ? float(b.values[k]) : 0.0f);
      sums += v[i][k];
      b.values[k] = T(v[i][k]);
    }
    if (KEEP) *reinterpret_cast<Part *>(sum + row + col) = b;
  }
  const float mean = MEAN ? total(sums, parts[0]) / cols : 0.0f;
  float squares = 0.0f, drifts = 0.0f;
  for (int i = 0; i < EACH; ++i) {
    if ((i * blockDim.x + threadIdx.x) * WIDTH >= cols) break;
    for (int k = 0; k < WIDTH; ++k) {
      v[i][k] -= mean;
      squares += v[i][k] * v[i][k], drifts += v[i][k];
    }
  }
  // What the mean lost to rounding, which counts where it is a hundred deviations.
  const float drift = MEAN ? total(drifts, parts[1]) / cols : 0.0f;
  const float scale = rsqrtf(total(squares, parts[2]) / cols - drift * drift + __int_as_float(EPS));
  for (int i = 0; i < EACH; ++i) {
    const int col = (i * blockDim.x + threadIdx.x) * WIDTH;
    if (col >= cols) break;
    Part made;
    for (int k = 0; k < WIDTH; ++k)
      made.values[k] = T((v[i][k] - drift) * scale * gain[col + k] + (SHIFT ? shift[col + k] : 0.0f));
    *reinterpret_cast<Part *>(out + row + col) = made;
  }
)";

struct Norm {
  bool mean;  // whether rows are brought around 0 first
  float eps;
  array gain;                   // [cols] of f32
  std::optional<array> shift;  // likewise
};

// The normalised rows, or sum with `residual`; then that sum, if it is to be kept.
inline std::vector<array> norm(const array &x, const std::optional<array> &residual, const Norm &n, bool keep) {
  static const std::vector<std::string> inputs{"x", "residual", "gain", "shift"};
  static const auto kept = kernel("add_norm", inputs, {"out", "sum"}, norm_text);
  static const auto alone = kernel("norm", inputs, {"out"}, "T *const sum = nullptr;" + norm_text);
  int rows = x.shape(0), parts = (x.shape(1) + width(x) - 1) / width(x), block = threads(parts, 2);
  Settings settings{{"T", x.dtype()},  {"WIDTH", width(x)}, {"EACH", (parts + block - 1) / block},
                    {"MEAN", n.mean},  {"ADD", residual.has_value()}, {"KEEP", keep},
                    {"SHIFT", n.shift.has_value()}, {"EPS", std::bit_cast<int>(n.eps)}};
  std::vector<mx::Shape> shapes(keep ? 2 : 1, x.shape());
  std::vector<mx::Dtype> types(shapes.size(), x.dtype());
  return (keep ? kept : alone)({x, residual.value_or(x), n.gain, n.shift.value_or(n.gain)}, shapes, types,
                               {rows * block, 1, 1}, {block, 1, 1}, settings, std::nullopt, false, {});
}

inline const std::string rows_text = R"(
  struct alignas(sizeof(T) * WIDTH) Part { T values[WIDTH]; };
  const int cols = x_shape[1];
  const Part *from = reinterpret_cast<const Part *>(x + size_t(places[blockIdx.x]) * cols);
  Part *to = reinterpret_cast<Part *>(out + size_t(blockIdx.x) * cols);
  for (int part = threadIdx.x; part < cols / WIDTH; part += blockDim.x) to[part] = from[part];
)";

// The rows of `x` that `places`, of i32, name.
inline array rows(const array &x, const array &places) {
  static const auto take = kernel("rows", {"x", "places"}, {"out"}, rows_text);
  int count = places.shape(0), cols = x.shape(1), block = threads(cols / width(x), 1);
  Settings settings{{"T", x.dtype()}, {"WIDTH", width(x)}};
  return take({x, places}, {mx::Shape{count, cols}}, {x.dtype()}, {count * block, 1, 1}, {block, 1, 1}, settings,
              std::nullopt, false, {})[0];
}

// The sum of a row of each table, in f32, as `type`. `ids` are of i32, as many for each.
inline array embed(const std::vector<array> &tables, const std::vector<array> &ids, mx::Dtype type) {
  std::vector<std::string> names;
  std::vector<array> inputs;
  Settings settings{{"T", type}};
  std::string sum;
  for (size_t i = 0; i < tables.size(); ++i) {
    std::string table = "table" + std::to_string(i), id = "ids" + std::to_string(i);
    names.insert(names.end(), {table, id});
    inputs.insert(inputs.end(), {tables[i], ids[i]});
    settings.emplace_back("T" + std::to_string(i), tables[i].dtype());
    sum += (i ? " + " : "") + ("float(" + table + "[size_t(" + id + "[blockIdx.x]) * cols + col])");
  }
  std::string text = "const int cols = table0_shape[1]; for (int col = threadIdx.x; col < cols; col += blockDim.x) "
                     "out[size_t(blockIdx.x) * cols + col] = T(" + sum + ");";
  int count = ids[0].shape(0), cols = tables[0].shape(1), block = threads(cols, 4);
  return kernel("embed", names, {"out"}, text)(inputs, {mx::Shape{count, cols}}, {type}, {count * block, 1, 1},
                                                {block, 1, 1}, settings, std::nullopt, false, {})[0];
}

}  // namespace mlxt::cuda
