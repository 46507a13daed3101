//! `pytorch_model.bin`: what `torch.save` writes, a zip archive since version 1.6, pickles and storages one after the
//! other before.
//!
//! A pickle is a program, and Python's own reader lets it call anything. This one knows the few instructions that a
//! state dict takes and the few names it may use; the first that it does not know is an error. Nothing in it runs.
//! Tensors are slices of the mapped file.
//!
//! Where next: `archive.rs` for the zip, `sequence.rs` for the format before, `pickle.rs` for the machine, `layout.rs`
//! for strides.

mod archive;
mod error;
mod layout;
mod object;
mod pickle;
mod sequence;

use bytes::Bytes;

use self::archive::Archive;
pub use self::error::TorchError;
use self::layout::Layout;
use self::object::Pickle;
use self::sequence::Sequence;
use super::file::Entry;

/// How a pickle begins.
const PICKLE: u8 = 0x80;

/// Where a tar archive says that it is one.
const TAR: (usize, &[u8]) = (257, b"ustar");

/// The tensors of a mapped file by name.
///
/// Entries of the state dict that are no tensors (a step counter, say) are left out: nothing here reads them.
pub(super) fn parse(file: &Bytes) -> Result<Vec<(String, Entry)>, TorchError> {
    if file.get(TAR.0..).is_some_and(|rest| rest.starts_with(TAR.1)) {
        return Err(TorchError::Tar);
    }
    if file.first() == Some(&PICKLE) {
        let sequence = Sequence::open(file)?;
        return tensors(&sequence.object, file.len(), |key| sequence.storage(key));
    }
    let mut archive = Archive::open(file)?;
    let program = archive.program()?;
    tensors(&Pickle::run(&program)?, file.len(), |key| archive.storage(key))
}

/// The tensors that `pickle` describes, in the storages of a file of that many bytes.
fn tensors(
    pickle: &Pickle,
    file: usize,
    mut storage: impl FnMut(&str) -> Result<Bytes, TorchError>,
) -> Result<Vec<(String, Entry)>, TorchError> {
    let mut layout = Layout::new(file);
    let mut entries = Vec::new();
    for (name, tensor) in pickle.state_dict()? {
        let bytes = layout.contiguous(name, &tensor, &storage(tensor.storage.key)?)?;
        entries.push((name.to_owned(), Entry { dtype: tensor.storage.dtype, shape: tensor.shape, bytes }));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn whole() -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/electra-bin");
        std::fs::read(folder.join("pytorch_model.bin")).unwrap()
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes.into());
        }

        /// Of zip's own structures, of which random bytes have none.
        #[test]
        fn a_damaged_file_gives_an_answer(places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5), from_end in any::<bool>()) {
            let mut bytes = whole();
            let (length, structures) = (bytes.len(), 4500.min(bytes.len()));
            for (place, value) in places {
                let place = place.index(structures);
                bytes[if from_end { length - 1 - place } else { place }] = value;
            }
            let _ = parse(&bytes.into());
        }

        #[test]
        fn a_file_cut_short_is_refused(length in any::<prop::sample::Index>()) {
            let bytes = whole();
            let length = length.index(bytes.len());
            prop_assert!(parse(&Bytes::from(bytes).slice(..length)).is_err());
        }
    }
}
