// Notes when each kernel of a program ran, graphs' kernels too: one line "start end blocks name" each, nanoseconds, in the
// file that GPU_TRACE names. CUDA loads it by itself:
//
//   cc -shared -fPIC -O2 -I CUPTI_INCLUDE trace.c -o trace.so -L CUPTI_LIB -l:libcupti.so.13
//   CUDA_INJECTION64_PATH=$PWD/trace.so GPU_TRACE=kernels.txt PROGRAM ..; python3 report.py kernels.txt FIRST_KERNEL
#include <cupti.h>
#include <stdio.h>
#include <stdlib.h>

static FILE *out;

static void give(uint8_t **buffer, size_t *size, size_t *most) {
    *size = 8 << 20;
    *most = 0;
    *buffer = aligned_alloc(8, *size);
}

static void take(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid) {
    CUpti_Activity *record = NULL;
    while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
        if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) continue;
        const CUpti_ActivityKernel9 *kernel = (const CUpti_ActivityKernel9 *)record;
        fprintf(out, "%llu %llu %d %s\n", (unsigned long long)kernel->start, (unsigned long long)kernel->end,
                kernel->gridX * kernel->gridY * kernel->gridZ, kernel->name);
    }
    free(buffer);
}

static void finish(void) {
    cuptiActivityFlushAll(1);
    fclose(out);
}

int InitializeInjection(void) {
    const char *path = getenv("GPU_TRACE");
    out = fopen(path ? path : "kernels.txt", "w");
    if (!out) return 0;
    cuptiActivityRegisterCallbacks(give, take);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
    atexit(finish);
    return 1;
}
