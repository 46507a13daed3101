// The kernels of flash_tf32.cuh: for heads of up to so many columns, and steps of keys on their way.

#include "flash_tf32.cuh"

#if ELEMENT == 32

// As many as the host gives a block of attention where activations are f32.
#define TF32_QUERIES 64

#define FLASH_TF32(size, slots, blocks)                                                                              \
    extern "C" __global__ void __launch_bounds__(TF32_QUERIES * 2, blocks)                                           \
        flash_tf32_##size(const AttentionOperands o) {                                                               \
        flash_by<QueriesTf32<size>, TF32_QUERIES, slots>(o);                                                         \
    }
FLASH_TF32(16, 2, 4)
FLASH_TF32(32, 2, 4)
FLASH_TF32(64, 2, 4)
FLASH_TF32(128, 1, 2)

#endif
