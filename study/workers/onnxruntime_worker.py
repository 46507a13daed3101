"""The worker for ONNX Runtime on the CPU: models only, exported by PyTorch and fused by its own optimizer (convert.py)."""

from protocol import Engine, Unsupported, filler, pad, serve

KINDS = {"f32": "fused", "int8": "fused-int8"}


def start():
    import onnxruntime

    from convert import converted

    class OnnxRuntime(Engine):
        name, version = "ONNX Runtime", onnxruntime.__version__
        session = None

        def open(self, device, dtype, mode, threads):
            if device != "cpu" or dtype not in KINDS or mode != "default":
                raise Unsupported(f"{dtype} on {device}, mode {mode}")
            self.session = None
            return f"{threads} threads, attention fused"

        def load(self, model, device, dtype, mode, threads):
            detail = self.open(device, dtype, mode, threads)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            # Threads may spin while a run lasts; between runs other engines are measured.
            options.add_session_config_entry("session.force_spinning_stop", "1")
            file = converted(model, KINDS[dtype])
            self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            self.filler = filler(model)
            return detail + (", weights by output, activations dynamic" if dtype == "int8" else "")

        def batch(self, ids):
            if self.session is None:
                raise RuntimeError("a model comes before a batch")

            def compute():
                padded, mask = pad(ids, self.filler, always=True)
                return self.session.run(None, {"ids": padded, "mask": mask})[0]

            return compute, lambda hidden: hidden

    return OnnxRuntime()


if __name__ == "__main__":
    serve(start)
