// What products multiply: activations and weights as they are, or both rounded to 8 bits.
//
// OPERAND is 8 where they are integers, 9 where they are floats of 4 bits of exponent and 3 of fraction (e4m3), and is not
// defined where they are activations' own. All lie in rows of the same bytes, so the same kernels multiply them: a step takes
// 128 bytes of a row, an instruction 32.

#pragma once

#include "common.cuh"
#include "matrix.cuh"

#if !defined(OPERAND)
typedef T Q;
typedef float Sum;
#define SCALED 0
#elif OPERAND == 8
typedef signed char Q;
typedef int Sum;
#define SCALED 1
#else
typedef u8 Q;
typedef float Sum;
#define SCALED 1
#endif

// Inputs of 16 bytes, and of a step.
#define PIECE_INPUTS (16 / (int)sizeof(Q))
#define STEP_INPUTS (8 * PIECE_INPUTS)

#if ELEMENT != 32
// c += a b: 16 rows of 32 bytes by 8.
__device__ __forceinline__ void accumulate(Sum (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
#if !SCALED
    multiply(c, a0, a1, a2, a3, b0, b1);
#elif OPERAND == 8
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
    asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#endif
}
#endif

// A scale, and two neighbours; nothing is read where operands have none.
__device__ __forceinline__ float scale_at(const float* scales, int at, bool there) {
    return SCALED && there ? scales[at] : 1.0f;
}
__device__ __forceinline__ float2 scales_at(const float* scales, int at, bool there) {
    return SCALED && there ? *(const float2*)(scales + at) : make_float2(1.0f, 1.0f);
}
// What a sum stands for, and with a bias.
__device__ __forceinline__ float value(Sum sum, float scale) { return SCALED ? (float)sum * scale : sum; }
__device__ __forceinline__ float value(Sum sum, float scale, float bias) {
    return SCALED ? fmaf((float)sum, scale, bias) : sum + bias;
}
