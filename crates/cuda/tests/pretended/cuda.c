// A GPU that is none: the driver, NVRTC and cuBLASLt as far as this crate calls them, for tests on machines without one.
//
// Memory is the host's and copies are real, so values go to and fro; kernels are started and do nothing. What it is for: it
// counts what is alive and what was called, looks whether every address lies in memory that is alive, and fails whenever a test
// says so. A graph holds its copies and does them when it is started.
//
// Types are declared as far as they are looked at. Everything is called by one thread at a time or under the lock.

#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t Address;
enum { OK = 0, OUT_OF_MEMORY = 2 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

// ---- what tests ask for

// Calls that may fail, so far; the one that does, with what; whether all behind it do.
static long calls, failing = -1;
static int failure, for_ever;
// Things that were made and not given back, by kind.
enum Kind { CONTEXT, STREAM, EVENT, MEMORY, PINNED, MODULE, GRAPH, STARTABLE, PROGRAM, HANDLE, DESCRIPTION, KINDS };
static long alive[KINDS];
static long allocations, recordings, starts, launches;
static int capability = 90;
// What every compiled file is.
static char* code;
static size_t code_bytes;

void pretend_capability(int value) { capability = value; }
void pretend_code(const char* text, size_t bytes) { code = memcpy(malloc(bytes), text, bytes), code_bytes = bytes; }
// The call behind `after` others fails, and all that follow if `all`.
void pretend_failure(long after, int with, int all) { calls = 0, failing = after, failure = with, for_ever = all; }
long pretend_calls(void) { return calls; }
long pretend_alive(int kind) { return alive[kind]; }
long pretend_allocations(void) { return allocations; }
long pretend_recordings(void) { return recordings; }
long pretend_starts(void) { return starts; }
long pretend_launches(void) { return launches; }

static int next(void) {
    pthread_mutex_lock(&lock);
    const long number = calls++;
    pthread_mutex_unlock(&lock);
    return failing >= 0 && (for_ever ? number >= failing : number == failing) ? failure : OK;
}
// What gives something back fails only where everything does.
static int last(void) { return for_ever ? next() : OK; }
#define MAY_FAIL { const int said = next(); if (said) return said; }
#define FAILS_WITH_ALL { const int said = last(); if (said) return said; }
// The other libraries' own codes for that something went wrong inside.
#define MAY_FAIL_AS(own) { if (next()) return own; }
enum { NVRTC_FAILED = 11, BLAS_FAILED = 14 };

static void wrong(const char* what, Address address, size_t bytes) {
    fprintf(stderr, "the pretended GPU: %s: %zu bytes at %#llx\n", what, bytes, (unsigned long long)address);
    abort();
}

// ---- memory

typedef struct Block {
    Address begin;
    size_t bytes;
    int kind;
    struct Block* next;
} Block;
static Block* blocks;

static void count(int kind, int by) {
    pthread_mutex_lock(&lock);
    alive[kind] += by;
    pthread_mutex_unlock(&lock);
}

static Address take(int kind, size_t bytes) {
    Block* block = malloc(sizeof *block);
    pthread_mutex_lock(&lock);
    *block = (Block){(Address)calloc(bytes, 1), bytes, kind, blocks};
    blocks = block, alive[kind]++, allocations++;
    pthread_mutex_unlock(&lock);
    return block->begin;
}

static void give(int kind, Address begin) {
    pthread_mutex_lock(&lock);
    Block** at = &blocks;
    while (*at && ((*at)->begin != begin || (*at)->kind != kind)) at = &(*at)->next;
    Block* block = *at;
    if (!block) wrong("given back, and was not there", begin, 0);
    *at = block->next, alive[kind]--;
    pthread_mutex_unlock(&lock);
    free((void*)begin), free(block);
}

static void look(const char* what, Address begin, size_t bytes) {
    pthread_mutex_lock(&lock);
    const Block* block = blocks;
    while (block && !(block->kind == MEMORY && block->begin <= begin && begin + bytes <= block->begin + block->bytes))
        block = block->next;
    pthread_mutex_unlock(&lock);
    if (!block) wrong(what, begin, bytes);
}

int cuMemAllocAsync(Address* address, size_t bytes, void* stream) {
    MAY_FAIL
    *address = take(MEMORY, bytes);
    return OK;
}
int cuMemFreeAsync(Address address, void* stream) { FAILS_WITH_ALL give(MEMORY, address); return OK; }
int cuMemHostAlloc(void** address, size_t bytes, unsigned flags) {
    MAY_FAIL
    *address = (void*)take(PINNED, bytes);
    return OK;
}
int cuMemFreeHost(void* address) { FAILS_WITH_ALL give(PINNED, (Address)address); return OK; }
int cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void* stream) {
    MAY_FAIL
    look("filled", to, bytes);
    memset((void*)to, value, bytes);
    return OK;
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void* stream) {
    MAY_FAIL
    look("copied to", to, bytes), look("copied from", from, bytes);
    memmove((void*)to, (void*)from, bytes);
    return OK;
}
int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void* stream) {
    MAY_FAIL
    look("read", from, bytes);
    memcpy(to, (void*)from, bytes);
    return OK;
}

