// Products of many rows on Hopper: tiles come by the bulk copy engine, four warps at a time multiply them straight from
// shared memory (`wgmma`), and bias and activation are applied where the sums are.
//
// A block stays on its processor and takes one tile after another: 128 rows by `OUTS` outputs. One thread keeps the
// copy engine busy, as many steps ahead as there are stages, across tiles. Two groups of four warps take turns: while
// one finishes its tile (bias, activation, stores), the other multiplies the next.

#if ELEMENT != 32 && defined(__CUDA_ARCH_FEAT_SM90_ALL)

#define HOPPER_ROWS 128
#define HOPPER_INPUTS 64

struct HopperOperands {
    TensorMap x;           // [room, inputs] in boxes of 128 by 64
    TensorMap w;           // [outputs, inputs] in boxes of OUTS by 64, or of half of them where two blocks share them
    GemmOperands o;
};

// A place in the ring of stages, and how often its barriers have been gone through, modulo 2.
template <int STAGES> struct Turn {
    u32 stage = 0, phase = 0;
    __device__ __forceinline__ void skip(u32 steps) {
        stage += steps % STAGES;
        phase ^= steps / STAGES & 1;
        if (stage >= STAGES) stage -= STAGES, phase ^= 1;
    }
};

// Numbers from one row of a warp's scratch to the next: eight rows' pairs of numbers are in different banks.
#define HOPPER_PITCH 40

// Bias, activation and stores of 128 rows, of which a warp has 16 in each half; `row` is its first. By way of shared memory,
// 32 outputs at a time: one short loop for all of them, which stays in the cache of instructions. Each sum where it is takes
// ten times as many, and three times as long.
template <int OUTS, typename Function>
__device__ __forceinline__ void finish(const GemmOperands& o, const float (&sums)[2][OUTS / 2], const float* bias, float* scratch,
                                       int row, int rows, int first, Function function) {
    const int lane = threadIdx.x % 32, CHUNKS = OUTS / 32;
    const auto put = [&](int chunk) {
        if (chunk >= 2 * CHUNKS) return;
        const float* s = sums[chunk / CHUNKS] + chunk % CHUNKS * 16;
        float* to = scratch + lane / 4 * HOPPER_PITCH + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            *(float2*)(to + i * 8) = make_float2(s[4 * i], s[4 * i + 1]);
            *(float2*)(to + i * 8 + 8 * HOPPER_PITCH) = make_float2(s[4 * i + 2], s[4 * i + 3]);
        }
    };
#pragma unroll 1
    for (int chunk = 0; chunk < 2 * CHUNKS; chunk++) {
        // Registers have no index at run time.
        switch (chunk) {
            case 0: put(0); break;
            case 1: put(1); break;
            case 2: put(2); break;
            case 3: put(3); break;
            case 4: put(4); break;
            case 5: put(5); break;
            case 6: put(6); break;
            case 7: put(7); break;
            case 8: put(8); break;
            case 9: put(9); break;
            case 10: put(10); break;
            default: put(11); break;
        }
        __syncwarp();
        const int above = chunk / CHUNKS * 64, out0 = chunk % CHUNKS * 32;
#pragma unroll
        for (int i = lane; i < lane + 64; i += 32) {
            const int r = i / 4, out = out0 + i % 4 * 8;
            float values[8], add[8];
            load8(scratch + r * HOPPER_PITCH + i % 4 * 8, values);
            load8(bias + out, add);
#pragma unroll
            for (int e = 0; e < 8; e++) values[e] = function(values[e] + add[e]);
            if (row + above + r < rows && first + out < o.outputs)
                store8(o.out + (u64)(row + above + r) * o.outputs + first + out, values);
        }
        __syncwarp();
    }
}

