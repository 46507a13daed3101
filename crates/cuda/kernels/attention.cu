// Attention of any head size up to 512, with any mask and relative terms, in f32: one warp for each query and head.
//
// Lanes take 32 keys at a time for the scores and columns for the sum of values; the softmax is taken as it goes along
// (Milakov and Gimelshein, 2018), so no score leaves the registers. `flash.cu` is faster where it applies.

#include "attention.cuh"

#define ANY_WARPS 4

template <int PARTS> __device__ __forceinline__ void attend(const AttentionOperands& o) {
    __shared__ float queries[ANY_WARPS][PARTS * 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y, size = o.head_size;
    const u32 row = blockIdx.x * ANY_WARPS + warp;
    let_next_start();
    wait_for_previous();
    if (row >= o.counts[0]) return;
    const u32 sequence = sequence_of(o.offsets, o.counts[1], row);
    const int start = o.offsets[sequence], length = o.offsets[sequence + 1] - start, i = row - start;
    const int hidden = o.heads * size;
    const u64 stride = 3 * (u64)hidden;
    const T* query = o.qkv + row * stride + head * size;
    const T* keys = o.qkv + start * stride + hidden + head * size;
    const T* values = keys + hidden;
    float* q = queries[warp];
    float sums[PARTS];
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
        const int d = p * 32 + lane;
        q[d] = d < size ? widen(query[d]) : 0.0f;
        sums[p] = 0.0f;
    }
    __syncwarp();
    const int first = max(0, i - o.before), end = min(length, (int)min((long long)i + o.after + 1, (long long)length));
    float largest = -INFINITE, total = 0.0f;
    for (int j0 = first; j0 < end; j0 += 32) {
        const int j = j0 + lane;
        float score = -INFINITE;
        if (j < end) {
            const T* key = keys + j * stride;
            float product = 0.0f;
            if (size % 8 == 0) {
                float k[8];
                for (int d = 0; d < size; d += 8) {
                    load8(key + d, k);
#pragma unroll
                    for (int e = 0; e < 8; e++) product = fmaf(q[d + e], k[e], product);
                }
            } else {
                for (int d = 0; d < size; d++) product = fmaf(q[d], widen(key[d]), product);
            }
            float added = 0.0f;
            if (o.buckets) {
                const u64 bucket = o.buckets[min(max(i - j, -o.reach), o.reach) + o.reach];
                const T* k = o.relative_keys + bucket * hidden + head * size;
                const T* r = o.relative_queries + bucket * hidden + head * size;
                if (o.relative_keys)
                    for (int d = 0; d < size; d++) product = fmaf(q[d], widen(k[d]), product);
                if (o.relative_queries)
                    for (int d = 0; d < size; d++) product = fmaf(widen(key[d]), widen(r[d]), product);
                if (o.relative_bias) added = widen(o.relative_bias[bucket * o.heads + head]);
            }
            score = fmaf(o.scale, product, added);
        }
        const float top = fmaxf(largest, warp_max(score));
        const float weight = expf(score - top), shrink = expf(largest - top);
        largest = top;
        total = fmaf(total, shrink, warp_sum(weight));
#pragma unroll
        for (int p = 0; p < PARTS; p++) sums[p] *= shrink;
        for (int t = 0; t < 32 && j0 + t < end; t++) {
            const float w = __shfl_sync(0xffffffff, weight, t);
            const T* value = values + (j0 + t) * stride;
#pragma unroll
            for (int p = 0; p < PARTS; p++) {
                const int d = p * 32 + lane;
                if (d < size) sums[p] = fmaf(w, widen(value[d]), sums[p]);
            }
        }
    }
    T* out = o.out + (u64)row * hidden + head * size;
#pragma unroll
    for (int p = 0; p < PARTS; p++) {
        const int d = p * 32 + lane;
        if (d < size) out[d] = narrow(sums[p] / total);
    }
}

extern "C" __global__ void __launch_bounds__(128) attention_64(const AttentionOperands o) { attend<2>(o); }
extern "C" __global__ void __launch_bounds__(128) attention_128(const AttentionOperands o) { attend<4>(o); }
extern "C" __global__ void __launch_bounds__(128) attention_512(const AttentionOperands o) { attend<16>(o); }
