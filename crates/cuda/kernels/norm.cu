// Rows made, summed and normalised in one pass: embeddings, residuals, the parts of a split product.
//
// One block for each row, which it keeps in registers. The mean comes first and the variance from distances to it: a
// one-pass variance loses its digits where the mean is large.

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
    const bool even = cols % 8 == 0;
    let_next_start();
    if (row >= *o.rows) {
        wait_for_previous();
        return;
    }
    // Weights are nobody's result: they are on their way while the kernel in front finishes.
    float gain[CHUNKS][8], shift[CHUNKS][8], values[CHUNKS][8], more[8];
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int first = (c * NORM_THREADS + (int)threadIdx.x) * 8, left = cols - first;
        if (left > 0 && o.out) {
            load_some(o.gain + first, left, even, gain[c]);
            if (o.shift) load_some(o.shift + first, left, even, shift[c]);
        }
        if (!o.shift)
            for (int i = 0; i < 8; i++) shift[c][i] = 0.0f;
    }
    wait_for_previous();
    float total = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int first = (c * NORM_THREADS + (int)threadIdx.x) * 8, left = cols - first;
#pragma unroll
        for (int i = 0; i < 8; i++) values[c][i] = 0.0f;
        if (left > 0) {
            if (SOURCE == LOOKUPS) {
                for (int l = 0; l < o.lookups; l++) {
                    load_some(o.tables[l] + (u64)o.ids[l][row] * cols + first, left, even, more);
#pragma unroll
                    for (int i = 0; i < 8; i++) values[c][i] += more[i];
                }
            } else if (SOURCE == PARTS) {
                load_some(o.bias + first, left, even, values[c]);
                // Four parts are on their way at a time.
                const float* part = o.partial + row * cols + first;
                for (int s = 0; s < o.splits; s += 4) {
                    float parts[4][8];
#pragma unroll
                    for (int p = 0; p < 4; p++)
                        if (s + p < o.splits) load_some(part + (s + p) * o.stride, left, even, parts[p]);
#pragma unroll
                    for (int p = 0; p < 4; p++)
                        if (s + p < o.splits)
#pragma unroll
                            for (int i = 0; i < 8; i++) values[c][i] += parts[p][i];
                }
            } else {
                load_some(o.x + row * cols + first, left, even, values[c]);
            }
            if (o.residual) {
                load_some(o.residual + row * cols + first, left, even, more);
#pragma unroll
                for (int i = 0; i < 8; i++) values[c][i] += more[i];
            }
            if (o.sum) store_some(o.sum + row * cols + first, left, even, values[c]);
#pragma unroll
            for (int i = 0; i < 8; i++) total += values[c][i];
        }
    }
    if (!o.out) return;
    const float mean = o.centred ? block_sums(total, 0.0f, scratch[0]).x / cols : 0.0f;
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
    const float off = o.centred ? sums.y / cols : 0.0f;
    const float root = sqrtf(sums.x / cols - off * off + o.eps);
    const float scale = 1.0f / root;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int first = (c * NORM_THREADS + (int)threadIdx.x) * 8, left = cols - first;
        if (left > 0) {
#pragma unroll
            for (int i = 0; i < 8; i++) values[c][i] = fmaf((values[c][i] - off) * scale, gain[c][i], shift[c][i]);
            store_some(o.out + row * cols + first, left, even, values[c]);
        }
    }
}

#define NORM(name, source, chunks)                                                                                   \
    extern "C" __global__ void __launch_bounds__(NORM_THREADS) name(const NormOperands o) {                          \
        norm_row<source, chunks>(o);                                                                                 \
    }
NORM(norm_value_1, VALUE, 1)
NORM(norm_value_2, VALUE, 2)
NORM(norm_value_8, VALUE, 8)
NORM(norm_lookups_1, LOOKUPS, 1)
NORM(norm_lookups_2, LOOKUPS, 2)
NORM(norm_lookups_8, LOOKUPS, 8)
NORM(norm_parts_1, PARTS, 1)
NORM(norm_parts_2, PARTS, 2)
NORM(norm_parts_8, PARTS, 8)
