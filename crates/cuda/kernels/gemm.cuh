// Operands of the products on tensor cores.

#pragma once

#include "common.cuh"
#include "matrix.cuh"

struct GemmOperands {
    const T* x;            // [rows, inputs]
    const T* w;            // [outputs, inputs]
    const float* bias;     // [outputs]
    T* out;                // [rows, outputs]
    float* partial;        // [splits, .., outputs] instead of `out`, without bias and activation
    const u32* rows;
    u64 stride;            // from one part to the next
    int inputs;            // a multiple of 8
    int outputs;           // a multiple of 8
    int activation;
};