// ---- the device, its context, streams and events

static const char made[1];
static int make(void** thing, int kind) {
    MAY_FAIL
    *thing = (void*)made;
    count(kind, 1);
    return OK;
}
static int end(int kind) { FAILS_WITH_ALL count(kind, -1); return OK; }

int cuInit(unsigned flags) { MAY_FAIL return OK; }
int cuDriverGetVersion(int* version) { MAY_FAIL *version = 13000; return OK; }
int cuDeviceGetCount(int* count) { MAY_FAIL *count = 1; return OK; }
int cuDeviceGet(int* device, int ordinal) { MAY_FAIL *device = ordinal; return OK; }
int cuDeviceGetName(char* name, int room, int device) {
    MAY_FAIL
    snprintf(name, room, "a pretended GPU of %d", capability);
    return OK;
}
int cuDeviceTotalMem_v2(size_t* bytes, int device) { MAY_FAIL *bytes = (size_t)80 << 30; return OK; }
int cuDeviceGetAttribute(int* value, int which, int device) {
    MAY_FAIL
    *value = which == 75 ? capability / 10 : which == 76 ? capability % 10 : which == 16 ? 132 : 0;
    return OK;
}
int cuDevicePrimaryCtxRetain(void** context, int device) { return make(context, CONTEXT); }
int cuDevicePrimaryCtxRelease_v2(int device) { return end(CONTEXT); }
int cuCtxSetCurrent(void* context) { FAILS_WITH_ALL return OK; }
int cuDeviceGetDefaultMemPool(void** pool, int device) { MAY_FAIL *pool = (void*)made; return OK; }
int cuMemPoolSetAttribute(void* pool, int which, void* value) { MAY_FAIL return OK; }

int cuStreamCreate(void** stream, unsigned flags) { return make(stream, STREAM); }
int cuStreamDestroy_v2(void* stream) { return end(STREAM); }
int cuStreamSynchronize(void* stream) { MAY_FAIL return OK; }
int cuEventCreate(void** event, unsigned flags) { return make(event, EVENT); }
int cuEventDestroy_v2(void* event) { return end(EVENT); }
int cuEventRecord(void* event, void* stream) { MAY_FAIL return OK; }
int cuEventSynchronize(void* event) { MAY_FAIL return OK; }
// No two are alike, and none is known before.
int cuEventElapsedTime_v2(float* milliseconds, void* start, void* end) {
    MAY_FAIL
    static uint32_t random = 1;
    random = random * 1664525 + 1013904223;
    *milliseconds = 0.5f + (random >> 8) / 16777216.0f;
    return OK;
}

int cuGetErrorName(int error, const char** name) {
    *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_PRETENDED";
    return OK;
}
int cuGetErrorString(int error, const char** text) { *text = "pretended"; return OK; }

// ---- graphs: the copies in them, each of a block of the host to the device

typedef struct Graph {
    int copies;
    struct { Address to; void* from; size_t bytes; } copy[4];
    long launches;
} Graph;
// The one that is being recorded.
static Graph* recorded;

