// Products of few rows in f32, with every step rounded to f32: tensor cores have no such thing. For TF32 as well, which may
// be less exact but gains nothing by it as long as reading the weights is what takes time.
//
// As `stream_*` of gemm.cu: weights go from memory straight to the registers that multiply them, and before the kernel in
// front has finished. A multiprocessor does 128 of these multiplications in a cycle, so that 16 rows of BERT-base are 41 us of
// an H200, and its 340 MB of weights, at 4 TB/s, 85: more rows are other blocks, which find the weights in the second-level
// cache.

#include "gemm.cuh"
#include "matrix.cuh"

#if ELEMENT == 32

#define FULL_ROWS 16
// Inputs of a chunk: four neighbours for each of four lanes.
#define FULL_INPUTS 16
#define FULL_WARPS 8

// Adds the sums of two lanes that lie 2 * HALF apart: the first has those of the first HALF rows afterwards, the second
// those of the others.
template <int HALF> __device__ __forceinline__ void add_halves(float (&sums)[FULL_ROWS]) {
    const bool second = threadIdx.x & 2 * HALF;
#pragma unroll
    for (int r = 0; r < HALF; r++) {
        const float kept = second ? sums[r + HALF] : sums[r], given = second ? sums[r] : sums[r + HALF];
        sums[r] = kept + __shfl_xor_sync(0xffffffff, given, 2 * HALF);
    }
}

// 16 bytes of weights. Where the compiler loads, it does so when they are needed: behind the wait for the kernel in front.
__device__ __forceinline__ void load_weights(float4& to, const float* from, bool there) {
    asm volatile("{.reg .pred p; setp.ne.b32 p, %5, 0; @p ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];}"
                 : "=f"(to.x), "=f"(to.y), "=f"(to.z), "=f"(to.w) : "l"(from), "r"((int)there) : "memory");
}

// Four bytes to shared memory, behind the back of the threads.
__device__ __forceinline__ void copy4(u32 to, const void* from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}

// Each warp takes every eighth chunk for 8 * TILES outputs, with AHEAD chunks on their way; the warps' sums are added at the
// end. Of a chunk, lane 8 q + n has inputs 4 q to 4 q + 3 of outputs n, n + 8, .. and multiplies them by those of all rows. What
// it reads of x is the same for eight neighbouring lanes: a warp gets 64 bytes of shared memory, and multiplies TILES * 128 times.
template <int TILES, int AHEAD> __device__ __forceinline__ void stream_full(const GemmOperands& o) {
    const int OUTS = 8 * TILES, RESULTS = FULL_ROWS * OUTS, THREADS = FULL_WARPS * 32, EACH = (RESULTS + THREADS - 1) / THREADS;
    // From one chunk of a warp to its next, in inputs.
    const int STEP = FULL_WARPS * FULL_INPUTS;
    __shared__ __align__(16) float xs[FULL_WARPS][AHEAD][FULL_ROWS][FULL_INPUTS];
    // Two more than there are outputs: a warp's 4 rows by 8 outputs are then in different banks.
    __shared__ float parts[FULL_WARPS][FULL_ROWS][OUTS + 2];
    __shared__ float biases[OUTS];
    __shared__ int rows;
    const int lane = threadIdx.x % 32, n = lane % 8, q = lane / 8;
    const int warp = __shfl_sync(0xffffffff, threadIdx.x / 32, 0); // known to be the same in all lanes
    const int out0 = blockIdx.x * OUTS, row0 = blockIdx.y * FULL_ROWS, inputs = o.inputs;
    const int all = inputs / FULL_INPUTS, low = all * blockIdx.z / gridDim.z, high = all * (blockIdx.z + 1) / gridDim.z;
    const int first = (low + warp) * FULL_INPUTS, chunks = (high - low - warp + FULL_WARPS - 1) / FULL_WARPS;
    let_next_start();
    const float* weights[TILES];
    float4 w[AHEAD][TILES];
#pragma unroll
    for (int t = 0; t < TILES; t++) // behind the last output the last one again, which nobody stores
        weights[t] = o.w + (u64)min(out0 + t * 8 + n, o.outputs - 1) * inputs + first + q * 4;
#pragma unroll
    for (int a = 0; a < AHEAD; a++)
#pragma unroll
        for (int t = 0; t < TILES; t++) load_weights(w[a][t], weights[t] + a * STEP, a < chunks);
    // Not by way of registers, of which there is none to spare until the end.
    if (threadIdx.x < OUTS) copy4(shared_address(biases + threadIdx.x), o.bias + min(out0 + (int)threadIdx.x, o.outputs - 1));
    if (threadIdx.x == OUTS) copy4(shared_address(&rows), o.rows);
#if __CUDA_ARCH__ >= 900
    // What registers have no place for yet, as far as the second-level cache.
    const int rest = ((high - low) * FULL_INPUTS - AHEAD * STEP) * (int)sizeof(float);
    if (rest > 0 && threadIdx.x < OUTS && out0 + (int)threadIdx.x < o.outputs) {
        const float* from = o.w + (u64)(out0 + threadIdx.x) * inputs + low * FULL_INPUTS + AHEAD * STEP;
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(rest) : "memory");
    }
