// Products of whole rows on Hopper, normalised where their sums are: the blocks of a cluster have one tile of rows and all
// outputs between them, and tell each other the sums of their rows, which is all that a norm needs to know of the others.
//
// A norm as a kernel of its own takes 5 to 6.5 us for 3904 rows of 768, most of it to read what lies in the second-level cache.

#include "share.cuh"

#if ELEMENT != 32 && defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Blocks of a cluster, at most.
#define NORM_BLOCKS 8

struct NormedOperands {
    TensorMap x;           // [room, inputs] in boxes of ROWS by a step
    TensorMap w;           // [outputs, inputs] in boxes of OUTS by a step
    GemmOperands o;        // `out` is what has been normalised
    const T* residual;     // [rows, outputs] or null
    T* sum;                // rows before they are normalised, or null
    const float* gain;     // [outputs]
    const float* shift;    // [outputs] or null
    float eps;
    int centred;           // LayerNorm rather than RMSNorm
};

// What each block of a cluster knows of rows: two numbers for each, of this thread's two rows.
template <int ROWS> struct Known {
    u32 place;             // [blocks][ROWS] of two numbers, in shared memory
    u32 blocks, rank;
    int row;

    // Tells the cluster, and gives the sums over it.
    __device__ __forceinline__ void add_up(float2& upper, float2& lower) const {
#pragma unroll
        for (int apart = 1; apart < 4; apart *= 2) {
            upper.x += __shfl_xor_sync(0xffffffff, upper.x, apart), upper.y += __shfl_xor_sync(0xffffffff, upper.y, apart);
            lower.x += __shfl_xor_sync(0xffffffff, lower.x, apart), lower.y += __shfl_xor_sync(0xffffffff, lower.y, apart);
        }
        const u32 mine = place + (rank * ROWS + row) * 8;
#pragma unroll
        for (u32 to = threadIdx.x % 4; to < NORM_BLOCKS; to += 4)
            if (to < blocks) cluster_put(mine, to, upper), cluster_put(mine + 8 * 8, to, lower);
        cluster_arrive();
        cluster_wait();
        upper = lower = make_float2(0.0f, 0.0f);
#pragma unroll
        for (u32 from = 0; from < NORM_BLOCKS; from++)
            if (from < blocks) {
                const float2 a = at(from, row), b = at(from, row + 8);
                upper.x += a.x, upper.y += a.y, lower.x += b.x, lower.y += b.y;
            }
    }

    __device__ __forceinline__ float2 at(u32 from, int row) const {
        float2 v;
        asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(place + (from * ROWS + row) * 8) : "memory");
        return v;
    }
};

// Two neighbours of one row and of the one eight below, as they lie in registers, in stores of eight.
template <int OUTS>
__device__ __forceinline__ void store_rows(T* to, const float (&v)[OUTS / 2], u64 pitch, bool upper, bool lower) {
    const int lane = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < OUTS / 8; n += 4) {
        u32 first[4], second[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float* s = v + 4 * (n + i);
            first[i] = narrow2(s[0], s[1]), second[i] = narrow2(s[2], s[3]);
        }
        const uint4 a = turn_words(first), b = turn_words(second);
        if (upper) store16(to + (n + lane) * 8, a);
        if (lower) store16(to + (n + lane) * 8 + 8 * pitch, b);
    }
}

