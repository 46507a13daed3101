// Rows made, summed and normalised in one pass: embeddings, residuals, the parts of a split product.
//
// One block for each row, or one warp where rows are many, which keeps it in registers. The mean comes first and the
// variance from distances to it: a one-pass variance loses its digits where the mean is large.
//
// Where products multiply numbers of 8 bits, a norm rounds what it has made for them.

#include "round.cuh"

#define NORM_THREADS 128
#define NORM_LOOKUPS 4

struct NormOperands {
    const T* x;              // [rows, cols], or nothing where the row is made from
    const float* partial;    // [splits, room, cols]: parts of a product, with
    const float* bias;       // [cols]
    const T* tables[NORM_LOOKUPS];
    const u32* ids[NORM_LOOKUPS];
    const T* residual;       // [rows, cols] or null
    T* sum;                  // the row before it is normalised, or null
    T* out;                  // null where only the sum is wanted
    const float* gain;       // [cols]
    const float* shift;      // [cols] or null
    const u32* rows;         // how many are real
    u64 stride;              // from one part of a product to the next
    float eps;
    int splits;
    int lookups;
    int cols;
    int centred;             // LayerNorm rather than RMSNorm
    Ahead ahead;
#if SCALED
    Rounded rounded;
#endif
};

// Sums over the block, of two numbers at once.
__device__ __forceinline__ float2 block_sums(float a, float b, float2* scratch) {
    a = warp_sum(a), b = warp_sum(b);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = make_float2(a, b);
    __syncthreads();
    float2 sums = scratch[0];
#pragma unroll
    for (int i = 1; i < NORM_THREADS / 32; i++) sums.x += scratch[i].x, sums.y += scratch[i].y;
    return sums;
}

// Where rows come from. One kernel for each: parts of a product take registers that the others had better not pay for.
enum Source { VALUE, LOOKUPS, PARTS };

template <Source SOURCE, int CHUNKS> __device__ __forceinline__ void norm_row(const NormOperands& o) {
    __shared__ float2 scratch[2][NORM_THREADS / 32];
    const u64 row = blockIdx.x;
    const int cols = o.cols;
    // Only where a thread has eight chunks are there columns that are no multiple of 8.
    const bool even = CHUNKS < 8 || cols % 8 == 0;
    const float share = 1.0f / cols;
    let_next_start();
    if (threadIdx.x == 0) fetch_ahead(o.ahead);
    // Weights and ids are nobody's result: they are on their way while the kernel in front finishes.
    const bool real = row < *o.rows;
    u32 ids[NORM_LOOKUPS];
    if (SOURCE == LOOKUPS)
#pragma unroll
        for (int l = 0; l < NORM_LOOKUPS; l++) ids[l] = l < o.lookups ? o.ids[l][row] : 0;
    float gain[CHUNKS][8], shift[CHUNKS][8], values[CHUNKS][8], more[8];
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int first = (c * NORM_THREADS + (int)threadIdx.x) * 8, left = cols - first;
#pragma unroll
        for (int i = 0; i < 8; i++) shift[c][i] = values[c][i] = 0.0f;
        if (left > 0) {
            if (o.out) load_some(o.gain + first, left, even, gain[c]);
            if (o.out && o.shift) load_some(o.shift + first, left, even, shift[c]);
            if (SOURCE == PARTS) load_some(o.bias + first, left, even, values[c]);
        }
    }
    wait_for_previous();
    if (!real) return;
    float total = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int first = (c * NORM_THREADS + (int)threadIdx.x) * 8, left = cols - first;
        const u64 at = row * cols + first;
        if (left > 0) {
            Packed residual = {};
            if (o.residual) residual = load_packed(o.residual + at, left, even);
            if (SOURCE == LOOKUPS) {
                Packed entries[NORM_LOOKUPS] = {};
#pragma unroll
                for (int l = 0; l < NORM_LOOKUPS; l++)
                    if (l < o.lookups) entries[l] = load_packed(o.tables[l] + (u64)ids[l] * cols + first, left, even);
#pragma unroll
                for (int l = 0; l < NORM_LOOKUPS; l++) {
                    unpack8(entries[l], more);
#pragma unroll
                    for (int i = 0; i < 8; i++) values[c][i] += more[i];
                }
            } else if (SOURCE == PARTS) {
                // Several parts are on their way at a time.
                const int AT_ONCE = CHUNKS == 1 ? 8 : 4;
                const float* part = o.partial + at;
                for (int s = 0; s < o.splits; s += AT_ONCE) {
                    float parts[AT_ONCE][8];
#pragma unroll
                    for (int p = 0; p < AT_ONCE; p++)
                        if (s + p < o.splits) load_some(part + p * o.stride, left, even, parts[p]);
#pragma unroll
                    for (int p = 0; p < AT_ONCE; p++) {
                        if (s + p == o.splits) break;
#pragma unroll
                        for (int i = 0; i < 8; i++) values[c][i] += parts[p][i];
                    }
                    part += AT_ONCE * o.stride;
                }
            } else {
                unpack8(load_packed(o.x + at, left, even), values[c]);
            }
            unpack8(residual, more);
#pragma unroll
            for (int i = 0; i < 8; i++) values[c][i] += more[i], total += values[c][i];
            if (o.sum) store_some(o.sum + at, left, even, values[c]);
        }
    }
    if (!o.out) return;
    const float mean = o.centred ? block_sums(total, 0.0f, scratch[0]).x * share : 0.0f;
    float squares = 0.0f, rest = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int left = cols - (c * NORM_THREADS + (int)threadIdx.x) * 8;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            values[c][i] -= mean;
            if (i < left) squares = fmaf(values[c][i], values[c][i], squares), rest += values[c][i];
        }
    }
    // What rounding left of the mean: where it is a hundred deviations, half a digit of the result.
    const float2 sums = block_sums(squares, rest, scratch[1]);
    const float off = o.centred ? sums.y * share : 0.0f;
    const float scale = rsqrtf(fmaf(sums.x, share, fmaf(-off, off, o.eps)));
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int first = (c * NORM_THREADS + (int)threadIdx.x) * 8, left = cols - first;
        if (left > 0) {
#pragma unroll
            for (int i = 0; i < 8; i++) values[c][i] = fmaf((values[c][i] - off) * scale, gain[c][i], shift[c][i]);
            store_some(o.out + row * cols + first, left, even, values[c]);
        }
    }
