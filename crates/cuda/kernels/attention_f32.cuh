// Attention in f32 for heads of up to 128 columns, without relative terms: 64 queries by 64 keys at a time, each thread
// with 4 by 4 scores in registers, then 4 queries by some columns of the result.

#pragma once

#include "attention.cuh"

#if ELEMENT == 32

#define SQUARE 64
// Rows of shared tiles: four more than there are values, so that columns of them lie in different banks.
#define PITCH (SQUARE + 4)

// Rows `first..first + 64`, with zeros from `end` and column `size` on: four columns at a time to `put`. All are on their
// way before the first is used.
template <int SIZE, typename Put>
__device__ __forceinline__ void load_rows(const float* rows, u64 pitch, int first, int end, int size, Put put) {
    const int count = SQUARE * SIZE / 4 / 256, quads = SIZE / 4;
    float v[count][4];
#pragma unroll
    for (int i = 0; i < count; i++) {
        const int at = i * 256 + threadIdx.x, row = at / quads, col = at % quads * 4;
        const float* from = rows + (u64)(first + row) * pitch + col;
        const bool there = first + row < end;
        if (there && size % 4 == 0 && col < size) {
            const float4 four = *(const float4*)from;
            v[i][0] = four.x, v[i][1] = four.y, v[i][2] = four.z, v[i][3] = four.w;
        } else {
#pragma unroll
            for (int c = 0; c < 4; c++) v[i][c] = there && col + c < size ? from[c] : 0.0f;
        }
    }
#pragma unroll
    for (int i = 0; i < count; i++) {
        const int at = i * 256 + threadIdx.x;
        put(at / quads, at % quads * 4, v[i]);
    }
}

template <int SIZE> __device__ __forceinline__ void attend_tile(const AttentionOperands& o) {
    extern __shared__ __align__(16) float tiles[];
    const int COLS = SIZE / 16, VALUE_PITCH = SIZE + 4;
    float *queries = tiles, *keys = queries + SIZE * PITCH, *weights = keys + SIZE * PITCH, *values = weights + SQUARE * PITCH;
    const int ty = threadIdx.x / 16, tx = threadIdx.x % 16, size = o.head_size;
    let_next_start();
    Share share;
    const bool any = share_of(o, share);
    const int hidden = o.heads * size;
    const u64 pitch = 3 * (u64)hidden;
    wait_for_previous();
    if (!any) return;
    const int head = share.head, start = share.start, length = share.length, first = share.first;
    const float* q = o.qkv + start * pitch + head * size;
    const float *k = q + hidden, *v = k + hidden;
    const int low = max(0, first - o.before), high = min(length, first + SQUARE + min(o.after, length));

    const auto turned = [](float* tile) {
        return [=](int row, int col, const float* v) {
            for (int c = 0; c < 4; c++) tile[(col + c) * PITCH + row] = v[c];
        };
    };
    load_rows<SIZE>(q, pitch, first, length, size, turned(queries));
    float out[4][COLS], largest[4], total[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        largest[i] = -INFINITE, total[i] = 0.0f;
#pragma unroll
        for (int c = 0; c < COLS; c++) out[i][c] = 0.0f;
    }
    for (int base = low; base < high; base += SQUARE) {
        __syncthreads();
        load_rows<SIZE>(k, pitch, base, high, size, turned(keys));
        load_rows<SIZE>(v, pitch, base, high, size, [=](int row, int col, const float* v) {
            *(float4*)(values + row * VALUE_PITCH + col) = make_float4(v[0], v[1], v[2], v[3]);
        });
        __syncthreads();
        float s[4][4] = {};
#pragma unroll 8
        for (int d = 0; d < SIZE; d++) {
            const float4 a = *(const float4*)(queries + d * PITCH + ty * 4), b = *(const float4*)(keys + d * PITCH + tx * 4);
            const float as[4] = {a.x, a.y, a.z, a.w}, bs[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) s[i][j] = fmaf(as[i], bs[j], s[i][j]);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int query = first + ty * 4 + i;
            float top = largest[i];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int key = base + tx * 4 + j;
                const bool seen = key < high && key >= query - o.before && key - o.after <= query;
                s[i][j] = seen ? s[i][j] * o.scale : -INFINITE;
                top = fmaxf(top, s[i][j]);
            }
#pragma unroll
            for (int step = 8; step > 0; step >>= 1) top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, step));
            // A query may see none of these keys.
            const float from = top == -INFINITE ? 0.0f : top, shrink = expf(largest[i] - from);
            largest[i] = top;
            total[i] *= shrink;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float weight = expf(s[i][j] - from);
                total[i] += weight;
                weights[(tx * 4 + j) * PITCH + ty * 4 + i] = weight;
            }
#pragma unroll
            for (int c = 0; c < COLS; c++) out[i][c] *= shrink;
        }
        __syncthreads();
#pragma unroll 8
        for (int j = 0; j < min(SQUARE, high - base); j++) {
            const float4 a = *(const float4*)(weights + j * PITCH + ty * 4);
            const float as[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
            for (int c = 0; c < COLS; c++) {
                const float b = values[j * VALUE_PITCH + c * 16 + tx];
#pragma unroll
                for (int i = 0; i < 4; i++) out[i][c] = fmaf(as[i], b, out[i][c]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int step = 8; step > 0; step >>= 1) total[i] += __shfl_xor_sync(0xffffffff, total[i], step);
        const int query = first + ty * 4 + i;
        if (query >= length) continue;
        float* to = o.out + (u64)(start + query) * hidden + head * size;
#pragma unroll
        for (int c = 0; c < COLS; c++)
            if (c * 16 + tx < size) to[c * 16 + tx] = out[i][c] / total[i];
    }
}

#endif
