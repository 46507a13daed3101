// Softmax and norms of rows, which threads keep in registers where they are short; softmax along other axes.

#include "operate.cuh"

struct RowOperands {
    const float* x;        // [rows, cols]
    const float* residual; // [rows, cols], AddLayerNorm
    const float* gain;     // [cols]
    const float* shift;    // [cols]
    float* out;
    float2* partial;       // long softmax: [rows, parts], the largest and the sum
    u64 rows;
    u64 cols;
    u64 inner;             // softmax of columns: [rows, cols, inner]
    u32 parts;
    float eps;
};

enum { SOFTMAX, LAYER_NORM, ADD_LAYER_NORM, RMS_NORM };

// `LANES` threads a row, each with `V` vectors of it.
template <int F, int VEC, int LANES, int V> __device__ __forceinline__ void short_rows(const RowOperands& o) {
    const u64 row = (u64)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
    const u32 lane = threadIdx.x % LANES, cols = (u32)o.cols;
    const bool there = row < o.rows;
    wait_for_previous();
    Vector<VEC> v[V];
    float reduced = F == SOFTMAX ? -INFINITE : 0.0f;
#pragma unroll
    for (int k = 0; k < V; k++) {
        const u32 col = (lane + k * LANES) * VEC;
        v[k] = there && col < cols ? load<VEC>(o.x + row * cols + col) : filled<VEC>(F == SOFTMAX ? -INFINITE : 0.0f);
        if (F == ADD_LAYER_NORM && there && col < cols) {
            const Vector<VEC> r = load<VEC>(o.residual + row * cols + col);
#pragma unroll
            for (int i = 0; i < VEC; i++) v[k].v[i] += r.v[i];
        }
    }
#pragma unroll
    for (int k = 0; k < V; k++)
#pragma unroll
        for (int i = 0; i < VEC; i++) reduced = F == SOFTMAX ? fmaxf(reduced, v[k].v[i]) : reduced + v[k].v[i];
    if (F == SOFTMAX) {
        const float largest = lanes_max<LANES>(reduced);
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < V; k++)
#pragma unroll
            for (int i = 0; i < VEC; i++) sum += v[k].v[i] = expf(v[k].v[i] - largest);
        const float share = 1.0f / lanes_sum<LANES>(sum);
#pragma unroll
        for (int k = 0; k < V; k++)
#pragma unroll
            for (int i = 0; i < VEC; i++) v[k].v[i] *= share;
    } else {
        const float mean = F == RMS_NORM ? 0.0f : lanes_sum<LANES>(reduced) / cols;
        float squares = 0.0f;
#pragma unroll
        for (int k = 0; k < V; k++)
#pragma unroll
            for (int i = 0; i < VEC; i++) {
                v[k].v[i] -= mean;
                if ((lane + k * LANES) * VEC < cols) squares = fmaf(v[k].v[i], v[k].v[i], squares);
            }
        const float scale = 1.0f / sqrtf(lanes_sum<LANES>(squares) / cols + o.eps);
#pragma unroll
        for (int k = 0; k < V; k++) {
            const u32 col = (lane + k * LANES) * VEC;
            Vector<VEC> gain = filled<VEC>(1.0f), shift = filled<VEC>(0.0f);
            if (F != LAYER_NORM && col < cols) gain = load<VEC>(o.gain + col);
            if (F == ADD_LAYER_NORM && col < cols) shift = load<VEC>(o.shift + col);
#pragma unroll
            for (int i = 0; i < VEC; i++) v[k].v[i] = fmaf(v[k].v[i] * scale, gain.v[i], shift.v[i]);
        }
    }
#pragma unroll
    for (int k = 0; k < V; k++) {
        const u32 col = (lane + k * LANES) * VEC;
        if (there && col < cols) store<VEC>(o.out + row * cols + col, v[k]);
    }
}

