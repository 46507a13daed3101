//! The MLX backend: Apple's MLX on its CPU, Metal or CUDA device, found and loaded when somebody asks for it.
//!
//! [`Mlx`] is [`mlxt_lazy::Lazy`] over [`MlxDevice`]: operations are noted and run as one function of MLX. Nothing of MLX
//! is linked: [`find()`] says where it is, `ffi/` loads it and then the bridge (`bridge/`, C++), which has to be built for
//! exactly that version: by build.rs where MLX was at hand, else at first use.
//!
//! It is not a binding to MLX: the bridge knows our own operations only.
//!
//! Where next: bridge/bridge.h for what crosses the border, `program.rs` for how plans become functions, `places.rs` for
//! ragged rows, docs/adr/0009-mlx-bridge.md for why it is so.

mod bridge;
mod compiler;
mod device;
mod error;
#[allow(unsafe_code)]
mod ffi;
pub mod find;
mod kernels;
mod operations;
mod places;
mod program;
mod weights;

pub use device::{Kind, MlxDevice, MlxOptions};
pub use error::{LoadError, OLDEST};
pub use ffi::{Memory, Owned};
pub use find::{Found, Installation, Place, Variant, find, search};
pub use operations::Array;
pub use places::Room;
pub use program::Program;
pub use weights::PRECISIONS;

/// MLX as a backend.
pub type Mlx = mlxt_lazy::Lazy<MlxDevice>;

/// Opens MLX as a backend.
///
/// # Errors
/// As [`LoadError`], which says what mends it.
pub fn open(options: MlxOptions) -> Result<Mlx, LoadError> {
    Ok(Mlx::new(MlxDevice::new(options)?))
}
