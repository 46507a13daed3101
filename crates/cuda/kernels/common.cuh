// What all kernels share: the type of activations, loads and stores, activation functions, reductions.
//
// ELEMENT is the type of activations: 32 (f32), 16 (f16) or 17 (bf16). Sums are f32 whatever it is. No header of CUDA
// is used: NVRTC alone, from wherever it came, compiles this.
//
// Files are compiled by themselves, side by side. One that takes the compiler long deals its kernels out to parts, each
// compiled with another PART: `sources.rs` says how many there are.

#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define INFINITE __int_as_float(0x7f800000)

// ---------------------------------------------------------------- elements

// `Pair` is two neighbours, the lower one first.
#if ELEMENT == 32
typedef float T;
typedef float2 Pair;
__device__ __forceinline__ float widen(T v) { return v; }
__device__ __forceinline__ T narrow(float v) { return v; }
__device__ __forceinline__ Pair narrow2(float low, float high) { return make_float2(low, high); }
#else
typedef u16 T;
typedef u32 Pair;
#if ELEMENT == 16
__device__ __forceinline__ float widen(T v) {
    float r;
    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(v));
    return r;
}
__device__ __forceinline__ T narrow(float v) {
    T r;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(v));
    return r;
}
__device__ __forceinline__ Pair narrow2(float low, float high) {
    u32 r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
#else
__device__ __forceinline__ float widen(T v) { return __uint_as_float((u32)v << 16); }
__device__ __forceinline__ T narrow(float v) {
    T r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(v));
    return r;
}
__device__ __forceinline__ Pair narrow2(float low, float high) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
#endif
#endif

// Eight neighbours as they lie in memory: nothing waits for them before they are unpacked, so that others can be on their
// way with them.
#if ELEMENT == 32
struct Packed {
    float4 low, high;
};
__device__ __forceinline__ void unpack8(const Packed& p, float (&v)[8]) {
    v[0] = p.low.x, v[1] = p.low.y, v[2] = p.low.z, v[3] = p.low.w;
    v[4] = p.high.x, v[5] = p.high.y, v[6] = p.high.z, v[7] = p.high.w;
}
__device__ __forceinline__ Packed pack_some(const T* p, int left) {
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = i < left ? p[i] : 0.0f;
    return {make_float4(v[0], v[1], v[2], v[3]), make_float4(v[4], v[5], v[6], v[7])};
}
#else
typedef uint4 Packed;
__device__ __forceinline__ void unpack8(const Packed& p, float (&v)[8]) {
    const u32 words[4] = {p.x, p.y, p.z, p.w};
#pragma unroll
    for (int i = 0; i < 4; i++) v[2 * i] = widen((T)words[i]), v[2 * i + 1] = widen((T)(words[i] >> 16));
}
__device__ __forceinline__ Packed pack_some(const T* p, int left) {
    u32 words[4] = {};
#pragma unroll
    for (int i = 0; i < 8; i++) words[i / 2] |= (i < left ? (u32)p[i] : 0u) << i % 2 * 16;
    return make_uint4(words[0], words[1], words[2], words[3]);
}
#endif
// Up to eight, as `load_some`.
__device__ __forceinline__ Packed load_packed(const T* p, int left, bool wide) {
    return wide ? *(const Packed*)p : pack_some(p, left);
}

// 16 bytes in one store. Of an assignment of a `uint4` whose words were computed one by one, the compiler may make four.
__device__ __forceinline__ void store16(T* to, const uint4& v) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

