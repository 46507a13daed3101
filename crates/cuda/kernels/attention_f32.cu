// The kernels of attention_f32.cuh: for heads of up to so many columns.

#include "attention_f32.cuh"

#if ELEMENT == 32

extern "C" __global__ void __launch_bounds__(256) tiled_16(const AttentionOperands o) { attend_tile<16>(o); }
extern "C" __global__ void __launch_bounds__(256) tiled_32(const AttentionOperands o) { attend_tile<32>(o); }
extern "C" __global__ void __launch_bounds__(256) tiled_64(const AttentionOperands o) { attend_tile<64>(o); }
extern "C" __global__ void __launch_bounds__(256) tiled_128(const AttentionOperands o) { attend_tile<128>(o); }

#endif
