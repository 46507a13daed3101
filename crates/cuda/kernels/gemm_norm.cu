// Products of whole rows on Hopper, normalised where their sums are: the blocks of a cluster have one tile of rows and all
// outputs between them, and tell each other the sums of their rows, which is all that a norm needs to know of the others.
//
// A norm as a kernel of its own takes 5 to 6.5 us for 3904 rows of 768, most of it to read what lies in the second-level cache.

#include "share.cuh"

#if ELEMENT != 32 && defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Blocks of a cluster, at most.
#define NORM_BLOCKS 8
// Tiles whose sums and residuals take more registers than threads have at first, so that warps that multiply get those of others: a
// block is three groups of four warps then, and what multiplies and one warp otherwise.
#define NORM_WIDE(rows, outs) (rows == 128 && outs >= 192)
#define NORM_THREADS(rows, outs) (NORM_WIDE(rows, outs) ? 384 : 2 * rows + 32)

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

// What a block knows of a row: the mean of its piece, and the squares of distances to it.
struct Piece {
    float mean, squares;
};

// A number of each of this thread's two rows, added up over the four threads that have these.
__device__ __forceinline__ float2 add_up(float2 v) {
#pragma unroll
    for (int apart = 1; apart < 4; apart *= 2)
        v.x += __shfl_xor_sync(0xffffffff, v.x, apart), v.y += __shfl_xor_sync(0xffffffff, v.y, apart);
    return v;
}

// What all blocks of a cluster know of their rows.
template <int ROWS, int OUTS> struct Known {
    u32 place;             // [blocks][ROWS] of pieces, in shared memory
    u32 blocks, rank;

    // Tells the cluster of this thread's rows.
    __device__ __forceinline__ void tell(int row, Piece upper, Piece lower) const {
        const u32 mine = place + (rank * ROWS + row) * 8;
#pragma unroll
        for (u32 to = threadIdx.x % 4; to < NORM_BLOCKS; to += 4)
            if (to < blocks) {
                cluster_put(mine, to, make_float2(upper.mean, upper.squares));
                cluster_put(mine + 8 * 8, to, make_float2(lower.mean, lower.squares));
            }
    }

    // The same of a whole row. Means are taken from the first piece's, which is as near to the row's as the others are: no digits are
    // lost where all are large.
    __device__ __forceinline__ Piece of(int row) const {
        const float origin = at(0, row).mean;
        float off = 0.0f, squared = 0.0f, within = 0.0f;
#pragma unroll
        for (u32 from = 0; from < NORM_BLOCKS; from++)
            if (from < blocks) {
                const Piece piece = at(from, row);
                const float apart = piece.mean - origin;
                off += apart, squared = fmaf(apart, apart, squared), within += piece.squares;
            }
        off /= blocks;
        return {origin + off, fmaf((float)OUTS, fmaf(-off * blocks, off, squared), within)};
    }

    __device__ __forceinline__ Piece at(u32 from, int row) const {
        Piece piece;
        asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                     : "=f"(piece.mean), "=f"(piece.squares) : "r"(place + (from * ROWS + row) * 8) : "memory");
        return piece;
    }
};

// Shared memory: what blocks know of rows, then stages.
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
    // Stages begin at multiples of 1024.
    const u32 told = (blocks * ROWS * 8 + 1023) & ~1023, begin = (shared_address(memory) + 1023) & ~1023;
    const int steps = (o.inputs + STEP_INPUTS - 1) / STEP_INPUTS, row0 = blockIdx.y * ROWS, out0 = rank * OUTS;
    const S share(shared_address(barriers), begin + told, told, row0, out0, 0, steps);
    const int rows = *o.rows, lane = threadIdx.x % 32;
    const bool copies = threadIdx.x / 32 == S::CONSUMERS / 32;
    if (copies) share.make_barriers();
    __syncthreads();

    if (threadIdx.x >= S::CONSUMERS) {
        if (NORM_WIDE(ROWS, OUTS)) asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (copies && lane == 0) share.copy(p.x, p.w, o.ahead);
        __syncwarp();
        cluster_wait();
        cluster_arrive_empty();
        cluster_wait();
        return;
    }

    if (NORM_WIDE(ROWS, OUTS)) asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const int row = share.row(), col = lane % 4 * 2;
    const bool upper = row0 + row < rows, lower = row0 + row + 8 < rows;
    const u64 pitch = o.outputs, first = (row0 + row) * pitch + out0;
    for (int n = threadIdx.x; n < OUTS; n += S::CONSUMERS) {
        biases[n] = o.bias[out0 + n];
        if (SCALED) scales[n] = o.w_scales[out0 + n];
        gains[n] = p.gain[out0 + n], shifts[n] = p.shift ? p.shift[out0 + n] : 0.0f;
    }
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
    asm volatile("bar.sync 1, %0;" ::"n"(S::CONSUMERS) : "memory");

    float v[OUTS / 2];
    float2 total = make_float2(0.0f, 0.0f);
    const float above_by = scale_at(o.x_scales, row0 + row, upper), below_by = scale_at(o.x_scales, row0 + row + 8, lower);
