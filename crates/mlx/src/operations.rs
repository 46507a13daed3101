//! The study's operations on MLX: one function of the bridge for each, called with arrays that lie on the device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mlxt_backend::operations::shapes::{indices, lengths, segments};
use mlxt_backend::operations::{Element, Form, HostArray, Operation, Operations, Values as Kept};
use mlxt_backend::{DType, Error, Result, Segments};
use mlxt_lazy::plan::SegmentsRoom;

use crate::MlxDevice;
use crate::ffi::{self, Argument, Function, Values};
use crate::places::{Moves, Places};
use crate::weights::{GROUP, sizes};

/// The functions that were made.
#[derive(Default)]
pub(crate) struct Functions {
    made: Mutex<HashMap<Operation, Arc<Function>>>,
}

/// An array of MLX. What its indices are is known on the host too, where they came from there.
pub struct Array {
    element: Element,
    shape: Vec<usize>,
    /// The values; for quantised weights packed numbers, scales and biases.
    parts: Vec<ffi::Array>,
    /// The operation its weights were quantised for.
    quantised: Option<Operation>,
    integers: Option<Vec<i32>>,
}

impl Array {
    fn form(&self) -> Form<'_> {
        Form { element: self.element, shape: &self.shape }
    }
}

/// Bits of the weights that an operation keeps as small integers.
fn bits(operation: &Operation) -> Option<i32> {
    match operation {
        Operation::LinearInt8 => Some(8),
        Operation::LinearQ4 => Some(4),
        _ => None,
    }
}

impl Operations for MlxDevice {
    type Array = Array;

    fn upload(&self, operation: &Operation, position: usize, array: &HostArray) -> Result<Array> {
        let Form { element, shape } = array.form();
        let dimensions = sizes(shape)?;
        let made = |parts, quantised, integers| Array { element, shape: shape.to_vec(), parts, quantised, integers };
        Ok(match (array.values(), bits(operation)) {
            (Kept::F32(w), Some(bits)) if position == 1 && shape.len() == 2 => {
                let parts = self.device.quantise(Values::f32(&dimensions, w)?, bits, GROUP)?;
                made(parts.into(), Some(*operation), None)
            }
            (Kept::F32(x), _) => made(vec![self.device.array(Values::f32(&dimensions, x)?)?], None, None),
            (Kept::I32(x), _) => made(vec![self.device.array(Values::i32(&dimensions, x)?)?], None, Some(x.clone())),
        })
    }

    fn run(&self, operation: &Operation, inputs: &[&Array]) -> Result<Array> {
        let forms: Vec<Form<'_>> = inputs.iter().map(|x| x.form()).collect();
        let shape = operation.shape(&forms)?;
        let batch = self.checked(operation, inputs)?;
        let function = self.function(operation)?;
        let mut arguments = Vec::new();
        let layout = batch.as_ref().map(Batch::values).transpose()?;
        match layout {
            // Instead of the lengths: those, and where rows go.
            Some(layout) => {
                arguments.extend(inputs[0].parts.iter().map(Argument::Array));
                arguments.extend(layout.map(Argument::Values));
            }
            None => arguments.extend(inputs.iter().flat_map(|x| &x.parts).map(Argument::Array)),
        }
        let parts = self.device.call(&function, &arguments, 1)?;
        Ok(Array { element: operation.element(), shape, parts, quantised: None, integers: None })
    }

    fn wait(&self, array: &Array) -> Result<()> {
        array.parts.iter().try_for_each(|part| self.device.wait(part))
    }

    fn download(&self, array: &Array) -> Result<HostArray> {
        let count = array.shape.iter().product();
        let values = match (array.element, &*array.parts) {
            (Element::F32, [x]) => Kept::F32(self.device.read(x, DType::F32, count)?),
            (Element::I32, [x]) => Kept::I32(self.device.read_integers(x, count)?),
            _ => {
                let what = "reading back weights that were quantised".into();
                return Err(Error::Unsupported { backend: "mlx", what });
            }
        };
        HostArray::new(array.shape.clone(), values)
    }
}

impl MlxDevice {
    fn function(&self, operation: &Operation) -> Result<Arc<Function>> {
        let mut made = self.functions.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = made.get(operation) {
            return Ok(Arc::clone(found));
        }
        let setting = match *operation {
            Operation::Argmax(axis)
            | Operation::Concat(axis)
            | Operation::Softmax(axis)
            | Operation::Sort(axis)
            | Operation::Sum(axis) => axis,
            Operation::RaggedAttention(heads) => i64::try_from(heads).unwrap_or(i64::MAX),
            _ => 0,
        };
        let number = Operation::ALL.iter().position(|o| o.name() == operation.name()).unwrap_or(usize::MAX);
        let function = Arc::new(self.device.operation(number, setting, self.compiles())?);
        made.insert(*operation, Arc::clone(&function));
        Ok(function)
    }

    /// That indices are in range and weights are in the form the operation reads; the batch of operations on ragged rows.
    fn checked(&self, operation: &Operation, inputs: &[&Array]) -> Result<Option<Batch>> {
        let integers = |i: usize| match &inputs[i].integers {
            Some(known) => Ok(known.clone()),
            None => self.device.read_integers(&inputs[i].parts[0], inputs[i].shape.iter().product()),
        };
        let rows = inputs[0].shape[0];
        match operation {
            Operation::Gather | Operation::Embedding => indices(operation, &integers(1)?, rows)?,
            Operation::Scatter | Operation::ScatterSum | Operation::ScatterMax => {
                indices(operation, &integers(1)?, rows)?;
                indices(operation, &integers(2)?, rows)?;
            }
            Operation::SelfAttention => {
                lengths(operation, &integers(3)?, inputs[0].shape[2])?;
            }
            Operation::RaggedAttention(_) | Operation::MeanPoolNormalize => {
                return Ok(Some(Batch::new(&segments(operation, &integers(1)?, rows)?)?));
            }
            _ => {}
        }
        let unfit = |x: &&&Array| x.quantised.is_some_and(|quantised| quantised != *operation);
        let plain = bits(operation).is_some() && inputs[1].quantised.is_none();
        if plain || inputs.iter().any(|x| unfit(&x)) {
            let what = format!("{operation} over weights that were not uploaded for it");
            return Err(Error::Unsupported { backend: "mlx", what });
        }
        Ok(None)
    }
}

/// Where the rows of a ragged operand go.
struct Batch {
    parts: [(Vec<i32>, Vec<i32>); 5],
}

impl Batch {
    fn new(segments: &Segments) -> Result<Self> {
        let (rows, sequences, longest) = (segments.rows(), segments.count(), segments.longest());
        let Places { lengths, offsets, moves, .. } = Places::new(segments, SegmentsRoom { rows, sequences, longest });
        // Rows that lie at their places already.
        let here = || {
            let all: Vec<i32> = (0..rows as i32).collect();
            let positions = all.iter().map(|row| row % longest as i32).collect();
            Moves { rows: all.clone(), places: all, positions }
        };
        let Moves { rows, places, positions } = moves.unwrap_or_else(here);
        let shaped = |values: Vec<i32>| Ok((sizes(&[values.len()])?, values));
        Ok(Self { parts: [shaped(lengths)?, shaped(offsets)?, shaped(rows)?, shaped(places)?, shaped(positions)?] })
    }

    fn values(&self) -> Result<[Values<'_>; 5]> {
        let [a, b, c, d, e] = self.parts.each_ref().map(|(shape, values)| Values::i32(shape, values));
        Ok([a?, b?, c?, d?, e?])
    }
}
