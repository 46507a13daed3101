// What Hopper alone has: `wgmma`, by which four warps multiply straight from shared memory, the bulk copy engine that
// brings tiles there, the barriers by which both tell that they are done, and clusters of blocks.
//
// Activations of 32 bits are multiplied as TF32: no kernel of these is for f32.

#pragma once

// For `gelu`, which then need not be more exact than what it is of.
#define TF32

#include "gemm.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// What `wgmma` is called for the operands: inputs and types, what follows its operands, and how sums are passed to it.
#if SCALED && OPERAND == 8
#define WGMMA_TYPES "k32.s32.s8.s8"
#define WGMMA_END ", p;\n}"
#define SUM_OPERAND "+r"
#define SUM_BITS "r"
#else
#define SUM_OPERAND "+f"
#define SUM_BITS "f"
#if SCALED
#define WGMMA_TYPES "k32.f32.e4m3.e4m3"
#elif ELEMENT == 32
#define WGMMA_TYPES "k8.f32.tf32.tf32"
#elif ELEMENT == 16
#define WGMMA_TYPES "k16.f32.f16.f16"
#else
#define WGMMA_TYPES "k16.f32.bf16.bf16"
#endif
// Operands of 16 bits alone can be turned on their way.
#if SCALED || ELEMENT == 32
#define WGMMA_END ", p, 1, 1;\n}"
#else
#define WGMMA_END ", p, 1, 1, 0, 0;\n}"
#endif
#endif

struct __align__(64) TensorMap {
    u64 words[16];
};

struct HopperOperands {
    TensorMap x;           // [room, inputs] in boxes of 128 by a step
    TensorMap w;           // [outputs, inputs] in boxes of OUTS by a step
    GemmOperands o;
};

