// The kernels of flash.cuh: for heads of up to so many columns, groups of 16 queries for each warp, steps of keys on their way, and
// blocks on a processor.

#include "flash.cuh"

#if ELEMENT != 32

#define FLASH(size, groups, slots, blocks)                                                                           \
    extern "C" __global__ void __launch_bounds__(FLASH_QUERIES * 2 / groups, blocks)                                 \
        flash_##size(const AttentionOperands o) {                                                                    \
        flash<size, groups, slots>(o);                                                                               \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(FLASH_FEW_WARPS * 32, size > 96 ? 3 : 4)                      \
        flash_few_##size(const AttentionOperands o) {                                                                \
        flash_few<size>(o);                                                                                          \
    }
FLASH(16, 2, 4, 4)
FLASH(32, 2, 4, 4)
FLASH(64, 2, 4, 3)
FLASH(96, 1, 4, 2)
FLASH(128, 1, 2, 1)

#endif
