// What the study's operations share: values four at a time, and sums over the threads of a block.
//
// Elements are f32. Arrays begin at multiples of 256 bytes; a row of them begins at a multiple of 16 where the rows' length
// is a multiple of 4, which is what `VEC` 4 stands for. Every kernel waits for the one in front before it reads: see
// `wait_for_previous`.

#pragma once

#include "../common.cuh"

#define THREADS 256

template <int VEC> struct Vector { float v[VEC]; };

template <int VEC> __device__ __forceinline__ Vector<VEC> load(const float* p) {
    Vector<VEC> r;
    if (VEC == 4) {
        const float4 q = *(const float4*)p;
        r.v[0] = q.x, r.v[1 % VEC] = q.y, r.v[2 % VEC] = q.z, r.v[3 % VEC] = q.w;
    } else {
#pragma unroll
        for (int i = 0; i < VEC; i++) r.v[i] = p[i];
    }
    return r;
}
template <int VEC> __device__ __forceinline__ void store(float* p, const Vector<VEC>& r) {
    if (VEC == 4) {
        *(float4*)p = make_float4(r.v[0], r.v[1 % VEC], r.v[2 % VEC], r.v[3 % VEC]);
    } else {
#pragma unroll
        for (int i = 0; i < VEC; i++) p[i] = r.v[i];
    }
}
template <int VEC> __device__ __forceinline__ Vector<VEC> filled(float value) {
    Vector<VEC> r;
#pragma unroll
    for (int i = 0; i < VEC; i++) r.v[i] = value;
    return r;
}

// Quotient and remainder; numbers of 32 bits are divided in a third of the time.
__device__ __forceinline__ void divide(u64 n, u64 by, u64& quotient, u64& remainder) {
    if ((n | by) >> 32) {
        quotient = n / by;
        remainder = n - quotient * by;
    } else {
        const u32 q = (u32)n / (u32)by;
        quotient = q;
        remainder = (u32)n - q * (u32)by;
    }
}

template <int LANES> __device__ __forceinline__ float lanes_sum(float v) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step >>= 1) v += __shfl_xor_sync(0xffffffff, v, step);
    return v;
}
template <int LANES> __device__ __forceinline__ float lanes_max(float v) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffff, v, step));
    return v;
}

// The sum over a block's threads, for all of them. `scratch` has room for 32 and is free again when this returns.
__device__ __forceinline__ float threads_sum(float v, float* scratch) {
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    v = warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? scratch[threadIdx.x % 32] : 0.0f);
    __syncthreads();
    return v;
}

// Whether this block is the last of `blocks` to come here; what the others wrote is then visible to it. The counter is 0
// before and after.
__device__ __forceinline__ bool last_block(u32* counter, u32 blocks) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(counter, 1) == blocks - 1;
        if (last) *counter = 0;
    }
    __syncthreads();
    if (last) __threadfence();
    return last;
}
