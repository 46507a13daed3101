//! The zip archive: where each entry lies in the mapped file. Nothing is unpacked or copied.
//!
//! ```text
//! <root>/data.pkl      the pickle: names, element types, shapes, strides, and which storage each tensor is in
//! <root>/data/<key>    a storage's bytes, stored and not packed, so that tensors are slices of the mapped file
//! <root>/byteorder     `little`; absent in files older than torch 2.1, which were little-endian in practice
//! ```

use std::io::{self, Cursor, ErrorKind, Read, Seek, SeekFrom};

use bytes::Bytes;
use zip::{CompressionMethod, ZipArchive};

use super::TorchError;

/// The most bytes that are read of the archive's directory: 200,000 entries of torch's. The zip library takes some
/// hundred bytes for each, and a file of nothing but directory would take several times its size.
const DIRECTORY: usize = 1 << 24;

/// An archive of `torch.save`.
pub(super) struct Archive {
    file: Bytes,
    zip: ZipArchive<Directory>,
    /// The folder in the archive that everything is in.
    root: String,
}

impl Archive {
    pub(super) fn open(file: &Bytes) -> Result<Self, TorchError> {
        let directory = Directory { file: Cursor::new(file.clone()), left: DIRECTORY };
        let zip = ZipArchive::new(directory)?;
        let names = zip.file_names().filter_map(Result::ok);
        let mut roots = names.filter_map(|name| name.strip_suffix("/data.pkl").map(str::to_owned));
        let root =
            roots.find(|root| !root.contains('/')).ok_or_else(|| TorchError::NoEntry { name: "data.pkl".into() })?;
        drop(roots);
        let mut archive = Self { file: file.clone(), zip, root };
        match archive.entry("byteorder") {
            Ok(order) if order != "little" => {
                let found = String::from_utf8_lossy(&order[..order.len().min(16)]).into_owned();
                Err(TorchError::ByteOrder { found })
            }
            Ok(_) | Err(TorchError::NoEntry { .. }) => Ok(archive),
            Err(error) => Err(error),
        }
    }

    /// The pickle.
    pub(super) fn program(&mut self) -> Result<Bytes, TorchError> {
        self.entry("data.pkl")
    }

    /// A storage's bytes.
    pub(super) fn storage(&mut self, key: &str) -> Result<Bytes, TorchError> {
        self.entry(&format!("data/{key}"))
    }

    fn entry(&mut self, name: &str) -> Result<Bytes, TorchError> {
        let name = format!("{}/{name}", self.root);
        let Some(index) = self.zip.index_for_name(&name) else { return Err(TorchError::NoEntry { name }) };
        let entry = self.zip.by_index_raw(index)?;
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return Err(TorchError::Packed { name });
        }
        let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
        let size = usize::try_from(entry.compressed_size()).ok();
        let range = start.zip(size).and_then(|(start, size)| Some(start..start.checked_add(size)?));
        match range.filter(|range| range.end <= self.file.len()) {
            Some(range) => Ok(self.file.slice(range)),
            None => Err(TorchError::EntryOutside { name }),
        }
    }
}

/// The mapped file as the zip library reads it, up to a limit.
struct Directory {
    file: Cursor<Bytes>,
    left: usize,
}

impl Read for Directory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.left = self.left.checked_sub(read).ok_or_else(|| {
            io::Error::new(ErrorKind::FileTooLarge, format!("more than {DIRECTORY} bytes of directory"))
        })?;
        Ok(read)
    }
}

impl Seek for Directory {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
