// Attention as in flash.cuh where activations are f32 and products may be TF32: heads of up to 128 columns, a multiple of 4.
//
// An instruction multiplies 16 queries by 8 columns by 8 keys (or 8 keys by 8 columns of values). Of 8 columns it wants numbers t
// and t + 4 from lane t: it gets 2 t and 2 t + 1, which is another order of the same sum, the same for both operands. So operands
// are pairs of neighbours, and weights lie where their scores were.

#pragma once

#include "flash.cuh"

#if ELEMENT == 32

// To 11 bits, the nearest.
__device__ __forceinline__ u32 round_tf32(float v) {
    u32 r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(v));
    return r;
}

// Two neighbours in shared memory, rounded.
__device__ __forceinline__ void load_pair(u32 (&r)[2], u32 address) {
    float a, b;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(a), "=f"(b) : "r"(address) : "memory");
    r[0] = round_tf32(a), r[1] = round_tf32(b);
}

// c += a b: 16 x 8 by 8 x 8, sums in f32.
__device__ __forceinline__ void multiply_tf32(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 16 queries of a warp. Columns 16 m + 4 t to 16 m + 4 t + 3 of the weighted values of a row are in lane t: the even ones in
// `out[0][2 m]`, the odd ones in `out[0][2 m + 1]`.
template <int SIZE> struct QueriesTf32 : Softmax<SIZE, 1> {
    using Softmax<SIZE, 1>::out, Softmax<SIZE, 1>::total;
    // Half a warp reads pairs of four rows of keys at a time, side by side, and of every other row of values: with so many columns
    // more they are in different banks.
    typedef Tile<SIZE, 8> Keys;
    typedef Tile<SIZE, 4> Values;
    u32 q[SIZE / 8][4];

    __device__ __forceinline__ void start(u32 tile, int row) {
        const int lane = threadIdx.x % 32;
        const u32 from = Keys::at(tile, row + lane / 4, lane % 4 * 2);
        this->clear();
#pragma unroll
        for (int c = 0; c < SIZE / 8; c++) {
            u32 upper[2], lower[2];
            load_pair(upper, Keys::at(from, 0, c * 8));
            load_pair(lower, Keys::at(from, 8, c * 8));
            q[c][0] = upper[0], q[c][1] = lower[0], q[c][2] = upper[1], q[c][3] = lower[1];
        }
    }

    // Takes keys as `weigh`.
    template <typename Wait>
    __device__ __forceinline__ void take(u32 keys, u32 values, int base, int end, const AttentionOperands& o, float scale,
                                         Wait wait_for_values) {
        const int lane = threadIdx.x % 32;
        const u32 from = Keys::at(keys, lane / 4, lane % 4 * 2), of = Values::at(values, lane % 4 * 2, lane / 4 * 2);
        float s[1][FLASH_KEYS / 8][4] = {};
#pragma unroll
        for (int c = 0; c < SIZE / 8; c++)
#pragma unroll
            for (int n = 0; n < FLASH_KEYS / 8; n++) {
                u32 b[2];
                load_pair(b, Keys::at(from, n * 8, c * 8));
                multiply_tf32(s[0][n], q[c], b[0], b[1]);
            }
        this->weigh(s, base, end, o, scale);
        wait_for_values();
#pragma unroll
        for (int n = 0; n < FLASH_KEYS / 8; n++) {
            const float(&w)[4] = s[0][n];
            const u32 p[4] = {round_tf32(w[0]), round_tf32(w[2]), round_tf32(w[1]), round_tf32(w[3])};
#pragma unroll
            for (int m = 0; m < SIZE / 16; m++) {
                u32 first[2], second[2]; // of two neighbouring keys, two neighbouring columns of each
                load_pair(first, Values::at(of, n * 8, m * 16));
                load_pair(second, Values::at(of, n * 8 + 1, m * 16));
                multiply_tf32(out[0][2 * m], p, first[0], second[0]);
                multiply_tf32(out[0][2 * m + 1], p, first[1], second[1]);
            }
        }
    }

    // Writes the results of the first `left` queries to rows that are `hidden` apart.
    __device__ __forceinline__ void store(T*, T* to, int left, int hidden, int size) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float part = __fdividef(1.0f, total[0][h]);
            const int row = h * 8 + lane / 4;
#pragma unroll
            for (int m = 0; m < SIZE / 16; m++) {
                const int col = m * 16 + lane % 4 * 4;
                const float(&even)[4] = out[0][2 * m], (&odd)[4] = out[0][2 * m + 1];
                const uint4 four = make_uint4(__float_as_uint(even[2 * h] * part), __float_as_uint(odd[2 * h] * part),
                                              __float_as_uint(even[2 * h + 1] * part), __float_as_uint(odd[2 * h + 1] * part));
                if (row < left && col < size) store16(to + (u64)row * hidden + col, four);
            }
        }
    }
};

#endif
