//! `pytorch_model.bin`: what `torch.save` has written since version 1.6, a zip archive of a pickle and one entry per storage.
//!
//! A pickle is a program, and Python's own reader lets it call anything. This one knows the few instructions that a
//! state dict takes and the few names it may use; the first that it does not know is an error. Nothing in it runs.
//!
//! ```text
//! <root>/data.pkl      the pickle: names, element types, shapes, strides, and which storage each tensor is in
//! <root>/data/<key>    a storage's bytes, stored and not packed, so that tensors are slices of the mapped file
//! <root>/byteorder     `little`; absent in files older than torch 2.1, which were little-endian in practice
//! ```
//!
//! Where next: `archive.rs` for the zip, `pickle.rs` for the machine, `layout.rs` for strides.

mod archive;
mod error;
mod layout;
mod pickle;

use bytes::Bytes;

use self::archive::Archive;
pub use self::error::TorchError;
use self::layout::Layout;
use super::file::Entry;

/// The tensors of a mapped file by name.
///
/// Entries of the state dict that are no tensors (a step counter, say) are left out: nothing here reads them.
pub(super) fn parse(bytes: &Bytes) -> Result<Vec<(String, Entry)>, TorchError> {
    let mut archive = Archive::open(bytes)?;
    let program = archive.program()?;
    let mut layout = Layout::new(bytes.len());
    let mut entries = Vec::new();
    for (name, tensor) in pickle::state_dict(&program)? {
        let storage = archive.storage(tensor.storage.key)?;
        let bytes = layout.contiguous(name, &tensor, &storage)?;
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
