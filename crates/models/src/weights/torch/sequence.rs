//! The format of torch from 0.1.10 to 1.5: pickles one after the other, then the storages. Nothing is copied.
//!
//! ```text
//! magic number     a pickle of one large number
//! version          a pickle of 1001
//! system           a pickle of a dict: `little_endian` and sizes of C's types
//! the state dict   a pickle; it names storages by key
//! keys             a pickle of a list of the storages' keys
//! storages         for each key: the number of elements as 8 bytes, then the elements
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;

use super::TorchError;
use super::object::Pickle;

/// How the first pickle ends: LONG1 of ten bytes, STOP.
const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// The only version there has been.
const VERSION: i64 = 1001;

/// Bytes of a storage's length.
const LENGTH: usize = 8;

/// A file of that format.
pub(super) struct Sequence<'a> {
    /// What the pickle of the state dict made.
    pub(super) object: Pickle<'a>,
    storages: BTreeMap<&'a str, Bytes>,
}

impl<'a> Sequence<'a> {
    pub(super) fn open(file: &'a Bytes) -> Result<Self, TorchError> {
        let mut at = 0;
        let mut next = || {
            let pickle = Pickle::run(&file[at..])?;
            at += pickle.length();
            Ok::<_, TorchError>(pickle)
        };
        let lacks = |lacks| Err(TorchError::NotTorch { lacks });
        let magic = next()?.length();
        if !file[..magic].ends_with(MAGIC) {
            return lacks("magic number");
        }
        if next()?.number() != Some(VERSION) {
            return lacks("version, 1001");
        }
        match next()?.flag("little_endian") {
            Some(true) => {}
            Some(false) => return Err(TorchError::ByteOrder { found: "big".into() }),
            None => return lacks("byte order"),
        }
        let object = next()?;
        let Some(keys) = next()?.texts() else { return lacks("list of storages") };
        let types = object.storages();
        let mut storages = BTreeMap::new();
        for key in keys {
            let outside = || TorchError::EntryOutside { name: key.to_owned() };
            let Some(dtype) = types.get(key) else { return Err(TorchError::NoEntry { name: key.to_owned() }) };
            let (length, _) = file[at..].split_first_chunk::<LENGTH>().ok_or_else(outside)?;
            at += LENGTH;
            let size = usize::try_from(i64::from_le_bytes(*length)).ok();
            let size = size.and_then(|elements| elements.checked_mul(dtype.bitsize() / 8));
            let end = size.and_then(|size| at.checked_add(size)).filter(|&end| end <= file.len());
            let end = end.ok_or_else(outside)?;
            storages.insert(key, file.slice(at..end));
            at = end;
        }
        Ok(Self { object, storages })
    }

    /// A storage's bytes.
    pub(super) fn storage(&self, key: &str) -> Result<Bytes, TorchError> {
        self.storages.get(key).cloned().ok_or_else(|| TorchError::NoEntry { name: key.to_owned() })
    }
}
