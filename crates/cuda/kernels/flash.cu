// Attention on tensor cores for heads of 8 to 128 columns, a multiple of 8: scores never leave the registers
// (Dao, "FlashAttention-2", 2023). One block takes up to 64 queries of one sequence and head; the host lists which,
// so ragged batches have no padding but that of their last tile.

#if ELEMENT != 32

#define FLASH_QUERIES 64
#define FLASH_KEYS 64

// Rows of a tile lie 16 bytes more apart than they are long: eight of them then begin in different banks.
template <int SIZE> struct Tile {
    static const int stride = SIZE + 8;
    static const int bytes = FLASH_KEYS * stride * sizeof(T);
    static __device__ __forceinline__ u32 at(u32 tile, int row, int col) {
        return tile + (row * stride + col) * (int)sizeof(T);
    }
    // Rows `first..first + 64`, with zeros from `end` and column `size` on.
    static __device__ __forceinline__ void load(u32 tile, const T* rows, u64 pitch, int first, int end, int size) {
        for (int c = threadIdx.x; c < FLASH_KEYS * (SIZE / 8); c += 128) {
            const int row = c / (SIZE / 8), col = c % (SIZE / 8) * 8;
            const bool there = first + row < end && col < size;
            copy16(at(tile, row, col), there ? rows + (u64)(first + row) * pitch + col : rows, there);
        }
    }
};

template <int SIZE> __device__ __forceinline__ void flash(const AttentionOperands& o) {
    extern __shared__ __align__(16) u8 memory[];
    typedef Tile<SIZE> Tile;
    const u32 queries = shared_address(memory), keys = queries + Tile::bytes, values = keys + 2 * Tile::bytes;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y, size = o.head_size;
    let_next_start();
    if (blockIdx.x >= o.counts[2]) {
        wait_for_previous();
        return;
    }
    const uint2 tile = o.tiles[blockIdx.x];
    const int start = o.offsets[tile.x], length = o.offsets[tile.x + 1] - start, first = tile.y;
    const int hidden = o.heads * size;
    const u64 pitch = 3 * (u64)hidden;
    wait_for_previous();
    const T* q = o.qkv + start * pitch + head * size;
    const T *k = q + hidden, *v = k + hidden;

    // Keys that any of these queries sees, 64 at a time; the next ones are on their way while these are worked on.
    const int low = max(0, first - o.before), high = min(length, first + FLASH_QUERIES + min(o.after, length));
    const int steps = (high - low + FLASH_KEYS - 1) / FLASH_KEYS;
    Tile::load(queries, q, pitch, first, length, size);
    Tile::load(keys, k, pitch, low, high, size);
    Tile::load(values, v, pitch, low, high, size);
    copies_end_group();

    u32 a[SIZE / 16][4];
    float out[SIZE / 8][4], largest[2] = {-INFINITE, -INFINITE}, total[2] = {0.0f, 0.0f};
#pragma unroll
    for (int n = 0; n < SIZE / 8; n++) out[n][0] = out[n][1] = out[n][2] = out[n][3] = 0.0f;
    const int mine = first + warp * 16;
    const float scale = o.scale * 1.44269504f; // exponents of 2

    for (int step = 0; step < steps; step++) {
        const int base = low + step * FLASH_KEYS, slot = (step & 1) * Tile::bytes;
        if (step + 1 < steps) {
            const int other = ((step + 1) & 1) * Tile::bytes;
            Tile::load(keys + other, k, pitch, base + FLASH_KEYS, high, size);
            Tile::load(values + other, v, pitch, base + FLASH_KEYS, high, size);
            copies_end_group();
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        if (step == 0) {
#pragma unroll
            for (int c = 0; c < SIZE / 16; c++)
                load_matrices(a[c], Tile::at(queries, warp * 16 + lane % 16, c * 16 + lane / 16 * 8));
        }
        if (mine < length) {
            float s[FLASH_KEYS / 8][4];
#pragma unroll
            for (int n = 0; n < FLASH_KEYS / 8; n += 2) {
#pragma unroll
                for (int e = 0; e < 4; e++) s[n][e] = s[n + 1][e] = 0.0f;
#pragma unroll
                for (int c = 0; c < SIZE / 16; c++) {
                    u32 b[4];
                    load_matrices(b, Tile::at(keys + slot, n * 8 + lane / 16 * 8 + lane % 8, c * 16 + lane / 8 % 2 * 8));
                    multiply(s[n], a[c][0], a[c][1], a[c][2], a[c][3], b[0], b[1]);
                    multiply(s[n + 1], a[c][0], a[c][1], a[c][2], a[c][3], b[2], b[3]);
                }
            }
            float top[2] = {largest[0], largest[1]};
            if (base + FLASH_KEYS > high || base < mine + 15 - o.before || base + FLASH_KEYS - 1 - o.after > mine) {
#pragma unroll
                for (int n = 0; n < FLASH_KEYS / 8; n++) {
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        const int i = mine + lane / 4 + e / 2 * 8, j = base + n * 8 + lane % 4 * 2 + e % 2;
                        const bool seen = j < high && j >= i - o.before && j - o.after <= i;
                        s[n][e] = seen ? s[n][e] : -INFINITE;
                    }
                }
            }
#pragma unroll
            for (int n = 0; n < FLASH_KEYS / 8; n++) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    s[n][e] *= scale;
                    top[e / 2] = fmaxf(top[e / 2], s[n][e]);
                }
            }
            float shrink[2], from[2];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                top[h] = fmaxf(top[h], __shfl_xor_sync(0xffffffff, top[h], 1));
                top[h] = fmaxf(top[h], __shfl_xor_sync(0xffffffff, top[h], 2));
                // A query may see none of these keys.
                from[h] = top[h] == -INFINITE ? 0.0f : top[h];
                shrink[h] = exp2f(largest[h] - from[h]);
                largest[h] = top[h];
                total[h] *= shrink[h];
            }
