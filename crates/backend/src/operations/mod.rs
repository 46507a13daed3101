//! The second contract: the operations that the study compares engines by, one at a time, on arrays of any shape.
//!
//! It is apart from [`crate::Backend`] so that the models' contract stays small: nothing here is used by a model. It is
//! no tensor library either: an operation is a value, its operands are contiguous arrays, and there are no views and no
//! broadcasting beyond what an operation itself defines.
//!
//! Where next: `operation.rs` names the operations, `shapes.rs` says what each takes and gives, `reference/` what it
//! computes; [`conformance`] holds any implementation to that with one line.

mod array;
mod cases;
pub mod conformance;
mod operation;
mod reference;
pub mod shapes;

pub use array::{Element, Form, HostArray, Values};
pub use cases::{Case, cases};
pub use operation::{Operation, Settings};

use crate::Result;

/// Operations on arrays that lie on one device.
///
/// An implementation is a value (its threads, stream and buffers) and may be called from several threads at once. It
/// may compute lazily and fail as late as [`Operations::wait`] or [`Operations::download`].
///
/// Shapes and element types are checked by all alike ([`Operation::shape`]). An index or a length that is out of range
/// is [`crate::Error::Index`] where the implementation can see it; one that would have to wait for its device may give
/// any values instead, but reads and writes nothing outside its arrays. What values are not numbers, and `y` of `Bce`
/// outside 0 to 1, is the caller's affair.
///
/// [`crate::Reference`] is the specification; an implementation is right when [`conformance::check`] says so.
pub trait Operations: Send + Sync {
    /// An array on the device. Dropping it gives its memory back.
    type Array: Send;

    /// Brings input `position` of `operation` to the device, in the form the operation reads it. Only the weights of
    /// [`Operation::LinearInt8`] and [`Operation::LinearQ4`] have a form of their own: all else is copied as it is.
    ///
    /// # Errors
    /// The device's own.
    fn upload(&self, operation: &Operation, position: usize, array: &HostArray) -> Result<Self::Array>;

    /// The operation's result, a new array.
    ///
    /// # Errors
    /// Operands that do not fit ([`Operation::shape`]), indices out of range, [`crate::Error::Unsupported`] for an
    /// operation this implementation has not: it never substitutes another.
    fn run(&self, operation: &Operation, inputs: &[&Self::Array]) -> Result<Self::Array>;

    /// Returns when the array is computed.
    ///
    /// # Errors
    /// The device's own, of any operation the array depends on.
    fn wait(&self, array: &Self::Array) -> Result<()>;

    /// Brings an array to the host, and waits for it.
    ///
    /// # Errors
    /// As [`Operations::wait`].
    fn download(&self, array: &Self::Array) -> Result<HostArray>;
}
