//! Attention for MLX on CUDA: kernels of `crates/cuda`, as text that the bridge hands to MLX's compiler (bridge/ragged.hpp says
//! how they are called).

use std::ffi::CString;

/// In their order; each knows those in front of it. `attention.cuh` is not here: which queries a block has is found otherwise.
const FILES: [&str; 4] = [
    include_str!("../../cuda/kernels/common.cuh"),
    include_str!("../../cuda/kernels/matrix.cuh"),
    include_str!("../../cuda/kernels/flash.cuh"),
    include_str!("../../cuda/kernels/attention_f32.cuh"),
];

/// Two texts: what the bridge's own part needs, and what needs that part.
pub(crate) fn attention() -> [CString; 2] {
    let [common, matrix, flash, tiled] = FILES.map(alone);
    [common + &matrix, flash + &tiled].map(|text| CString::new(text).unwrap_or_default())
}

/// Without lines that ask for another file.
fn alone(text: &str) -> String {
    let kept = text.lines().filter(|line| !line.starts_with("#include") && !line.starts_with("#pragma once"));
    kept.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_ask_for_no_file_and_have_what_is_called() {
        let [before, after] = attention().map(|text| text.into_string().unwrap());
        for text in [&before, &after] {
            assert!(!text.contains("#include") && !text.contains("#pragma once"));
        }
        assert!(before.contains("multiply(") && !before.contains("AttentionOperands"));
        for function in ["void flash(", "void flash_few(", "void attend_tile("] {
            assert!(after.contains(function), "{function}");
        }
    }
}