#pragma unroll
            for (int n = 0; n < FLASH_KEYS / 8; n++) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    s[n][e] = exp2f(s[n][e] - from[e / 2]);
                    total[e / 2] += s[n][e];
                }
            }
#pragma unroll
            for (int n = 0; n < SIZE / 8; n++) {
#pragma unroll
                for (int e = 0; e < 4; e++) out[n][e] *= shrink[e / 2];
            }
#pragma unroll
            for (int c = 0; c < FLASH_KEYS / 16; c++) {
                const u32 p0 = narrow2(s[2 * c][0], s[2 * c][1]), p1 = narrow2(s[2 * c][2], s[2 * c][3]);
                const u32 p2 = narrow2(s[2 * c + 1][0], s[2 * c + 1][1]), p3 = narrow2(s[2 * c + 1][2], s[2 * c + 1][3]);
#pragma unroll
                for (int n = 0; n < SIZE / 8; n += 2) {
                    u32 b[4];
                    load_matrices_turned(b, Tile::at(values + slot, c * 16 + lane % 16, n * 8 + lane / 16 * 8));
                    multiply(out[n], p0, p1, p2, p3, b[0], b[1]);
                    multiply(out[n + 1], p0, p1, p2, p3, b[2], b[3]);
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        total[h] += __shfl_xor_sync(0xffffffff, total[h], 1);
        total[h] += __shfl_xor_sync(0xffffffff, total[h], 2);
        const int i = mine + lane / 4 + h * 8;
        if (i >= length) continue;
        const float share = 1.0f / total[h];
        T* to = o.out + (u64)(start + i) * hidden + head * size;
#pragma unroll
        for (int n = 0; n < SIZE / 8; n++) {
            const int col = n * 8 + lane % 4 * 2;
            if (n * 8 < size) *(u32*)(to + col) = narrow2(out[n][2 * h] * share, out[n][2 * h + 1] * share);
        }
    }
}

extern "C" __global__ void __launch_bounds__(128) flash_16(const AttentionOperands o) { flash<16>(o); }
extern "C" __global__ void __launch_bounds__(128, 5) flash_32(const AttentionOperands o) { flash<32>(o); }
extern "C" __global__ void __launch_bounds__(128, 4) flash_64(const AttentionOperands o) { flash<64>(o); }
extern "C" __global__ void __launch_bounds__(128) flash_96(const AttentionOperands o) { flash<96>(o); }
extern "C" __global__ void __launch_bounds__(128) flash_128(const AttentionOperands o) { flash<128>(o); }

#endif
