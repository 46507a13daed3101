// What surrounds cuBLASLt's products, and convolutions, whose windows are never laid out in memory.

#include "operate.cuh"

struct FinishOperands {
    float* x;             // [rows, cols], overwritten
    const float* bias;    // [cols]
    u64 count;            // vectors; cols is in vectors too
    u32 cols;
    u32 gelu;             // applied after the bias
};

template <int VEC> __device__ __forceinline__ void finish(const FinishOperands& o) {
    const u64 first = (u64)blockIdx.x * (4 * THREADS) + threadIdx.x;
    wait_for_previous();
    Vector<VEC> v[4];
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (first + k * THREADS < o.count) v[k] = load<VEC>(o.x + VEC * (first + k * THREADS));
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const u64 at = first + k * THREADS;
        if (at >= o.count) return;
        u64 row, col;
        divide(at, o.cols, row, col);
        const Vector<VEC> bias = load<VEC>(o.bias + VEC * col);
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            v[k].v[i] += bias.v[i];
            if (o.gelu) v[k].v[i] = gelu(v[k].v[i]);
        }
        store<VEC>(o.x + VEC * at, v[k]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) finish_1(const FinishOperands o) { finish<1>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) finish_4(const FinishOperands o) { finish<4>(o); }

struct WidenOperands {
    const signed char* weights; // [inputs, outputs]; of 4 bits two inputs in a byte, [(inputs + 1) / 2, outputs]
    const float* scales;        // [groups, outputs]
    float* out;                 // [inputs, outputs]
    u32 inputs;
    u32 outputs;
    u32 group;                  // inputs that share a scale
    u32 bits;
};

extern "C" __global__ void __launch_bounds__(THREADS) widen_weights(const WidenOperands o) {
    const u32 output = blockIdx.x * THREADS + threadIdx.x, step = o.bits == 4 ? 2 : 1;
    wait_for_previous();
    if (output >= o.outputs) return;
    for (u32 row = blockIdx.y; row * step < o.inputs; row += gridDim.y) {
        const u32 input = row * step;
        const int packed = o.weights[(u64)row * o.outputs + output];
        const float scale = o.scales[(u64)(input / o.group) * o.outputs + output];
        float* out = o.out + (u64)input * o.outputs + output;
        if (step == 1) {
            *out = scale * (float)packed;
        } else {
            out[0] = scale * (float)((packed & 15) - 8);
            if (input + 1 < o.inputs) out[o.outputs] = scale * (float)((packed >> 4 & 15) - 8);
        }
    }
}

struct ConvolveOperands {
    const float* x;       // [count, height, width, channels]
    const float* w;       // [outputs, rows, cols, channels]
    float* out;           // [count, height - rows + 1, width - cols + 1, outputs]
    int count, height, width, channels;
    int outputs, rows, cols;
    int tile;             // positions side by side in a tile, a power of two; see TILE
    int some;             // channels that are in shared memory at a time
    int pitch;            // from one position there to the next
};

#define CONVOLVE_THREADS 128
#define CONVOLVE_OUTPUTS 8

