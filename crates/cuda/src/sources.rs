//! The kernels' source: which files are compiled by themselves, and in how many parts. `kernels.rs` compiles them.
//!
//! Reading the headers takes the compiler a fiftieth of a second, a kernel up to two seconds: so files are compiled side by
//! side, and those that take longer than the largest kernel are cut into parts, which begin with the longest.

/// A file that others include, by the name they include it by.
pub(crate) type Header = (&'static str, &'static str);

/// Files that are compiled with the same headers.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) headers: &'static [Header],
    /// Those that take longest first, for these are what is waited for in the end.
    pub(crate) files: &'static [File],
}

/// Source that is compiled by itself.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    /// In how many parts, each with other kernels: the values that `PART` takes there.
    pub(crate) parts: usize,
}

const fn file(name: &'static str, text: &'static str, parts: usize) -> File {
    File { name, text, parts }
}

// Those that multiply, and round for who does: compiled for numbers of 8 bits as well.
const GEMM_HOPPER: File = file("gemm_hopper.cu", include_str!("../kernels/gemm_hopper.cu"), 2);
const GEMM: File = file("gemm.cu", include_str!("../kernels/gemm.cu"), 3);
const GEMM_FEW: File = file("gemm_few.cu", include_str!("../kernels/gemm_few.cu"), 3);
const NORM: File = file("norm.cu", include_str!("../kernels/norm.cu"), 3);

/// The kernels of forwards. A file may have none for some elements or devices.
pub(crate) const FORWARDS: Sources = Sources {
    headers: &[
        ("common.cuh", include_str!("../kernels/common.cuh")),
        ("matrix.cuh", include_str!("../kernels/matrix.cuh")),
        ("hopper.cuh", include_str!("../kernels/hopper.cuh")),
        ("share.cuh", include_str!("../kernels/share.cuh")),
        ("gemm.cuh", include_str!("../kernels/gemm.cuh")),
        ("operand.cuh", include_str!("../kernels/operand.cuh")),
        ("round.cuh", include_str!("../kernels/round.cuh")),
        ("attention.cuh", include_str!("../kernels/attention.cuh")),
        ("attention_f32.cuh", include_str!("../kernels/attention_f32.cuh")),
        ("flash.cuh", include_str!("../kernels/flash.cuh")),
        ("flash_tf32.cuh", include_str!("../kernels/flash_tf32.cuh")),
    ],
    files: &[
        GEMM_HOPPER,
        GEMM,
        GEMM_FEW,
        file("gemm_norm.cu", include_str!("../kernels/gemm_norm.cu"), 4),
        file("flash.cu", include_str!("../kernels/flash.cu"), 1),
        file("flash_hopper.cu", include_str!("../kernels/flash_hopper.cu"), 1),
        NORM,
        file("gemm_f32.cu", include_str!("../kernels/gemm_f32.cu"), 1),
        file("flash_tf32.cu", include_str!("../kernels/flash_tf32.cu"), 1),
        file("attention_f32.cu", include_str!("../kernels/attention_f32.cu"), 1),
        file("attention.cu", include_str!("../kernels/attention.cu"), 1),
        file("rows.cu", include_str!("../kernels/rows.cu"), 1),
        file("gemm_any.cu", include_str!("../kernels/gemm_any.cu"), 1),
    ],
};

/// The kernels of forwards in which products multiply numbers of 8 bits, beside those of [`FORWARDS`].
pub(crate) const EIGHT_BITS: Sources = Sources {
    headers: FORWARDS.headers,
    files: &[GEMM_HOPPER, GEMM, GEMM_FEW, NORM, file("round.cu", include_str!("../kernels/round.cu"), 1)],
};

/// The kernels of the study's operations.
pub(crate) const OPERATIONS: Sources = Sources {
    headers: &[
        ("../common.cuh", include_str!("../kernels/common.cuh")),
        ("operate.cuh", include_str!("../kernels/operations/operate.cuh")),
    ],
    files: &[
        file("rows.cu", include_str!("../kernels/operations/rows.cu"), 1),
        file("reduce.cu", include_str!("../kernels/operations/reduce.cu"), 1),
        file("sort.cu", include_str!("../kernels/operations/sort.cu"), 2),
        file("attend.cu", include_str!("../kernels/operations/attend.cu"), 1),
        file("product.cu", include_str!("../kernels/operations/product.cu"), 1),
        file("map.cu", include_str!("../kernels/operations/map.cu"), 1),
        file("scatter.cu", include_str!("../kernels/operations/scatter.cu"), 1),
    ],
};
