//! A backend on the MLX that tests use.

use mlxt_mlx::{Mlx, MlxOptions, open};

use crate::common::installation;

/// A backend on that MLX.
pub(crate) fn mlx(options: MlxOptions) -> Option<Mlx> {
    let installation = installation()?;
    let opened = open(MlxOptions { installation: Some(installation), ..options });
    Some(opened.unwrap_or_else(|error| panic!("{error}; {}", error.advice())))
}
