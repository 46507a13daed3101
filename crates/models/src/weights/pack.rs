//! Writes a checkpoint's weights as one safetensors file with its matrices packed, as MLX's converters do.
//!
//! One matrix at a time is in memory, and the scales of all.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::Write;

use bytes::Bytes;
use mlxt_backend::{Quantised, Scales, Scheme};
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::file::Entry;
use super::{Weights, host_tensor};
use crate::{Error, Result};

/// What to pack, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// Of a code.
    pub bits: usize,
    /// Codes of a group.
    pub group: usize,
    /// Whether tables of embeddings are packed too.
    pub tables: bool,
}

/// What became of a checkpoint's tensors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// Matrices that were packed.
    pub packed: usize,
    /// Tensors that are as they were.
    pub kept: usize,
    /// Those of them that would have been packed if their inputs were whole groups.
    pub unfit: Vec<String>,
    /// Bytes of the file.
    pub bytes: u64,
}

/// A tensor of the file that is written.
struct Slot<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: usize,
    from: Origin<'a>,
}

/// Where its bytes come from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Codes,
    Scales,
    Biases,
    Whole,
}

struct Origin<'a> {
    part: Part,
    module: &'a str,
    entry: &'a Entry,
}

impl Weights {
    /// Writes all tensors to `out`; `hear` gets the names of those that are packed, before they are.
    ///
    /// # Errors
    /// [`Error::Packed`] if there are packed ones already; [`Error::Backend`] for a weight that is not finite, or for bits
    /// and a group that there are not; [`Error::Write`].
    pub fn pack(&self, packing: Packing, out: &mut dyn Write, hear: &mut dyn FnMut(&str)) -> Result<Packed> {
        let scheme = Scheme::Affine { bits: packing.bits, group: packing.group };
        scheme.check()?;
        let mut done = Packed::default();
        let slots = self.slots(scheme, packing, &mut done)?;
        let write = |source| Error::Write { what: "packed weights", source };
        let header = header(&slots);
        out.write_all(&(header.len() as u64).to_le_bytes()).and_then(|()| out.write_all(&header)).map_err(write)?;
        done.bytes = (size_of::<u64>() + header.len()) as u64;
        let mut scales: BTreeMap<&str, Scales> = BTreeMap::new();
        for Slot { bytes, from: Origin { part, module, entry }, .. } in &slots {
            let values = match (part, scales.get(module)) {
                (Part::Codes, _) => {
                    hear(module);
                    let codes = quantised(entry, packing)?.map(|(codes, own)| {
                        scales.insert(module, own);
                        codes
                    });
                    codes.unwrap_or_default()
                }
                (Part::Scales, Some(Scales::Affine { scales, .. })) => scales.bytes().clone(),
                (Part::Biases, Some(Scales::Affine { biases, .. })) => biases.bytes().clone(),
                _ => entry.bytes.clone(),
            };
            debug_assert_eq!(values.len(), *bytes);
            out.write_all(&values).map_err(write)?;
            done.bytes += values.len() as u64;
        }
        Ok(done)
    }

    /// The tensors of the new file in its order: no element lies across a multiple of its size, and codes come before
    /// their scales.
    fn slots(&self, scheme: Scheme, packing: Packing, done: &mut Packed) -> Result<Vec<Slot<'_>>> {
        let mut slots = Vec::new();
        for (name, stored) in &self.tensors {
            let entry = &stored.entry;
            let module = name.strip_suffix(".weight");
            if module.is_some_and(|module| entry.dtype == Dtype::U32 && self.has(&format!("{module}.scales"))) {
                return Err(Error::Packed { name: name.clone() });
            }
            let packable =
                module.filter(|_| packing.tables || !is_table(name)).filter(|_| host_tensor(entry).is_some());
            let (Some(module), &[outputs, inputs]) = (packable, &entry.shape[..]) else {
                slots.push(Slot::whole(name, entry));
                continue;
            };
            if !inputs.is_multiple_of(scheme.group()) || outputs == 0 {
                done.unfit.push(name.clone());
                slots.push(Slot::whole(name, entry));
                continue;
            }
            done.packed += 1;
            let mut slot = |name: &str, part, dtype: Dtype, cols: usize, size: usize| {
                let (name, shape) = (format!("{module}.{name}"), vec![outputs, cols]);
                slots.push(Slot {
                    name,
                    dtype,
                    shape,
                    bytes: outputs * cols * size,
                    from: Origin { part, module, entry },
                });
            };
            let size = entry.bytes.len() / (outputs * inputs).max(1);
            slot("weight", Part::Codes, Dtype::U32, inputs * scheme.bits() / u32::BITS as usize, size_of::<u32>());
            slot("scales", Part::Scales, entry.dtype, inputs / scheme.group(), size);
            slot("biases", Part::Biases, entry.dtype, inputs / scheme.group(), size);
        }
        done.kept = slots.iter().filter(|slot| slot.from.part == Part::Whole).count();
        slots.sort_by(|a, b| {
            let key = |slot: &Slot<'_>| (Reverse(slot.dtype.bitsize()), slot.from.part);
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
        });
        Ok(slots)
    }
}

impl<'a> Slot<'a> {
    /// A tensor as it is.
    fn whole(name: &'a str, entry: &'a Entry) -> Self {
        let from = Origin { part: Part::Whole, module: name, entry };
        Self { name: name.to_owned(), dtype: entry.dtype, shape: entry.shape.clone(), bytes: entry.bytes.len(), from }
    }
}

/// Whether a weight is a table of embeddings, by its name.
pub fn is_table(name: &str) -> bool {
    name.contains("embeddings.")
}

/// A matrix packed; `None` for a tensor that holds no floats, which is never asked for.
fn quantised(entry: &Entry, packing: Packing) -> Result<Option<(Bytes, Scales)>> {
    let Some(weight) = host_tensor(entry) else { return Ok(None) };
    let quantised = Quantised::affine(&weight, packing.bits, packing.group)?;
    Ok(Some((quantised.codes().clone(), quantised.scales().clone())))
}

/// The header of the file, without the number that says how long it is. Its end is at a multiple of 8 bytes.
fn header(slots: &[Slot<'_>]) -> Vec<u8> {
    let mut tensors = Map::new();
    tensors.insert("__metadata__".into(), json!({ "format": "mlx" }));
    let mut first = 0;
    for Slot { name, dtype, shape, bytes, .. } in slots {
        let about = json!({ "dtype": dtype.to_string(), "shape": shape, "data_offsets": [first, first + bytes] });
        tensors.insert(name.clone(), about);
        first += bytes;
    }
    let mut header = Value::Object(tensors).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}
