// `cblas_sgemm` for MLX on Linux, whose wheels carry the reference BLAS. Loaded globally before libmlx, which then binds to
// this one; what it calls is set before that. It is its own library because an executable exports nothing by itself.

typedef void (*mlxt_sgemm)(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);

static mlxt_sgemm chosen;

__attribute__((visibility("default"))) void mlxt_choose_sgemm(mlxt_sgemm sgemm) { chosen = sgemm; }

__attribute__((visibility("default"))) void cblas_sgemm(
    int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float *a, int stride_a,
    const float *b, int stride_b, float beta, float *c, int stride_c) {
  chosen(order, transpose_a, transpose_b, m, n, k, alpha, a, stride_a, b, stride_b, beta, c, stride_c);
}
