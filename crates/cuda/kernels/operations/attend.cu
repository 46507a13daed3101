// `softmax(scale q k') v` in f32, no score in memory (Milakov and Gimelshein, 2018): `attend_tile` for heads of up to 64
// columns, 64 queries a block; `attend_wide` for heads of any size, two queries a warp.

#include "operate.cuh"

struct AttendOperands {
    const float* q;
    const float* k;
    const float* v;
    float* out;
    const int* lengths;   // [batch], SelfAttention; or null
    const u32* offsets;   // [batch + 1], RaggedAttention; or null
    u64 q_batch, k_batch, out_batch; // from one sequence to the next, in values
    u64 q_head, k_head, out_head;    // from one head to the next
    u64 pitch, out_pitch;            // from one row to the next
    int queries;          // rows of a sequence; the most where they differ
    int keys;
    int size;
    int heads;
    int causal;
    float scale;
};

// One sequence and head: where it is, and how many of its queries and keys count.
struct Head {
    const float *q, *k, *v;
    float* out;
    int queries, keys, rows;   // rows: queries with room in the result; those from `queries` on are to be 0
    __device__ __forceinline__ Head(const AttendOperands& o, u32 batch, u32 head) {
        queries = rows = o.queries, keys = o.keys;
        u64 from = batch * o.q_batch, keys_from = batch * o.k_batch, to = batch * o.out_batch;
        if (o.lengths) queries = keys = min(max(o.lengths[batch], 0), o.queries);
        if (o.offsets) {
            const u32 start = o.offsets[batch];
            queries = keys = rows = o.offsets[batch + 1] - start;
            from = keys_from = start * o.pitch, to = start * o.out_pitch;
        }
        q = o.q + from + head * o.q_head;
        k = o.k + keys_from + head * o.k_head;
        v = o.v + keys_from + head * o.k_head;
        out = o.out + to + head * o.out_head;
    }
};

#define BLOCK 64
#define PITCH 68   // of a row in shared memory: a multiple of 4, and eight rows begin in different banks

// 256 threads, 16 x 16, each with 4 queries and 4 keys of the scores, then with 4 queries and 4 columns of the result.
// Queries and keys lie by column in shared memory, values and weights by row.
extern "C" __global__ void __launch_bounds__(256) attend_tile(const AttendOperands o) {
    extern __shared__ __align__(16) float memory[];
    float *q = memory, *k = q + BLOCK * PITCH, *v = k + BLOCK * PITCH, *p = v + BLOCK * PITCH;
    const int x = threadIdx.x % 16, y = threadIdx.x / 16, first = blockIdx.x * BLOCK, size = o.size;
    wait_for_previous();
    const Head h(o, blockIdx.z, blockIdx.y);
    if (first >= h.rows) return;
    const int quads = size / 4;
    for (int i = threadIdx.x; i < BLOCK * 16; i += 256) {
        const int row = i % BLOCK, quad = i / BLOCK;
        Vector<4> a = filled<4>(0.0f);
        if (first + row < h.queries && quad < quads) a = load<4>(h.q + (first + row) * o.pitch + 4 * quad);
#pragma unroll
        for (int e = 0; e < 4; e++) q[(4 * quad + e) * PITCH + row] = a.v[e] * o.scale;
    }
    float sums[4][4], largest[4], total[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        largest[i] = -INFINITE, total[i] = 0.0f;
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] = 0.0f;
    }
    const int end = o.causal ? min(h.keys, first + BLOCK) : h.keys;
    for (int key0 = 0; key0 < end; key0 += BLOCK) {
        __syncthreads();
        for (int i = threadIdx.x; i < BLOCK * 16; i += 256) {
            const int row = i % BLOCK, quad = i / BLOCK;
            Vector<4> a = filled<4>(0.0f);
            if (key0 + row < end && quad < quads) a = load<4>(h.k + (key0 + row) * o.pitch + 4 * quad);
#pragma unroll
            for (int e = 0; e < 4; e++) k[(4 * quad + e) * PITCH + row] = a.v[e];
            const int r = i / 16, c = i % 16;
            Vector<4> b = filled<4>(0.0f);
            if (key0 + r < end && c < quads) b = load<4>(h.v + (key0 + r) * o.pitch + 4 * c);
            store<4>(v + r * PITCH + 4 * c, b);
        }
        __syncthreads();
        float s[4][4];
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) s[i][j] = 0.0f;
#pragma unroll 8
        for (int d = 0; d < size; d++) {
            const Vector<4> a = load<4>(q + d * PITCH + 4 * y), b = load<4>(k + d * PITCH + 4 * x);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) s[i][j] = fmaf(a.v[i], b.v[j], s[i][j]);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int query = first + 4 * y + i, seen = o.causal ? min(end, query + 1) : end;
            float top = largest[i];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                if (key0 + 4 * x + j >= seen) s[i][j] = -INFINITE;
                top = fmaxf(top, s[i][j]);
            }
            top = lanes_max<16>(top);
            // The first block has a key for every query, so `top` is a number.
            const float shrink = expf(largest[i] - top);
            float sum = 0.0f;
            Vector<4> weights;
#pragma unroll
            for (int j = 0; j < 4; j++) sum += weights.v[j] = expf(s[i][j] - top);
            largest[i] = top;
            total[i] = fmaf(total[i], shrink, lanes_sum<16>(sum));
            store<4>(p + (4 * y + i) * PITCH + 4 * x, weights);
