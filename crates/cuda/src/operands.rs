//! What kernels take, as they declare it. A field here is the field of that name there.

use crate::ffi::tensor_map::TensorMap;

/// Tables that are looked up in one pass.
pub(crate) const LOOKUPS: usize = 4;

/// `norm.cu`
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Norm {
    pub(crate) x: u64,
    pub(crate) partial: u64,
    pub(crate) bias: u64,
    pub(crate) tables: [u64; LOOKUPS],
    pub(crate) ids: [u64; LOOKUPS],
    pub(crate) residual: u64,
    pub(crate) sum: u64,
    pub(crate) out: u64,
    pub(crate) gain: u64,
    pub(crate) shift: u64,
    pub(crate) rows: u64,
    pub(crate) stride: u64,
    pub(crate) eps: f32,
    pub(crate) splits: i32,
    pub(crate) lookups: i32,
    pub(crate) cols: i32,
    pub(crate) centred: i32,
    pub(crate) ahead: Ahead,
    /// Where operands have 8 bits; kernels for others do not look at it.
    pub(crate) rounded: Rounded,
}

/// `common.cuh`: weights that a kernel further behind will read.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Ahead {
    pub(crate) from: u64,
    /// A multiple of 16.
    pub(crate) bytes: u64,
}

/// `round.cuh`: codes and scales.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Rounded {
    pub(crate) rows: u64,
    pub(crate) scales: u64,
}

/// `round.cu`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Round {
    pub(crate) x: u64,
    pub(crate) out: Rounded,
    pub(crate) rows: u64,
    pub(crate) cols: i32,
}

/// `rows.cu`, `gate`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Gate {
    pub(crate) x: u64,
    pub(crate) out: u64,
    pub(crate) rows: u64,
    pub(crate) cols: i32,
    pub(crate) activation: i32,
}

/// `rows.cu`, `activate_rows`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Activate {
    pub(crate) x: u64,
    pub(crate) rows: u64,
    pub(crate) cols: i32,
    pub(crate) activation: i32,
}

/// `rows.cu`, `rotate`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Rotate {
    pub(crate) qkv: u64,
    pub(crate) out: u64,
    pub(crate) frequencies: u64,
    pub(crate) counts: u64,
    pub(crate) offsets: u64,
    pub(crate) heads: i32,
    pub(crate) head_size: i32,
}

/// `rows.cu`, `take_rows`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Take {
    pub(crate) x: u64,
    pub(crate) indices: u64,
    pub(crate) out: u64,
    pub(crate) rows: u64,
    pub(crate) cols: i32,
}

/// `rows.cu`, `reduce_rows`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Reduce {
    pub(crate) x: u64,
    pub(crate) out: u64,
    pub(crate) counts: u64,
    pub(crate) offsets: u64,
    pub(crate) cols: i32,
    pub(crate) reduction: i32,
}

/// `gemm_any.cu`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct GemmAny {
    pub(crate) x: u64,
    pub(crate) w: u64,
    pub(crate) bias: u64,
    pub(crate) out: u64,
    pub(crate) rows: u64,
    pub(crate) inputs: i32,
    pub(crate) outputs: i32,
    pub(crate) activation: i32,
}

/// `gemm.cu` and `gemm_f32.cu`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Gemm {
    pub(crate) x: u64,
    pub(crate) w: u64,
    pub(crate) bias: u64,
    pub(crate) x_scales: u64,
    pub(crate) w_scales: u64,
    pub(crate) out: u64,
    pub(crate) partial: u64,
    pub(crate) rows: u64,
    pub(crate) stride: u64,
    pub(crate) room: i32,
    pub(crate) inputs: i32,
    pub(crate) outputs: i32,
    pub(crate) activation: i32,
    pub(crate) ahead: Ahead,
}

/// `gemm_hopper.cu` and `gemm_few.cu`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Hopper {
    pub(crate) x: TensorMap,
    pub(crate) w: TensorMap,
    pub(crate) gemm: Gemm,
}

/// `gemm_norm.cu`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Normed {
    pub(crate) x: TensorMap,
    pub(crate) w: TensorMap,
    pub(crate) gemm: Gemm,
    pub(crate) residual: u64,
    pub(crate) sum: u64,
    pub(crate) gain: u64,
    pub(crate) shift: u64,
    pub(crate) eps: f32,
    pub(crate) centred: i32,
}

/// `attention.cu`, `flash.cu`, `flash_tf32.cu` and `attention_f32.cu`
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Attention {
    pub(crate) qkv: u64,
    pub(crate) out: u64,
    pub(crate) counts: u64,
    pub(crate) offsets: u64,
    pub(crate) tiles: u64,
    pub(crate) buckets: u64,
    pub(crate) relative_keys: u64,
    pub(crate) relative_queries: u64,
    pub(crate) relative_bias: u64,
    pub(crate) scale: f32,
    pub(crate) heads: i32,
    pub(crate) head_size: i32,
    pub(crate) before: i32,
    pub(crate) after: i32,
    pub(crate) reach: i32,
}
