// Operands of the products on tensor cores, and what they multiply.

#pragma once

#include "common.cuh"
#include "matrix.cuh"
#include "operand.cuh"

struct GemmOperands {
    const Q* x;            // [rows, inputs]
    const Q* w;            // [outputs, inputs]
    const float* bias;     // [outputs]
    const float* x_scales; // [rows], where operands were rounded to 8 bits
    const float* w_scales; // [outputs], likewise
    T* out;                // [rows, outputs]
    float* partial;        // [splits, .., outputs] instead of `out`, without bias and activation
    const u32* rows;
    u64 stride;            // from one part to the next
    int room;              // the most rows
    int inputs;            // multiples of 16 bytes, of 32 where operands have 8 bits
    int outputs;           // a multiple of 8
    int activation;
    Ahead ahead;
};
