// Attention on tensor cores for heads of 8 to 128 columns, a multiple of 8: scores never leave the registers
// (Dao, "FlashAttention-2", 2023). One block takes some queries of one sequence and head; the host lists which, so ragged
// batches have no padding but that of their last tile. Keys are taken 32 at a time. What does not depend on the type of
// numbers that are multiplied serves flash_tf32.cuh too.
//
// Where rows are many, a block has 128 queries and all its warps go over the same keys. Where they are few it has 16, and
// each warp goes over other keys: a sequence of 122 tokens is then work for 96 blocks and not for 12.

#pragma once

#include "attention.cuh"
#include "matrix.cuh"

#define FLASH_KEYS 32

// Rows of a tile lie MORE columns more apart than they are long. Of 16 bits it is 16 bytes: eight of them then begin in
// different banks.
template <int SIZE, int MORE = 8> struct Tile {
    static const int stride = SIZE + MORE, row_bytes = stride * sizeof(T);
    // Where the first of them begins.
    static const int aligned = 16;
    // Lanes side by side for a row of 16 bytes each: a power of two, so those beyond 96 columns have nothing to do.
    static const int wide = 16 / sizeof(T), lanes = SIZE == 96 ? 16 : SIZE / wide;
    static __device__ __forceinline__ u32 at(u32 tile, int row, int col) {
        return tile + row * row_bytes + col * (int)sizeof(T);
    }
    // Rows `first..first + ROWS`, with zeros from `end` and column `size` on, by the `THREADS` threads that call it.
    template <int ROWS, int THREADS>
    static __device__ __forceinline__ void load(u32 tile, const T* rows, u32 pitch, int first, int end, int size) {
        const int pass = THREADS / lanes, row = threadIdx.x % THREADS / lanes, col = threadIdx.x % lanes * wide;
        if (SIZE == 96 && col >= SIZE) return;
        // How many rows there are from this thread's first on.
        const int left = col < size ? end - first - row : 0;
        const T* from = rows + (u64)(u32)(first + row) * pitch + col;
        const u32 to = at(tile, row, col);
#pragma unroll
        for (int r = 0; r < ROWS; r += pass) {
            if (pass <= ROWS || row < ROWS) copy16(to + r * row_bytes, from, r < left);
            from += (u64)pass * pitch;
        }
    }
    // Behind the wait for what a thread has copied.
    static __device__ __forceinline__ void arrived() {}
};

// What a warp knows of 16 GROUPS queries after some of their keys, KEYS at a time. Of two halves `h`, a lane has row 8 h + lane / 4 of
// each group.
template <int SIZE, int GROUPS, int KEYS = FLASH_KEYS> struct Softmax {
    static const int rows = 16 * GROUPS, threads = 32, keys = KEYS;
    float out[GROUPS][SIZE / 8][4]; // weighted values
    float total[GROUPS][2];         // a lane's part of the sum of weights
    float top[GROUPS][2];           // weights are 2^(score - top)
    int first;                      // the first query's place in its sequence

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
#pragma unroll
            for (int n = 0; n < SIZE / 8; n++) out[g][n][0] = out[g][n][1] = out[g][n][2] = out[g][n][3] = 0.0f;
            total[g][0] = total[g][1] = 0.0f, top[g][0] = top[g][1] = -INFINITE;
        }
    }

    // Makes weights of the scores of keys `base..base + KEYS`, of which those before `end` are real. `scale` is that of exponents
    // of 2, above 0.
    __device__ __forceinline__ void weigh(float (&s)[GROUPS][KEYS / 8][4], int base, int end, const AttentionOperands& o,
                                          float scale) {
        const int lane = threadIdx.x % 32;
        const int last = first + 16 * GROUPS - 1;
        if (base + KEYS > end || base < last - o.before || base + KEYS - 1 > first + o.after) {
#pragma unroll
            for (int g = 0; g < GROUPS; g++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int i = first + g * 16 + lane / 4 + e / 2 * 8, j = base + lane % 4 * 2 + e % 2;
                    const int from = i - o.before - j, until = min(end - 1, i + o.after) - j;
#pragma unroll
                    for (int n = 0; n < KEYS / 8; n++)
                        s[g][n][e] = n * 8 >= from && n * 8 <= until ? s[g][n][e] : -INFINITE;
                }
        }
        float largest[GROUPS][2];
        bool grown = false;
#pragma unroll
        for (int g = 0; g < GROUPS; g++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float v = -INFINITE;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++) v = fmaxf(v, fmaxf(s[g][n][2 * h], s[g][n][2 * h + 1]));
                v = fmaxf(v, __shfl_xor_sync(0xffffffff, v, 1));
                v = fmaxf(v, __shfl_xor_sync(0xffffffff, v, 2));
                largest[g][h] = v * scale;
                grown |= largest[g][h] > top[g][h] + 8.0f;
            }
        // What the weights are relative to falls out in the end. It need not be their maximum as long as they stay in the
        // range of 16 bits, which 2^8 does: so it changes with the first keys and seldom after them.
        if (__any_sync(0xffffffff, grown)) {
#pragma unroll
            for (int g = 0; g < GROUPS; g++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const float next = fmaxf(top[g][h], largest[g][h]);
                    const float shrink = power_of_two(top[g][h] - (next == -INFINITE ? 0.0f : next));
                    top[g][h] = next, total[g][h] *= shrink;
#pragma unroll
                    for (int n = 0; n < SIZE / 8; n++) out[g][n][2 * h] *= shrink, out[g][n][2 * h + 1] *= shrink;
                }
        }
