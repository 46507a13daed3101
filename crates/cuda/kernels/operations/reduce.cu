// Sums and largest values: along rows, along columns, over everything. No atomic sums, so results never vary.

#include "operate.cuh"

struct ReduceOperands {
    const float* x;       // [outer, len, inner]
    const float* y;       // BCE: the targets; weighted columns: [outer, len]; weighted rows: [batch, len]
    const float* bias;    // added to weighted sums, or null
    void* out;            // [outer, inner], floats or (argmax) integers
    float* partial;       // long rows: [outer, parts]
    u32* counters;        // long rows: [outer], 0
    u64 outer;
    u64 len;
    u64 inner;
    u64 group;            // weighted rows: rows that share a line of y
    u32 parts;            // long rows: blocks of each row
    u32 lanes;            // columns: threads side by side
    float scale;          // of the sum
};

enum { SUM, WEIGHTED, LARGEST, ENTROPY };

// What has been seen of a line, and how more is added. `Largest` keeps the first of several.
template <int F> struct Seen {
    float value;
    static __device__ __forceinline__ Seen none() {
        Seen r;
        r.value = 0.0f;
        return r;
    }
    __device__ __forceinline__ void add(float x, float y, u32) {
        if (F == WEIGHTED) {
            value = fmaf(x, y, value);
        } else if (F == ENTROPY) {
            // Targets are 0 or 1 as a rule: one logarithm. At p < 0.5, 1 - p is off by 6e-8 at most.
            float loss = -fmaxf(logf(y == 1.0f ? x : 1.0f - x), -100.0f);
            if (y != 0.0f && y != 1.0f)
                loss = -(y * fmaxf(logf(x), -100.0f) + (1.0f - y) * fmaxf(logf(1.0f - x), -100.0f));
            value += loss;
        } else {
            value += x;
        }
    }
    __device__ __forceinline__ void merge(const Seen& other) { value += other.value; }
    __device__ __forceinline__ Seen across(int step) const {
        Seen r;
        r.value = __shfl_xor_sync(0xffffffff, value, step);
        return r;
    }
};
template <> struct Seen<LARGEST> {
    float value;
    u32 at;
    static __device__ __forceinline__ Seen none() {
        Seen r;
        r.value = -INFINITE, r.at = 0xffffffff;
        return r;
    }
    __device__ __forceinline__ void add(float x, float, u32 i) {
        if (x > value || at == 0xffffffff) value = x, at = i;
    }
    __device__ __forceinline__ void merge(const Seen& other) {
        if (other.at != 0xffffffff && (at == 0xffffffff || other.value > value || (other.value == value && other.at < at)))
            *this = other;
    }
    __device__ __forceinline__ Seen across(int step) const {
        Seen r;
        r.value = __shfl_xor_sync(0xffffffff, value, step);
        r.at = __shfl_xor_sync(0xffffffff, at, step);
        return r;
    }
};

template <int F> __device__ __forceinline__ void write(const ReduceOperands& o, u64 i, u64 col, const Seen<F>& seen) {
    ((float*)o.out)[i] = fmaf(seen.value, o.scale, F == WEIGHTED && o.bias ? o.bias[col] : 0.0f);
}
template <> __device__ __forceinline__ void write<LARGEST>(const ReduceOperands& o, u64 i, u64, const Seen<LARGEST>& seen) {
    ((int*)o.out)[i] = (int)seen.at;
}

template <int LANES, int F> __device__ __forceinline__ Seen<F> lanes_merged(Seen<F> seen) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step >>= 1) seen.merge(seen.across(step));
    return seen;
}
template <int F> __device__ __forceinline__ Seen<F> block_merged(Seen<F> seen) {
    __shared__ Seen<F> warps[THREADS / 32];
    seen = lanes_merged<32>(seen);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = seen;
    __syncthreads();
    if (threadIdx.x == 0)
#pragma unroll
        for (int i = 1; i < THREADS / 32; i++) seen.merge(warps[i]);
    return seen;
}