int cuStreamBeginCapture_v2(void* stream, int mode) {
    MAY_FAIL
    if (recorded) wrong("recorded twice at a time", 0, 0);
    recorded = calloc(1, sizeof *recorded);
    return OK;
}
int cuStreamEndCapture(void* stream, Graph** graph) {
    *graph = NULL;
    Graph* done = recorded;
    recorded = NULL;
    const int said = next();
    if (said) return free(done), said;
    *graph = done;
    count(GRAPH, 1);
    return OK;
}
int cuGraphInstantiateWithFlags(Graph** startable, const Graph* graph, unsigned long long flags) {
    MAY_FAIL
    *startable = malloc(sizeof **startable);
    **startable = *graph;
    count(STARTABLE, 1), recordings++;
    return OK;
}
int cuGraphDestroy(Graph* graph) { FAILS_WITH_ALL free(graph), count(GRAPH, -1); return OK; }
int cuGraphExecDestroy(Graph* startable) { FAILS_WITH_ALL free(startable), count(STARTABLE, -1); return OK; }
int cuGraphUpload(Graph* startable, void* stream) { MAY_FAIL return OK; }

int cuMemcpyHtoDAsync_v2(Address to, void* from, size_t bytes, void* stream) {
    MAY_FAIL
    look("sent", to, bytes);
    if (recorded) {
        if (recorded->copies == 4) wrong("more copies than there is room for in a graph", to, bytes);
        recorded->copy[recorded->copies].to = to, recorded->copy[recorded->copies].from = from;
        recorded->copy[recorded->copies++].bytes = bytes;
    } else {
        memcpy((void*)to, from, bytes);
    }
    return OK;
}
int cuGraphLaunch(Graph* graph, void* stream) {
    MAY_FAIL
    for (int i = 0; i < graph->copies; i++) {
        look("sent by a graph", graph->copy[i].to, graph->copy[i].bytes);
        memcpy((void*)graph->copy[i].to, graph->copy[i].from, graph->copy[i].bytes);
    }
    starts++, launches += graph->launches;
    return OK;
}

// ---- kernels

static void started(void) { *(recorded ? &recorded->launches : &launches) += 1; }

typedef struct {
    unsigned grid[3], block[3], shared;
    void *stream, *attributes;
    unsigned count;
} Launch;

int cuModuleLoadData(void** module, const void* image) { return make(module, MODULE); }
int cuModuleUnload(void* module) { return end(MODULE); }
int cuModuleGetFunction(const char** function, void* module, const char* name) {
    MAY_FAIL
    *function = strdup(name);
    return OK;
}
int cuFuncSetAttribute(const char* function, int which, int value) { MAY_FAIL return OK; }
int cuLaunchKernelEx(const Launch* how, const char* function, void** operands, void** extra) {
    MAY_FAIL
    const unsigned* grid = how->grid;
    // The driver refuses these.
    if (!grid[0] || !grid[1] || !grid[2] || grid[1] > 65535 || grid[2] > 65535 || !how->block[0] || how->block[0] > 1024 || how->shared > 227 << 10)
        return fprintf(stderr, "%s in a grid of %u, %u, %u of %u threads\n", function, grid[0], grid[1], grid[2], how->block[0]), 1;
    started();
    return OK;
}
int cuTensorMapEncodeTiled(void* map, int type, unsigned dimensions, void* address, const uint64_t* size, const uint64_t* pitch,
                           const uint32_t* box, const uint32_t* steps, int interleave, int swizzle, int promotion, int fill) {
    MAY_FAIL
    look("described", (Address)address, size[1] * pitch[0]);
    // What the driver looks at.
    return (Address)address % 16 || pitch[0] % 16 || !box[0] || box[0] > 256 || !box[1] || box[1] > 256;
}

// ---- NVRTC

typedef struct Program Program;

