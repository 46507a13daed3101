// Products on tensor cores by `mma.sync`, for batches too small to fill the chip with large tiles.
//
// `stream_*`: up to 16 or 32 rows. What takes time is reading the weights, so they go from memory straight to the
// registers that multiply them, and before the kernel in front has finished. `tile_*`: more rows, by tiles in shared
// memory. Both can leave the sum over inputs in parts, one for each blockIdx.z, to a norm that adds them up.

#include "gemm.cuh"

#if ELEMENT != 32

// What two neighbouring outputs have besides their sums.
struct Column2 {
    float2 bias, scale;
};
__device__ __forceinline__ Column2 columns_of(const GemmOperands& o, int out) {
    const bool there = out < o.outputs;
    return {there ? *(const float2*)(o.bias + out) : make_float2(0.0f, 0.0f), scales_at(o.w_scales, out, there)};
}

// Two neighbours of a row, as part of the sum or as the result.
template <typename Function>
__device__ __forceinline__ void put2(const GemmOperands& o, int row, int out, Sum a, Sum b, Column2 columns, Function function) {
    const u64 at = (u64)row * o.outputs + out;
    const float scale = scale_at(o.x_scales, row, true);
    const float2 scales = make_float2(scale * columns.scale.x, scale * columns.scale.y), bias = columns.bias;
    if (o.partial) *(float2*)(o.partial + blockIdx.z * o.stride + at) = make_float2(value(a, scales.x), value(b, scales.y));
    else *(u32*)(o.out + at) = narrow2(function(value(a, scales.x, bias.x)), function(value(b, scales.y, bias.y)));
}

#define STREAM_WARPS 8

// Inputs of a chunk.
#define CHUNK_INPUTS (4 * PIECE_INPUTS)

// Each warp takes every eighth chunk of 64 bytes of inputs, `CHUNKS` of them at a time, for 8 * TILES outputs; the warps' sums
// are added at the end. A lane holds eight neighbours of a row where the instruction wants four pairs: the inputs are
// taken in another order, the same for both operands.
template <int ROWS, int TILES, int CHUNKS> __device__ __forceinline__ void stream(const GemmOperands& o) {
    __shared__ Sum parts[STREAM_WARPS][ROWS][TILES][4][32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, out0 = blockIdx.x * TILES * 8;
    const int all = o.inputs / CHUNK_INPUTS, low = all * blockIdx.z / gridDim.z, high = all * (blockIdx.z + 1) / gridDim.z;
    const Q* w = o.w + (u64)(out0 + lane / 4) * o.inputs + lane % 4 * PIECE_INPUTS;
    const Q* x = o.x + (u64)(lane / 4) * o.inputs + lane % 4 * PIECE_INPUTS;
    uint4 b[CHUNKS][TILES];
    Sum sums[ROWS][TILES][4];
    let_next_start();
    const int rows = *o.rows;
    // What this thread adds up at the end: two neighbours of a row, or several such pairs.
    const int PAIRS = (ROWS * TILES * 64 + 255) / 256;
    Column2 columns[PAIRS];
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
        const int i = p * 256 + threadIdx.x;
        columns[p] = columns_of(o, out0 + i / 64 % TILES * 8 + i % 4 * 2);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int t = 0; t < TILES; t++) sums[r][t][0] = sums[r][t][1] = sums[r][t][2] = sums[r][t][3] = 0;
    // The compiler would take two rounds together, and load weights behind the wait where there is one alone.
#pragma unroll 1
    for (int round = low + warp; round < high; round += STREAM_WARPS * CHUNKS) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int chunk = round + c * STREAM_WARPS;
#pragma unroll
            for (int t = 0; t < TILES; t++)
                b[c][t] = chunk < high && out0 + t * 8 < o.outputs
                              ? __ldg((const uint4*)(w + (u64)t * 8 * o.inputs + chunk * CHUNK_INPUTS)) : make_uint4(0, 0, 0, 0);
        }
        if (round == low + warp) {
            if (threadIdx.x == 0) fetch_ahead(o.ahead);
            wait_for_previous();
        }
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int chunk = round + c * STREAM_WARPS;
            if (chunk >= high) break;
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const uint4 upper = *(const uint4*)(x + (u64)r * 16 * o.inputs + chunk * CHUNK_INPUTS);
                const uint4 lower = *(const uint4*)(x + (u64)(r * 16 + 8) * o.inputs + chunk * CHUNK_INPUTS);
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    accumulate(sums[r][t], upper.x, lower.x, upper.y, lower.y, b[c][t].x, b[c][t].y);
                    accumulate(sums[r][t], upper.z, lower.z, upper.w, lower.w, b[c][t].z, b[c][t].w);
                }
            }
        }
    }
    if (low + warp >= high) wait_for_previous();
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int e = 0; e < 4; e++) parts[warp][r][t][e][lane] = sums[r][t][e];
    __syncthreads();
    with_activation(o.activation, [&](auto function) {
#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
            const int i = p * 256 + threadIdx.x;
            const int l = i % 32, h = i / 32 % 2, t = i / 64 % TILES, r = i / 64 / TILES;
            const int row = r * 16 + h * 8 + l / 4, out = out0 + t * 8 + l % 4 * 2;
            if (i >= ROWS * TILES * 64 || row >= rows || out >= o.outputs) continue;
            Sum a = 0, c = 0;
#pragma unroll
            for (int s = 0; s < STREAM_WARPS; s++) a += parts[s][r][t][2 * h][l], c += parts[s][r][t][2 * h + 1][l];
            put2(o, row, out, a, c, columns[p], function);
        }
    });
}

