// What moves or maps rows: gates, activations of a product that had no room for them, rotations, rows taken and reduced.

#include "common.cuh"

struct GateOperands {
    const T* x;        // [rows, 2 cols]
    T* out;            // [rows, cols]
    const u32* rows;
    int cols;
    int activation;
};

extern "C" __global__ void __launch_bounds__(128) gate(const GateOperands o) {
    const u64 row = blockIdx.x;
    const int first = (blockIdx.y * 128 + threadIdx.x) * 8, left = o.cols - first;
    const bool even = o.cols % 8 == 0;
    let_next_start();
    wait_for_previous();
    if (row >= *o.rows || left <= 0) return;
    float gated[8], other[8];
    const T* x = o.x + row * 2 * o.cols + first;
    load_some(x, left, even, gated);
    load_some(x + o.cols, left, even, other);
    with_activation(o.activation, [&](auto function) {
#pragma unroll
        for (int i = 0; i < 8; i++) gated[i] = function(gated[i]) * other[i];
    });
    store_some(o.out + row * o.cols + first, left, even, gated);
}

struct ActivateOperands {
    T* x;              // [rows, cols], overwritten
    const u32* rows;
    int cols;
    int activation;
};

extern "C" __global__ void __launch_bounds__(128) activate_rows(const ActivateOperands o) {
    const u64 row = blockIdx.x;
    const int first = (blockIdx.y * 128 + threadIdx.x) * 8, left = o.cols - first;
    const bool even = o.cols % 8 == 0;
    let_next_start();
    wait_for_previous();
    if (row >= *o.rows || left <= 0) return;
    float v[8];
    T* x = o.x + row * o.cols + first;
    load_some(x, left, even, v);
    with_activation(o.activation, [&](auto function) {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = function(v[i]);
    });
    store_some(x, left, even, v);
}

struct RotateOperands {
    const T* qkv;            // [rows, 3 heads head_size]
    T* out;
    const float* frequencies;// [head_size / 2]
    const u32* counts;       // rows, sequences
    const u32* offsets;      // [sequences + 1]
    int heads;
    int head_size;
};

extern "C" __global__ void __launch_bounds__(128) rotate(const RotateOperands o) {
    const u32 row = blockIdx.x;
    const int half = o.head_size / 2, pairs = 2 * o.heads * half, values = o.heads * o.head_size;
    const int at = blockIdx.y * 128 + threadIdx.x;
    let_next_start();
    wait_for_previous();
    if (row >= o.counts[0]) return;
    const u64 start = (u64)row * 3 * values;
    if (at < pairs) {
        u32 position = row - o.offsets[sequence_of(o.offsets, o.counts[1], row)];
        int head = at / half, t = at % half;
        // Rounded to f32 before sine and cosine, as the contract says.
        float sine, cosine, angle = __fmul_rn((float)position, o.frequencies[t]);
        sincosf(angle, &sine, &cosine);
        const T* in = o.qkv + start + head * o.head_size + t;
        T* out = o.out + start + head * o.head_size + t;
        float x = widen(in[0]), y = widen(in[half]);
        out[0] = narrow(x * cosine - y * sine);
        out[half] = narrow(y * cosine + x * sine);
    } else if (at - pairs < values) {
        u64 i = start + 2 * values + (at - pairs);
        o.out[i] = o.qkv[i];
    }
}

struct TakeOperands {
    const T* x;            // [.., cols]
    const u32* indices;    // [rows]
    T* out;                // [rows, cols]
    const u32* rows;
    int cols;
};

extern "C" __global__ void __launch_bounds__(128) take_rows(const TakeOperands o) {
    const u64 row = blockIdx.x;
    const int col = blockIdx.y * 128 + threadIdx.x;
    let_next_start();
    wait_for_previous();
    if (row < *o.rows && col < o.cols) o.out[row * o.cols + col] = o.x[(u64)o.indices[row] * o.cols + col];
}

struct ReduceOperands {
    const T* x;            // [rows, cols]
    T* out;                // [sequences, cols]
    const u32* counts;     // rows, sequences
    const u32* offsets;
    int cols;
    int reduction;         // in the order of mlxt_backend::Reduction
};

// 32 columns by 8 threads that share a sequence's rows.
extern "C" __global__ void __launch_bounds__(256) reduce_rows(const ReduceOperands o) {
    __shared__ float part[8][33];
    const u32 sequence = blockIdx.x;
    const int lane = threadIdx.x % 32, group = threadIdx.x / 32, col = blockIdx.y * 32 + lane;
    let_next_start();
    wait_for_previous();
    if (sequence >= o.counts[1]) return;
    const u32 start = o.offsets[sequence], length = o.offsets[sequence + 1] - start;
    const bool largest = o.reduction == 1, weighted = o.reduction == 3;
    float v = largest ? -INFINITE : 0.0f;
    if (col < o.cols) {
        for (u32 i = group; i < length; i += 8) {
            float x = widen(o.x[(u64)(start + i) * o.cols + col]);
            v = largest ? fmaxf(v, x) : v + (weighted ? x * (float)(i + 1) : x);
        }
    }
    part[group][lane] = v;
    __syncthreads();
    if (group > 0 || col >= o.cols) return;
#pragma unroll
    for (int g = 1; g < 8; g++) v = largest ? fmaxf(v, part[g][lane]) : v + part[g][lane];
    const float n = (float)length;
    if (o.reduction == 0) v /= n;
    if (o.reduction == 2) v /= sqrtf(n);
    if (weighted) v /= n * (n + 1.0f) * 0.5f;
    o.out[(u64)sequence * o.cols + col] = narrow(v);
}