#if SCALED
    if (!o.rounded.rows) return;
    // Of the first sums all have been read behind the barrier of the second.
    float* maxima = (float*)scratch[0];
    const auto first = [](int c) { return (c * NORM_THREADS + (int)threadIdx.x) * 8; };
    round_row(o.rounded, row, cols, values, first, [=](float most) { return block_max<NORM_THREADS>(most, maxima); });
#endif
}

// A warp for each row of a value, where rows are many: no barriers, and all of the row is on its way at once. Gain and shift
// are fetched when they are needed, from the first-level cache: held from the beginning, they take registers that are
// better spent on more rows. Columns are a multiple of 8.
template <int CHUNKS> __device__ __forceinline__ void norm_warp(const NormOperands& o) {
    const int lane = threadIdx.x % 32, cols = o.cols;
    const u64 row = blockIdx.x * (NORM_THREADS / 32) + threadIdx.x / 32;
    const float share = 1.0f / cols;
    let_next_start();
    if (threadIdx.x == 0) fetch_ahead(o.ahead);
    const u32 rows = *o.rows;
    wait_for_previous();
    Packed x[CHUNKS], residual[CHUNKS] = {};
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        // Behind the end the last columns again; they do not count.
        const u64 at = row * cols + min((c * 32 + lane) * 8, cols - 8);
        x[c] = *(const Packed*)(o.x + at);
        if (o.residual) residual[c] = *(const Packed*)(o.residual + at);
    }
    // How many rows there are is on its way with them, for which there is room; without this the compiler waits for it first.
    __syncwarp();
    if (row >= rows) return;
    float values[CHUNKS][8], more[8], total = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const bool there = (c * 32 + lane) * 8 < cols;
        unpack8(x[c], values[c]), unpack8(residual[c], more);
#pragma unroll
        for (int i = 0; i < 8; i++) values[c][i] = there ? values[c][i] + more[i] : 0.0f, total += values[c][i];
    }
    if (o.sum) {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
            if ((c * 32 + lane) * 8 < cols) store8(o.sum + row * cols + (c * 32 + lane) * 8, values[c]);
    }
    const float mean = o.centred ? warp_sum(total) * share : 0.0f;
    float squares = 0.0f, rest = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const bool there = (c * 32 + lane) * 8 < cols;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            values[c][i] = there ? values[c][i] - mean : 0.0f;
            squares = fmaf(values[c][i], values[c][i], squares), rest += values[c][i];
        }
    }
    // As above.
    const float off = o.centred ? warp_sum(rest) * share : 0.0f;
    const float scale = rsqrtf(fmaf(warp_sum(squares), share, fmaf(-off, off, o.eps)));
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int first = (c * 32 + lane) * 8;
        if (first < cols) {
            float gain[8], shift[8] = {};
            load8(o.gain + first, gain);
            if (o.shift) load8(o.shift + first, shift);
#pragma unroll
            for (int i = 0; i < 8; i++) values[c][i] = fmaf((values[c][i] - off) * scale, gain[i], shift[i]);
            store8(o.out + row * cols + first, values[c]);
        }
    }
#if SCALED
    if (!o.rounded.rows) return;
    const auto first = [=](int c) { return (c * 32 + lane) * 8; };
    round_row(o.rounded, row, cols, values, first, [](float most) { return warp_max(most); });
#endif
}

#define NORM(name, source, chunks)                                                                                   \
    extern "C" __global__ void __launch_bounds__(NORM_THREADS) name(const NormOperands o) {                          \
        norm_row<source, chunks>(o);                                                                                 \
    }
#if PART == 0
NORM(norm_value_1, VALUE, 1)
NORM(norm_value_2, VALUE, 2)
NORM(norm_value_8, VALUE, 8)
#elif PART == 1
NORM(norm_lookups_1, LOOKUPS, 1)
NORM(norm_lookups_2, LOOKUPS, 2)
NORM(norm_lookups_8, LOOKUPS, 8)
#elif PART == 2
NORM(norm_parts_1, PARTS, 1)
NORM(norm_parts_2, PARTS, 2)
NORM(norm_parts_8, PARTS, 8)
#endif

#define NORM_WARP(name, chunks, blocks)                                                                              \
    extern "C" __global__ void __launch_bounds__(NORM_THREADS, blocks) name(const NormOperands o) {                  \
        norm_warp<chunks>(o);                                                                                        \
    }
#if PART == 0
NORM_WARP(norm_warp_3, 3, 8)
NORM_WARP(norm_warp_4, 4, 6)
#endif