#pragma unroll
        for (int g = 0; g < GROUPS; g++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                // A query may have seen no key yet.
                const float from = top[g][h] == -INFINITE ? 0.0f : top[g][h];
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 2 * h; e < 2 * h + 2; e++) {
                        s[g][n][e] = power_of_two(fmaf(s[g][n][e], scale, -from));
                        total[g][h] += s[g][n][e];
                    }
            }
    }

    // Adds up the lanes' parts of the sums of weights.
    __device__ __forceinline__ void finish() {
#pragma unroll
        for (int g = 0; g < GROUPS; g++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                total[g][h] += __shfl_xor_sync(0xffffffff, total[g][h], 1);
                total[g][h] += __shfl_xor_sync(0xffffffff, total[g][h], 2);
            }
    }
};

// QUERIES queries, dealt out to warps, or to groups of warps, that keep what they know in an `Own`. Keys and values of SLOTS steps
// are on their way while a step is worked on.
template <typename Own, int QUERIES, int SLOTS> __device__ __forceinline__ void flash_by(const AttentionOperands& o) {
    extern __shared__ __align__(16) u8 memory[];
    typedef typename Own::Keys Keys;
    typedef typename Own::Values Values;
    const int THREADS = QUERIES / Own::rows * Own::threads, KEYS = Own::keys;
    const u32 queries = (shared_address(memory) + Keys::aligned - 1) & ~(Keys::aligned - 1), keys = queries + QUERIES * Keys::row_bytes;
    const u32 values = keys + SLOTS * KEYS * Keys::row_bytes;
    const int row = threadIdx.x / Own::threads * Own::rows, size = o.head_size, hidden = o.heads * size;
    let_next_start();
    Share share;
    const bool any = share_of(o, share);
    wait_for_previous();
    if (!any) return;
    const int first = share.first, length = share.length, mine = first + row;
    const u32 pitch = 3 * hidden;
    const T* q = o.qkv + (u64)share.start * pitch + share.head * size;
    const T *k = q + hidden, *v = k + hidden;

    // Keys that any of these queries sees.
    const int low = max(0, first - o.before), high = min(length, first + QUERIES + o.after);
    const int steps = (high - low + KEYS - 1) / KEYS;
    const auto fetch = [&](int step) {
        if (step < steps) {
            const int slot = step % SLOTS, base = low + step * KEYS;
            Keys::template load<KEYS, THREADS>(keys + slot * KEYS * Keys::row_bytes, k, pitch, base, high, size);
            Values::template load<KEYS, THREADS>(values + slot * KEYS * Values::row_bytes, v, pitch, base, high, size);
        }
        copies_end_group();
    };
    Keys::template load<QUERIES, THREADS>(queries, q, pitch, first, length, size);
#pragma unroll
    for (int step = 0; step < SLOTS; step++) fetch(step);
    copies_wait<SLOTS - 1>();
    Keys::arrived();
    __syncthreads();
    Own own;
    own.first = mine;
    own.start(queries, row);
    const float scale = o.scale * 1.44269504f; // exponents of 2

#pragma unroll 1
    for (int step = 0; step < steps; step++) {
        const int slot = step % SLOTS, base = low + step * KEYS;
        if (step > 0) {
            copies_wait<SLOTS - 1>();
            Keys::arrived();
            __syncthreads();
        }
        // Not where these warps have no queries, or all of them come too early or too late for these keys.
        if (mine < length && base + KEYS > mine - o.before && base < mine + Own::rows + o.after)
            own.take(keys + slot * KEYS * Keys::row_bytes, values + slot * KEYS * Values::row_bytes, base, high, o, scale, [] {});
        if (step + SLOTS < steps) __syncthreads();
        fetch(step + SLOTS);
    }
    if (mine >= length) return;
    own.finish();
    own.store((T*)memory + row * Keys::stride, o.out + (u64)(share.start + mine) * hidden + share.head * size, length - mine, hidden,
              size);
}