#pragma unroll
    for (int n = 0; n < OUTS / 8; n++) {
        const float2 add = *(const float2*)(biases + n * 8 + col), by = scales_at(scales, n * 8 + col, true);
        const u32 a = residual[n][0], b = residual[n][1];
        v[4 * n] = value(sums[4 * n], above_by * by.x, add.x) + widen((T)a);
        v[4 * n + 1] = value(sums[4 * n + 1], above_by * by.y, add.y) + widen((T)(a >> 16));
        v[4 * n + 2] = value(sums[4 * n + 2], below_by * by.x, add.x) + widen((T)b);
        v[4 * n + 3] = value(sums[4 * n + 3], below_by * by.y, add.y) + widen((T)(b >> 16));
        total.x += v[4 * n] + v[4 * n + 1], total.y += v[4 * n + 2] + v[4 * n + 3];
    }
    if (p.sum) store_rows<OUTS>(p.sum + first, v, pitch, OUTS, upper, lower);

    // Means first, then distances to them, as in norm.cu.
    total = add_up(total);
    const float2 mean = make_float2(total.x / OUTS, total.y / OUTS);
    float2 squares = make_float2(0.0f, 0.0f);
#pragma unroll
    for (int i = 0; i < OUTS / 2; i += 4)
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const float a = v[i + k] - mean.x, b = v[i + 2 + k] - mean.y;
            squares.x = fmaf(a, a, squares.x), squares.y = fmaf(b, b, squares.y);
        }
    squares = add_up(squares);
    const Known<ROWS, OUTS> known{begin, blocks, rank};
    known.tell(row, {mean.x, squares.x}, {mean.y, squares.y});
    cluster_arrive();
    cluster_wait();
    const float each = 1.0f / o.outputs;
    // What a row is scaled and moved by.
    const auto factors = [&](Piece whole) {
        const float variance = whole.squares * each, moved = p.centred ? whole.mean : 0.0f;
        const float scale = rsqrtf((p.centred ? variance : fmaf(whole.mean, whole.mean, variance)) + p.eps);
        return make_float2(scale, -moved * scale);
    };
    const float2 above = factors(known.of(row)), below = factors(known.of(row + 8));
#pragma unroll
    for (int n = 0; n < OUTS / 8; n++) {
        const float2 gain = *(const float2*)(gains + n * 8 + col), shift = *(const float2*)(shifts + n * 8 + col);
        float* s = v + 4 * n;
        s[0] = fmaf(fmaf(s[0], above.x, above.y), gain.x, shift.x), s[1] = fmaf(fmaf(s[1], above.x, above.y), gain.y, shift.y);
        s[2] = fmaf(fmaf(s[2], below.x, below.y), gain.x, shift.x), s[3] = fmaf(fmaf(s[3], below.x, below.y), gain.y, shift.y);
    }
    store_rows<OUTS>(o.out + first, v, pitch, OUTS, upper, lower);
}

#define NORMED(rows, outs)                                                                                           \
    extern "C" __global__ void __launch_bounds__(NORM_THREADS(rows, outs), 1)                                        \
        normed_##rows##_##outs(const __grid_constant__ NormedOperands p) {                                           \
        normed<rows, outs>(p);                                                                                       \
    }
#if PART == 0
NORMED(128, 192)
NORMED(64, 96)
#elif PART == 1
NORMED(64, 192)
NORMED(128, 96)
#elif PART == 2
NORMED(64, 128)
NORMED(128, 128)
#else
NORMED(128, 256)
#endif

#endif
