// Products of many rows on Hopper: tiles come by the bulk copy engine, four warps at a time multiply them straight from
// shared memory (`wgmma`), and bias and activation are applied where the sums are.
//
// A block stays on its processor and takes one tile after another: 128 rows by `OUTS` outputs. One thread keeps the
// copy engine busy, as many steps ahead as there are stages, across tiles. Two groups of four warps take turns: while
// one finishes its tile (bias, activation, stores), the other multiplies the next.

#include "hopper.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

#define HOPPER_ROWS 128

// A place in the ring of stages, and how often its barriers have been gone through, modulo 2.
template <int STAGES> struct Turn {
    u32 stage = 0, phase = 0;
    __device__ __forceinline__ void skip(u32 steps) {
        stage += steps % STAGES;
        phase ^= steps / STAGES & 1;
        if (stage >= STAGES) stage -= STAGES, phase ^= 1;
    }
};

// Bias, activation and stores of 64 rows, of which `row` is this thread's first. Eight neighbours of a row at a time:
// the instruction leaves two in each of four lanes.
// By way of shared memory, in a short loop, it took 11 us a tile with GELU where this takes 9; and pairs of blocks that copy
// weights for each other (multicast) took longer in every size than blocks alone.
template <int OUTS, typename Function>
__device__ __forceinline__ void finish(const GemmOperands& o, const Sum (&sums)[OUTS / 2], const float* bias, const float* scales, int row, int rows,
                                       int first, Function function) {
    const int lane = threadIdx.x % 4;
    // Where this lane's first piece goes, and how far from the end of the row.
    const int out = first + turned_column(), left = o.outputs - out;
    T *upper_row = o.out + (u64)row * o.outputs + out, *lower_row = upper_row + (u64)8 * o.outputs;
    const float above = scale_at(o.x_scales, row, row < rows), below = scale_at(o.x_scales, row + 8, row + 8 < rows);
#pragma unroll
    for (int n = 0; n < OUTS / 8; n += 4) {
        // One after the other: with several begun at once, the sums would no longer fit into the registers.
        __syncwarp();
        Pair upper[4], lower[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int col = (n + i) * 8 + lane * 2;
            const float2 add = *(const float2*)(bias + col), by = scales_at(scales, col, true);
            const Sum* s = sums + 4 * (n + i);
            upper[i] = narrow2(function(value(s[0], above * by.x, add.x)), function(value(s[1], above * by.y, add.y)));
            lower[i] = narrow2(function(value(s[2], below * by.x, add.x)), function(value(s[3], below * by.y, add.y)));
        }
#pragma unroll
        for (int i = 0; i < 4; i += TURNED) {
            const uint4 a = turn_pairs(upper + i), b = turn_pairs(lower + i);
            const int further = (n + i) * 8;
            if (row < rows && further < left) store16(upper_row + further, a);
            if (row + 8 < rows && further < left) store16(lower_row + further, b);
        }
    }
}