// `x[first..end)` by `STEP` threads, of which this is `lane`; places are in vectors.
template <int F, int VEC, int STEP>
__device__ __forceinline__ void fold(Seen<F>& seen, const float* x, const float* y, u64 first, u64 end, int lane) {
    Seen<F> more[VEC];
#pragma unroll
    for (int v = 0; v < VEC; v++) more[v] = Seen<F>::none();
    u64 i = first + lane;
    for (; i + 3 * STEP < end; i += 4 * STEP) {
        Vector<VEC> a[4], b[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            a[k] = load<VEC>(x + VEC * (i + k * STEP));
            if (F == WEIGHTED || F == ENTROPY) b[k] = load<VEC>(y + VEC * (i + k * STEP));
        }
#pragma unroll
        for (int k = 0; k < 4; k++)
#pragma unroll
            for (int v = 0; v < VEC; v++) more[v].add(a[k].v[v], b[k].v[v], (u32)(VEC * (i + k * STEP) + v));
    }
    for (; i < end; i += STEP) {
        Vector<VEC> a = load<VEC>(x + VEC * i), b;
        if (F == WEIGHTED || F == ENTROPY) b = load<VEC>(y + VEC * i);
#pragma unroll
        for (int v = 0; v < VEC; v++) more[v].add(a.v[v], b.v[v], (u32)(VEC * i + v));
    }
#pragma unroll
    for (int v = 0; v < VEC; v++) seen.merge(more[v]);
}

// Rows, each by `LANES` threads.
template <int F, int VEC, int LANES> __device__ __forceinline__ void rows(const ReduceOperands& o) {
    const u64 row = (u64)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
    wait_for_previous();
    Seen<F> seen = Seen<F>::none();
    if (row < o.outer) {
        const float* y = F == WEIGHTED ? o.y + row / o.group * o.len : nullptr;
        fold<F, VEC, LANES>(seen, o.x + row * o.len, y, 0, o.len / VEC, threadIdx.x % LANES);
    }
    seen = lanes_merged<LANES>(seen);
    if (row < o.outer && threadIdx.x % LANES == 0) write(o, row, 0, seen);
}
// Rows, each by a block.
template <int F, int VEC> __device__ __forceinline__ void long_rows(const ReduceOperands& o) {
    const u64 row = blockIdx.x;
    wait_for_previous();
    Seen<F> seen = Seen<F>::none();
    const float* y = F == WEIGHTED ? o.y + row / o.group * o.len : nullptr;
    fold<F, VEC, THREADS>(seen, o.x + row * o.len, y, 0, o.len / VEC, threadIdx.x);
    seen = block_merged(seen);
    if (threadIdx.x == 0) write(o, row, 0, seen);
}
// Few rows, each by several blocks; the last of them adds the parts up. Where there is one row, its length need be no
// multiple of the vectors.
template <int F, int VEC> __device__ __forceinline__ void cut_rows(const ReduceOperands& o) {
    __shared__ float scratch[32];
    const u64 row = blockIdx.x / o.parts, part = blockIdx.x % o.parts, vectors = o.len / VEC;
    const u64 each = (vectors + o.parts - 1) / o.parts, first = part * each, end = min(first + each, vectors);
    wait_for_previous();
    Seen<F> seen = Seen<F>::none();
    fold<F, VEC, THREADS>(seen, o.x + row * o.len, o.y + row * o.len, first, end, threadIdx.x);
    const u64 rest = VEC * vectors + threadIdx.x;
    if (part == 0 && rest < o.len) seen.add(o.x[row * o.len + rest], F == ENTROPY ? o.y[row * o.len + rest] : 0.0f, 0);
    seen = block_merged(seen);
    if (threadIdx.x == 0) o.partial[blockIdx.x] = seen.value;
    if (!last_block(o.counters + row, o.parts)) return;
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < o.parts; i += THREADS) sum += __ldcg(o.partial + row * o.parts + i);
    seen.value = threads_sum(sum, scratch);
    if (threadIdx.x == 0) write(o, row, 0, seen);
}

