// Rows of a value, or of weights, rounded to 8 bits where no norm has done so in passing.

#include "round.cuh"

#if SCALED

#define ROUND_THREADS 128

struct RoundOperands {
    const T* x;            // [rows, cols]
    Rounded out;
    const u32* rows;       // how many are real
    int cols;              // a multiple of 32
};

// A block for each row, eight columns of it in each thread at a time.
template <int CHUNKS> __device__ __forceinline__ void round_value(const RoundOperands& o) {
    __shared__ float maxima[ROUND_THREADS / 32];
    const u64 row = blockIdx.x;
    let_next_start();
    const bool real = row < *o.rows;
    wait_for_previous();
    if (!real) return;
    const auto first = [](int c) { return (c * ROUND_THREADS + (int)threadIdx.x) * 8; };
    Packed packed[CHUNKS] = {};
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
        if (first(c) < o.cols) packed[c] = *(const Packed*)(o.x + row * o.cols + first(c));
    float values[CHUNKS][8];
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) unpack8(packed[c], values[c]);
    float* scratch = maxima;
    round_row(o.out, row, o.cols, values, first, [=](float most) { return block_max<ROUND_THREADS>(most, scratch); });
}

#define ROUND(chunks)                                                                                                \
    extern "C" __global__ void __launch_bounds__(ROUND_THREADS) round_##chunks(const RoundOperands o) {              \
        round_value<chunks>(o);                                                                                        \
    }
ROUND(1)
ROUND(2)
ROUND(4)
ROUND(8)

#endif
