"""Compiles the kernels that MLX runs for us on CUDA, without a GPU: python3 check-mlx-kernels.py NVRTC_FOLDER

Their texts are in crates/mlx/bridge and crates/cuda/kernels; MLX puts a signature around them when it runs them, which is repeated here
(MLX 0.32: inputs, shapes that the text names, outputs, then settings). NVRTC_FOLDER holds libnvrtc and, beside it, include.
"""
import ctypes
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(sys.argv[1])
ctypes.CDLL(str(next(FOLDER.glob("libnvrtc-builtins.so.*"))))
NVRTC = ctypes.CDLL(str(next(p for p in FOLDER.glob("libnvrtc.so.*") if "alt" not in p.name)))
ARCHITECTURES = ("sm_80", "sm_90a")
TYPES = {"__half": 16, "__nv_bfloat16": 17, "float": 32}
BEFORE = """#include <cuda_fp16.h>
#include <cuda_bf16.h>
struct Shape { int sizes[10]; __device__ int operator[](int i) const { return sizes[i]; } };
"""


def text(file, name):
    """What `name` is in a header of the bridge, between R"( and )"."""
    found = re.search(name + r' = R"\((.*?)\)"', (ROOT / "crates/mlx/bridge" / file).read_text(), re.S)
    return found.group(1)


def alone(file):
    """A file of crates/cuda without lines that ask for another one, as src/kernels.rs has it."""
    lines = (ROOT / "crates/cuda/kernels" / file).read_text().splitlines()
    return "".join(f"{line}\n" for line in lines if not line.startswith(("#include", "#pragma once")))


def compiles(what, source):
    for architecture in ARCHITECTURES:
        program = ctypes.c_void_p()
        NVRTC.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
        options = [f"--gpu-architecture={architecture}", "--std=c++17", f"-I{FOLDER.parent / 'include'}"]
        status = NVRTC.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*(o.encode() for o in options)))
        size = ctypes.c_size_t()
        NVRTC.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        NVRTC.nvrtcGetProgramLog(program, log)
        NVRTC.nvrtcDestroyProgram(ctypes.byref(program))
        if status:
            sys.exit(f"{what} for {architecture}: {log.value.decode()}")


count = 0
norm, rows, share = text("cuda.hpp", "norm_text"), text("cuda.hpp", "rows_text"), text("ragged.hpp", "share_text")
call = text("ragged.hpp", "std::string text")
for kind, element in TYPES.items():
    wide = 4 if element == 32 else 8
    for width in (1, wide):
        for keep in (True, False):
            outputs = f"{kind}* out, {kind}* sum" if keep else f"{kind}* out"
            settings = f"using T = {kind}; constexpr int WIDTH = {width}, EACH = 2, EPS = 0; constexpr bool MEAN = true, ADD = true, SHIFT = true, KEEP = {str(keep).lower()};"
            inputs = f"const {kind}* x, const __grid_constant__ Shape x_shape, const {kind}* residual, const float* gain, const float* shift"
            null = "" if keep else "T *const sum = nullptr;"
            compiles(f"norm of {kind}", f"{BEFORE}__global__ void kernel({inputs}, {outputs}) {{ {settings} {null} {norm} }}")
            count += 1
        inputs = f"const {kind}* x, const __grid_constant__ Shape x_shape, const int* places"
        compiles(f"rows of {kind}", f"{BEFORE}__global__ void kernel({inputs}, {kind}* out) {{ using T = {kind}; constexpr int WIDTH = {width}; {rows} }}")
        count += 1
    header = f"#define ELEMENT {element}\nnamespace mlxt_attention {{\n" + alone("common.cuh") + alone("matrix.cuh") + share
    header += alone("flash.cuh") + alone("attention_f32.cuh") + "}\n"
    functions = ["attend_tile<64>", "attend_tile<128>"] if element == 32 else ["flash<64, 2, 4>", "flash<96, 1, 4>", "flash<128, 1, 2>", "flash_few<64>"]
    for function in functions:
        settings = "constexpr int SCALE = 1 << 29, HEADS = 12, SIZE = 64, QUERIES = 64, BEFORE = 1 << 29, AFTER = 1 << 29;"
        inputs = f"const {kind}* qkv, const int* offsets, const __grid_constant__ Shape offsets_shape"
        compiles(f"{function} of {kind}", f"{BEFORE}{header}__global__ void kernel({inputs}, {kind}* out) {{ {settings} {call}{function}(o); }}")
        count += 1
print(f"{count} kernels, each for {' and '.join(ARCHITECTURES)}: compiled")