int nvrtcVersion(int* major, int* minor) { *major = 13, *minor = 0; return OK; }
const char* nvrtcGetErrorString(int error) { return "pretended"; }
int nvrtcCreateProgram(Program** program, const char* text, const char* name, int headers, const char** texts, const char** names) {
    return make((void**)program, PROGRAM) ? NVRTC_FAILED : OK;
}
int nvrtcDestroyProgram(Program** program) { return end(PROGRAM) ? NVRTC_FAILED : OK; }
int nvrtcCompileProgram(Program* program, int options, const char** list) { MAY_FAIL_AS(NVRTC_FAILED) return OK; }
int nvrtcGetCUBINSize(Program* program, size_t* bytes) { MAY_FAIL_AS(NVRTC_FAILED) *bytes = code_bytes; return OK; }
int nvrtcGetCUBIN(Program* program, char* out) { MAY_FAIL_AS(NVRTC_FAILED) memcpy(out, code, code_bytes); return OK; }
int nvrtcGetProgramLogSize(Program* program, size_t* bytes) { MAY_FAIL_AS(NVRTC_FAILED) *bytes = 1; return OK; }
int nvrtcGetProgramLog(Program* program, char* out) { MAY_FAIL_AS(NVRTC_FAILED) *out = 0; return OK; }

// ---- cuBLASLt

// A matrix by its bytes. Of products of many at a time one is looked at.
typedef struct {
    size_t bytes;
} Layout;
// As the library has it: an algorithm's state, the bytes of its workspace, how it went, and more.
typedef struct {
    uint64_t state[8];
    size_t workspace;
    int status;
    float waves;
    int more[4];
} Algorithm;

size_t cublasLtGetVersion(void) { return 130000; }
int cublasLtCreate(void** handle) { return make(handle, HANDLE) ? BLAS_FAILED : OK; }
int cublasLtDestroy(void* handle) { return end(HANDLE) ? BLAS_FAILED : OK; }
int cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t cols, int64_t pitch) {
    MAY_FAIL_AS(BLAS_FAILED)
    *layout = malloc(sizeof **layout);
    // Type 0 is f32, the others have 16 bits. The last column ends with its last row.
    (*layout)->bytes = ((cols - 1) * pitch + rows) * (type ? 2 : 4);
    count(DESCRIPTION, 1);
    return OK;
}
int cublasLtMatrixLayoutDestroy(Layout* layout) {
    if (last()) return BLAS_FAILED;
    free(layout), count(DESCRIPTION, -1);
    return OK;
}
int cublasLtMatrixLayoutSetAttribute(Layout* layout, int which, const void* value, size_t bytes) { MAY_FAIL_AS(BLAS_FAILED) return OK; }
int cublasLtMatmulDescCreate(void** description, int compute, int scale) { return make(description, DESCRIPTION) ? BLAS_FAILED : OK; }
int cublasLtMatmulDescDestroy(void* description) { return end(DESCRIPTION) ? BLAS_FAILED : OK; }
int cublasLtMatmulDescSetAttribute(void* description, int which, const void* value, size_t bytes) { MAY_FAIL_AS(BLAS_FAILED) return OK; }
int cublasLtMatmulPreferenceCreate(void** preference) { return make(preference, DESCRIPTION) ? BLAS_FAILED : OK; }
int cublasLtMatmulPreferenceDestroy(void* preference) { return end(DESCRIPTION) ? BLAS_FAILED : OK; }
int cublasLtMatmulPreferenceSetAttribute(void* preference, int which, const void* value, size_t bytes) { MAY_FAIL_AS(BLAS_FAILED) return OK; }
int cublasLtMatmulAlgoGetHeuristic(void* handle, void* description, Layout* a, Layout* b, Layout* c, Layout* d, void* preference,
                                   int wanted, Algorithm* results, int* found) {
    MAY_FAIL_AS(BLAS_FAILED)
    *found = wanted < 2 ? wanted : 2;
    memset(results, 0, *found * sizeof *results);
    return OK;
}
int cublasLtMatmul(void* handle, void* description, const void* alpha, Address a, Layout* a_layout, Address b, Layout* b_layout,
                   const void* beta, Address c, Layout* c_layout, Address d, Layout* d_layout, const Algorithm* algorithm,
                   Address workspace, size_t bytes, void* stream) {
    MAY_FAIL_AS(BLAS_FAILED)
    look("multiplied", a, a_layout->bytes), look("multiplied", b, b_layout->bytes);
    look("added", c, c_layout->bytes), look("written", d, d_layout->bytes), look("worked in", workspace, bytes);
    started();
    return OK;
}