// A norm of rows of any length, a block each. They are read three times, but from the cache after the first.
template <int F> __device__ __forceinline__ void long_norm(const RowOperands& o) {
    __shared__ float scratch[32];
    const u64 first = (u64)blockIdx.x * o.cols;
    wait_for_previous();
    float sum = 0.0f, squares = 0.0f;
    for (u64 i = threadIdx.x; i < o.cols; i += THREADS)
        sum += o.x[first + i] + (F == ADD_LAYER_NORM ? o.residual[first + i] : 0.0f);
    const float mean = F == RMS_NORM ? 0.0f : threads_sum(sum, scratch) / o.cols;
    for (u64 i = threadIdx.x; i < o.cols; i += THREADS) {
        const float v = o.x[first + i] + (F == ADD_LAYER_NORM ? o.residual[first + i] : 0.0f) - mean;
        squares = fmaf(v, v, squares);
    }
    const float scale = 1.0f / sqrtf(threads_sum(squares, scratch) / o.cols + o.eps);
    for (u64 i = threadIdx.x; i < o.cols; i += THREADS) {
        const float v = o.x[first + i] + (F == ADD_LAYER_NORM ? o.residual[first + i] : 0.0f) - mean;
        o.out[first + i] = fmaf(v * scale, F == LAYER_NORM ? 1.0f : o.gain[i], F == ADD_LAYER_NORM ? o.shift[i] : 0.0f);
    }
}

// The largest value and the sum of exponentials relative to it, of what was seen so far.
__device__ __forceinline__ void join_softmax(float& largest, float& sum, float other, float other_sum) {
    const float top = fmaxf(largest, other);
    if (top == -INFINITE) return;
    sum = sum * expf(largest - top) + other_sum * expf(other - top);
    largest = top;
}
__device__ __forceinline__ void join_softmax_threads(float& largest, float& sum) {
    __shared__ float2 warps[THREADS / 32];
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) {
        const float other = __shfl_xor_sync(0xffffffff, largest, step), s = __shfl_xor_sync(0xffffffff, sum, step);
        join_softmax(largest, sum, other, s);
    }
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = make_float2(largest, sum);
    __syncthreads();
    largest = -INFINITE, sum = 0.0f;
#pragma unroll
    for (int i = 0; i < THREADS / 32; i++) join_softmax(largest, sum, warps[i].x, warps[i].y);
}

// Long rows in parts: first the largest and the sum of each part, then the values. The second goes backwards, so that what
// the first read last is still in the cache.
template <int VEC> __device__ __forceinline__ void softmax_parts(const RowOperands& o) {
    const u64 vectors = o.cols / VEC, each = (vectors + o.parts - 1) / o.parts;
    const u64 first = blockIdx.x % o.parts * each, end = min(first + each, vectors);
    const float* x = o.x + blockIdx.x / o.parts * o.cols;
    wait_for_previous();
    float largest = -INFINITE, sum = 0.0f;
    for (u64 i = first + threadIdx.x; i < end; i += 4 * THREADS) {
        Vector<VEC> v[4];
        float top = largest;
#pragma unroll
        for (int k = 0; k < 4; k++) v[k] = i + k * THREADS < end ? load<VEC>(x + VEC * (i + k * THREADS)) : filled<VEC>(-INFINITE);
#pragma unroll
        for (int k = 0; k < 4; k++)
#pragma unroll
            for (int e = 0; e < VEC; e++) top = fmaxf(top, v[k].v[e]);
        if (top == -INFINITE) continue;
        sum *= expf(largest - top);
        largest = top;
#pragma unroll
        for (int k = 0; k < 4; k++)
#pragma unroll
            for (int e = 0; e < VEC; e++) sum += expf(v[k].v[e] - top);
    }
    join_softmax_threads(largest, sum);
    if (threadIdx.x == 0) o.partial[blockIdx.x] = make_float2(largest, sum);
}
template <int VEC> __device__ __forceinline__ void softmax_finish(const RowOperands& o) {
    const u32 block = gridDim.x - 1 - blockIdx.x;
    const u64 vectors = o.cols / VEC, each = (vectors + o.parts - 1) / o.parts;
    const u64 first = block % o.parts * each, end = min(first + each, vectors), row = block / o.parts;
    wait_for_previous();
    float largest = -INFINITE, sum = 0.0f;
    for (u32 i = threadIdx.x; i < o.parts; i += THREADS) {
        const float2 part = o.partial[row * o.parts + i];
        join_softmax(largest, sum, part.x, part.y);
    }
    join_softmax_threads(largest, sum);
    const float share = 1.0f / sum;
    for (u64 i = first + threadIdx.x; i < end; i += 4 * THREADS) {
        Vector<VEC> v[4];
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (i + k * THREADS < end) v[k] = load<VEC>(o.x + row * o.cols + VEC * (i + k * THREADS));
#pragma unroll
        for (int k = 0; k < 4; k++) {
#pragma unroll
            for (int e = 0; e < VEC; e++) v[k].v[e] = expf(v[k].v[e] - largest) * share;
            if (i + k * THREADS < end) store<VEC>(o.out + row * o.cols + VEC * (i + k * THREADS), v[k]);
        }
    }
}

