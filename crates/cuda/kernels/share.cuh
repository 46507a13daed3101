// One tile of a product, and a share of its inputs: what `gemm_few.cu` and `gemm_norm.cu` do alike.
//
// A block's last warp keeps the copy engine busy, its groups of four warps multiply 64 rows each.

#pragma once

#include "hopper.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// The most that shared memory holds of the smallest, 64 by 32.
#define SHARE_STAGES 18

template <int ROWS, int OUTS> struct Share {
    // Threads that multiply, and bytes of a step.
    static const int CONSUMERS = 2 * ROWS, BYTES = (ROWS + OUTS) * 128;
    u32 full, empty, tiles, stages;
    int row0, out0, low, steps;

    // `tiles` is where stages begin, as many as there is memory for; so many bytes in front of them are used otherwise.
    __device__ __forceinline__ Share(u32 barriers, u32 tiles, u32 used, int row0, int out0, int low, int steps)
        : full(barriers), empty(barriers + 8 * SHARE_STAGES), tiles(tiles), row0(row0), out0(out0), low(low), steps(steps) {
        u32 given;
        asm("mov.u32 %0, %%dynamic_smem_size;" : "=r"(given));
        stages = (given - 1024 - used) / BYTES;
    }

    // By a whole warp.
    __device__ __forceinline__ void make_barriers() const {
        const int lane = threadIdx.x % 32;
        if (lane >= stages) return;
        barrier_make(full + 8 * lane, 1);
        barrier_make(empty + 8 * lane, CONSUMERS / 32);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }

    // By one thread: weights as far as there is place for them before the kernel in front has finished, then the rest.
    __device__ __forceinline__ void copy(const TensorMap& x, const TensorMap& w, const Ahead& ahead) const {
        const int early = min(steps, (int)stages);
        for (int s = 0; s < early; s++) {
            barrier_expect(full + 8 * s, BYTES);
            copy_box(tiles + s * BYTES + ROWS * 128, &w, full + 8 * s, (low + s) * STEP_INPUTS, out0);
        }
        // One row of tiles asks for all: the second-level cache has to answer whoever asks.
#pragma unroll 1
        for (int s = early; s < steps && row0 == 0; s++) fetch_box(&w, (low + s) * STEP_INPUTS, out0);
        fetch_ahead(ahead);
        fetch_map(&x);
        wait_for_previous();
        for (int s = 0; s < early; s++) copy_box(tiles + s * BYTES, &x, full + 8 * s, (low + s) * STEP_INPUTS, row0);
        u32 stage = 0, phase = 0;
        for (int s = early; s < steps; s++) {
            barrier_wait(empty + 8 * stage, phase);
            const u32 to = tiles + stage * BYTES, barrier = full + 8 * stage;
            barrier_expect(barrier, BYTES);
            copy_box(to, &x, barrier, (low + s) * STEP_INPUTS, row0);
            copy_box(to + ROWS * 128, &w, barrier, (low + s) * STEP_INPUTS, out0);
            if (++stage == stages) stage = 0, phase ^= 1;
        }
    }

    // By those that multiply. Of each eight outputs a thread has the sums of two neighbours, of its row and of the one eight
    // further.
    __device__ __forceinline__ void multiply(Sum (&sums)[OUTS / 2]) const {
#pragma unroll
        for (int i = 0; i < OUTS / 2; i++) sums[i] = 0;
        u32 stage = 0, phase = 0;
        for (int step = 0; step < steps; step++) {
            barrier_wait(full + 8 * stage, phase);
            const u32 from = tiles + stage * BYTES;
            const u64 a = describe(from + above() * 128), b = describe(from + ROWS * 128);
            multiplications_begin();
#pragma unroll
            for (int k = 0; k < 4; k++) warpgroup_multiply(sums, a + 2 * k, b + 2 * k, 1);
            multiplications_end_group();
            // The step before this one has been read: its place is free.
            multiplications_wait<1>();
            if (step > 0 && threadIdx.x % 32 == 0) barrier_arrive(empty + 8 * (stage == 0 ? stages - 1 : stage - 1));
            if (++stage == stages) stage = 0, phase ^= 1;
        }
        multiplications_wait<0>();
    }

    // The first of a thread's two rows in the tile.
    __device__ __forceinline__ int row() const { return above() + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4; }

  private:
    // Rows of the tile before this group's.
    __device__ __forceinline__ u32 above() const { return ROWS == 64 ? 0 : threadIdx.x / 128 * 64; }
};

#endif