// Shared memory: two rounds of what blocks know of rows, then stages.
template <int ROWS, int OUTS> __device__ __forceinline__ void normed(const NormedOperands& p) {
    typedef Share<ROWS, OUTS> S;
    extern __shared__ u8 memory[];
    __shared__ __align__(8) u64 barriers[2 * SHARE_STAGES];
    __shared__ __align__(8) float biases[OUTS], scales[SCALED ? OUTS : 1], gains[OUTS], shifts[OUTS];
    const GemmOperands& o = p.o;
    let_next_start();
    const u32 blocks = cluster_blocks(), rank = cluster_rank();
    // Nobody writes to a block that has not begun.
    cluster_arrive_empty();
    const u32 told = blocks * ROWS * 8, begin = (shared_address(memory) + 1023) & ~1023;
    const int steps = (o.inputs + STEP_INPUTS - 1) / STEP_INPUTS, row0 = blockIdx.y * ROWS, out0 = rank * OUTS;
    const S share(shared_address(barriers), begin + 2 * told, 2 * told, row0, out0, 0, steps);
    const int rows = *o.rows, lane = threadIdx.x % 32;
    if (row0 >= rows) {
        // Nor has any other block of this cluster rows.
        wait_for_previous();
        return;
    }
    if (threadIdx.x >= S::CONSUMERS) share.make_barriers();
    for (int n = threadIdx.x; n < OUTS; n += S::CONSUMERS + 32) {
        biases[n] = o.bias[out0 + n];
        if (SCALED) scales[n] = o.w_scales[out0 + n];
        gains[n] = p.gain[out0 + n], shifts[n] = p.shift ? p.shift[out0 + n] : 0.0f;
    }
    __syncthreads();

    if (threadIdx.x >= S::CONSUMERS) {
        if (lane == 0) share.copy(p.x, p.w, o.ahead);
        __syncwarp();
        cluster_wait();
        // The two rounds.
        cluster_arrive_empty();
        cluster_wait();
        cluster_arrive_empty();
        cluster_wait();
        return;
    }

    const int row = share.row(), col = lane % 4 * 2;
    const bool upper = row0 + row < rows, lower = row0 + row + 8 < rows;
    const u64 pitch = o.outputs, first = (row0 + row) * pitch + out0;
    cluster_wait();
    wait_for_previous();
    // On its way while the tile is multiplied.
    u32 residual[OUTS / 8][2];
#pragma unroll
    for (int n = 0; n < OUTS / 8; n++) {
        const T* from = p.residual + first + n * 8 + col;
        residual[n][0] = p.residual && upper ? *(const u32*)from : 0;
        residual[n][1] = p.residual && lower ? *(const u32*)(from + 8 * pitch) : 0;
    }
    Sum sums[OUTS / 2];
    share.multiply(sums);

    float v[OUTS / 2];
    float2 above = make_float2(0.0f, 0.0f), below = above;
    const float above_by = scale_at(o.x_scales, row0 + row, upper), below_by = scale_at(o.x_scales, row0 + row + 8, lower);
#pragma unroll
    for (int n = 0; n < OUTS / 8; n++) {
        const float2 add = *(const float2*)(biases + n * 8 + col), by = scales_at(scales, n * 8 + col, true);
        const u32 a = residual[n][0], b = residual[n][1];
        v[4 * n] = value(sums[4 * n], above_by * by.x, add.x) + widen((T)a);
        v[4 * n + 1] = value(sums[4 * n + 1], above_by * by.y, add.y) + widen((T)(a >> 16));
        v[4 * n + 2] = value(sums[4 * n + 2], below_by * by.x, add.x) + widen((T)b);
        v[4 * n + 3] = value(sums[4 * n + 3], below_by * by.y, add.y) + widen((T)(b >> 16));
        above.x += v[4 * n] + v[4 * n + 1], below.x += v[4 * n + 2] + v[4 * n + 3];
    }
    if (p.sum) store_rows<OUTS>(p.sum + first, v, pitch, upper, lower);

    // The mean first, then distances to it, and what rounding left of the mean: as in norm.cu.
    const float each = 1.0f / o.outputs;
    Known<ROWS>{begin, blocks, rank, row}.add_up(above, below);
    const float above_mean = p.centred ? above.x * each : 0.0f, below_mean = p.centred ? below.x * each : 0.0f;
    above = below = make_float2(0.0f, 0.0f);
#pragma unroll
    for (int i = 0; i < OUTS / 2; i += 4)
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const float a = v[i + k] - above_mean, b = v[i + 2 + k] - below_mean;
            v[i + k] = a, v[i + 2 + k] = b;
            above.x = fmaf(a, a, above.x), above.y += a, below.x = fmaf(b, b, below.x), below.y += b;
        }
    Known<ROWS>{begin + told, blocks, rank, row}.add_up(above, below);
    const float above_off = p.centred ? above.y * each : 0.0f, below_off = p.centred ? below.y * each : 0.0f;
    const float above_scale = rsqrtf(fmaf(above.x, each, fmaf(-above_off, above_off, p.eps)));
    const float below_scale = rsqrtf(fmaf(below.x, each, fmaf(-below_off, below_off, p.eps)));
#pragma unroll
    for (int n = 0; n < OUTS / 8; n++) {
        const float2 gain = *(const float2*)(gains + n * 8 + col), shift = *(const float2*)(shifts + n * 8 + col);
        float* s = v + 4 * n;
        s[0] = fmaf((s[0] - above_off) * above_scale, gain.x, shift.x), s[1] = fmaf((s[1] - above_off) * above_scale, gain.y, shift.y);
        s[2] = fmaf((s[2] - below_off) * below_scale, gain.x, shift.x), s[3] = fmaf((s[3] - below_off) * below_scale, gain.y, shift.y);
    }
    store_rows<OUTS>(o.out + first, v, pitch, upper, lower);
}

#define NORMED(rows, outs)                                                                                           \
    extern "C" __global__ void __launch_bounds__(2 * rows + 32, 1)                                                   \
        normed_##rows##_##outs(const __grid_constant__ NormedOperands p) {                                           \
        normed<rows, outs>(p);                                                                                       \
    }
#if PART == 0
NORMED(128, 192)
NORMED(64, 96)
#elif PART == 1
NORMED(64, 192)
NORMED(128, 96)
#else
NORMED(64, 128)
NORMED(128, 128)
#endif

#endif