template <int OUTS, int STAGES> __device__ __forceinline__ void hopper(const HopperOperands& p) {
    extern __shared__ u8 memory[];
    __shared__ __align__(8) u64 barriers[2 * STAGES + 2];
    __shared__ __align__(8) float biases[2][OUTS], scales[2][SCALED ? OUTS : 1];
    const GemmOperands& o = p.o;
    const u32 tiles = (shared_address(memory) + 1023) & ~1023;
    const u32 full = shared_address(barriers), empty = full + 8 * STAGES, multiplied = empty + 8 * STAGES;
    const int bytes = (HOPPER_ROWS + OUTS) * 128;
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    let_next_start();
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            barrier_make(full + 8 * s, 1);
            barrier_make(empty + 8 * s, 4);
        }
        for (int g = 0; g < 2; g++) barrier_make(multiplied + 8 * g, 4);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    // Tiles of all there is room for, of which few are without rows: how many there are is not waited for before the first copies.
    const int rows = *o.rows, row_tiles = (o.room + HOPPER_ROWS - 1) / HOPPER_ROWS;
    const int count = row_tiles * ((o.outputs + OUTS - 1) / OUTS), steps = (o.inputs + STEP_INPUTS - 1) / STEP_INPUTS;

    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x > 0) return;
        // Weights are nobody's result: the first of them are on their way while the kernel in front finishes.
        const int ahead = blockIdx.x < count ? min(steps, STAGES) : 0;
        for (int step = 0; step < ahead; step++) {
            barrier_expect(full + 8 * step, bytes);
            copy_box(tiles + step * bytes + HOPPER_ROWS * 128, &p.w, full + 8 * step, step * STEP_INPUTS,
                     blockIdx.x / row_tiles * OUTS);
        }
        fetch_ahead(o.ahead);
        wait_for_previous();
        Turn<STAGES> turn;
        for (int tile = blockIdx.x; tile < count; tile += gridDim.x) {
            const int row = tile % row_tiles * HOPPER_ROWS, out = tile / row_tiles * OUTS;
            for (int step = 0; step < steps; step++) {
                const u32 to = tiles + turn.stage * bytes, barrier = full + 8 * turn.stage;
                if (tile > blockIdx.x || step >= ahead) {
                    barrier_wait(empty + 8 * turn.stage, turn.phase ^ 1);
                    barrier_expect(barrier, bytes);
                    copy_box(to + HOPPER_ROWS * 128, &p.w, barrier, step * STEP_INPUTS, out);
                }
                copy_box(to, &p.x, barrier, step * STEP_INPUTS, row);
                turn.skip(1);
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        Turn<STAGES> turn;
        if (group == 2) turn.skip(steps);
        for (int i = group - 1, tile = blockIdx.x + i * gridDim.x; tile < count; i += 2, tile += 2 * gridDim.x) {
            Sum sums[2][OUTS / 2];
            // On its way while the tile is multiplied: the last reader of the tile before is behind the first of these
            // barriers, which each group of four warps has for itself.
            float *bias = biases[group - 1], *scale = scales[group - 1];
            const int first = tile / row_tiles * OUTS;
            asm volatile("bar.sync %0, 128;" ::"r"(group) : "memory");
            for (int n = threadIdx.x % 128; n < OUTS; n += 128) {
                const bool there = first + n < o.outputs;
                bias[n] = there ? o.bias[first + n] : 0.0f;
                if (SCALED) scale[n] = scale_at(o.w_scales, first + n, there);
            }
            asm volatile("bar.sync %0, 128;" ::"r"(group) : "memory");
            // Not before the other group has taken all steps of the tile in front: a stage tells whether its last copy but
            // an even number has come, so nobody may wait for one further ahead.
            if (i > 0) barrier_wait(multiplied + (i - 1) % 2 * 8, (i - 1) / 2 & 1);
            u32 before = 0;
            for (int step = 0; step < steps; step++) {
                barrier_wait(full + 8 * turn.stage, turn.phase);
                const u32 from = tiles + turn.stage * bytes;
                const u64 a = describe(from), b = describe(from + HOPPER_ROWS * 128);
                multiplications_begin();
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    warpgroup_multiply(sums[0], a + 2 * k, b + 2 * k, step + k > 0);
                    // 64 rows further, in units of 16 bytes.
                    warpgroup_multiply(sums[1], a + 512 + 2 * k, b + 2 * k, step + k > 0);
                }
                multiplications_end_group();
                // The step before this one has been read: its place is free.
                multiplications_wait<1>();
                if (step > 0 && lane == 0) barrier_arrive(before);
                before = empty + 8 * turn.stage;
                turn.skip(1);
            }
            if (lane == 0) barrier_arrive(multiplied + (group - 1) * 8);
            multiplications_wait<0>();
            if (lane == 0) barrier_arrive(before);
            const int row = tile % row_tiles * HOPPER_ROWS + warp * 16 + lane / 4;
            with_activation(o.activation, [&](auto function) {
                finish<OUTS>(o, sums[0], bias, scale, row, rows, first, function);
                finish<OUTS>(o, sums[1], bias, scale, row + 64, rows, first, function);
            });
            turn.skip(steps);
        }
    }
}

#define HOPPER(outs, stages)                                                                                         \
    extern "C" __global__ void __launch_bounds__(384, 1) hopper_##outs(const __grid_constant__ HopperOperands p) {   \
        hopper<outs, stages>(p);                                                                                     \
    }
#if PART == 0
HOPPER(192, 5)
#else
HOPPER(128, 6)
#endif

#endif