#endif
    if (threadIdx.x == 0) fetch_ahead(o.ahead);
    wait_for_previous();
    // Of x a lane copies 16 bytes of two rows. There is room for whole tiles of rows.
    const float* upper = o.x + (u64)(row0 + lane / 4) * inputs + first + lane % 4 * 4;
    const float* lower = upper + (u64)8 * inputs;
    const u32 to = shared_address(&xs[warp][0][lane / 4][lane % 4 * 4]);
    const auto fetch = [&](int slot, int ahead, bool there) {
        if (there) {
            const u32 place = to + slot * FULL_ROWS * FULL_INPUTS * (int)sizeof(float);
            copy16(place, upper + ahead * STEP, true);
            copy16(place + 8 * FULL_INPUTS * (int)sizeof(float), lower + ahead * STEP, true);
        }
        copies_end_group();
    };
#pragma unroll
    for (int a = 0; a < AHEAD; a++) fetch(a, a, a < chunks);
    float sums[TILES][FULL_ROWS];
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int r = 0; r < FULL_ROWS; r++) sums[t][r] = 0.0f;
#pragma unroll 1
    for (int left = chunks; left > 0; left -= AHEAD) {
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            if (a >= left) break;
            copies_wait<AHEAD - 1>();
            __syncwarp();
#pragma unroll
            for (int r = 0; r < FULL_ROWS; r++) {
                const float4 x = *(const float4*)&xs[warp][a][r][q * 4];
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    sums[t][r] = fmaf(x.x, w[a][t].x, sums[t][r]);
                    sums[t][r] = fmaf(x.y, w[a][t].y, sums[t][r]);
                    sums[t][r] = fmaf(x.z, w[a][t].z, sums[t][r]);
                    sums[t][r] = fmaf(x.w, w[a][t].w, sums[t][r]);
                }
            }
            // All lanes have read what is overwritten.
            __syncwarp();
            const bool there = a + AHEAD < left;
#pragma unroll
            for (int t = 0; t < TILES; t++) load_weights(w[a][t], weights[t] + (a + AHEAD) * STEP, there);
            fetch(a, a + AHEAD, there);
        }
#pragma unroll
        for (int t = 0; t < TILES; t++) weights[t] += AHEAD * STEP;
        upper += AHEAD * STEP, lower += AHEAD * STEP;
    }
    // The four lanes of an output share its rows among them.
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        add_halves<8>(sums[t]);
        add_halves<4>(sums[t]);
#pragma unroll
        for (int r = 0; r < 4; r++) parts[warp][q * 4 + r][t * 8 + n] = sums[t][r];
    }
    copies_wait<0>();
    __syncthreads();
    with_activation(o.activation, [&](auto function) {
#pragma unroll
        for (int p = 0; p < EACH; p++) {
            const int i = p * THREADS + threadIdx.x, row = row0 + i / OUTS, out = out0 + i % OUTS;
            if (i >= RESULTS || row >= rows || out >= o.outputs) continue;
            float sum = 0.0f;
#pragma unroll
            for (int s = 0; s < FULL_WARPS; s++) sum += parts[s][i / OUTS][i % OUTS];
            const u64 at = (u64)row * o.outputs + out;
            if (o.partial) o.partial[blockIdx.z * o.stride + at] = sum;
            else o.out[at] = function(sum + biases[i % OUTS]);
        }
    });
}

// Two blocks fit on a multiprocessor, this kernel's and the next one's.
#define STREAM_FULL(outs, ahead)                                                                                     \
    extern "C" __global__ void __launch_bounds__(FULL_WARPS * 32, 2) stream_f32_##outs(const GemmOperands o) {       \
        stream_full<outs / 8, ahead>(o);                                                                             \
    }
STREAM_FULL(8, 4)
STREAM_FULL(16, 4)
STREAM_FULL(24, 3)
STREAM_FULL(32, 2)

#endif