#if ELEMENT != 32

#define FLASH_QUERIES 128
#define FLASH_FEW 16
#define FLASH_FEW_WARPS 4

// 16 GROUPS queries of a warp.
template <int SIZE, int GROUPS> struct Queries : Softmax<SIZE, GROUPS> {
    using Softmax<SIZE, GROUPS>::out, Softmax<SIZE, GROUPS>::total;
    typedef Tile<SIZE> Keys;
    typedef Tile<SIZE> Values;
    u32 q[GROUPS][SIZE / 16][4];

    __device__ __forceinline__ void start(u32 tile, int row) {
        const int lane = threadIdx.x % 32;
        this->clear();
#pragma unroll
        for (int g = 0; g < GROUPS; g++)
#pragma unroll
            for (int c = 0; c < SIZE / 16; c++)
                load_matrices(q[g][c], Tile<SIZE>::at(tile, row + g * 16 + lane % 16, c * 16 + lane / 16 * 8));
    }

    // Takes keys as `weigh`.
    template <typename Wait>
    __device__ __forceinline__ void take(u32 keys, u32 values, int base, int end, const AttentionOperands& o, float scale,
                                         Wait wait_for_values) {
        const int lane = threadIdx.x % 32;
        float s[GROUPS][FLASH_KEYS / 8][4];
#pragma unroll
        for (int n = 0; n < FLASH_KEYS / 8; n += 2) {
#pragma unroll
            for (int g = 0; g < GROUPS; g++)
#pragma unroll
                for (int e = 0; e < 4; e++) s[g][n][e] = s[g][n + 1][e] = 0.0f;
#pragma unroll
            for (int c = 0; c < SIZE / 16; c++) {
                u32 b[4];
                load_matrices(b, Tile<SIZE>::at(keys, n * 8 + lane / 16 * 8 + lane % 8, c * 16 + lane / 8 % 2 * 8));
#pragma unroll
                for (int g = 0; g < GROUPS; g++) {
                    const u32(&a)[4] = q[g][c];
                    multiply(s[g][n], a[0], a[1], a[2], a[3], b[0], b[1]);
                    multiply(s[g][n + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
                }
            }
        }
        this->weigh(s, base, end, o, scale);
        wait_for_values();
#pragma unroll
        for (int c = 0; c < FLASH_KEYS / 16; c++) {
            u32 p[GROUPS][4];
#pragma unroll
            for (int g = 0; g < GROUPS; g++)
#pragma unroll
                for (int e = 0; e < 4; e++) p[g][e] = narrow2(s[g][2 * c + e / 2][e % 2 * 2], s[g][2 * c + e / 2][e % 2 * 2 + 1]);
#pragma unroll
            for (int n = 0; n < SIZE / 8; n += 2) {
                u32 b[4];
                load_matrices_turned(b, Tile<SIZE>::at(values, c * 16 + lane % 16, n * 8 + lane / 16 * 8));
#pragma unroll
                for (int g = 0; g < GROUPS; g++) {
                    multiply(out[g][n], p[g][0], p[g][1], p[g][2], p[g][3], b[0], b[1]);
                    multiply(out[g][n + 1], p[g][0], p[g][1], p[g][2], p[g][3], b[2], b[3]);
                }
            }
        }
    }

    // Writes the results of the first `left` queries to rows that are `hidden` apart, by way of the warp's own `rows` of
    // shared memory, so that whole rows are written at once.
    __device__ __forceinline__ void store(T* rows, T* to, int left, int hidden, int size) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int g = 0; g < GROUPS; g++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float part = __fdividef(1.0f, total[g][h]);
                T* at = rows + (g * 16 + h * 8 + lane / 4) * Keys::stride + lane % 4 * 2;
#pragma unroll
                for (int n = 0; n < SIZE / 8; n++)
                    *(u32*)(at + n * 8) = narrow2(out[g][n][2 * h] * part, out[g][n][2 * h + 1] * part);
            }
        __syncwarp();
        const int pass = 32 / Keys::lanes, i = lane / Keys::lanes, col = lane % Keys::lanes * 8;
        if (col >= size) return;
        uint4 pieces[16 * GROUPS / pass];
#pragma unroll
        for (int r = 0; r < 16 * GROUPS; r += pass) pieces[r / pass] = *(const uint4*)(rows + (i + r) * Keys::stride + col);
#pragma unroll
        for (int r = 0; r < 16 * GROUPS; r += pass)
            if (i + r < left) store16(to + (u64)(i + r) * hidden + col, pieces[r / pass]);
    }
};

