"""The worker for OpenVINO on the CPU: models only, read from the ONNX file that PyTorch exports (convert.py)."""

from protocol import Engine, Unsupported, filler, pad, serve

PRECISIONS = {"f32": "f32", "bf16": "bf16", "f16": "f16", "int8": "f32"}


def start():
    import openvino

    from convert import converted

    core = openvino.Core()

    class OpenVino(Engine):
        name, version = "OpenVINO", openvino.__version__.partition("-")[0]
        request = None

        def hello(self):
            return f"{core.get_property('CPU', 'FULL_DEVICE_NAME')}: {', '.join(core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES'))}"

        def open(self, device, dtype, mode, threads):
            if device != "cpu" or dtype not in PRECISIONS or mode != "default":
                raise Unsupported(f"{dtype} on {device}, mode {mode}")
            if dtype in ("bf16", "f16") and {"bf16": "BF16", "f16": "FP16"}[dtype] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                raise Unsupported(f"OpenVINO has no {dtype} on this CPU")
            self.request = None
            return f"{threads} threads"

        def load(self, model, device, dtype, mode, threads):
            detail = self.open(device, dtype, mode, threads)
            read = core.read_model(converted(model, "openvino-int8" if dtype == "int8" else "plain"))
            settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads,
                        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
                        # Activations quantised 256 at a time: faster than its default of 32, and no less precise.
                        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 256 if dtype == "int8" else 0}
            self.request = core.compile_model(read, "CPU", settings).create_infer_request()
            self.filler = filler(model)
            return detail + (", weights by output, activations dynamic in groups of 256" if dtype == "int8" else "")

        def batch(self, ids):
            if self.request is None:
                raise RuntimeError("a model comes before a batch")

            def compute():
                padded, mask = pad(ids, self.filler, always=True)
                return self.request.infer({"ids": padded, "mask": mask}, share_inputs=True, share_outputs=True)[0]

            # The next run writes where this one did.
            return compute, lambda hidden: hidden.copy()

    return OpenVino()


if __name__ == "__main__":
    serve(start)
