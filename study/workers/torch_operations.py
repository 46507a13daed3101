"""The study's operations in PyTorch, each as its user would write it. What they mean: ../OPERATIONS.md.

Each entry of `OPERATIONS` takes the tensors (on the device, in the dtype), then `axis` and `settings` by name where it needs them, and gives a
function without arguments: only that is timed. What it does before is what a user does once: weights laid out
as the library likes them, tables of constants, and lengths known to the host.
"""

import torch
import torch.nn.functional as F

from protocol import Unsupported


def pointwise(function):
    return lambda *inputs: lambda: function(*inputs)


def along(function):
    return lambda *inputs, axis: lambda: function(*inputs, axis)


def conv1d(x, w):
    x, w = x.transpose(1, 2), w.transpose(1, 2).contiguous()
    return lambda: F.conv1d(x, w).transpose(1, 2)


def conv2d(x, w):
    # A view with the channels first of an array with the channels last is what PyTorch calls channels_last.
    x, w = x.permute(0, 3, 1, 2), w.permute(0, 3, 1, 2)
    return lambda: F.conv2d(x, w).permute(0, 2, 3, 1)


def gather(x, index):
    return lambda: x.index_select(0, index)


def last_wins(x, source, target):
    # index_put_ does not say which of several writes to a row stays, so each row's last one is found first.
    def scatter():
        order = torch.arange(len(target), device=x.device)
        last = torch.full((len(x),), -1, device=x.device).scatter_reduce_(0, target, order, "amax")
        return torch.where(last[:, None] < 0, 0, x[source[last.clamp(min=0)]])

    return scatter


def scatter_sum(x, source, target):
    return lambda: torch.zeros_like(x).index_add_(0, target, x.index_select(0, source))


def scatter_max(x, source, target):
    def scatter():
        rows = target[:, None].expand(-1, x.shape[1])
        return torch.zeros_like(x).scatter_reduce_(0, rows, x.index_select(0, source), "amax")

    return scatter


def layer_norm(x):
    return lambda: F.layer_norm(x, x.shape[-1:], eps=1e-5)


def add_layer_norm(x, r, gain, shift):
    return lambda: F.layer_norm(x + r, x.shape[-1:], gain, shift, 1e-12)


def rms_norm(x, gain):
    return lambda: F.rms_norm(x, x.shape[-1:], gain, 1e-6)


def linear(x, w, b, then=lambda y: y):
    w = w.t().contiguous()
    return lambda: then(F.linear(x, w, b))


def linear_int8(x, w, b):
    if x.device.type != "cpu":
        raise Unsupported("PyTorch has weights of 8 bits for the CPU alone")
    scale = w.abs().amax(0).clamp(min=1e-12) / 127
    quantized = torch.quantize_per_channel(w.t().contiguous(), scale.double(), torch.zeros_like(scale, dtype=torch.long), 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(quantized, b)
    return lambda: torch.ops.quantized.linear_dynamic(x, packed)


def linear_q4(x, w, b, group=64):
    if x.device.type != "cpu":
        raise Unsupported("PyTorch has weights of 4 bits for the CPU alone")
    (inputs, outputs), w = w.shape, w.t().contiguous()
    grouped = w.view(outputs, inputs // group, group)
    low, high = grouped.amin(2, keepdim=True), grouped.amax(2, keepdim=True)
    scale = (high - low).clamp(min=1e-12) / 15
    levels = ((grouped - low) / scale).round().clamp(0, 15).to(torch.int32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels.view(outputs, inputs), 1)
    # The kernel computes (level - 8) * scale + zero.
    scales = torch.cat([scale, low + 8 * scale], 2).transpose(0, 1).contiguous()
    return lambda: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, group, scales) + b


def causal_attention(q, k, v):
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)


def self_attention(q, k, v, lengths):
    if int(lengths.min()) == q.shape[2]:
        return lambda: F.scaled_dot_product_attention(q, k, v)

    def attention():
        seen = torch.arange(q.shape[2], device=q.device) < lengths[:, None]
        result = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None, :])
        return result * seen[:, None, :, None]

    return attention


def ragged_attention(qkv, lengths, settings):
    heads, lengths = settings["heads"], lengths.tolist()

    def one(rows, sequences):
        q, k, v = rows.view(sequences, -1, 3, heads, rows.shape[1] // (3 * heads)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(rows), -1)

    if len(set(lengths)) == 1:
        return lambda: one(qkv, len(lengths))
    return lambda: torch.cat([one(rows, 1) for rows in qkv.split(lengths)])


def rope(x):
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[2]).double()[:, None] * 10000.0 ** (-torch.arange(half).double() / half)
    cos, sin = (t.to(x.device, x.dtype) for t in (angles.cos(), angles.sin()))

    def rotate():
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    return rotate


def mean_pool_normalize(x, lengths):
    sequences = torch.arange(len(lengths), device=x.device).repeat_interleave(lengths)

    def pool():
        sums = x.new_zeros(len(lengths), x.shape[1]).index_add_(0, sequences, x)
        return F.normalize(sums / lengths[:, None], dim=1)

    return pool


def to_device(x):
    host, device = x.cpu(), x.device
    return host.clone if device.type == "cpu" else lambda: host.to(device)


def to_host(x):
    return x.clone if x.device.type == "cpu" else x.cpu


OPERATIONS = {
    "Argmax": along(torch.argmax),
    "BCE": lambda p, y: lambda: F.binary_cross_entropy(p, y).reshape(1),
    "Concat": lambda a, b, axis: lambda: torch.cat([a, b], axis),
    "Conv1d": conv1d,
    "Conv2d": conv2d,
    "Gather": gather,
    "Scatter": last_wins,
    "ScatterSum": scatter_sum,
    "ScatterMax": scatter_max,
    "LayerNorm": layer_norm,
    "LeakyReLU": pointwise(F.leaky_relu),
    "Linear": linear,
    "MatMul": pointwise(torch.matmul),
    "PReLU": pointwise(F.prelu),
    "ReLU": pointwise(F.relu),
    "ScaledDotProductAttention": causal_attention,
    "SeLU": pointwise(F.selu),
    "Sigmoid": pointwise(torch.sigmoid),
    "Softplus": pointwise(F.softplus),
    "Softmax": along(F.softmax),
    "Sort": lambda x, axis: lambda: torch.sort(x, axis).values,
    "Sum": along(torch.sum),
    "SumAll": lambda x: lambda: x.sum().reshape(1),
    "Gelu": pointwise(F.gelu),
    "GeluTanh": lambda x: lambda: F.gelu(x, approximate="tanh"),
    "Embedding": lambda table, index: lambda: F.embedding(index, table),
    "AddLayerNorm": add_layer_norm,
    "RMSNorm": rms_norm,
    "RoPE": rope,
    "LinearGelu": lambda x, w, b: linear(x, w, b, F.gelu),
    "PackedQKV": linear,
    "SelfAttention": self_attention,
    "RaggedAttention": ragged_attention,
    "LinearInt8": linear_int8,
    "LinearQ4": linear_q4,
    "MeanPoolNormalize": mean_pool_normalize,
    "HostToDevice": to_device,
    "DeviceToHost": to_host,
}
DETAILS = {
    "Scatter": "the last write to each row is found first: PyTorch promises no order",
    "LinearInt8": "activations in 8 bits too",
    "RaggedAttention": "one call for each sequence where lengths differ",
}
