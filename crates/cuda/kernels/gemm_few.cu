// Products of few rows on Hopper, where a tile of 128 rows for each processor is more than there is: the sum over inputs
// is cut as well. Weights are on their way before the kernel in front has finished.
//
// A block has one tile and one share of the inputs. Its last warp keeps the copy engine busy; groups of four warps multiply
// 64 rows each. Blocks of a cluster have the same tile: each sends every other its share of the sums, and finishes the
// outputs that are its own. What clusters leave uncut, `partial` cuts for a norm that adds it up.

#include "share.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Blocks of a cluster, at most.
#define FEW_BLOCKS 8

// Sums of two neighbouring outputs in two rows.
struct __align__(16) Sum4 {
    Sum x, y, z, w;
};

// Shared memory: the sums that come from the cluster, then stages, as many as there is memory for.
template <int ROWS, int OUTS> __device__ __forceinline__ void few(const HopperOperands& p) {
    typedef Share<ROWS, OUTS> S;
    extern __shared__ u8 memory[];
    __shared__ __align__(8) u64 barriers[2 * SHARE_STAGES];
    __shared__ __align__(8) float biases[OUTS], scales[SCALED ? OUTS : 1];
    const GemmOperands& o = p.o;
    const int CONSUMERS = S::CONSUMERS;
    let_next_start();
    const u32 blocks = cluster_blocks(), rank = cluster_rank();
    // Nobody writes to a block that has not begun.
    if (blocks > 1) cluster_arrive_empty();
    // Eight outputs of a thread go to one block together: two neighbours in two rows, 16 bytes.
    const u32 own = (OUTS / 8 + blocks - 1) / blocks, sent = blocks > 1 ? blocks * own * CONSUMERS * 16 : 0;
    const int all = (o.inputs + STEP_INPUTS - 1) / STEP_INPUTS;
    const int low = all * blockIdx.z / gridDim.z, steps = all * (blockIdx.z + 1) / gridDim.z - low;
    const int row0 = blockIdx.y * ROWS, out0 = blockIdx.x * OUTS, lane = threadIdx.x % 32;
    const u32 begin = (shared_address(memory) + 1023) & ~1023;
    const S share(shared_address(barriers), begin + sent, sent, row0, out0, low, steps);
    const int rows = *o.rows, mine = out0 + threadIdx.x;
    const bool named = threadIdx.x < OUTS && mine < o.outputs;
    const float bias = named ? o.bias[mine] : 0.0f, scale = scale_at(o.w_scales, mine, named);
    if (threadIdx.x >= CONSUMERS) share.make_barriers();
    __syncthreads();

    if (threadIdx.x >= CONSUMERS) {
        if (lane == 0) share.copy(p.x, p.w, o.ahead);
        __syncwarp();
        if (blocks > 1) {
            cluster_wait();
            cluster_arrive_empty();
            cluster_wait();
        }
        return;
    }

    if (threadIdx.x < OUTS) {
        biases[threadIdx.x] = bias;
        if (SCALED) scales[threadIdx.x] = scale;
    }
    asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory");
    if (blocks > 1) cluster_wait();
    // Who has no inputs writes without having waited for any.
    wait_for_previous();
    Sum sums[OUTS / 2];
    share.multiply(sums);

    if (blocks > 1) {
        const u32 place = begin + threadIdx.x * 16;
        u32 to = 0, slot = rank * own, left = own;
#pragma unroll
        for (int n = 0; n < OUTS / 8; n++) {
            cluster_put(place + slot * CONSUMERS * 16, to, sums[4 * n], sums[4 * n + 1], sums[4 * n + 2], sums[4 * n + 3]);
            slot++;
            if (--left == 0) to++, slot = rank * own, left = own;
        }
        cluster_arrive();
        cluster_wait();
    }
    // Calls `use` with each eight outputs that this block finishes, and their sums.
    const auto each = [&](auto use) {
        if (blocks == 1) {
#pragma unroll
            for (int n = 0; n < OUTS / 8; n++)
                use(n, Sum4{sums[4 * n], sums[4 * n + 1], sums[4 * n + 2], sums[4 * n + 3]});
            return;
        }
        const Sum4* arrived = (const Sum4*)(memory + (begin - shared_address(memory))) + threadIdx.x;
        const int count = min((int)own, OUTS / 8 - (int)(rank * own));
#pragma unroll 2
        for (int i = 0; i < count; i++) {
            Sum4 sum = {};
#pragma unroll
            for (int s = 0; s < FEW_BLOCKS; s++) {
                if (s >= blocks) continue;
                const Sum4 share = arrived[(s * own + i) * CONSUMERS];
                sum.x += share.x, sum.y += share.y, sum.z += share.z, sum.w += share.w;
            }
            use(rank * own + i, sum);
        }
    };
    const int row = row0 + share.row(), col = lane % 4 * 2;
    const bool upper = row < rows, lower = row + 8 < rows;
    const float above_by = scale_at(o.x_scales, row, upper), below_by = scale_at(o.x_scales, row + 8, lower);
    if (o.partial) {
        float* out = o.partial + blockIdx.z / blocks * o.stride + (u64)row * o.outputs + out0 + col;
        each([&](int n, Sum4 sum) {
            const bool there = out0 + n * 8 < o.outputs;
            const float2 by = scales_at(scales, n * 8 + col, true);
            const float2 first = make_float2(value(sum.x, above_by * by.x), value(sum.y, above_by * by.y));
            const float2 second = make_float2(value(sum.z, below_by * by.x), value(sum.w, below_by * by.y));
            if (upper && there) *(float2*)(out + n * 8) = first;
            if (lower && there) *(float2*)(out + n * 8 + 8 * (u64)o.outputs) = second;
        });
        return;
    }
    T* out = o.out + (u64)row * o.outputs + out0 + col;
    with_activation(o.activation, [&](auto function) {
        each([&](int n, Sum4 sum) {
            const bool there = out0 + n * 8 < o.outputs;
            const float2 add = *(const float2*)(biases + n * 8 + col), by = scales_at(scales, n * 8 + col, true);
            const Pair first = narrow2(function(value(sum.x, above_by * by.x, add.x)), function(value(sum.y, above_by * by.y, add.y)));
            const Pair second = narrow2(function(value(sum.z, below_by * by.x, add.x)), function(value(sum.w, below_by * by.y, add.y)));
            if (upper && there) *(Pair*)(out + n * 8) = first;
            if (lower && there) *(Pair*)(out + n * 8 + 8 * (u64)o.outputs) = second;
        });
    });
}

#define FEW(rows, outs)                                                                                              \
    extern "C" __global__ void __launch_bounds__(2 * rows + 32, 2)                                                   \
        few_##rows##_##outs(const __grid_constant__ HopperOperands p) {                                              \
        few<rows, outs>(p);                                                                                          \
    }
#if PART == 0
FEW(64, 128)
FEW(128, 64)
#elif PART == 1
FEW(64, 96)
FEW(128, 96)
#else
FEW(64, 32)
FEW(64, 64)
#endif

#endif