// Eight neighbours, aligned to 16 bytes.
__device__ __forceinline__ void load8(const float* p, float (&v)[8]) {
    float4 a = ((const float4*)p)[0], b = ((const float4*)p)[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
__device__ __forceinline__ void store8(float* p, const float (&v)[8]) {
    ((float4*)p)[0] = make_float4(v[0], v[1], v[2], v[3]);
    ((float4*)p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}
#if ELEMENT != 32
__device__ __forceinline__ void load8(const T* p, float (&v)[8]) { unpack8(*(const Packed*)p, v); }
__device__ __forceinline__ void store8(T* p, const float (&v)[8]) {
    store16(p, make_uint4(narrow2(v[0], v[1]), narrow2(v[2], v[3]), narrow2(v[4], v[5]), narrow2(v[6], v[7])));
}
#endif

// Up to eight neighbours of a row that has `left` more; the rest are 0. `wide`: all eight are there, and aligned.
template <typename P> __device__ __forceinline__ void load_some(const P* p, int left, bool wide, float (&v)[8]) {
    if (wide) return load8(p, v);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = i < left ? widen(p[i]) : 0.0f;
}
template <typename P> __device__ __forceinline__ void store_some(P* p, int left, bool wide, const float (&v)[8]) {
    if (wide) return store8(p, v);
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < left) p[i] = narrow(v[i]);
}
#if ELEMENT != 32
__device__ __forceinline__ void load_some(const float* p, int left, bool wide, float (&v)[8]) {
    if (wide) return load8(p, v);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = i < left ? p[i] : 0.0f;
}
#endif

// ---------------------------------------------------------------- order between kernels

// A kernel may be started before the one in front of it has finished (programmatic dependent launch): what it does
// before `wait_for_previous` must touch nothing that a kernel of the same forward writes. Every kernel waits, so that
// what one has waited for is true for all behind it.
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// What a kernel behind this one will read and nobody writes, the weights of the next product, brought to the second-level cache
// meanwhile: a forward reads all of them from memory, which has little else to do. Each block brings its share, by one
// of its threads.
struct Ahead {
    const u8* from;
    u64 bytes;             // a multiple of 16; 0 where there is nothing
};
__device__ __forceinline__ void fetch_ahead(const Ahead& ahead) {
#if __CUDA_ARCH__ >= 900
    const u64 blocks = (u64)gridDim.x * gridDim.y * gridDim.z, block = blockIdx.x + (u64)gridDim.x * (blockIdx.y + (u64)gridDim.y * blockIdx.z);
    const u64 share = ((ahead.bytes + blocks - 1) / blocks + 15) & ~15ull, begin = block * share;
    if (begin >= ahead.bytes) return;
    const u32 bytes = (u32)(begin + share <= ahead.bytes ? share : ahead.bytes - begin);
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(ahead.from + begin), "r"(bytes) : "memory");
#endif
}

// ---------------------------------------------------------------- functions of one number

// In the order of mlxt_backend::Activation.
enum Activation {
    IDENTITY, GELU, GELU_TANH, GELU_CLIPPED_10, QUICK_GELU, RELU, RELU_6, RELU_SQUARED, LEAKY_RELU, SILU, SIGMOID,
    TANH, MISH, LAPLACE, HARD_SWISH, SQRT_SOFTPLUS
};

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

// 2^x, off by 2^-22 of it.
__device__ __forceinline__ float power_of_two(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
#if ELEMENT == 32 && !defined(TF32)
__device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }
#else
// x times the normal distribution of x is max(x, 0) less |x| times the part of the distribution that lies beyond |x|. That part
// is 2^-p, and p nearly a polynomial: this one was fitted to make the largest error of the result least. Beside the rounding
// of f32 it is off by 4.4e-7, at most 6.4e-7 in all, where the result is rounded to 11 bits afterwards, or what it is made of was
// rounded to as many before (TF32); 8 instructions, where `erff` alone takes 30.
__device__ __forceinline__ float gelu(float x) {
    const float a = fabsf(x);
    float p = fmaf(-4.7330931e-4f, a, 7.0845575e-3f);
    p = fmaf(fmaf(fmaf(fmaf(p, a, -5.1827384e-2f), a, -4.5999244e-1f), a, -1.1507879f), a, -1.0000376f);
    return fmaf(-a, power_of_two(p), fmaxf(x, 0.0f));
}
#endif

__device__ __noinline__ float activate_rarely(int activation, float x) {
    switch (activation) {
        case GELU_TANH: return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
        case GELU_CLIPPED_10: return fminf(fmaxf(gelu(x), -10.0f), 10.0f);
        case QUICK_GELU: return x * sigmoid(1.702f * x);
        case RELU: return fmaxf(x, 0.0f);
        case RELU_6: return fminf(fmaxf(x, 0.0f), 6.0f);
        case RELU_SQUARED: return fmaxf(x, 0.0f) * fmaxf(x, 0.0f);
        case LEAKY_RELU: return x >= 0.0f ? x : 0.01f * x;
        case SILU: return x * sigmoid(x);
        case SIGMOID: return sigmoid(x);
        case TANH: return tanhf(x);
        case MISH: return x * tanhf(softplus(x));
        case LAPLACE: return 0.5f * (1.0f + erff((x - 0.707107f) / (0.282095f * 1.41421356f)));
        case HARD_SWISH: return x * fminf(fmaxf(x + 3.0f, 0.0f), 6.0f) / 6.0f;
        case SQRT_SOFTPLUS: return sqrtf(softplus(x));
        default: return x;
    }
}
__device__ __forceinline__ float activate(int activation, float x) {
    return activation == IDENTITY ? x : activation == GELU ? gelu(x) : activate_rarely(activation, x);
}
// Calls `use` with the function of an activation: one choice for many numbers, so that these are worked on side by side.
template <typename Use> __device__ __forceinline__ void with_activation(int activation, Use use) {
    if (activation == IDENTITY) use([](float x) { return x; });
    else if (activation == GELU) use([](float x) { return gelu(x); });
    else use([=](float x) { return activate_rarely(activation, x); });
}

// ---------------------------------------------------------------- across threads

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) v += __shfl_xor_sync(0xffffffff, v, step);
    return v;
}
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffff, v, step));
    return v;
}

// Over a block of so many threads, by way of shared memory that nobody else uses.
template <int THREADS> __device__ __forceinline__ float block_max(float v, float* scratch) {
    v = warp_max(v);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < THREADS / 32; i++) v = fmaxf(v, scratch[i]);
    return v;
}

// The sequence in which a row lies: the last one that begins at or before it.
__device__ __forceinline__ u32 sequence_of(const u32* offsets, u32 sequences, u32 row) {
    u32 low = 0, high = sequences;
    while (high - low > 1) {
        u32 middle = (low + high) / 2;
        if (offsets[middle] <= row) low = middle;
        else high = middle;
    }
    return low;
}