// A block computes 8 outputs at 128 P positions, a tile of some rows and `tile` columns of one image; a thread P of the
// positions. x (the tile and what its windows reach) and the weights are brought to shared memory some channels at a time.
template <int VEC, int P> __device__ __forceinline__ void convolve(const ConvolveOperands& o) {
    extern __shared__ __align__(16) float memory[];
    const int tile_rows = CONVOLVE_THREADS * P / o.tile, reach = o.tile + o.cols - 1, lines = tile_rows + o.rows - 1;
    const int taps = o.rows * o.cols, high = o.height - o.rows + 1, wide = o.width - o.cols + 1;
    float* weights = memory;                                            // [taps][some][8]
    float* near = memory + taps * o.some * CONVOLVE_OUTPUTS;            // [lines][reach][pitch]
    const int across = (wide + o.tile - 1) / o.tile, down = (high + tile_rows - 1) / tile_rows;
    const int col0 = blockIdx.x % across * o.tile, row0 = blockIdx.x / across % down * tile_rows;
    const int image = blockIdx.x / across / down, output0 = blockIdx.y * CONVOLVE_OUTPUTS;
    float sums[P][CONVOLVE_OUTPUTS];
    int at[P];
#pragma unroll
    for (int p = 0; p < P; p++) {
        const int q = threadIdx.x + p * CONVOLVE_THREADS;
        at[p] = (q / o.tile * reach + q % o.tile) * o.pitch;
#pragma unroll
        for (int n = 0; n < CONVOLVE_OUTPUTS; n++) sums[p][n] = 0.0f;
    }
    wait_for_previous();
    for (int c0 = 0; c0 < o.channels; c0 += o.some) {
        const int some = min(o.some, o.channels - c0);
        __syncthreads();
        for (int i = threadIdx.x; i < taps * some * CONVOLVE_OUTPUTS; i += CONVOLVE_THREADS) {
            // Neighbours in x are neighbours in w.
            const int n = i / (taps * some), k = i % (taps * some), tap = k / some, c = k % some;
            weights[(tap * o.some + c) * CONVOLVE_OUTPUTS + n] =
                output0 + n < o.outputs ? o.w[((u64)(output0 + n) * taps + tap) * o.channels + c0 + c] : 0.0f;
        }
        const int vectors = some / VEC, length = reach * vectors;
        for (int line = 0; line < lines; line++) {
            const int y = row0 + line;
            const float* from = o.x + (((u64)image * o.height + y) * o.width + col0) * o.channels + c0;
#pragma unroll 4
            for (int i = threadIdx.x; i < length; i += CONVOLVE_THREADS) {
                const int position = i / vectors, c = i % vectors * VEC;
                Vector<VEC> v = filled<VEC>(0.0f);
                if (y < o.height && col0 + position < o.width) v = load<VEC>(from + (u64)position * o.channels + c);
                store<VEC>(near + (line * reach + position) * o.pitch + c, v);
            }
        }
        __syncthreads();
        for (int dy = 0; dy < o.rows; dy++) {
            for (int dx = 0; dx < o.cols; dx++) {
                const float* w = weights + (dy * o.cols + dx) * o.some * CONVOLVE_OUTPUTS;
                const float* x = near + (dy * reach + dx) * o.pitch;
#pragma unroll 2
                for (int c = 0; c < some; c += VEC) {
                    Vector<VEC> v[P];
#pragma unroll
                    for (int p = 0; p < P; p++) v[p] = load<VEC>(x + at[p] + c);
#pragma unroll
                    for (int e = 0; e < VEC; e++) {
                        const Vector<4> low = load<4>(w + (c + e) * CONVOLVE_OUTPUTS);
                        const Vector<4> top = load<4>(w + (c + e) * CONVOLVE_OUTPUTS + 4);
#pragma unroll
                        for (int p = 0; p < P; p++)
#pragma unroll
                            for (int n = 0; n < 4; n++) {
                                sums[p][n] = fmaf(v[p].v[e], low.v[n], sums[p][n]);
                                sums[p][n + 4] = fmaf(v[p].v[e], top.v[n], sums[p][n + 4]);
                            }
                    }
                }
            }
        }
    }
#pragma unroll
    for (int p = 0; p < P; p++) {
        const int q = threadIdx.x + p * CONVOLVE_THREADS, y = row0 + q / o.tile, x = col0 + q % o.tile;
        if (y >= high || x >= wide) continue;
        float* out = o.out + (((u64)image * high + y) * wide + x) * o.outputs + output0;
        if (o.outputs % 4 == 0 && output0 + CONVOLVE_OUTPUTS <= o.outputs) {
            ((float4*)out)[0] = make_float4(sums[p][0], sums[p][1], sums[p][2], sums[p][3]);
            ((float4*)out)[1] = make_float4(sums[p][4], sums[p][5], sums[p][6], sums[p][7]);
        } else {
#pragma unroll
            for (int n = 0; n < CONVOLVE_OUTPUTS; n++)
                if (output0 + n < o.outputs) out[n] = sums[p][n];
        }
    }
}

extern "C" __global__ void __launch_bounds__(CONVOLVE_THREADS) convolve_1_1(const ConvolveOperands o) { convolve<1, 1>(o); }
extern "C" __global__ void __launch_bounds__(CONVOLVE_THREADS) convolve_1_4(const ConvolveOperands o) { convolve<1, 4>(o); }
extern "C" __global__ void __launch_bounds__(CONVOLVE_THREADS) convolve_4_1(const ConvolveOperands o) { convolve<4, 1>(o); }
extern "C" __global__ void __launch_bounds__(CONVOLVE_THREADS) convolve_4_4(const ConvolveOperands o) { convolve<4, 4>(o); }

// Windows that shared memory has no room for: a thread for each result.
extern "C" __global__ void __launch_bounds__(THREADS) convolve_any(const ConvolveOperands o) {
    const int high = o.height - o.rows + 1, wide = o.width - o.cols + 1;
    const u64 i = (u64)blockIdx.x * THREADS + threadIdx.x;
    wait_for_previous();
    if (i >= (u64)o.count * high * wide * o.outputs) return;
    const u64 output = i % o.outputs, x = i / o.outputs % wide, y = i / o.outputs / wide % high, image = i / o.outputs / wide / high;
    const int length = o.cols * o.channels;
    float sum = 0.0f;
    for (int dy = 0; dy < o.rows; dy++) {
        const float* from = o.x + ((image * o.height + y + dy) * o.width + x) * o.channels;
        const float* w = o.w + (output * o.rows + dy) * length;
        for (int k = 0; k < length; k++) sum = fmaf(from[k], w[k], sum);
    }
    o.out[i] = sum;
}
