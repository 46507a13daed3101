// The table of bridge.h over MLX: handles, errors, evaluation. What is computed is in the headers beside it.
#include "bridge.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "operations.hpp"

using mlxt::array;
namespace mx = mlx::core;

struct mlxt_device {
  mx::Device device;
  mx::Stream stream;
  std::string name;
};
struct mlxt_function {
  std::function<std::vector<array>(const std::vector<array> &)> body;
};

namespace mlxt {

thread_local std::string message;

// Runs `body`; an exception becomes a message and 1.
template <typename F>
int guarded(F body) {
  try {
    body();
    return 0;
  } catch (const std::exception &error) {
    message = error.what();
  } catch (...) {
    message = "MLX failed and did not say why";
  }
  return 1;
}

// The same, on a device.
template <typename F>
int on(mlxt_device *device, F body) {
  return guarded([&] {
    mx::set_default_device(device->device);
    mx::set_default_stream(device->stream);
    body();
  });
}

mx::Dtype type_of(int element) {
  switch (element) {
    case MLXT_F32: return mx::float32;
    case MLXT_F16: return mx::float16;
    case MLXT_BF16: return mx::bfloat16;
    case MLXT_I32: return mx::int32;
    case MLXT_U32: return mx::uint32;
    case MLXT_U8: return mx::uint8;
    default: throw std::invalid_argument("an element type this bridge has not");
  }
}

array from_host(const mlxt_host &host) {
  mx::Shape shape(host.shape, host.shape + host.dimensions);
  switch (host.element) {
    case MLXT_F32: return array(static_cast<const float *>(host.data), shape, mx::float32);
    case MLXT_F16: return array(static_cast<const mx::float16_t *>(host.data), shape, mx::float16);
    case MLXT_BF16: return array(static_cast<const mx::bfloat16_t *>(host.data), shape, mx::bfloat16);
    case MLXT_I32: return array(static_cast<const int32_t *>(host.data), shape, mx::int32);
    case MLXT_U32: return array(static_cast<const uint32_t *>(host.data), shape, mx::uint32);
    case MLXT_U8: return array(static_cast<const uint8_t *>(host.data), shape, mx::uint8);
    default: throw std::invalid_argument("an element type this bridge has not");
  }
}

// The same where kernels read it. On CUDA an array of the host's stays in memory of the host's, and whatever reads it there takes
// 10 us more: each norm for its gain, for instance.
array uploaded(const mlxt_host &host) {
  array x = from_host(host);
  if (kind() != Kind::cuda) return x;
  array copy = x * number(1, x);
  // While `x` is there: of an array that nobody else has the result would take the place.
  mx::eval(std::vector<array>{copy});
  return copy;
}

std::optional<array> optional_host(const mlxt_host *host) {
  if (!host) return std::nullopt;
  return uploaded(*host);
}

template <typename T>
void release(T *handle) {
  guarded([&] { delete handle; });
}

int device_new(int32_t gpu, size_t cache, const char *folder, const char *const *attention, mlxt_device **out) {
  return guarded([&] {
    for (int i : {0, 1}) cuda::attention_texts[i] = attention[i];
    if (gpu) {
      // Products of f32 are in f32, as is said of them. MLX reads this when it multiplies first.
      setenv("MLX_ENABLE_TF32", "0", 1);
      // Kernels compiled for a CUDA device are kept: 15 seconds for the first forward otherwise, in every process, or in a
      // folder that everybody knows and can write to.
      setenv("MLX_PTX_CACHE_DIR", folder, 0);
      // Kernels start one by one: collecting them into graphs, which differ from one forward to the next, takes the host longer.
      setenv("MLX_USE_CUDA_GRAPHS", "0", 0);
    }
    mx::Device device(gpu ? mx::Device::gpu : mx::Device::cpu);
    if (!mx::is_available(device)) throw std::runtime_error("this build of MLX finds no GPU");
    mx::set_cache_limit(cache);
    std::string name;
    if (gpu) {
      const auto &info = mx::device_info(device);
      if (auto found = info.find("device_name"); found != info.end())
        if (auto text = std::get_if<std::string>(&found->second)) name = *text;
    }
    mx::set_default_device(device);
    *out = new mlxt_device{device, mx::new_stream(device), name};
  });
}

const char *device_name(const mlxt_device *device) { return device->name.c_str(); }

int memory(mlxt_memory *out) {
  return guarded([&] { *out = {mx::get_active_memory(), mx::get_cache_memory(), mx::get_peak_memory()}; });
}

int array_new(mlxt_device *device, const mlxt_host *host, mlxt_array **out) {
  return on(device, [&] { *out = new mlxt_array{uploaded(*host)}; });
}

// An array of the host's that is read once. A kernel that changes the type leaves its result on the device.
template <typename T>
array sent(const std::vector<uint32_t> &values, mx::Dtype type) {
  std::vector<T> given(values.begin(), values.end());
  return mx::astype(array(given.data(), {static_cast<int>(given.size())}, type), mx::int32);
}

int indices_new(mlxt_device *device, const mlxt_host *hosts, int32_t count, mlxt_array **out) {
  return on(device, [&] {
    std::vector<uint32_t> all;
    uint32_t largest = 0;
    for (int i = 0; i < count; ++i)
      for (int k = 0; k < hosts[i].shape[0]; ++k) {
        all.push_back(static_cast<const uint32_t *>(hosts[i].data)[k]);
        largest = std::max(largest, all.back());
      }
    // On CUDA the device fetches it page by page: 17,000 numbers of 32 bits take 0.4 ms.
    array copy = largest <= 0xffff ? sent<uint16_t>(all, mx::uint16) : sent<uint32_t>(all, mx::uint32);
    std::vector<std::unique_ptr<mlxt_array>> parts;
    for (int i = 0, first = 0; i < count; first += hosts[i].shape[0], ++i)
      parts.push_back(std::make_unique<mlxt_array>(
          mlxt_array{mx::slice(copy, mx::Shape{first}, mx::Shape{first + hosts[i].shape[0]}, mx::Shape{1})}));
    for (int i = 0; i < count; ++i) out[i] = parts[i].release();
  });
}

int array_wait(mlxt_device *device, const mlxt_array *x) {
  return on(device, [&] { mx::eval(std::vector<array>{x->value}); });
}

int array_values(mlxt_device *device, const mlxt_array *x, int32_t element, size_t count, mlxt_array **out,
                 const void **values) {
  return on(device, [&] {
    if (count > x->value.size()) throw std::invalid_argument("more values are asked for than there are");
    array ready = as(x->value, type_of(element));
    mx::eval(std::vector<array>{ready});
    if (!ready.flags().row_contiguous) {
      ready = mx::contiguous(ready);
      mx::eval(std::vector<array>{ready});
    }
    *values = ready.data<char>();
    *out = new mlxt_array{ready};
  });
}

// Whether this MLX multiplies by weights packed so, and rightly, for few rows and many: not every device has every width.
bool multiplies(const Matrix &m) {
  static std::map<std::tuple<std::string, int, int, mx::Dtype::Val>, bool> known;
  auto key = std::make_tuple(m.mode, m.bits, m.group, m.type.val());
  if (auto found = known.find(key); found != known.end()) return found->second;
  bool works = true;
  try {
    array weight = as(mx::dequantize(m.weight, *m.scales, m.biases, m.group, m.bits, m.mode), mx::float32);
    for (int rows : {1, 3, 9, 64}) {
      array x = mx::random::normal({rows, m.inputs}, m.type, mx::random::key(rows));
      array right = mx::matmul(as(x, mx::float32), mx::transpose(weight));
      array off = mx::max(mx::abs(as(quantised_product(x, m), mx::float32) - right));
      // A hundred times what bf16 loses; what is wrong is off by as much as there is.
      works = works && off.item<float>() <= 0.2f * mx::max(mx::abs(right)).item<float>();
    }
  } catch (const std::exception &) {
    works = false;
  }
  return known.emplace(key, works).first->second;
}

void finish(Matrix &m, const mx::Device &device) {
  if (device == mx::Device::cpu) m.unpacked_from = 6;
  // Where a row of weights is a single group, MLX 0.32.4 has kernels of its own for some numbers of outputs on CUDA, which are wrong
  // for some numbers of rows, and need a header that its packages do not bring.
  bool single = device == mx::Device::gpu && m.inputs == m.group;
  if (m.scales && (single || !multiplies(m))) {
    // The numbers that the codes stand for, then.
    array weight = mx::dequantize(m.weight, *m.scales, m.biases, m.group, m.bits, m.mode);
    m.type = m.unpacked;
    m.weight = mx::contiguous(mx::transpose(as(weight, m.type)));
    m.scales = m.biases = std::nullopt;
  }
  std::vector<array> made{m.weight};
  for (auto &part : {m.bias, m.scales, m.biases})
    if (part) made.push_back(*part);
  mx::eval(made);
}

// Columns padded to whole groups by zeros, which change no product.
std::vector<array> in_groups(const array &weight, int bits, int group) {
  int inputs = (weight.shape(1) + group - 1) / group * group;
  return mx::quantize(pad_columns(weight, inputs), group, bits);
}

int matrix_new(mlxt_device *device, const mlxt_host *weight, const mlxt_host *bias, int32_t element, int32_t bits,
               int32_t group, mlxt_matrix **out) {
  return on(device, [&] {
    array w = uploaded(*weight);
    Matrix m{w, optional_host(bias), {}, {}, bits, group, w.shape(1)};
    // On the CPU MLX sums a quantised product in the type that it multiplies.
    m.type = m.unpacked = bits && device->device == mx::Device::cpu ? mx::float32 : type_of(element);
    if (bits) {
      auto parts = in_groups(as(w, m.type), bits, group);
      m.weight = parts.at(0), m.scales = parts.at(1), m.biases = parts.at(2);
      m.inputs = m.weight.shape(1) * 32 / bits;
    } else {
      array turned = mx::transpose(as(w, m.type));
      // A GPU's library takes either order alike; on the CPU a product would lay it out anew each time.
      m.weight = device->device == mx::Device::cpu ? mx::contiguous(turned) : turned;
    }
    if (m.bias) m.bias = as(*m.bias, m.type);
    finish(m, device->device);
    *out = new mlxt_matrix{m};
  });
}

int matrix_packed(mlxt_device *device, const mlxt_host *codes, const mlxt_host *scales, const mlxt_host *biases,
                  const mlxt_host *bias, const char *mode, int32_t element, int32_t bits, int32_t group,
                  mlxt_matrix **out) {
  return on(device, [&] {
    // What affine codes stand for is computed in the type of the scales, a large number and an offset of the other sign: in
    // f16 a weight of 8 bits would be off by an eighth of its step.
    mx::Dtype wanted = type_of(element), type = std::strcmp(mode, "affine") ? wanted : mx::float32;
    auto kept = [&](std::optional<array> x) { return x && x->dtype() != mx::uint8 ? as(*x, type) : x; };
    Matrix m{uploaded(*codes), kept(optional_host(bias)), kept(uploaded(*scales)), kept(optional_host(biases)), bits,
             group, codes->shape[1] * 32 / bits, mode, type};
    if (device->device == mx::Device::gpu) m.unpacked = wanted;
    // Products of f32 are an eighth as fast there as those of 16 bits, or less.
    if (type != m.unpacked) m.unpacked_from = 16;
    finish(m, device->device);
    *out = new mlxt_matrix{m};
  });
}

int norm_new(mlxt_device *device, int32_t root_mean_square, const mlxt_host *gain, const mlxt_host *shift, float eps,
             mlxt_norm **out) {
  return on(device, [&] {
    Norm n{root_mean_square != 0, {}, {}, eps};
    std::vector<array> made;
    for (auto type : {mx::float32, mx::float16, mx::bfloat16}) {
      made.push_back(n.gain.emplace(type.val(), as(uploaded(*gain), type)).first->second);
      if (shift) made.push_back(n.shift.emplace(type.val(), as(uploaded(*shift), type)).first->second);
    }
    mx::eval(made);
    *out = new mlxt_norm{n};
  });
}

int relative_new(const int32_t *buckets, int32_t reach, const mlxt_array *keys, const mlxt_array *queries,
                 const mlxt_array *bias, mlxt_relative **out) {
  return guarded([&] {
    auto part = [](const mlxt_array *x) { return x ? std::optional<array>(x->value) : std::nullopt; };
    std::vector<int32_t> places(buckets, buckets + 2 * reach + 1);
    *out = new mlxt_relative{{places, reach, part(keys), part(queries), part(bias)}};
  });
}

int function_plan(mlxt_device *device, const mlxt_plan *plan, int32_t compiled, mlxt_function **out) {
  return on(device, [&] {
    auto made = std::make_shared<Plan>(*plan);
    std::function<std::vector<array>(const std::vector<array> &)> body = [made](const std::vector<array> &inputs) {
      return (*made)(inputs);
    };
    *out = new mlxt_function{compiled ? mx::compile(body) : body};
  });
}

int function_operation(mlxt_device *device, int32_t operation, int32_t setting, int32_t compiled, mlxt_function **out) {
  return on(device, [&] {
    std::function<std::vector<array>(const std::vector<array> &)> body = [=](const std::vector<array> &inputs) {
      return std::vector<array>{compute(static_cast<Operation>(operation), setting, inputs)};
    };
    *out = new mlxt_function{compiled ? mx::compile(body) : body};
  });
}

int function_call(mlxt_device *device, mlxt_function *function, const mlxt_array *const *inputs, int32_t count,
                  mlxt_array **outputs) {
  return on(device, [&] {
    std::vector<array> given;
    for (int i = 0; i < count; ++i) given.push_back(inputs[i]->value);
    auto made = function->body(given);
    mx::async_eval(made);
    std::vector<std::unique_ptr<mlxt_array>> handles;
    for (auto &value : made) handles.push_back(std::make_unique<mlxt_array>(mlxt_array{value}));
    for (size_t i = 0; i < handles.size(); ++i) outputs[i] = handles[i].release();
  });
}

int quantise(mlxt_device *device, const mlxt_host *weight, int32_t bits, int32_t group, mlxt_array **packed,
             mlxt_array **scales, mlxt_array **biases) {
  return on(device, [&] {
    // In rows as they are named: CUDA's kernel takes any dense array as it lies.
    auto parts = in_groups(mx::contiguous(mx::transpose(from_host(*weight))), bits, group);
    mx::eval(parts);
    std::vector<std::unique_ptr<mlxt_array>> handles;
    for (auto &value : parts) handles.push_back(std::make_unique<mlxt_array>(mlxt_array{value}));
    *packed = handles.at(0).release(), *scales = handles.at(1).release(), *biases = handles.at(2).release();
  });
}

#define MLXT_TEXT(x) #x
#define MLXT_NUMBER(x) MLXT_TEXT(x)

const mlxt_table table{
    MLXT_BRIDGE,
    MLXT_NUMBER(MLX_VERSION_MAJOR) "." MLXT_NUMBER(MLX_VERSION_MINOR) "." MLXT_NUMBER(MLX_VERSION_PATCH),
    [] { return mx::version(); },
    [] { return message.c_str(); },
    device_new,
    [](mlxt_device *handle) { release(handle); },
    device_name,
    memory,
    array_new,
    indices_new,
    [](mlxt_array *handle) { release(handle); },
    array_wait,
    array_values,
    matrix_new,
    matrix_packed,
    [](mlxt_matrix *handle) { release(handle); },
    norm_new,
    [](mlxt_norm *handle) { release(handle); },
    relative_new,
    [](mlxt_relative *handle) { release(handle); },
    function_plan,
    function_operation,
    [](mlxt_function *handle) { release(handle); },
    function_call,
    quantise,
};

}  // namespace mlxt

extern "C" __attribute__((visibility("default"))) const mlxt_table *mlxt_bridge(void) { return &mlxt::table; }