#define STREAM(rows, tiles, chunks)                                                                                  \
    extern "C" __global__ void __launch_bounds__(256) stream_##rows##_##tiles##_##chunks(const GemmOperands o) {     \
        stream<rows / 16, tiles, chunks>(o);                                                                         \
    }
#if PART == 0
STREAM(16, 1, 3)
STREAM(16, 2, 3)
STREAM(16, 3, 3)
STREAM(16, 1, 6)
STREAM(16, 1, 12)
STREAM(32, 1, 3)
STREAM(32, 2, 3)
STREAM(32, 3, 3)
STREAM(32, 1, 6)
STREAM(32, 1, 12)
#endif

// `ROWS` by `OUTS` results of a block of 4 warps, in a grid of WARPS by 4 / WARPS.
template <int ROWS, int OUTS, int WARPS, int STAGES> __device__ __forceinline__ void tile(const GemmOperands& o) {
    extern __shared__ __align__(128) u8 memory[];
    const int bytes = (ROWS + OUTS) * 128;
    const int mine = ROWS / WARPS, other = OUTS / (4 / WARPS), M = mine / 16, N = other / 8;
    const u32 shared = shared_address(memory);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row0 = blockIdx.y * ROWS, out0 = blockIdx.x * OUTS, rows = *o.rows;
    const int all = (o.inputs + STEP_INPUTS - 1) / STEP_INPUTS;
    const int low = all * blockIdx.z / gridDim.z, steps = all * (blockIdx.z + 1) / gridDim.z - low;
    let_next_start();
    if (row0 >= rows) {
        wait_for_previous();
        return;
    }
    // Rows of 128 bytes; the eight pieces of each lie in an order that depends on the row, so that eight rows' pieces
    // of one number are in different banks.
    const auto place = [](u32 base, int row, int piece) { return base + row * 128 + ((piece ^ (row & 7)) << 4); };
    const auto load = [&](u32 base, const Q* from, int count, int first, int end, int step) {
        const int k0 = (low + step) * STEP_INPUTS;
#pragma unroll
        for (int c = threadIdx.x; c < count * 8; c += 128) {
            const int row = c / 8, k = k0 + c % 8 * PIECE_INPUTS;
            const bool there = first + row < end && k < o.inputs;
            copy16(place(base, row, c % 8), there ? from + (u64)(first + row) * o.inputs + k : from, there);
        }
    };
    const auto stage = [&](int step) { return shared + step % STAGES * bytes; };
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++)
        if (s < steps) load(stage(s) + ROWS * 128, o.w, OUTS, out0, o.outputs, s);
    const int row1 = warp % WARPS * mine, out1 = warp / WARPS * other;
    Column2 columns[N];
#pragma unroll
    for (int n = 0; n < N; n++) columns[n] = columns_of(o, out0 + out1 + n * 8 + lane % 4 * 2);
    if (threadIdx.x == 0) fetch_ahead(o.ahead);
    wait_for_previous();
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) load(stage(s), o.x, ROWS, row0, rows, s);
        copies_end_group();
    }
    Sum sums[M][N][4];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++) sums[m][n][0] = sums[m][n][1] = sums[m][n][2] = sums[m][n][3] = 0;
    for (int step = 0; step < steps; step++) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        if (step + STAGES - 1 < steps) {
            load(stage(step + STAGES - 1) + ROWS * 128, o.w, OUTS, out0, o.outputs, step + STAGES - 1);
            load(stage(step + STAGES - 1), o.x, ROWS, row0, rows, step + STAGES - 1);
        }
        copies_end_group();
        const u32 xs = stage(step), ws = xs + ROWS * 128;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            u32 a[M][4];
#pragma unroll
            for (int m = 0; m < M; m++) load_matrices(a[m], place(xs, row1 + m * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
            for (int n = 0; n < N; n += 2) {
                u32 b[4];
                load_matrices(b, place(ws, out1 + n * 8 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
#pragma unroll
                for (int m = 0; m < M; m++) {
                    accumulate(sums[m][n], a[m][0], a[m][1], a[m][2], a[m][3], b[0], b[1]);
                    accumulate(sums[m][n + 1], a[m][0], a[m][1], a[m][2], a[m][3], b[2], b[3]);
                }
            }
        }
    }
    copies_wait<0>();
    with_activation(o.activation, [&](auto function) {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const int row = row0 + row1 + m * 16 + lane / 4 + 8 * h, out = out0 + out1 + n * 8 + lane % 4 * 2;
                    const Sum left = sums[m][n][2 * h], right = sums[m][n][2 * h + 1];
                    if (row < rows && out < o.outputs) put2(o, row, out, left, right, columns[n], function);
                }
    });
}

#define TILE(rows, outs, warps, stages)                                                                              \
    extern "C" __global__ void __launch_bounds__(128) tile_##rows##_##outs(const GemmOperands o) {                   \
        tile<rows, outs, warps, stages>(o);                                                                          \
    }
#if PART == 1
TILE(16, 64, 1, 4)
TILE(32, 32, 2, 6)
TILE(64, 32, 4, 5)
#elif PART == 2
TILE(64, 64, 2, 4)
TILE(128, 64, 2, 4)
#endif

#endif