// 128 queries: GROUPS times 16 for each warp.
template <int SIZE, int GROUPS, int SLOTS> __device__ __forceinline__ void flash(const AttentionOperands& o) {
    flash_by<Queries<SIZE, GROUPS>, FLASH_QUERIES, SLOTS>(o);
}

// 16 queries; every warp takes 32 of 128 keys, and in the end the warps' results are put together.
template <int SIZE> __device__ __forceinline__ void flash_few(const AttentionOperands& o) {
    extern __shared__ __align__(16) u8 memory[];
    __shared__ float2 marks[FLASH_FEW_WARPS][FLASH_FEW]; // what a warp's weights are relative to, and their sum
    typedef Tile<SIZE> Tile;
    const int BYTES = FLASH_KEYS * Tile::row_bytes; // of a warp's keys
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, size = o.head_size, hidden = o.heads * size;
    const u32 own_keys = shared_address(memory) + warp * BYTES, own_values = own_keys + FLASH_FEW_WARPS * BYTES;
    const u32 queries = shared_address(memory) + 2 * FLASH_FEW_WARPS * BYTES;
    let_next_start();
    Share share;
    const bool any = share_of(o, share);
    wait_for_previous();
    if (!any) return;
    const int first = share.first, length = share.length;
    const u32 pitch = 3 * hidden;
    const T* q = o.qkv + (u64)share.start * pitch + share.head * size;
    const T *k = q + hidden, *v = k + hidden;

    const int low = max(0, first - o.before), high = min(length, first + FLASH_FEW + o.after);
    const int steps = (high - low + FLASH_KEYS - 1) / FLASH_KEYS;
    const auto fetch = [&](int step) {
        const int base = low + step * FLASH_KEYS;
        if (step < steps) Tile::template load<FLASH_KEYS, 32>(own_keys, k, pitch, base, high, size);
        copies_end_group();
        if (step < steps) Tile::template load<FLASH_KEYS, 32>(own_values, v, pitch, base, high, size);
        copies_end_group();
    };
    Tile::template load<FLASH_FEW, FLASH_FEW_WARPS * 32>(queries, q, pitch, first, length, size);
    fetch(warp);
    copies_wait<1>();
    __syncthreads();
    Queries<SIZE, 1> own;
    own.first = first;
    own.start(queries, 0);
    const float scale = o.scale * 1.44269504f; // exponents of 2
    const auto wait_for_values = [] {
        copies_wait<0>();
        __syncwarp();
    };
#pragma unroll 1
    for (int step = warp; step < steps; step += FLASH_FEW_WARPS) {
        if (step != warp) {
            fetch(step);
            copies_wait<1>();
            __syncwarp();
        }
        own.take(own_keys, own_values, low + step * FLASH_KEYS, high, o, scale, wait_for_values);
        __syncwarp();
    }
    // Rows of sums take as many bytes as the keys, which nobody needs any more.
    const int sum_stride = SIZE + 8;
    static_assert(FLASH_FEW * sum_stride * sizeof(float) == BYTES, "a warp's sums lie where its keys were");
    float* sums = (float*)memory;
    own.finish();
    float* to = sums + (warp * FLASH_FEW + lane / 4) * sum_stride + lane % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (lane % 4 == 0) marks[warp][h * 8 + lane / 4] = make_float2(own.top[0][h], own.total[0][h]);
#pragma unroll
        for (int n = 0; n < SIZE / 8; n++)
            *(float2*)(to + h * 8 * sum_stride + n * 8) = make_float2(own.out[0][n][2 * h], own.out[0][n][2 * h + 1]);
    }
    __syncthreads();
    for (int c = threadIdx.x; c < FLASH_FEW * (SIZE / 8); c += FLASH_FEW_WARPS * 32) {
        const int i = c / (SIZE / 8), col = c % (SIZE / 8) * 8;
        if (first + i >= length || col >= size) continue;
        float top = -INFINITE, total = 0.0f, result[8] = {};
#pragma unroll
        for (int w = 0; w < FLASH_FEW_WARPS; w++) top = fmaxf(top, marks[w][i].x);
#pragma unroll
        for (int w = 0; w < FLASH_FEW_WARPS; w++) {
            const float part = power_of_two(marks[w][i].x - top);
            float sum[8];
            load8(sums + (w * FLASH_FEW + i) * sum_stride + col, sum);
            total = fmaf(marks[w][i].y, part, total);
#pragma unroll
            for (int e = 0; e < 8; e++) result[e] = fmaf(sum[e], part, result[e]);
        }
        const float part = __fdividef(1.0f, total);
#pragma unroll
        for (int e = 0; e < 8; e++) result[e] *= part;
        store8(o.out + (u64)(share.start + first + i) * hidden + share.head * size + col, result);
    }
}

#endif
