// A product of any sizes, in f32 whatever the elements: for those that no faster kernel takes (odd numbers of columns).

#include "common.cuh"

struct AnyOperands {
    const T* x;            // [rows, inputs]
    const T* w;            // [outputs, inputs]
    const float* bias;     // [outputs]
    T* out;                // [rows, outputs]
    const u32* rows;
    int inputs;
    int outputs;
    int activation;
};

#define ANY_TILE 32

extern "C" __global__ void __launch_bounds__(256) gemm_any(const AnyOperands o) {
    __shared__ float xs[ANY_TILE][ANY_TILE + 1], ws[ANY_TILE][ANY_TILE + 1];
    const int rows = *o.rows, row0 = blockIdx.y * ANY_TILE, out0 = blockIdx.x * ANY_TILE;
    const int lane = threadIdx.x % 32, group = threadIdx.x / 32;
    let_next_start();
    wait_for_previous();
    if (row0 >= rows) return;
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int k0 = 0; k0 < o.inputs; k0 += ANY_TILE) {
        const int k = k0 + lane;
#pragma unroll
        for (int i = group; i < ANY_TILE; i += 8) {
            xs[i][lane] = row0 + i < rows && k < o.inputs ? widen(o.x[(u64)(row0 + i) * o.inputs + k]) : 0.0f;
            ws[i][lane] = out0 + i < o.outputs && k < o.inputs ? widen(o.w[(u64)(out0 + i) * o.inputs + k]) : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (int i = 0; i < ANY_TILE; i++) {
            const float w = ws[lane][i];
#pragma unroll
            for (int r = 0; r < 4; r++) sums[r] = fmaf(xs[group + 8 * r][i], w, sums[r]);
        }
        __syncthreads();
    }
    const int out = out0 + lane;
    if (out >= o.outputs) return;
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const int row = row0 + group + 8 * r;
        if (row < rows) o.out[(u64)row * o.outputs + out] = narrow(activate(o.activation, sums[r] + o.bias[out]));
    }
}
