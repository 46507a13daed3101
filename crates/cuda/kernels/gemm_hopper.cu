// Products of many rows on Hopper: tiles come by the bulk copy engine, four warps at a time multiply them straight from
// shared memory (`wgmma`), and bias and activation are applied where the sums are.
//
// A block stays on its processor and takes one tile after another: 128 rows by `OUTS` outputs. One warp keeps the copy
// engine busy, as many steps ahead as there are stages, across tiles; two groups of four warps multiply 64 rows each.

#if ELEMENT != 32 && defined(__CUDA_ARCH_FEAT_SM90_ALL)

#define HOPPER_ROWS 128
#define HOPPER_INPUTS 64

struct HopperOperands {
    TensorMap x;           // [room, inputs] in boxes of 128 by 64
    TensorMap w;           // [outputs, inputs] in boxes of OUTS by 64
    GemmOperands o;
};

template <int OUTS, int STAGES> __device__ __forceinline__ void hopper(const HopperOperands& p) {
    extern __shared__ u8 memory[];
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    __shared__ __align__(8) float biases[2][OUTS];
    const GemmOperands& o = p.o;
    const u32 tiles = (shared_address(memory) + 1023) & ~1023;
    const u32 full = shared_address(barriers), empty = full + 8 * STAGES;
    const int bytes = (HOPPER_ROWS + OUTS) * 128;
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    let_next_start();
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            barrier_make(full + 8 * s, 1);
            barrier_make(empty + 8 * s, 8);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    wait_for_previous();
    const int rows = *o.rows, row_tiles = (rows + HOPPER_ROWS - 1) / HOPPER_ROWS;
    const int count = row_tiles * ((o.outputs + OUTS - 1) / OUTS), steps = (o.inputs + HOPPER_INPUTS - 1) / HOPPER_INPUTS;

    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) {
            u32 stage = 0, phase = 0;
            for (int tile = blockIdx.x; tile < count; tile += gridDim.x) {
                const int row = tile % row_tiles * HOPPER_ROWS, out = tile / row_tiles * OUTS;
                for (int step = 0; step < steps; step++) {
                    barrier_wait(empty + 8 * stage, phase ^ 1);
                    const u32 to = tiles + stage * bytes, barrier = full + 8 * stage;
                    barrier_expect(barrier, bytes);
                    copy_box(to, &p.x, barrier, step * HOPPER_INPUTS, row);
                    copy_box(to + HOPPER_ROWS * 128, &p.w, barrier, step * HOPPER_INPUTS, out);
                    if (++stage == STAGES) stage = 0, phase ^= 1;
                }
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        u32 stage = 0, phase = 0;
        for (int tile = blockIdx.x; tile < count; tile += gridDim.x) {
            float sums[OUTS / 2];
            // On its way while the tile is multiplied: the last reader of the tile before is behind the first of these
            // barriers, which each group of four warps has for itself.
            float* bias = biases[group - 1];
            const int first = tile / row_tiles * OUTS;
            asm volatile("bar.sync %0, 128;" ::"r"(group) : "memory");
            for (int i = threadIdx.x % 128; i < OUTS; i += 128) bias[i] = first + i < o.outputs ? o.bias[first + i] : 0.0f;
            asm volatile("bar.sync %0, 128;" ::"r"(group) : "memory");
            for (int step = 0; step < steps; step++) {
                barrier_wait(full + 8 * stage, phase);
                const u32 from = tiles + stage * bytes;
                const u64 a = describe(from + (group - 1) * 64 * 128), b = describe(from + HOPPER_ROWS * 128);
                asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
                for (int k = 0; k < HOPPER_INPUTS / 16; k++) warpgroup_multiply(sums, a + 2 * k, b + 2 * k, step + k > 0);
                asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
                // The step before this one has been read: its place is free.
                asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
                if (step > 0 && lane == 0) barrier_arrive(empty + 8 * (stage == 0 ? STAGES - 1 : stage - 1));
                if (++stage == STAGES) stage = 0, phase ^= 1;
            }
            asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
            if (lane == 0) barrier_arrive(empty + 8 * (stage == 0 ? STAGES - 1 : stage - 1));
            const int row = tile % row_tiles * HOPPER_ROWS + (group - 1) * 64 + warp * 16 + lane / 4;
            with_activation(o.activation, [&](auto function) {
#pragma unroll
                for (int n = 0; n < OUTS / 8; n++) {
                    const int col = n * 8 + lane % 4 * 2;
                    const float2 add = *(const float2*)(bias + col);
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        const float left = function(sums[4 * n + 2 * h] + add.x);
                        const float right = function(sums[4 * n + 2 * h + 1] + add.y);
                        if (row + 8 * h < rows && first + col < o.outputs)
                            *(u32*)(o.out + (u64)(row + 8 * h) * o.outputs + first + col) = narrow2(left, right);
                    }
                }
            });
        }
    }
}

#define HOPPER(outs, stages)                                                                                         \
    extern "C" __global__ void __launch_bounds__(384, 1) hopper_##outs(const __grid_constant__ HopperOperands p) {   \
        hopper<outs, stages>(p);                                                                                     \
    }
HOPPER(256, 4)
HOPPER(192, 5)
HOPPER(128, 6)

#endif