// Columns: 32 side by side, eight threads for each.
extern "C" __global__ void __launch_bounds__(THREADS) softmax_columns(const RowOperands o) {
    __shared__ float2 all[8][32];
    const u32 lane = threadIdx.x % 32, group = threadIdx.x / 32;
    const u64 tiles = (o.inner + 31) / 32, row = blockIdx.x / tiles, col = blockIdx.x % tiles * 32 + lane;
    const u64 first = row * o.cols * o.inner + col;
    wait_for_previous();
    float largest = -INFINITE, sum = 0.0f;
    if (col < o.inner)
        for (u64 k = group; k < o.cols; k += 8) join_softmax(largest, sum, o.x[first + k * o.inner], 1.0f);
    all[group][lane] = make_float2(largest, sum);
    __syncthreads();
    if (col >= o.inner) return;
    largest = -INFINITE, sum = 0.0f;
#pragma unroll
    for (int g = 0; g < 8; g++) join_softmax(largest, sum, all[g][lane].x, all[g][lane].y);
    const float share = 1.0f / sum;
    for (u64 k = group; k < o.cols; k += 8) o.out[first + k * o.inner] = expf(o.x[first + k * o.inner] - largest) * share;
}

#define KERNEL(name, body) \
    extern "C" __global__ void __launch_bounds__(THREADS) name(const RowOperands o) { body(o); }
#define KERNELS(name, F) \
    KERNEL(name##_1_32_1, (short_rows<F, 1, 32, 1>)) \
    KERNEL(name##_1_32_4, (short_rows<F, 1, 32, 4>)) \
    KERNEL(name##_1_32_32, (short_rows<F, 1, 32, 32>)) \
    KERNEL(name##_4_2_1, (short_rows<F, 4, 2, 1>)) \
    KERNEL(name##_4_4_2, (short_rows<F, 4, 4, 2>)) \
    KERNEL(name##_4_8_2, (short_rows<F, 4, 8, 2>)) \
    KERNEL(name##_4_16_2, (short_rows<F, 4, 16, 2>)) \
    KERNEL(name##_4_32_2, (short_rows<F, 4, 32, 2>)) \
    KERNEL(name##_4_32_4, (short_rows<F, 4, 32, 4>)) \
    KERNEL(name##_4_32_8, (short_rows<F, 4, 32, 8>))
KERNELS(softmax, SOFTMAX)
KERNELS(layer_norm, LAYER_NORM)
KERNELS(add_layer_norm, ADD_LAYER_NORM)
KERNELS(rms_norm, RMS_NORM)
KERNEL(layer_norm_long, long_norm<LAYER_NORM>)
KERNEL(add_layer_norm_long, long_norm<ADD_LAYER_NORM>)
KERNEL(rms_norm_long, long_norm<RMS_NORM>)
KERNEL(softmax_parts_1, softmax_parts<1>)
KERNEL(softmax_parts_4, softmax_parts<4>)
KERNEL(softmax_finish_1, softmax_finish<1>)
KERNEL(softmax_finish_4, softmax_finish<4>)
