// Rows rounded to 8 bits, with a scale for each: what products multiply where OPERAND says so.

#pragma once

#include "operand.cuh"

#if SCALED

// Behind the rows of the matrix, at a multiple of 256 bytes: the scales.
struct Rounded {
    Q* rows;               // [room, cols], or nothing where nobody wants them
    float* scales;         // [room]
};

// Columns that are spread over each other. Encoders' activations have a few columns far beyond the others, for which a scale
// is then so large that these lose their digits. Sums and differences of columns are alike in size, and products do not change
// where both sides are rotated. With 128 columns errors of whole models are the same, with none eight times as large.
// Floats have digits at every size and would lose some by it.
#define SPREAD (OPERAND == 8)

// Hadamard's matrix times 32 columns, eight in each of four lanes, in an order and with signs of its own, which both sides
// of a product have. Rows are whole numbers of these.
__device__ __forceinline__ void spread(float (&v)[8]) {
#pragma unroll
    for (int apart = 1; apart < 8; apart *= 2)
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (!(i & apart)) {
                const float a = v[i], b = v[i + apart];
                v[i] = a + b, v[i + apart] = a - b;
            }
    // Lanes swap halves, so that each has both of what is to be added.
#pragma unroll
    for (int apart = 1; apart < 4; apart *= 2) {
        const bool upper = threadIdx.x & apart;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float kept = upper ? v[i + 4] : v[i];
            const float got = __shfl_xor_sync(0xffffffff, upper ? v[i] : v[i + 4], apart);
            v[i] = kept + got, v[i + 4] = kept - got;
        }
    }
}

// The largest of eight values without their signs and of `most`; infinite where one is infinite or not a number.
__device__ __forceinline__ float largest(const float (&v)[8], float most) {
#pragma unroll
    for (int i = 0; i < 8; i++) most = fabsf(v[i]) < INFINITE ? fmaxf(most, fabsf(v[i])) : INFINITE;
    return most;
}

#if OPERAND == 8
#define MOST_CODE 127.0f
// Both sides of a product are spread: each has its share of the 32.
#define SHARE 0.17677669529663687f
#else
#define MOST_CODE 448.0f
#define SHARE 1.0f
#endif

// Of a row whose largest value is `most`: by what its codes are multiplied in products, not a number where the row has one that
// is none; and what its values are multiplied by to become codes.
__device__ __forceinline__ float row_scale(float most) {
    return most < INFINITE ? most * (SHARE / MOST_CODE) : __int_as_float(0x7fffffff);
}
__device__ __forceinline__ float code_factor(float most) {
    const float factor = MOST_CODE / most;
    return factor < INFINITE ? factor : 0.0f;
}

__device__ __forceinline__ void store_codes(Q* to, const float (&v)[8], float factor) {
    u32 words[2];
#if OPERAND == 8
    // What is added to a value leaves a whole number in its lowest bits.
    const auto code = [=](float value) { return __float_as_uint(fmaf(value, factor, 12582912.0f)); };
#pragma unroll
    for (int w = 0; w < 2; w++) {
        const float* four = v + 4 * w;
        const u32 low = __byte_perm(code(four[0]), code(four[1]), 0x40), high = __byte_perm(code(four[2]), code(four[3]), 0x40);
        words[w] = __byte_perm(low, high, 0x5410);
    }
#else
    const auto two = [=](float low, float high) {
        u16 r;
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(high * factor), "f"(low * factor));
        return (u32)r;
    };
#pragma unroll
    for (int w = 0; w < 2; w++) words[w] = two(v[4 * w], v[4 * w + 1]) | two(v[4 * w + 2], v[4 * w + 3]) << 16;
#endif
    *(uint2*)to = make_uint2(words[0], words[1]);
}

// A row of which each thread has chunks of eight columns: `first` says where one begins, `over_row` is the largest of all
// threads' numbers. All threads of a warp take part; what is behind the row's end does not count, and is lost.
template <int CHUNKS, typename First, typename OverRow>
__device__ __forceinline__ void round_row(const Rounded& to, u64 row, int cols, float (&v)[CHUNKS][8], First first, OverRow over_row) {
    float most = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
        for (int i = 0; i < 8; i++) v[c][i] = first(c) < cols ? v[c][i] : 0.0f;
        if (SPREAD) spread(v[c]);
        most = largest(v[c], most);
    }
    most = over_row(most);
    const float factor = code_factor(most);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
        if (first(c) < cols) store_codes(to.rows + row * cols + first(c), v[c], factor);
    if (first(0) == 0) to.scales[row] = row_scale(most);
}

#endif