// Alone, or two blocks to a cluster: they have the same outputs and neighbouring rows, and each copies half of the weights
// for both.
template <int OUTS, int STAGES> __device__ __forceinline__ void hopper(const HopperOperands& p) {
    extern __shared__ u8 memory[];
    __shared__ __align__(8) u64 barriers[2 * STAGES + 2];
    __shared__ __align__(16) float biases[2][OUTS];
    const GemmOperands& o = p.o;
    const int bytes = (HOPPER_ROWS + OUTS) * 128;
    const u32 tiles = (shared_address(memory) + 1023) & ~1023;
    const u32 full = shared_address(barriers), empty = full + 8 * STAGES, multiplied = empty + 8 * STAGES;
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const int blocks = cluster_blocks(), rank = cluster_rank();
    let_next_start();
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            barrier_make(full + 8 * s, 1);
            barrier_make(empty + 8 * s, 4 * blocks);
        }
        for (int g = 0; g < 2; g++) barrier_make(multiplied + 8 * g, 4);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    // Nobody writes to a block that has not begun, or has ended.
    if (blocks > 1) {
        cluster_arrive_empty();
        cluster_wait();
    }
    const auto part = [=] {
        if (blocks == 1) return;
        cluster_arrive();
        cluster_wait();
    };
    const int rows = *o.rows, row_tiles = (rows + HOPPER_ROWS * blocks - 1) / (HOPPER_ROWS * blocks);
    const int count = row_tiles * ((o.outputs + OUTS - 1) / OUTS), steps = (o.inputs + HOPPER_INPUTS - 1) / HOPPER_INPUTS;
    const auto row_of = [=](int tile) { return (tile % row_tiles * blocks + rank) * HOPPER_ROWS; };

    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 0) {
            const auto copy_weights = [&](u32 stage, u32 barrier, int input, int out) {
                const u32 to = stage + HOPPER_ROWS * 128, own = OUTS / blocks * rank;
                barrier_expect(barrier, bytes);
                if (blocks == 1) copy_box(to, &p.w, barrier, input, out);
                else copy_box_to_both(to + own * 128, &p.w, barrier, input, out + own);
            };
            // Weights are nobody's result: the first of them are on their way while the kernel in front finishes.
            const int ahead = blockIdx.x < count ? min(steps, STAGES) : 0;
            for (int step = 0; step < ahead; step++)
                copy_weights(tiles + step * bytes, full + 8 * step, step * HOPPER_INPUTS, blockIdx.x / row_tiles * OUTS);
            wait_for_previous();
            Turn<STAGES> turn;
            for (int tile = blockIdx.x; tile < count; tile += gridDim.x) {
                const int row = row_of(tile), out = tile / row_tiles * OUTS;
                for (int step = 0; step < steps; step++) {
                    const u32 to = tiles + turn.stage * bytes, barrier = full + 8 * turn.stage;
                    if (tile > blockIdx.x || step >= ahead) {
                        barrier_wait(empty + 8 * turn.stage, turn.phase ^ 1);
                        copy_weights(to, barrier, step * HOPPER_INPUTS, out);
                    }
                    copy_box(to, &p.x, barrier, step * HOPPER_INPUTS, row);
                    turn.skip(1);
                }
            }
        }
        __syncwarp();
        part();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        Turn<STAGES> turn;
        if (group == 2) turn.skip(steps);
        float* bias = biases[group - 1];
        float* scratch = (float*)(memory + (tiles - shared_address(memory)) + STAGES * bytes) + ((group - 1) * 4 + warp) * 16 * HOPPER_PITCH;
        for (int i = group - 1, tile = blockIdx.x + i * gridDim.x; tile < count; i += 2, tile += 2 * gridDim.x) {
            float sums[2][OUTS / 2];
            // On its way while the tile is multiplied: the last reader of the tile before is behind the first of these
            // barriers, which each group of four warps has for itself.
            const int first = tile / row_tiles * OUTS;
            asm volatile("bar.sync %0, 128;" ::"r"(group) : "memory");
            for (int n = threadIdx.x % 128; n < OUTS; n += 128) bias[n] = first + n < o.outputs ? o.bias[first + n] : 0.0f;
            asm volatile("bar.sync %0, 128;" ::"r"(group) : "memory");
            // Not before the other group has taken all steps of the tile in front: a stage tells whether its last copy but
            // an even number has come, so nobody may wait for one further ahead.
            if (i > 0) barrier_wait(multiplied + (i - 1) % 2 * 8, (i - 1) / 2 & 1);
            u32 before = 0;
            for (int step = 0; step < steps; step++) {
                barrier_wait(full + 8 * turn.stage, turn.phase);
                const u32 from = tiles + turn.stage * bytes;
                const u64 a = describe(from), b = describe(from + HOPPER_ROWS * 128);
                asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
                for (int k = 0; k < HOPPER_INPUTS / 16; k++) {
                    warpgroup_multiply(sums[0], a + 2 * k, b + 2 * k, step + k > 0);
                    // 64 rows further, in units of 16 bytes.
                    warpgroup_multiply(sums[1], a + 512 + 2 * k, b + 2 * k, step + k > 0);
                }
                asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
                // The step before this one has been read: its place is free, here and for what the other block copies there.
                asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
                if (step > 0 && lane < blocks) cluster_arrive_at(before, lane);
                before = empty + 8 * turn.stage;
                turn.skip(1);
            }
            if (lane == 0) barrier_arrive(multiplied + (group - 1) * 8);
            asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
            if (lane < blocks) cluster_arrive_at(before, lane);
            with_activation(o.activation, [&](auto function) {
                finish<OUTS>(o, sums, bias, scratch, row_of(tile) + warp * 16, rows, first, function);
            });
            turn.skip(steps);
        }
        part();
    }
}

#define HOPPER(outs, stages)                                                                                         \
    extern "C" __global__ void __launch_bounds__(384, 1) hopper_##outs(const __grid_constant__ HopperOperands p) {   \
        hopper<outs, stages>(p);                                                                                     \
    }
HOPPER(192, 5)
HOPPER(128, 6)

#endif
