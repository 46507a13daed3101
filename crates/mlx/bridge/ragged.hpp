// Attention over ragged rows by kernels of crates/cuda, where MLX runs on CUDA: no row is moved to a place and back, nothing is hidden,
// and one kernel is started for a layer where cuDNN's takes two more, or, in f32, a product, a softmax and a product eight.
#pragma once

#include "cuda.hpp"

namespace mlxt::cuda {

// Texts of crates/cuda/kernels (src/kernels.rs): what comes before, and what comes behind, the part below.
inline std::string attention_texts[2];

// Which queries a block has: blocks of a sequence's heads follow each other, and each sequence has as many as the longest.
inline const std::string share_text = R"(
struct AttentionOperands {
    const T* qkv;
    T* out;
    const int* offsets;
    int sequences, blocks, queries; // blocks of each sequence and head, and queries of a block
    float scale;
    int heads, head_size, before, after;
};
struct Share {
    int head, start, length, first;
};
__device__ __forceinline__ bool share_of(const AttentionOperands& o, Share& share) {
    const int tile = blockIdx.x / o.heads, sequence = tile / o.blocks;
    if (sequence >= o.sequences) return false;
    share.head = blockIdx.x - tile * o.heads, share.first = (tile - sequence * o.blocks) * o.queries;
    share.start = o.offsets[sequence], share.length = o.offsets[sequence + 1] - share.start;
    return share.first < share.length;
}
)";

struct Heads {
  int count, size;
  float scale;
  int before, after;  // how far a query sees
};

// A kernel's function, and what a block of it needs.
struct Attention {
  std::string function;
  int queries, threads, shared;
};

// As `Tiled` in crates/cuda/src/record.rs: by the largest head of a kernel.
inline std::optional<Attention> attention_for(const Heads &heads, mx::Dtype type, int rows) {
  // They take maxima before they scale.
  if (!(heads.scale > 0)) return std::nullopt;
  if (type == mx::float32) {
    for (int size : {16, 32, 64, 128})
      if (heads.size <= size)
        return Attention{"attend_tile<" + std::to_string(size) + ">", 64, 256, ((2 * size + 64) * 68 + 64 * (size + 4)) * 4};
    return std::nullopt;
  }
  struct Kernel {
    int size, groups, slots;
  };
  if (heads.size % 8) return std::nullopt;
  for (auto [size, groups, slots] : {Kernel{16, 2, 4}, {32, 2, 4}, {64, 2, 4}, {96, 1, 4}, {128, 1, 2}}) {
    if (heads.size > size) continue;
    auto shared = [&](int queries, int slots) { return (queries + 2 * 32 * slots) * (size + 8) * 2; };
    std::string of = "<" + std::to_string(size);
    if (rows <= 512) return Attention{"flash_few" + of + ">", 16, 128, shared(16, 4)};
    of += ", " + std::to_string(groups) + ", " + std::to_string(slots) + ">";
    return Attention{"flash" + of, 128, 256 / groups, shared(128, slots)};
  }
  return std::nullopt;
}

// [rows, 3 * heads * size] to [rows, heads * size]. `offsets` are where sequences begin, and the end of the last one; what lies
// behind is left as it is.
inline array attend(const array &qkv, const array &offsets, int longest, const Heads &heads, const Attention &by) {
  int element = qkv.dtype() == mx::float32 ? 32 : qkv.dtype() == mx::float16 ? 16 : 17;
  std::string header = "#define ELEMENT " + std::to_string(element) + "\nnamespace mlxt_attention {\n" + attention_texts[0] +
                       share_text + attention_texts[1] + "}\n";
  std::string text = R"(
    using namespace mlxt_attention;
    AttentionOperands o;
    o.qkv = reinterpret_cast<const mlxt_attention::T *>(qkv), o.out = reinterpret_cast<mlxt_attention::T *>(out);
    o.offsets = offsets, o.sequences = offsets_shape[0] - 1, o.blocks = gridDim.x / (HEADS * o.sequences), o.queries = QUERIES;
    o.scale = __int_as_float(SCALE), o.heads = HEADS, o.head_size = SIZE, o.before = BEFORE, o.after = AFTER;
    mlxt_attention::)" + by.function + "(o);\n";
  int sequences = offsets.shape(0) - 1, blocks = (longest + by.queries - 1) / by.queries;
  Settings settings{{"SCALE", std::bit_cast<int>(heads.scale)}, {"HEADS", heads.count},   {"SIZE", heads.size},
                    {"QUERIES", by.queries},                    {"BEFORE", heads.before}, {"AFTER", heads.after}};
  return kernel("attention", {"qkv", "offsets"}, {"out"}, text, header, by.shared)(
      {qkv, offsets}, {mx::Shape{qkv.shape(0), heads.count * heads.size}}, {qkv.dtype()},
      {sequences * blocks * heads.count * by.threads, 1, 1}, {by.threads, 1, 1}, settings, std::nullopt, false, {})[0];
}

}  // namespace mlxt::cuda
