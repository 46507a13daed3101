// What is computed from values alone: activations, products. Formulas are those of crates/backend.
#pragma once

#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bridge.h"
#include "mlx/mlx.h"

namespace mlxt {

namespace mx = mlx::core;
using mx::array;

// What computes.
enum class Kind { cpu, cuda, metal };

inline Kind kind() {
  if (mx::default_device() == mx::Device::cpu) return Kind::cpu;
  return mx::cu::is_available() ? Kind::cuda : Kind::metal;
}

inline array as(const array &x, mx::Dtype type) { return x.dtype() == type ? x : mx::astype(x, type); }

// A number of the type of `x`.
inline array number(double value, const array &x) { return array(static_cast<float>(value), x.dtype()); }

inline array softplus(const array &x) { return mx::logaddexp(x, number(0, x)); }

inline array gelu(const array &x) {
  return x * number(0.5, x) * (number(1, x) + mx::erf(x * number(M_SQRT1_2, x)));
}

// In f32 whatever `x` is: inside a compiled function the conversions cost nothing.
inline array activate(const array &given, int activation) {
  if (activation == MLXT_IDENTITY) return given;
  array x = as(given, mx::float32);
  auto n = [&](double value) { return number(value, x); };
  auto clip = [&](const array &v, double low, double high) { return mx::minimum(mx::maximum(v, n(low)), n(high)); };
  auto apply = [&]() -> array {
    switch (activation) {
      case MLXT_GELU: return gelu(x);
      case MLXT_GELU_TANH: {
        array inner = n(std::sqrt(2 / M_PI)) * (x + n(0.044715) * x * x * x);
        return n(0.5) * x * (n(1) + mx::tanh(inner));
      }
      case MLXT_GELU_CLIPPED_10: return clip(gelu(x), -10, 10);
      case MLXT_QUICK_GELU: return x * mx::sigmoid(n(1.702) * x);
      case MLXT_RELU: return mx::maximum(x, n(0));
      case MLXT_RELU_6: return clip(x, 0, 6);
      case MLXT_RELU_SQUARED: return mx::square(mx::maximum(x, n(0)));
      case MLXT_LEAKY_RELU: return mx::maximum(x, n(0.01) * x);
      case MLXT_SILU: return x * mx::sigmoid(x);
      case MLXT_SIGMOID: return mx::sigmoid(x);
      case MLXT_TANH: return mx::tanh(x);
      case MLXT_MISH: return x * mx::tanh(softplus(x));
      case MLXT_LAPLACE: return n(0.5) * (n(1) + mx::erf((x - n(0.707107)) / n(0.282095 * M_SQRT2)));
      case MLXT_HARD_SWISH: return x * clip(x + n(3), 0, 6) / n(6);
      case MLXT_SQRT_SOFTPLUS: return mx::sqrt(softplus(x));
      default: throw std::invalid_argument("an activation this bridge has not");
    }
  };
  return as(apply(), given.dtype());
}

struct Matrix {
  array weight;  // [inputs, outputs], or packed [outputs, ..]
  std::optional<array> bias;
  // Of quantised weights.
  std::optional<array> scales, biases;
  int bits = 0, group = 0;
  int inputs = 0;  // padded to whole groups where they are quantised
  std::string mode = "affine";
  mx::Dtype type = mx::float32;      // what is multiplied by it
  mx::Dtype unpacked = mx::float32;  // and by its numbers, once they are unpacked
  // From how many rows on quantised weights are unpacked for each product: MLX's own loop on the CPU takes 2 ms a row for
  // 3072 by 768, unpacking them 10 ms, and a product of f32 next to nothing.
  int unpacked_from = std::numeric_limits<int>::max();
};

inline array pad_columns(const array &x, int columns) {
  int missing = columns - x.shape(-1);
  return missing > 0 ? mx::pad(x, std::vector<int>{-1}, {0}, {missing}, array(0.0f, x.dtype())) : x;
}

inline array quantised_product(const array &given, const Matrix &m) {
  if (given.shape(0) >= m.unpacked_from) {
    array weight = as(mx::dequantize(m.weight, *m.scales, m.biases, m.group, m.bits, m.mode), m.unpacked);
    return mx::matmul(pad_columns(as(given, m.unpacked), m.inputs), mx::transpose(weight));
  }
  array x = pad_columns(as(given, m.type), m.inputs);
  return mx::quantized_matmul(x, m.weight, *m.scales, m.biases, true, m.group, m.bits, m.mode);
}

// `x w + bias`, in the type of the weights.
inline array linear(const array &given, const Matrix &m) {
  if (m.scales) {
    array y = quantised_product(given, m);
    return m.bias ? y + *m.bias : y;
  }
  // Columns of packed weights that were unpacked are as many as whole groups have.
  array x = pad_columns(as(given, m.type), m.inputs);
  return m.bias ? mx::addmm(*m.bias, x, m.weight) : mx::matmul(x, m.weight);
}

}  // namespace mlxt