// d += a b, or d = a b: 64 rows, 32 bytes of inputs.
__device__ __forceinline__ void warpgroup_multiply(Sum (&d)[128], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n256" WGMMA_TYPES " {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
                 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
                 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
                 "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"
                 "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"
                 "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"
                 "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
                 "}, %128, %129" WGMMA_END
                 : SUM_OPERAND(d[0]), SUM_OPERAND(d[1]), SUM_OPERAND(d[2]), SUM_OPERAND(d[3]), SUM_OPERAND(d[4]), SUM_OPERAND(d[5]), SUM_OPERAND(d[6]), SUM_OPERAND(d[7]),
                   SUM_OPERAND(d[8]), SUM_OPERAND(d[9]), SUM_OPERAND(d[10]), SUM_OPERAND(d[11]), SUM_OPERAND(d[12]), SUM_OPERAND(d[13]), SUM_OPERAND(d[14]), SUM_OPERAND(d[15]),
                   SUM_OPERAND(d[16]), SUM_OPERAND(d[17]), SUM_OPERAND(d[18]), SUM_OPERAND(d[19]), SUM_OPERAND(d[20]), SUM_OPERAND(d[21]), SUM_OPERAND(d[22]), SUM_OPERAND(d[23]),
                   SUM_OPERAND(d[24]), SUM_OPERAND(d[25]), SUM_OPERAND(d[26]), SUM_OPERAND(d[27]), SUM_OPERAND(d[28]), SUM_OPERAND(d[29]), SUM_OPERAND(d[30]), SUM_OPERAND(d[31]),
                   SUM_OPERAND(d[32]), SUM_OPERAND(d[33]), SUM_OPERAND(d[34]), SUM_OPERAND(d[35]), SUM_OPERAND(d[36]), SUM_OPERAND(d[37]), SUM_OPERAND(d[38]), SUM_OPERAND(d[39]),
                   SUM_OPERAND(d[40]), SUM_OPERAND(d[41]), SUM_OPERAND(d[42]), SUM_OPERAND(d[43]), SUM_OPERAND(d[44]), SUM_OPERAND(d[45]), SUM_OPERAND(d[46]), SUM_OPERAND(d[47]),
                   SUM_OPERAND(d[48]), SUM_OPERAND(d[49]), SUM_OPERAND(d[50]), SUM_OPERAND(d[51]), SUM_OPERAND(d[52]), SUM_OPERAND(d[53]), SUM_OPERAND(d[54]), SUM_OPERAND(d[55]),
                   SUM_OPERAND(d[56]), SUM_OPERAND(d[57]), SUM_OPERAND(d[58]), SUM_OPERAND(d[59]), SUM_OPERAND(d[60]), SUM_OPERAND(d[61]), SUM_OPERAND(d[62]), SUM_OPERAND(d[63]),
                   SUM_OPERAND(d[64]), SUM_OPERAND(d[65]), SUM_OPERAND(d[66]), SUM_OPERAND(d[67]), SUM_OPERAND(d[68]), SUM_OPERAND(d[69]), SUM_OPERAND(d[70]), SUM_OPERAND(d[71]),
                   SUM_OPERAND(d[72]), SUM_OPERAND(d[73]), SUM_OPERAND(d[74]), SUM_OPERAND(d[75]), SUM_OPERAND(d[76]), SUM_OPERAND(d[77]), SUM_OPERAND(d[78]), SUM_OPERAND(d[79]),
                   SUM_OPERAND(d[80]), SUM_OPERAND(d[81]), SUM_OPERAND(d[82]), SUM_OPERAND(d[83]), SUM_OPERAND(d[84]), SUM_OPERAND(d[85]), SUM_OPERAND(d[86]), SUM_OPERAND(d[87]),
                   SUM_OPERAND(d[88]), SUM_OPERAND(d[89]), SUM_OPERAND(d[90]), SUM_OPERAND(d[91]), SUM_OPERAND(d[92]), SUM_OPERAND(d[93]), SUM_OPERAND(d[94]), SUM_OPERAND(d[95]),
                   SUM_OPERAND(d[96]), SUM_OPERAND(d[97]), SUM_OPERAND(d[98]), SUM_OPERAND(d[99]), SUM_OPERAND(d[100]), SUM_OPERAND(d[101]), SUM_OPERAND(d[102]), SUM_OPERAND(d[103]),
                   SUM_OPERAND(d[104]), SUM_OPERAND(d[105]), SUM_OPERAND(d[106]), SUM_OPERAND(d[107]), SUM_OPERAND(d[108]), SUM_OPERAND(d[109]), SUM_OPERAND(d[110]), SUM_OPERAND(d[111]),
                   SUM_OPERAND(d[112]), SUM_OPERAND(d[113]), SUM_OPERAND(d[114]), SUM_OPERAND(d[115]), SUM_OPERAND(d[116]), SUM_OPERAND(d[117]), SUM_OPERAND(d[118]), SUM_OPERAND(d[119]),
                   SUM_OPERAND(d[120]), SUM_OPERAND(d[121]), SUM_OPERAND(d[122]), SUM_OPERAND(d[123]), SUM_OPERAND(d[124]), SUM_OPERAND(d[125]), SUM_OPERAND(d[126]), SUM_OPERAND(d[127])
                 : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void warpgroup_multiply(Sum (&d)[96], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %98, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n192" WGMMA_TYPES " {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
                 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
                 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
                 "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"
                 "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
                 "}, %96, %97" WGMMA_END
                 : SUM_OPERAND(d[0]), SUM_OPERAND(d[1]), SUM_OPERAND(d[2]), SUM_OPERAND(d[3]), SUM_OPERAND(d[4]), SUM_OPERAND(d[5]), SUM_OPERAND(d[6]), SUM_OPERAND(d[7]),
                   SUM_OPERAND(d[8]), SUM_OPERAND(d[9]), SUM_OPERAND(d[10]), SUM_OPERAND(d[11]), SUM_OPERAND(d[12]), SUM_OPERAND(d[13]), SUM_OPERAND(d[14]), SUM_OPERAND(d[15]),
                   SUM_OPERAND(d[16]), SUM_OPERAND(d[17]), SUM_OPERAND(d[18]), SUM_OPERAND(d[19]), SUM_OPERAND(d[20]), SUM_OPERAND(d[21]), SUM_OPERAND(d[22]), SUM_OPERAND(d[23]),
                   SUM_OPERAND(d[24]), SUM_OPERAND(d[25]), SUM_OPERAND(d[26]), SUM_OPERAND(d[27]), SUM_OPERAND(d[28]), SUM_OPERAND(d[29]), SUM_OPERAND(d[30]), SUM_OPERAND(d[31]),
                   SUM_OPERAND(d[32]), SUM_OPERAND(d[33]), SUM_OPERAND(d[34]), SUM_OPERAND(d[35]), SUM_OPERAND(d[36]), SUM_OPERAND(d[37]), SUM_OPERAND(d[38]), SUM_OPERAND(d[39]),
                   SUM_OPERAND(d[40]), SUM_OPERAND(d[41]), SUM_OPERAND(d[42]), SUM_OPERAND(d[43]), SUM_OPERAND(d[44]), SUM_OPERAND(d[45]), SUM_OPERAND(d[46]), SUM_OPERAND(d[47]),
                   SUM_OPERAND(d[48]), SUM_OPERAND(d[49]), SUM_OPERAND(d[50]), SUM_OPERAND(d[51]), SUM_OPERAND(d[52]), SUM_OPERAND(d[53]), SUM_OPERAND(d[54]), SUM_OPERAND(d[55]),
                   SUM_OPERAND(d[56]), SUM_OPERAND(d[57]), SUM_OPERAND(d[58]), SUM_OPERAND(d[59]), SUM_OPERAND(d[60]), SUM_OPERAND(d[61]), SUM_OPERAND(d[62]), SUM_OPERAND(d[63]),
                   SUM_OPERAND(d[64]), SUM_OPERAND(d[65]), SUM_OPERAND(d[66]), SUM_OPERAND(d[67]), SUM_OPERAND(d[68]), SUM_OPERAND(d[69]), SUM_OPERAND(d[70]), SUM_OPERAND(d[71]),
                   SUM_OPERAND(d[72]), SUM_OPERAND(d[73]), SUM_OPERAND(d[74]), SUM_OPERAND(d[75]), SUM_OPERAND(d[76]), SUM_OPERAND(d[77]), SUM_OPERAND(d[78]), SUM_OPERAND(d[79]),
                   SUM_OPERAND(d[80]), SUM_OPERAND(d[81]), SUM_OPERAND(d[82]), SUM_OPERAND(d[83]), SUM_OPERAND(d[84]), SUM_OPERAND(d[85]), SUM_OPERAND(d[86]), SUM_OPERAND(d[87]),
                   SUM_OPERAND(d[88]), SUM_OPERAND(d[89]), SUM_OPERAND(d[90]), SUM_OPERAND(d[91]), SUM_OPERAND(d[92]), SUM_OPERAND(d[93]), SUM_OPERAND(d[94]), SUM_OPERAND(d[95])
                 : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void warpgroup_multiply(Sum (&d)[64], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128" WGMMA_TYPES " {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
                 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
                 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
                 "}, %64, %65" WGMMA_END
                 : SUM_OPERAND(d[0]), SUM_OPERAND(d[1]), SUM_OPERAND(d[2]), SUM_OPERAND(d[3]), SUM_OPERAND(d[4]), SUM_OPERAND(d[5]), SUM_OPERAND(d[6]), SUM_OPERAND(d[7]),
                   SUM_OPERAND(d[8]), SUM_OPERAND(d[9]), SUM_OPERAND(d[10]), SUM_OPERAND(d[11]), SUM_OPERAND(d[12]), SUM_OPERAND(d[13]), SUM_OPERAND(d[14]), SUM_OPERAND(d[15]),
                   SUM_OPERAND(d[16]), SUM_OPERAND(d[17]), SUM_OPERAND(d[18]), SUM_OPERAND(d[19]), SUM_OPERAND(d[20]), SUM_OPERAND(d[21]), SUM_OPERAND(d[22]), SUM_OPERAND(d[23]),
                   SUM_OPERAND(d[24]), SUM_OPERAND(d[25]), SUM_OPERAND(d[26]), SUM_OPERAND(d[27]), SUM_OPERAND(d[28]), SUM_OPERAND(d[29]), SUM_OPERAND(d[30]), SUM_OPERAND(d[31]),
                   SUM_OPERAND(d[32]), SUM_OPERAND(d[33]), SUM_OPERAND(d[34]), SUM_OPERAND(d[35]), SUM_OPERAND(d[36]), SUM_OPERAND(d[37]), SUM_OPERAND(d[38]), SUM_OPERAND(d[39]),
                   SUM_OPERAND(d[40]), SUM_OPERAND(d[41]), SUM_OPERAND(d[42]), SUM_OPERAND(d[43]), SUM_OPERAND(d[44]), SUM_OPERAND(d[45]), SUM_OPERAND(d[46]), SUM_OPERAND(d[47]),
                   SUM_OPERAND(d[48]), SUM_OPERAND(d[49]), SUM_OPERAND(d[50]), SUM_OPERAND(d[51]), SUM_OPERAND(d[52]), SUM_OPERAND(d[53]), SUM_OPERAND(d[54]), SUM_OPERAND(d[55]),
                   SUM_OPERAND(d[56]), SUM_OPERAND(d[57]), SUM_OPERAND(d[58]), SUM_OPERAND(d[59]), SUM_OPERAND(d[60]), SUM_OPERAND(d[61]), SUM_OPERAND(d[62]), SUM_OPERAND(d[63])
                 : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void warpgroup_multiply(Sum (&d)[48], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %50, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n96" WGMMA_TYPES " {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
                 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
                 "}, %48, %49" WGMMA_END
                 : SUM_OPERAND(d[0]), SUM_OPERAND(d[1]), SUM_OPERAND(d[2]), SUM_OPERAND(d[3]), SUM_OPERAND(d[4]), SUM_OPERAND(d[5]), SUM_OPERAND(d[6]), SUM_OPERAND(d[7]),
                   SUM_OPERAND(d[8]), SUM_OPERAND(d[9]), SUM_OPERAND(d[10]), SUM_OPERAND(d[11]), SUM_OPERAND(d[12]), SUM_OPERAND(d[13]), SUM_OPERAND(d[14]), SUM_OPERAND(d[15]),
                   SUM_OPERAND(d[16]), SUM_OPERAND(d[17]), SUM_OPERAND(d[18]), SUM_OPERAND(d[19]), SUM_OPERAND(d[20]), SUM_OPERAND(d[21]), SUM_OPERAND(d[22]), SUM_OPERAND(d[23]),
                   SUM_OPERAND(d[24]), SUM_OPERAND(d[25]), SUM_OPERAND(d[26]), SUM_OPERAND(d[27]), SUM_OPERAND(d[28]), SUM_OPERAND(d[29]), SUM_OPERAND(d[30]), SUM_OPERAND(d[31]),
                   SUM_OPERAND(d[32]), SUM_OPERAND(d[33]), SUM_OPERAND(d[34]), SUM_OPERAND(d[35]), SUM_OPERAND(d[36]), SUM_OPERAND(d[37]), SUM_OPERAND(d[38]), SUM_OPERAND(d[39]),
                   SUM_OPERAND(d[40]), SUM_OPERAND(d[41]), SUM_OPERAND(d[42]), SUM_OPERAND(d[43]), SUM_OPERAND(d[44]), SUM_OPERAND(d[45]), SUM_OPERAND(d[46]), SUM_OPERAND(d[47])
                 : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void warpgroup_multiply(Sum (&d)[32], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64" WGMMA_TYPES " {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
                 "}, %32, %33" WGMMA_END
                 : SUM_OPERAND(d[0]), SUM_OPERAND(d[1]), SUM_OPERAND(d[2]), SUM_OPERAND(d[3]), SUM_OPERAND(d[4]), SUM_OPERAND(d[5]), SUM_OPERAND(d[6]), SUM_OPERAND(d[7]),
                   SUM_OPERAND(d[8]), SUM_OPERAND(d[9]), SUM_OPERAND(d[10]), SUM_OPERAND(d[11]), SUM_OPERAND(d[12]), SUM_OPERAND(d[13]), SUM_OPERAND(d[14]), SUM_OPERAND(d[15]),
                   SUM_OPERAND(d[16]), SUM_OPERAND(d[17]), SUM_OPERAND(d[18]), SUM_OPERAND(d[19]), SUM_OPERAND(d[20]), SUM_OPERAND(d[21]), SUM_OPERAND(d[22]), SUM_OPERAND(d[23]),
                   SUM_OPERAND(d[24]), SUM_OPERAND(d[25]), SUM_OPERAND(d[26]), SUM_OPERAND(d[27]), SUM_OPERAND(d[28]), SUM_OPERAND(d[29]), SUM_OPERAND(d[30]), SUM_OPERAND(d[31])
                 : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void warpgroup_multiply(Sum (&d)[16], u64 a, u64 b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n32" WGMMA_TYPES " {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
                 "}, %16, %17" WGMMA_END
                 : SUM_OPERAND(d[0]), SUM_OPERAND(d[1]), SUM_OPERAND(d[2]), SUM_OPERAND(d[3]), SUM_OPERAND(d[4]), SUM_OPERAND(d[5]), SUM_OPERAND(d[6]), SUM_OPERAND(d[7]),
                   SUM_OPERAND(d[8]), SUM_OPERAND(d[9]), SUM_OPERAND(d[10]), SUM_OPERAND(d[11]), SUM_OPERAND(d[12]), SUM_OPERAND(d[13]), SUM_OPERAND(d[14]), SUM_OPERAND(d[15])
                 : "l"(a), "l"(b), "r"(add));
}

// Multiplications run by themselves: before the first of some, what they read and add to has to be there; they are counted in groups, and
// done when all but the LEFT newest groups are waited for.
__device__ __forceinline__ void multiplications_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void multiplications_end_group() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int LEFT> __device__ __forceinline__ void multiplications_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

__device__ __forceinline__ void barrier_make(u32 barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_wait(u32 barrier, u32 phase) {
    asm volatile(
        "{\n.reg .pred done;\n"
        "again:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra over;\nbra again;\nover:\n}" ::"r"(barrier), "r"(phase) : "memory");
}
__device__ __forceinline__ void copy_box(u32 to, const TensorMap* map, u32 barrier, int input, int row) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
                 ::"r"(to), "l"(map), "r"(barrier), "r"(input), "r"(row) : "memory");
}

// The same as far as the second-level cache, for what shared memory has no place for yet.
__device__ __forceinline__ void fetch_box(const TensorMap* map, int input, int row) {
    asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global [%0, {%1, %2}];" ::"l"(map), "r"(input), "r"(row) : "memory");
}
// Brings a map to where the copy engine looks for it.
__device__ __forceinline__ void fetch_map(const TensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// A tile as `wgmma` wants it described: rows of 128 bytes, swizzled, eight of them 1024 bytes apart.
__device__ __forceinline__ u64 describe(u32 address) {
    return (u64)((address & 0x3ffff) >> 4) | ((u64)1 << 16) | ((u64)64 << 32) | ((u64)1 << 62);
}

// Four words of each of four neighbouring lanes, turned: lane `l` gets word `l` of all four. Of two lanes: the first gets words 0
// and 1 of both, the second words 2 and 3.
template <int LANES = 4> __device__ __forceinline__ uint4 turn_words(u32 (&v)[4]) {
    const bool odd = threadIdx.x & 1, upper = threadIdx.x & LANES / 2;
#pragma unroll
    for (int i = 0; LANES == 4 && i < 4; i += 2) {
        const u32 other = __shfl_xor_sync(0xffffffff, odd ? v[i] : v[i + 1], 1);
        if (odd) v[i] = other;
        else v[i + 1] = other;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const u32 other = __shfl_xor_sync(0xffffffff, upper ? v[i] : v[i + 2], LANES / 2);
        if (upper) v[i] = other;
        else v[i + 2] = other;
    }
    return make_uint4(v[0], v[1], v[2], v[3]);
}

// Pairs of four neighbouring lanes, one of each eight columns as `wgmma` leaves them, turned for stores of 16 bytes: those of
// TURNED times eight columns become one such piece of each lane, `turned_column` columns behind the first of them.
#if ELEMENT == 32
// Two lanes exchange theirs. Pairs as they are would be stores of 8 bytes: a sector of 32 of each row, where these write two.
#define TURNED 2
__device__ __forceinline__ uint4 turn_pairs(const Pair* v) {
    u32 w[4] = {__float_as_uint(v[0].x), __float_as_uint(v[0].y), __float_as_uint(v[1].x), __float_as_uint(v[1].y)};
    return turn_words<2>(w);
}
__device__ __forceinline__ int turned_column() { return threadIdx.x % 2 * 8 + threadIdx.x / 2 % 2 * 4; }
#else
#define TURNED 4
__device__ __forceinline__ uint4 turn_pairs(const Pair* v) {
    u32 w[4] = {v[0], v[1], v[2], v[3]};
    return turn_words(w);
}
__device__ __forceinline__ int turned_column() { return threadIdx.x % 4 * 8; }

// Two neighbours of one row and of the one eight below, as `wgmma` leaves them of COLS columns, in stores of eight; the first `cols` of
// them, a multiple of eight.
template <int COLS>
__device__ __forceinline__ void store_rows(T* to, const float (&v)[COLS / 2], u64 pitch, int cols, bool upper, bool lower) {
    const int lane = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < COLS / 8; n += 4) {
        u32 first[4], second[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float* s = v + 4 * (n + i);
            first[i] = narrow2(s[0], s[1]), second[i] = narrow2(s[2], s[3]);
        }
        const uint4 a = turn_words(first), b = turn_words(second);
        const int col = (n + lane) * 8;
        if (upper && col < cols) store16(to + col, a);
        if (lower && col < cols) store16(to + col + 8 * pitch, b);
    }
}
#endif

// Blocks of a cluster (1, 1, n) run at the same time, and write to each other's shared memory. Every thread of all of
// them arrives and waits in turn: what was written before an arrival is there behind the wait.
__device__ __forceinline__ u32 cluster_blocks() {
    u32 count;
    asm("mov.u32 %0, %%cluster_nctaid.z;" : "=r"(count));
    return count;
}
__device__ __forceinline__ u32 cluster_rank() {
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctaid.z;" : "=r"(rank));
    return rank;
}
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
// By who has written nothing: a release at the start of a kernel is a fence for the whole device.
__device__ __forceinline__ void cluster_arrive_empty() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
// Numbers to another block's shared memory, at what is `address` in one's own.
__device__ __forceinline__ void cluster_put(u32 address, u32 rank, float2 v) {
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(there), "f"(v.x), "f"(v.y) : "memory");
}
__device__ __forceinline__ void cluster_put(u32 address, u32 rank, Sum a, Sum b, Sum c, Sum d) {
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    asm volatile("st.shared::cluster.v4.b32 [%0], {%1, %2, %3, %4};"
                 ::"r"(there), SUM_BITS(a), SUM_BITS(b), SUM_BITS(c), SUM_BITS(d) : "memory");
}

#endif
