"""The worker for PyTorch: models of Hugging Face transformers and the study's operations; CPU, CUDA, MPS.

Modes: `eager`, and `compile` (torch.compile for each shape: frozen weights on a CPU, CUDA graphs on a GPU). Their programs are
made when the batch or operation comes, not while time runs.
"""

from protocol import Engine, Unsupported, filler, pad, serve


def start():
    import os
    import warnings

    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore")
    import torch
    import transformers

    import torch_operations

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    FLOATS = {"f64": torch.float64, "f32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "int8": torch.float32}

    class PyTorch(Engine):
        name, version = "PyTorch", torch.__version__
        model = None

        def hello(self):
            devices = ["cpu"]
            if torch.cuda.is_available():
                devices.append(f"cuda ({torch.cuda.get_device_name()})")
            if torch.backends.mps.is_available():
                devices.append("mps")
            return f"transformers {transformers.__version__}, {torch.backends.cpu.get_cpu_capability()}; {', '.join(devices)}"

        def open(self, device, dtype, mode, threads):
            if mode.partition("-")[0] not in ("eager", "compile"):
                raise Unsupported(f"mode {mode}")
            if dtype not in FLOATS or (dtype == "tf32" and not device.startswith("cuda")) or (dtype == "int8" and device != "cpu"):
                raise Unsupported(f"{dtype} on {device}")
            if mode.endswith("-tcmalloc") and "tcmalloc" not in open("/proc/self/maps").read():
                raise Unsupported("tcmalloc is not in this process: LD_PRELOAD has to find it (Debian: apt-get install libtcmalloc-minimal4)")
            # Its own messages are pages long.
            if device.startswith("cuda") and not torch.cuda.is_available():
                raise Unsupported("PyTorch finds no NVIDIA GPU with a driver it can use")
            if device == "mps" and not torch.backends.mps.is_available():
                raise Unsupported("PyTorch finds no Metal here")
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
            # By default PyTorch convolves in TF32 where f32 was asked for.
            torch.backends.cudnn.allow_tf32 = dtype == "tf32"
            torch.compiler.reset()
            self.model, self.clock = None, None
            self.device, self.dtype, self.compiled = torch.device(device), dtype, mode.startswith("compile")
            torch.zeros(1, device=self.device)  # fails here if there is no such device
            if self.device.type == "cuda":
                self.clock = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            if self.compiled:
                # Above its limit of shapes PyTorch would run them eagerly and say nothing.
                torch._dynamo.config.fail_on_recompile_limit_hit = True
                torch._inductor.config.freezing = self.device.type == "cpu"
            # Frozen weights can't be tensors of the inference mode.
            self.guard = torch.no_grad if self.compiled else torch.inference_mode
            return f"{mode}, {dtype}, {device}" + (f", {torch.get_num_threads()} threads" if device == "cpu" else "")

        def load(self, model, device, dtype, mode, threads):
            detail = self.open(device, dtype, mode, threads)
            options = {"dtype": FLOATS[dtype], "attn_implementation": "sdpa", "output_loading_info": True}
            try:
                loaded, info = transformers.AutoModel.from_pretrained(model, add_pooling_layer=False, **options)
            except TypeError:  # a family that has no pooling layer to leave out
                loaded, info = transformers.AutoModel.from_pretrained(model, **options)
            if info["missing_keys"]:
                raise ValueError(f"{model} lacks weights: {', '.join(sorted(info['missing_keys'])[:3])}, ..")
            self.model = loaded.eval().to(self.device)
            self.filler = filler(model)
            if dtype == "int8":
                settings = {torch.nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}
                self.model = torch.ao.quantization.quantize_dynamic(self.model, settings)
                detail += ", weights by output, activations dynamic"
            return detail + f", {self.model.config._attn_implementation} attention"

        def batch(self, ids):
            if self.model is None:
                raise RuntimeError("a model comes before a batch")
            model = self.made(lambda ids, mask: self.model(input_ids=ids, attention_mask=mask).last_hidden_state)

            def compute():
                padded, mask = pad(ids, self.filler)
                padded = torch.from_numpy(padded).to(self.device)
                mask = None if mask is None else torch.from_numpy(mask).to(self.device)
                return model(padded, mask).cpu()

            return self.ready(compute)

        def operation(self, name, inputs, axis, settings):
            if name not in torch_operations.OPERATIONS:
                raise Unsupported(name)
            arguments = {} if axis is None else {"axis": axis}
            arguments |= {"settings": settings} if settings else {}
            with self.guard():
                tensors = [self.placed(torch.from_numpy(array)) for array in inputs]
                function = self.made(torch_operations.OPERATIONS[name](*tensors, **arguments))
            return *self.ready(function), torch_operations.DETAILS.get(name)

        def placed(self, tensor):
            """An operand on the device: values in the dtype, indices as most of PyTorch wants them."""
            return tensor.to(self.device, FLOATS[self.dtype] if tensor.is_floating_point() else torch.int64)

        def made(self, function):
            if not self.compiled:
                return function
            torch.compiler.reset()
            return torch.compile(function, dynamic=False, mode="default" if self.device.type == "cpu" else "reduce-overhead")

        def ready(self, function):
            """What `batch` and `operation` give: the function with the device waited for, and how its result is read."""

            def compute():
                with self.guard():
                    if self.clock:
                        self.clock[0].record()
                    result = function()
                    if self.clock:
                        self.clock[1].record()
                    if self.device.type != "cpu":
                        torch.accelerator.synchronize()
                if result.requires_grad:
                    raise RuntimeError("it was computed with gradients")
                return result

            if self.compiled:
                for _ in range(3):  # compiles, then records CUDA graphs
                    compute()
            return compute, lambda result: (result.float() if result.is_floating_point() else result.int()).cpu().numpy()

        def device_ns(self):
            return round(self.clock[0].elapsed_time(self.clock[1]) * 1e6) if self.clock else None

    return PyTorch()


if __name__ == "__main__":
    serve(start)
