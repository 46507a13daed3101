//! Which kernel of `norm.cu` normalises, and how it is started.

use mlxt_backend::{Error, Result};

use crate::device::Inner;
use crate::ffi::BACKEND;
use crate::ffi::context::Queue;
use crate::ffi::module::{Shape, launch};
use crate::operand::Operand;
use crate::operands;

/// Threads of a block, eight columns each at a time.
const THREADS: usize = 128;

/// From so many rows on a norm gives a warp to each, below it a block: that is where a row for each warp fills a device
/// of 132 multiprocessors twice over.
const MANY_ROWS: usize = 1024;

/// Starts a norm of the rows that the operands name: looked up, added up from parts, or one value's. `operand` is what it rounds
/// them to besides.
///
/// # Errors
/// More columns than there is a kernel for; the driver's own.
///
/// # Safety
/// The operands are those of `room` rows.
pub(crate) unsafe fn start(
    inner: &Inner,
    queue: Queue,
    (operand, room): (Operand, usize),
    operands: &operands::Norm,
) -> Result<()> {
    let name = kernel(room, operands)?;
    let blocks = if name.starts_with("norm_warp") { room.div_ceil(THREADS / 32) } else { room };
    let function = inner.kernels(operand)?.function(name, 0)?;
    let shape = Shape { grid: [blocks, 1, 1], threads: THREADS, shared: 0 };
    // SAFETY: the kernel takes these operands; what they are of is the caller's promise.
    unsafe { launch((&inner.context, queue), function, shape, operands) }
}

fn kernel(room: usize, operands: &operands::Norm) -> Result<&'static str> {
    let cols = operands.cols as usize;
    let even = cols.is_multiple_of(8);
    let [one, two, eight] = if operands.lookups > 0 {
        ["norm_lookups_1", "norm_lookups_2", "norm_lookups_8"]
    } else if operands.splits > 0 {
        ["norm_parts_1", "norm_parts_2", "norm_parts_8"]
    } else if even && cols <= 1024 && room >= MANY_ROWS {
        return Ok(if cols <= 768 { "norm_warp_3" } else { "norm_warp_4" });
    } else {
        ["norm_value_1", "norm_value_2", "norm_value_8"]
    };
    // By how many times eight columns a thread holds.
    match cols.div_ceil(8 * THREADS) {
        0..=1 if even => Ok(one),
        2 if even => Ok(two),
        0..=8 => Ok(eight),
        _ => Err(Error::Unsupported { backend: BACKEND, what: format!("a norm of {cols} columns") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_the_kernel_that_makes_them() {
        let of = |room, operands| kernel(room, &operands).unwrap();
        let cols = |cols| operands::Norm { cols, ..operands::Norm::default() };
        assert_eq!(
            (of(16, cols(768)), of(16, cols(1032)), of(16, cols(770))),
            ("norm_value_1", "norm_value_2", "norm_value_8")
        );
        assert_eq!(
            (of(1024, cols(768)), of(1024, cols(1024)), of(1024, cols(2048))),
            ("norm_warp_3", "norm_warp_4", "norm_value_2")
        );
        assert_eq!(of(4000, operands::Norm { splits: 2, ..cols(768) }), "norm_parts_1");
        assert_eq!(of(4000, operands::Norm { lookups: 3, ..cols(4096) }), "norm_lookups_8");
        assert!(kernel(16, &cols(8 * 1024 + 1)).is_err());
    }
}
