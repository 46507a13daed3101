// A function of each value, and values copied: by their place, by indices, from two arrays in turns.

#include "operate.cuh"

struct MapOperands {
    const float* x;
    float* out;
    const float* slope;   // of PRelu, one value
    u64 count;
};

// In the order of `Function` in map.rs.
enum { COPY, LEAKY, RECTIFIED, PARAMETRIC, SCALED, LOGISTIC, PLUS, ERF, TANH_ERF };

template <int F> __device__ __forceinline__ float map_value(float x, float slope) {
    switch (F) {
        case LEAKY: return x > 0.0f ? x : 0.01f * x;
        case RECTIFIED: return fmaxf(x, 0.0f);
        case PARAMETRIC: return fmaxf(x, 0.0f) + slope * fminf(x, 0.0f);
        case SCALED: return 1.050700987f * (x > 0.0f ? x : 1.673263242f * expm1f(x));
        case LOGISTIC: return sigmoid(x);
        case PLUS: return softplus(x);
        case ERF: return gelu(x);
        // (1 + tanh(u)) / 2 is the logistic function of 2 u.
        case TANH_ERF: return x * sigmoid(1.5957691f * fmaf(0.044715f * x * x, x, x));
        default: return x;
    }
}

// Four times four values a thread, all on their way before the first is needed.
template <int F> __device__ __forceinline__ void map(const MapOperands& o) {
    const u64 quads = o.count / 4, first = (u64)blockIdx.x * (4 * THREADS) + threadIdx.x;
    wait_for_previous();
    const float slope = F == PARAMETRIC ? *o.slope : 0.0f;
    Vector<4> v[4];
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (first + k * THREADS < quads) v[k] = load<4>(o.x + 4 * (first + k * THREADS));
#pragma unroll
    for (int k = 0; k < 4; k++) {
#pragma unroll
        for (int i = 0; i < 4; i++) v[k].v[i] = map_value<F>(v[k].v[i], slope);
        if (first + k * THREADS < quads) store<4>(o.out + 4 * (first + k * THREADS), v[k]);
    }
    const u64 rest = 4 * quads + threadIdx.x;
    if (blockIdx.x == 0 && rest < o.count) o.out[rest] = map_value<F>(o.x[rest], slope);
}

extern "C" __global__ void __launch_bounds__(THREADS) map_copy(const MapOperands o) { map<COPY>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) map_leaky_relu(const MapOperands o) { map<LEAKY>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) map_relu(const MapOperands o) { map<RECTIFIED>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) map_prelu(const MapOperands o) { map<PARAMETRIC>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) map_selu(const MapOperands o) { map<SCALED>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) map_sigmoid(const MapOperands o) { map<LOGISTIC>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) map_softplus(const MapOperands o) { map<PLUS>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) map_gelu(const MapOperands o) { map<ERF>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) map_gelu_tanh(const MapOperands o) { map<TANH_ERF>(o); }

struct JoinOperands {
    const float* a;       // rows of wide_a
    const float* b;       // rows of wide - wide_a
    float* out;           // rows of wide
    u64 count;            // vectors of the result; widths are in vectors too
    u64 wide_a;
    u64 wide;
};

template <int VEC> __device__ __forceinline__ void join(const JoinOperands& o) {
    const u64 first = (u64)blockIdx.x * (4 * THREADS) + threadIdx.x;
    wait_for_previous();
    Vector<VEC> v[4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const u64 i = first + k * THREADS;
        if (i >= o.count) break;
        u64 row, col;
        divide(i, o.wide, row, col);
        const u64 at = col < o.wide_a ? row * o.wide_a + col : row * (o.wide - o.wide_a) + col - o.wide_a;
        v[k] = load<VEC>((col < o.wide_a ? o.a : o.b) + VEC * at);
    }
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (first + k * THREADS < o.count) store<VEC>(o.out + VEC * (first + k * THREADS), v[k]);
}

extern "C" __global__ void __launch_bounds__(THREADS) join_1(const JoinOperands o) { join<1>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) join_4(const JoinOperands o) { join<4>(o); }

struct GatherOperands {
    const float* x;       // [rows, cols]
    const int* index;
    float* out;           // [.., cols]
    u64 count;            // vectors of the result; cols is in vectors too
    u32 cols;
    u32 rows;
};

// An index outside gives the first row: indices the host has seen are checked there.
template <int VEC> __device__ __forceinline__ void gather(const GatherOperands& o) {
    const u64 first = (u64)blockIdx.x * (4 * THREADS) + threadIdx.x;
    wait_for_previous();
    Vector<VEC> v[4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const u64 i = first + k * THREADS;
        if (i >= o.count) break;
        u64 row, col;
        divide(i, o.cols, row, col);
        const u32 from = o.index[row];
        v[k] = load<VEC>(o.x + VEC * ((from < o.rows ? from : 0) * (u64)o.cols + col));
    }
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (first + k * THREADS < o.count) store<VEC>(o.out + VEC * (first + k * THREADS), v[k]);
}

extern "C" __global__ void __launch_bounds__(THREADS) gather_1(const GatherOperands o) { gather<1>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) gather_4(const GatherOperands o) { gather<4>(o); }

struct RopeOperands {
    const float* x;       // [.., length, size]
    const float* cosines; // [length, size / 2]
    const float* sines;
    float* out;
    u64 pairs;            // of the whole array, in vectors; half is in vectors too
    u32 length;
    u32 half;
};

template <int VEC> __device__ __forceinline__ void rope(const RopeOperands& o) {
    const u64 i = (u64)blockIdx.x * THREADS + threadIdx.x;
    wait_for_previous();
    if (i >= o.pairs) return;
    u64 row, col, turn, position;
    divide(i, o.half, row, col);
    divide(row, o.length, turn, position);
    const u64 low = VEC * (2 * row * o.half + col), angle = VEC * (position * o.half + col);
    const Vector<VEC> c = load<VEC>(o.cosines + angle), s = load<VEC>(o.sines + angle);
    Vector<VEC> a = load<VEC>(o.x + low), b = load<VEC>(o.x + low + VEC * o.half);
#pragma unroll
    for (int v = 0; v < VEC; v++) {
        const float first = a.v[v] * c.v[v] - b.v[v] * s.v[v];
        b.v[v] = b.v[v] * c.v[v] + a.v[v] * s.v[v];
        a.v[v] = first;
    }
    store<VEC>(o.out + low, a);
    store<VEC>(o.out + low + VEC * o.half, b);
}

extern "C" __global__ void __launch_bounds__(THREADS) rope_1(const RopeOperands o) { rope<1>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) rope_4(const RopeOperands o) { rope<4>(o); }