// Columns: `lanes` threads side by side, the others of the block share the length.
template <int F, int VEC> __device__ __forceinline__ void columns(const ReduceOperands& o) {
    __shared__ Seen<F> all[THREADS * VEC];
    const u32 lane = threadIdx.x % o.lanes, group = threadIdx.x / o.lanes;
    u32 groups = THREADS / o.lanes;
    const u64 tiles = (o.inner / VEC + o.lanes - 1) / o.lanes;
    u64 outer, tile;
    divide(blockIdx.x, tiles, outer, tile);
    const u64 col = (tile * o.lanes + lane) * VEC;
    const bool there = col < o.inner;
    wait_for_previous();
    Seen<F> seen[VEC];
#pragma unroll
    for (int v = 0; v < VEC; v++) seen[v] = Seen<F>::none();
    if (there) {
        const float* x = o.x + outer * o.len * o.inner + col;
        const float* y = F == WEIGHTED ? o.y + outer * o.len : nullptr;
        u64 k = group;
        for (; k + 7 * groups < o.len; k += 8 * groups) {
            Vector<VEC> a[8];
            float w[8];
#pragma unroll
            for (int u = 0; u < 8; u++) {
                a[u] = load<VEC>(x + (k + u * groups) * o.inner);
                w[u] = F == WEIGHTED ? y[k + u * groups] : 0.0f;
            }
#pragma unroll
            for (int u = 0; u < 8; u++)
#pragma unroll
                for (int v = 0; v < VEC; v++) seen[v].add(a[u].v[v], w[u], (u32)(k + u * groups));
        }
        for (; k < o.len; k += groups) {
            const Vector<VEC> a = load<VEC>(x + k * o.inner);
            const float w = F == WEIGHTED ? y[k] : 0.0f;
#pragma unroll
            for (int v = 0; v < VEC; v++) seen[v].add(a.v[v], w, (u32)k);
        }
    }
#pragma unroll
    for (int v = 0; v < VEC; v++) all[v * THREADS + threadIdx.x] = seen[v];
    while (groups > 1) {
        groups /= 2;
        __syncthreads();
        if (group < groups) {
#pragma unroll
            for (int v = 0; v < VEC; v++) {
                seen[v].merge(all[v * THREADS + threadIdx.x + groups * o.lanes]);
                all[v * THREADS + threadIdx.x] = seen[v];
            }
        }
    }
    if (group == 0 && there)
#pragma unroll
        for (int v = 0; v < VEC; v++) write(o, outer * o.inner + col + v, col + v, seen[v]);
}

#define KERNEL(name, body) \
    extern "C" __global__ void __launch_bounds__(THREADS) name(const ReduceOperands o) { body(o); }
#define KERNELS(name, F) \
    KERNEL(name##_rows_1, (rows<F, 1, 32>)) \
    KERNEL(name##_rows_4x4, (rows<F, 4, 4>)) \
    KERNEL(name##_rows_4x8, (rows<F, 4, 8>)) \
    KERNEL(name##_rows_4x32, (rows<F, 4, 32>)) \
    KERNEL(name##_long_1, (long_rows<F, 1>)) \
    KERNEL(name##_long_4, (long_rows<F, 4>)) \
    KERNEL(name##_columns_1, (columns<F, 1>)) \
    KERNEL(name##_columns_4, (columns<F, 4>))
KERNELS(sum, SUM)
KERNELS(weighted, WEIGHTED)
KERNELS(argmax, LARGEST)
KERNEL(sum_cut_1, (cut_rows<SUM, 1>))
KERNEL(sum_cut_4, (cut_rows<SUM, 4>))
KERNEL(entropy_cut_4, (cut_rows<ENTROPY, 4>))

struct PoolOperands {
    const float* x;       // [rows, cols]
    const u32* offsets;   // [sequences + 1]
    float* out;           // [sequences, cols]
    float* partial;       // [sequences, tiles]
    u32* counters;        // [sequences], 0
    u32 cols;
    u32 tiles;            // of 32 columns
};

// Means of each sequence's rows, 32 columns a block; the last block of a sequence scales them to length 1.
extern "C" __global__ void __launch_bounds__(THREADS) pool(const PoolOperands o) {
    __shared__ float part[8][33], scratch[32];
    const u32 sequence = blockIdx.x / o.tiles, tile = blockIdx.x % o.tiles, lane = threadIdx.x % 32, group = threadIdx.x / 32;
    const u32 col = 32 * tile + lane;
    wait_for_previous();
    const u32 start = o.offsets[sequence], end = o.offsets[sequence + 1];
    float sum = 0.0f;
    if (col < o.cols)
#pragma unroll 8
        for (u32 row = start + group; row < end; row += 8) sum += o.x[(u64)row * o.cols + col];
    part[group][lane] = sum;
    __syncthreads();
    float* out = o.out + (u64)sequence * o.cols;
    if (group == 0) {
#pragma unroll
        for (int g = 1; g < 8; g++) sum += part[g][lane];
        const float mean = sum / (float)(end - start);
        if (col < o.cols) out[col] = mean;
        const float square = warp_sum(col < o.cols ? mean * mean : 0.0f);
        if (lane == 0) o.partial[blockIdx.x] = square;
    }
    if (!last_block(o.counters + sequence, o.tiles)) return;
    float square = 0.0f;
    for (u32 i = threadIdx.x; i < o.tiles; i += THREADS) square += __ldcg(o.partial + (u64)sequence * o.tiles + i);
    const float length = fmaxf(sqrtf(threads_sum(square, scratch)), 1e-12f);
    for (u32 i = threadIdx.x; i < o.cols; i += THREADS) out[i] = __ldcg(out + i) / length;
}
