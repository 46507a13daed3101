// Attention on Hopper for many rows and heads of up to 64 columns: four warps multiply 64 queries straight from shared memory
// (`wgmma`), and weights go from their registers into the next product as they are. A block has 128 queries.

#include "flash.cuh"
#include "hopper.cuh"

#if ELEMENT != 32 && defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Keys that an instruction takes, or columns of queries.
#define DEEP 16

#define FOUR(v) "+f"(v[0]), "+f"(v[1]), "+f"(v[2]), "+f"(v[3])

// d += a b: weights of 64 queries and 16 keys, from registers, and values of these keys, which lie in rows of 64 or 32 columns.
__device__ __forceinline__ void add_weighted(float (&d)[8][4], const u32 (&a)[4], u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64" WGMMA_TYPES " {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
                 "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"
                 : FOUR(d[0]), FOUR(d[1]), FOUR(d[2]), FOUR(d[3]), FOUR(d[4]), FOUR(d[5]), FOUR(d[6]), FOUR(d[7])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void add_weighted(float (&d)[4][4], const u32 (&a)[4], u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n32" WGMMA_TYPES " {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
                 "}, {%16,%17,%18,%19}, %20, 1, 1, 1, 1;"
                 : FOUR(d[0]), FOUR(d[1]), FOUR(d[2]), FOUR(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// Rows of 128 bytes as `wgmma` reads them: their pieces of 16 bytes in an order that differs from row to row. Where there are no rows,
// CLEARED ones are zeros, and others are whatever was there.
template <bool CLEARED> struct Swizzled {
    static const int stride = 64, row_bytes = 128, aligned = 1024;
    template <int ROWS, int THREADS>
    static __device__ __forceinline__ void load(u32 tile, const T* rows, u32 pitch, int first, int end, int size) {
        const int pass = THREADS / 8, row = threadIdx.x / 8, piece = threadIdx.x % 8;
        const int left = end - first - row;
        const bool wanted = piece * 8 < size;
        const T* from = rows + (u64)(u32)(first + row) * pitch + piece * 8;
        const u32 to = tile + row * row_bytes + (piece ^ row % 8) * 16;
#pragma unroll
        for (int r = 0; r < ROWS; r += pass) {
            if (CLEARED || r < left) copy16(to + r * row_bytes, from, r < left && wanted);
            from += (u64)pass * pitch;
        }
    }
    // `wgmma` reads by another way than threads write.
    static __device__ __forceinline__ void arrived() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
};

// Queries of four warps: 16 of each of GROUPS times 64 are a warp's. While the weights of one group are computed, the scores of the next
// are multiplied.
template <int SIZE, int GROUPS, int KEYS> struct Warpgroup {
    // What is beyond the end is not looked at where it has come into scores, but a weight of 0 times anything may be NaN.
    typedef Swizzled<false> Keys;
    typedef Swizzled<true> Values;
    static const int rows = 64 * GROUPS, threads = 128, keys = KEYS;
    typedef Softmax<SIZE, 1, KEYS> Rows;
    Rows own[GROUPS];
    u64 queries;
    int first;             // the first query's place in its sequence

    __device__ __forceinline__ void start(u32 tile, int row) {
        queries = describe(tile + row * Keys::row_bytes);
#pragma unroll
        for (int g = 0; g < GROUPS; g++) own[g].first = first + g * 64 + threadIdx.x / 32 % 4 * 16, own[g].clear();
    }

    template <typename Wait>
    __device__ __forceinline__ void take(u32 keys, u32 values, int base, int end, const AttentionOperands& o, float scale, Wait) {
        const u64 k = describe(keys), v = describe(values);
        float s[GROUPS][1][KEYS / 8][4];
        multiplications_begin();
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
#pragma unroll
            // 16 columns are 32 bytes, and descriptors count in 16; 64 rows further.
            for (int c = 0; c < SIZE / DEEP; c++)
                warpgroup_multiply((Sum(&)[KEYS / 2])s[g], queries + g * 512 + 2 * c, k + 2 * c, c > 0);
            multiplications_end_group();
        }
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            // Its scores. What may be left are those of the groups behind it, and values of those in front.
            multiplications_wait<GROUPS - 1>();
            own[g].weigh(s[g], base, end, o, scale);
            u32 p[KEYS / DEEP][4];
#pragma unroll
            for (int c = 0; c < KEYS / DEEP; c++)
#pragma unroll
                for (int e = 0; e < 4; e++) p[c][e] = narrow2(s[g][0][2 * c + e / 2][e % 2 * 2], s[g][0][2 * c + e / 2][e % 2 * 2 + 1]);
            multiplications_begin();
#pragma unroll
            // 16 rows further.
            for (int c = 0; c < KEYS / DEEP; c++) add_weighted(own[g].out[0], p[c], v + c * 128);
            multiplications_end_group();
        }
        multiplications_wait<0>();
    }

    __device__ __forceinline__ void finish() {
#pragma unroll
        for (int g = 0; g < GROUPS; g++) own[g].finish();
    }

    // Writes the results of the first `left` queries to rows that are `hidden` apart.
    __device__ __forceinline__ void store(T*, T* to, int left, int hidden, int size) {
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            const int row = g * 64 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
            float v[SIZE / 2];
#pragma unroll
            for (int i = 0; i < SIZE / 2; i++) v[i] = own[g].out[0][i / 4][i % 4] * __fdividef(1.0f, own[g].total[0][i % 4 / 2]);
            store_rows<SIZE>(to + (u64)row * hidden, v, hidden, size, row < left, row + 8 < left);
        }
    }
};

// For heads of up to so many columns. Of short sequences warps beyond the last query have nothing to do, and smaller steps keep three
// blocks on a processor; for long ones fewer warps with more queries each read keys less often.
#define FLASH_HOPPER(size)                                                                                           \
    extern "C" __global__ void __launch_bounds__(256, 3) flash_hopper_##size(const AttentionOperands o) {            \
        flash_by<Warpgroup<size, 1, 32>, 128, 4>(o);                                                                 \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(128, 3) flash_hopper_long_##size(const AttentionOperands o) {       \
        flash_by<Warpgroup<size, 2, 64>, 128, 2>(o);                                                                 \
    }
FLASH_HOPPER(64)
FLASH_HOPPER(32)

#endif
