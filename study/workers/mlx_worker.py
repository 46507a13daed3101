"""The worker for MLX through Python: models (mlx_models.py) and the study's operations (mlx_operations.py); `mlx:cpu`, `mlx:gpu`.

Modes: `eager`; `compile` (mx.compile, models only: an operation alone has nothing to fuse); either with `-openblas` behind it, where
LD_PRELOAD names OpenBLAS: the BLAS in MLX's own package for Linux is the reference implementation; or with `-nographs`, where
MLX_USE_CUDA_GRAPHS is 0: MLX starts kernels on CUDA one by one then.
"""

from protocol import Engine, Unsupported, filler, pad, serve


def start():
    import ctypes
    import importlib.metadata
    import os
    import tempfile
    from pathlib import Path

    # What mx.compile makes on a CPU would go to a place that others can guess.
    scratch = tempfile.TemporaryDirectory()
    os.environ["TMPDIR"] = scratch.name
    import mlx.core as mx
    import numpy

    import mlx_models
    import mlx_operations

    FLOATS = {"f32": mx.float32, "tf32": mx.float32, "bf16": mx.bfloat16, "f16": mx.float16, "int8": mx.float32}

    def array(value):
        """The result in host memory. With numpy's own types, which bf16 is not."""
        if not isinstance(value, mx.array):
            return value
        return numpy.array(value.astype(mx.float32) if value.dtype == mx.bfloat16 else value)

    class Mlx(Engine):
        name, version = "MLX", importlib.metadata.version("mlx")
        folder, model, dtype = scratch, None, None  # the folder lives as long as this

        def hello(self):
            return f"through Python; {mx.default_device()}"

        def open(self, device, dtype, mode, threads):
            kind, _, setting = mode.partition("-")
            if kind not in ("eager", "compile") or setting not in ("", "openblas", "nographs"):
                raise Unsupported(f"mode {mode}")
            if (setting == "nographs") != (os.environ.get("MLX_USE_CUDA_GRAPHS") == "0"):
                raise Unsupported(f"mode {mode} with MLX_USE_CUDA_GRAPHS set otherwise")
            if device not in ("mlx:cpu", "mlx:gpu") or dtype not in FLOATS or (dtype == "tf32" and device != "mlx:gpu"):
                raise Unsupported(f"{dtype} on {device}")
            # MLX reads this once: a process has either f32 or TF32.
            if (self.dtype == "tf32") != (dtype == "tf32") and self.dtype is not None:
                raise Unsupported("f32 and TF32 take a process each")
            os.environ["MLX_ENABLE_TF32"] = "1" if dtype == "tf32" else "0"
            detail = "one thread but in products" if device == "mlx:cpu" else "gpu"
            if setting == "openblas":
                detail += f", OpenBLAS with {self.openblas(threads)} threads"
            mx.set_default_device(mx.cpu if device == "mlx:cpu" else mx.gpu)
            mx.eval(mx.zeros(1))  # fails here if there is no such device
            mx.clear_cache()
            self.model, self.dtype, self.compiled = None, dtype, kind == "compile"
            return f"{mode}, {dtype}, {detail}"

        def openblas(self, threads):
            """Sets the threads of the OpenBLAS in this process; gives how many it has then."""
            maps = Path("/proc/self/maps").read_text(encoding="utf-8")
            path = next((line.split()[-1] for line in maps.splitlines() if "/libopenblas" in line), None)
            if path is None:
                raise Unsupported("OpenBLAS is not in this process: LD_PRELOAD has to name it")
            library = ctypes.CDLL(path)
            library.openblas_set_num_threads(threads)
            return library.openblas_get_num_threads()

        def load(self, model, device, dtype, mode, threads):
            detail = self.open(device, dtype, mode, threads)
            encoder = mlx_models.Encoder(model, FLOATS[dtype], 8 if dtype == "int8" else None)
            self.model, self.filler = encoder, filler(model)
            return detail + (", a scale and an offset for each 64 inputs" if dtype == "int8" else "")

        def batch(self, ids):
            if self.model is None:
                raise RuntimeError("a model comes before a batch")
            model = mx.compile(self.model) if self.compiled else self.model

            def compute():
                padded, mask = pad(ids, self.filler)
                hidden = model(mx.array(padded.astype(numpy.int32)), None if mask is None else mx.array(mask.astype(numpy.int32)))
                return array(hidden)

            if self.compiled:
                compute()
            return compute, lambda hidden: hidden

        def operation(self, name, inputs, axis, settings):
            if name not in mlx_operations.OPERATIONS or self.compiled:
                raise Unsupported(name)
            arguments = {} if axis is None else {"axis": axis}
            arguments |= {"settings": settings} if settings else {}
            arrays = [mx.array(i).astype(FLOATS[self.dtype]) if i.dtype.kind == "f" else mx.array(i) for i in inputs]
            mx.eval(arrays)
            function = mlx_operations.OPERATIONS[name](*arrays, **arguments)

            def compute():
                result = function()
                mx.eval(result)
                return result

            # What is no float is an index, of whichever width.
            collect = lambda result: array(result) if result.dtype in (*FLOATS.values(), numpy.float32) else array(result).astype(numpy.int32)
            return compute, collect, mlx_operations.DETAILS.get(name)

    return Mlx()


if __name__ == "__main__":
    serve(start)
