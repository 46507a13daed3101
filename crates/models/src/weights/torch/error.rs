//! Why a file of `torch.save` is not read.

use zip::result::ZipError;

/// What is wrong with a `pytorch_model.bin`, or what it asks for that is never done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// The tar archive of torch before 0.1.10.
    #[error(
        "it is in the tar format of torch before version 0.1.10, which is not read: if you trust it, load it with \
         torch.load(file, weights_only=False) and torch.save what comes"
    )]
    Tar,
    /// A pickle of something else than torch.
    #[error("it is a pickle, but none that torch.save writes: it lacks torch's {lacks}")]
    NotTorch {
        /// The first part that is missing.
        lacks: &'static str,
    },
    /// No zip archive: cut short or damaged.
    #[error("it is cut short or damaged ({0}), download it again")]
    Zip(#[from] ZipError),
    /// An entry that the format, or the pickle, says is there.
    #[error("it has no entry {name:?}")]
    NoEntry {
        /// The entry's name in the archive.
        name: String,
    },
    /// An entry that is packed or encrypted, which torch never does.
    #[error("its entry {name:?} is packed or encrypted: torch stores entries as they are")]
    Packed {
        /// The entry's name in the archive.
        name: String,
    },
    /// An entry that reaches beyond the file.
    #[error("its entry {name:?} reaches beyond the file: it is cut short or damaged, download it again")]
    EntryOutside {
        /// The entry's name in the archive.
        name: String,
    },
    /// Written on a big-endian machine.
    #[error("its byte order is {found:?}, only \"little\" is read")]
    ByteOrder {
        /// What the file says, at most 16 bytes of it.
        found: String,
    },
    /// The pickle names a function or class that no state dict needs. It has not been called.
    #[error(
        "it asks for {name:?}, which no plain state dict needs and which is never run here: save \
         model.state_dict() alone, or distrust the file"
    )]
    Global {
        /// Module and name: `os.system`.
        name: String,
    },
    /// An instruction of the pickle that state dicts do not have.
    #[error("its pickle has the instruction {code:#04x} at byte {at}, which state dicts do not have")]
    Instruction {
        /// The instruction.
        code: u8,
        /// Where, in bytes from the pickle's start.
        at: usize,
    },
    /// The pickle ends before it says so.
    #[error("its pickle ends early, at byte {at}")]
    PickleEnds {
        /// Its length.
        at: usize,
    },
    /// An instruction of the pickle finds something else than it works on.
    #[error("its pickle has {found} where there should be {expected}, before byte {at}")]
    Object {
        /// Where, in bytes from the pickle's start.
        at: usize,
        /// What the instruction works on.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// More of something than any checkpoint has: a file made to exhaust memory.
    #[error("it has more than {limit} {what}, the most that are read")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The most.
        limit: usize,
    },
    /// A storage shorter than the pickle says.
    #[error("its storage {key:?} should have {expected} bytes and has {found}")]
    Storage {
        /// The storage's key.
        key: String,
        /// As the pickle says.
        expected: usize,
        /// As the archive has it.
        found: usize,
    },
    /// A tensor that reaches beyond its storage.
    #[error("its tensor {tensor:?} needs {needed} elements of a storage that has {found}")]
    TensorOutside {
        /// The tensor's name.
        tensor: String,
        /// The elements from the storage's start to the tensor's last; the largest number if it is beyond that.
        needed: usize,
        /// The storage's elements.
        found: usize,
    },
    /// Something else than a dict of tensors.
    #[error("it holds no tensors by name: save model.state_dict(), and not within something else")]
    NoTensors,
}
