//! The MLX that tests use: what `MLXT_TEST_MLX` names, else the one that is found.

use std::path::Path;

use mlxt_mlx::{Installation, LoadError, find};

/// That MLX, which has to work where there is one. Says aloud if there is none; where `MLXT_FORBID_SKIPS` is set, that is a
/// failure.
pub(crate) fn installation() -> Option<Installation> {
    let found = match std::env::var_os("MLXT_TEST_MLX") {
        Some(folder) => Installation::at(Path::new(&folder), "MLXT_TEST_MLX"),
        None => find(None),
    };
    if let Err(LoadError::NotFound { .. }) = found {
        assert!(std::env::var_os("MLXT_FORBID_SKIPS").is_none(), "a test was skipped: no MLX");
        println!("skipped: no MLX (set MLXT_TEST_MLX to the folder that holds its lib and include)");
        return None;
    }
    Some(found.unwrap_or_else(|error| panic!("{error}; {}", error.advice())))
}
