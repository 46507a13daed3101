//! One file of weights, mapped into memory; a safetensors header, checked. The only unsafe code of the crate is the
//! mapping.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::torch;
use crate::{Error, Result};

/// Bytes of the number that says how long the header is.
const LENGTH_BYTES: usize = 8;

/// A tensor of a file: what the header says of it, and its bytes, shared with the mapping.
pub(super) struct Entry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Bytes,
}

/// A file's bytes. They are read when they are first used, and shared by all that hold one of these.
#[derive(Clone)]
pub(super) struct Mapping(Arc<Mmap>);

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Mapping {
    /// Gives the memory back that the file takes up. What is used again is read again: mostly from the system's cache.
    pub(super) fn forget(&self) {
        // A system that refuses keeps the memory, which harms no result.
        #[cfg(unix)]
        #[allow(unsafe_code)]
        // SAFETY: nobody writes to the mapping, so that what is dropped is what the file holds.
        let _ = unsafe { self.0.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }
}

/// Maps a file and gives its tensors by name: one of `torch.save` if its name ends in `.bin`, else safetensors.
pub(super) fn open(file: &Path) -> Result<(Mapping, Vec<(String, Entry)>)> {
    let mapping = map(file).map_err(|source| Error::Read { file: file.to_owned(), source })?;
    let bytes = Bytes::from_owner(mapping.clone());
    let entries = if file.extension().is_some_and(|extension| extension == "bin") {
        torch::parse(&bytes).map_err(|source| Error::Torch { file: file.to_owned(), source })
    } else {
        parse(file, &bytes)
    };
    Ok((mapping, entries?))
}

/// The tensors of a safetensors file.
///
/// The header is checked as a whole (it lies inside the file, tensors tile the rest without gap or overlap, sizes fit
/// shapes), so that no later access can leave the file.
fn parse(file: &Path, bytes: &Bytes) -> Result<Vec<(String, Entry)>> {
    let damaged = |source| Error::Safetensors { file: PathBuf::from(file), found: bytes.len() as u64, source };
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let data = bytes.slice(LENGTH_BYTES + header..);
    let entries = metadata.tensors().into_iter().map(|(name, info)| {
        let bytes = data.slice(info.data_offsets.0..info.data_offsets.1);
        (name, Entry { dtype: info.dtype, shape: info.shape.clone(), bytes })
    });
    Ok(entries.collect())
}

#[allow(unsafe_code)]
fn map(path: &Path) -> std::io::Result<Mapping> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // SAFETY: the mapping is read-only and private to this process. What remains is that another program changes or
    // truncates the file while it is open; `Weights` documents that as the caller's duty. Reading values that change
    // gives other numbers, not broken types: every bit pattern is a valid u8, and headers are parsed once.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Mapping(Arc::new(map)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use safetensors::SafeTensorError;

    fn file_with(header: &str, data: usize) -> Bytes {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes.into()
    }

    fn refusal(header: &str, data: usize) -> SafeTensorError {
        match parse(Path::new("x.safetensors"), &file_with(header, data)) {
            Err(Error::Safetensors { source, .. }) => source,
            other => panic!("{header} gives {:?}", other.map(|entries| entries.len())),
        }
    }

    #[test]
    fn hostile_headers_are_refused() {
        let tensor = |shape: &str, from: u64, to: u64| {
            format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
        };
        let fits = format!(r#"{{"a":{}}}"#, tensor("[2]", 0, 8));
        assert_eq!(parse(Path::new("x"), &file_with(&fits, 8)).unwrap().len(), 1);
        assert!(matches!(refusal(&fits, 7), SafeTensorError::MetadataIncompleteBuffer));
        assert!(matches!(refusal(&fits, 9), SafeTensorError::MetadataIncompleteBuffer));

        let overlap = format!(r#"{{"a":{},"b":{}}}"#, tensor("[2]", 0, 8), tensor("[2]", 4, 12));
        assert!(matches!(refusal(&overlap, 12), SafeTensorError::InvalidOffset(_)));
        let outside = format!(r#"{{"a":{}}}"#, tensor("[2]", 1 << 40, (1 << 40) + 8));
        assert!(matches!(refusal(&outside, 8), SafeTensorError::InvalidOffset(_)));
        let wrong = format!(r#"{{"a":{}}}"#, tensor("[3]", 0, 8));
        assert!(matches!(refusal(&wrong, 8), SafeTensorError::TensorInvalidInfo));
        let huge = format!(r#"{{"a":{}}}"#, tensor("[4294967296,4294967296,4]", 0, 8));
        assert!(matches!(refusal(&huge, 8), SafeTensorError::ValidationOverflow));
        assert!(matches!(refusal("not json", 8), SafeTensorError::InvalidHeaderDeserialization(_)));
    }

    #[test]
    fn header_lengths_are_not_believed() {
        for (length, want) in [(u64::MAX, "header too large"), (1 << 20, "invalid header length")] {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend_from_slice(b"{}");
            let error = parse(Path::new("x"), &bytes.into()).err().unwrap().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(Path::new("x"), &bytes.into());
        }

        #[test]
        fn any_header_gives_an_answer(header in r#"\{("[a-z]":\{"dtype":"(F32|I64|F4)","shape":\[[0-9,]{0,9}\],"data_offsets":\[[0-9]{1,20},[0-9]{1,3}\]\},?){0,3}\}"#, data in 0_usize..64) {
            let _ = parse(Path::new("x"), &file_with(&header, data));
        }
    }
}