#pragma unroll
            for (int j = 0; j < 4; j++) sums[i][j] *= shrink;
        }
        // The weights of these queries were written by this half of the warp, and by no other.
        __syncwarp();
        const int count = min(BLOCK, end - key0);
        for (int key = 0; key < count; key += 4) {
            Vector<4> w[4];
#pragma unroll
            for (int i = 0; i < 4; i++) w[i] = load<4>(p + (4 * y + i) * PITCH + key);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const Vector<4> b = load<4>(v + (key + e) * PITCH + 4 * x);
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++) sums[i][j] = fmaf(w[i].v[e], b.v[j], sums[i][j]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int query = first + 4 * y + i;
        if (query >= h.rows || x >= quads) continue;
        Vector<4> r;
#pragma unroll
        for (int j = 0; j < 4; j++) r.v[j] = query < h.queries ? sums[i][j] / total[i] : 0.0f;
        store<4>(h.out + query * o.out_pitch + 4 * x, r);
    }
}

// Eight warps take 16 queries, 16 keys at a time. Lanes share the columns for the products and the sums; in between lane l
// has the score of query l / 16 and key l % 16. Heads of more than 32 VEC CHUNKS columns are cut in slabs, one a block.
template <int VEC, int CHUNKS> __device__ __forceinline__ void attend_wide(const AttendOperands& o) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, size = o.size;
    const int slabs = (size + 32 * VEC * CHUNKS - 1) / (32 * VEC * CHUNKS);
    const int slab = blockIdx.x % slabs * (32 * VEC * CHUNKS), first = blockIdx.x / slabs * 16 + 2 * warp;
    wait_for_previous();
    const Head h(o, blockIdx.z, blockIdx.y);
    if (first >= h.rows) return;
    Vector<VEC> sums[2][CHUNKS];
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) sums[i][c] = filled<VEC>(0.0f);
    float largest = -INFINITE, total = 0.0f;
    const int mine = first + lane / 16;
    const int end = first >= h.queries ? 0 : o.causal ? min(h.keys, first + 2) : h.keys;
    const int seen = o.causal ? min(h.keys, mine + 1) : h.keys;
    for (int key0 = 0; key0 < end; key0 += 16) {
        float s[32];
#pragma unroll
        for (int j = 0; j < 32; j++) s[j] = 0.0f;
        for (int d = lane * VEC; d < size; d += 32 * VEC) {
            const Vector<VEC> a = load<VEC>(h.q + first * o.pitch + d);
            const Vector<VEC> b = first + 1 < h.queries ? load<VEC>(h.q + (first + 1) * o.pitch + d) : a;
#pragma unroll
            for (int j = 0; j < 16; j++) {
                const Vector<VEC> k = key0 + j < end ? load<VEC>(h.k + (key0 + j) * o.pitch + d) : filled<VEC>(0.0f);
#pragma unroll
                for (int e = 0; e < VEC; e++) {
                    s[j] = fmaf(a.v[e], k.v[e], s[j]);
                    s[16 + j] = fmaf(b.v[e], k.v[e], s[16 + j]);
                }
            }
        }
        // 32 sums over 32 lanes, each to the lane of its number: half as many are left after each step.
#pragma unroll
        for (int step = 16; step > 0; step /= 2) {
            const bool upper = lane & step;
#pragma unroll
            for (int j = 0; j < step; j++) {
                const float give = upper ? s[j] : s[j + step], keep = upper ? s[j + step] : s[j];
                s[j] = keep + __shfl_xor_sync(0xffffffff, give, step);
            }
        }
        const float score = key0 + lane % 16 < seen ? s[0] * o.scale : -INFINITE;
        const float top = fmaxf(largest, lanes_max<16>(score));
        const float weight = expf(score - top), shrink = expf(largest - top);
        largest = top;
        total = fmaf(total, shrink, lanes_sum<16>(weight));
        const float shrinks[2] = {__shfl_sync(0xffffffff, shrink, 0), __shfl_sync(0xffffffff, shrink, 16)};
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int c = 0; c < CHUNKS; c++)
#pragma unroll
                for (int e = 0; e < VEC; e++) sums[i][c].v[e] *= shrinks[i];
        for (int j = 0; j < 16 && key0 + j < end; j++) {
            const float low = __shfl_sync(0xffffffff, weight, j), high = __shfl_sync(0xffffffff, weight, 16 + j);
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                const int d = slab + (c * 32 + lane) * VEC;
                if (d >= size) continue;
                const Vector<VEC> v = load<VEC>(h.v + (key0 + j) * o.pitch + d);
#pragma unroll
                for (int e = 0; e < VEC; e++) {
                    sums[0][c].v[e] = fmaf(low, v.v[e], sums[0][c].v[e]);
                    sums[1][c].v[e] = fmaf(high, v.v[e], sums[1][c].v[e]);
                }
            }
        }
    }
    const float totals[2] = {__shfl_sync(0xffffffff, total, 0), __shfl_sync(0xffffffff, total, 16)};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (first + i >= h.rows) continue;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int d = slab + (c * 32 + lane) * VEC;
            if (d >= size) continue;
#pragma unroll
            for (int e = 0; e < VEC; e++) sums[i][c].v[e] = first + i < h.queries ? sums[i][c].v[e] / totals[i] : 0.0f;
            store<VEC>(h.out + (first + i) * o.out_pitch + d, sums[i][c]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) attend_wide_1_4(const AttendOperands o) { attend_wide<1, 4>(o); }
extern "C" __global__ void __launch_bounds__(256) attend_wide_4_1(const AttendOperands o) { attend_wide<4, 1>(o); }
extern "C" __global__ void __launch_bounds__(256) attend_wide_4_8(const AttendOperands o) { attend_wide<4, 8>(o); }
