//! Devices without texts: an encoder on token ids, single operations, and the machine's limits. What a benchmark calls.

use std::path::Path;

use mlxt_backend::operations::{HostArray, Operation, Operations};
use mlxt_backend::{Backend, DeviceInfo};
use mlxt_models::{Config, Weights};

use crate::session::Session;
use crate::{Device, Error, Precision, Result, device};

/// Loads the encoder in `folder` without its head; no tokenizer is needed.
///
/// # Errors
/// What loading refuses; a device that does not work here.
pub fn open_session(
    folder: &Path,
    device: Device,
    precision: Precision,
    threads: Option<usize>,
) -> Result<Box<dyn Session>> {
    let config = Config::open(folder)?;
    let weights = Weights::open(folder)?;
    device::open(device, threads, precision, &config, &weights, None)
}

/// A device that computes single operations.
///
/// # Errors
/// A device that does not work here, or has no operations.
pub fn open_operations(device: Device, threads: Option<usize>) -> Result<Box<dyn OperationDevice>> {
    device::open_operations(device, threads)
}

/// A device that computes one operation at a time, as often as asked.
pub trait OperationDevice: Send {
    /// The hardware and how it is used.
    fn detail(&self) -> String;

    /// Puts the operands of what comes next where the device wants them.
    ///
    /// # Errors
    /// The device's own.
    fn prepare(&mut self, operation: Operation, inputs: Vec<HostArray>) -> Result<()>;

    /// Computes it once, to its end; the result stays where it is. Copies are what [`Operation::HostToDevice`] and
    /// [`Operation::DeviceToHost`] compute.
    ///
    /// # Errors
    /// Operands that do not fit the operation, an operation the device has not, nothing prepared; the device's own.
    fn run(&mut self) -> Result<()>;

    /// Computes it once and brings the result to the host.
    ///
    /// # Errors
    /// As [`OperationDevice::run`].
    fn output(&mut self) -> Result<HostArray>;
}

/// An implementation of the operations, with what it computes next.
pub(crate) struct Bare<O: Operations> {
    operations: O,
    detail: String,
    next: Option<Next<O::Array>>,
}

struct Next<A> {
    operation: Operation,
    arrays: Vec<A>,
    /// The first operand on the host: where a copy to the device starts.
    first: Option<HostArray>,
}

impl<O: Operations + Backend> Bare<O> {
    pub(crate) fn new(operations: O) -> Self {
        let DeviceInfo { hardware, detail, .. } = operations.info();
        Self { operations, detail: format!("{hardware}, {detail}"), next: None }
    }
}

impl<O: Operations> Bare<O> {
    fn next(&self) -> Result<&Next<O::Array>> {
        let nothing = || Error::Backend(mlxt_backend::Error::Empty { found: "no operation to run".into() });
        self.next.as_ref().ok_or_else(nothing)
    }

    fn compute(&self) -> Result<O::Array> {
        let next = self.next()?;
        let inputs: Vec<&O::Array> = next.arrays.iter().collect();
        Ok(self.operations.run(&next.operation, &inputs)?)
    }
}

impl<O: Operations> OperationDevice for Bare<O> {
    fn detail(&self) -> String {
        self.detail.clone()
    }

    fn prepare(&mut self, operation: Operation, mut inputs: Vec<HostArray>) -> Result<()> {
        // What was there before makes room first.
        self.next = None;
        let upload = |(i, input)| self.operations.upload(&operation, i, input);
        let arrays = inputs.iter().enumerate().map(upload).collect::<Result<Vec<_>, _>>()?;
        let first = (operation == Operation::HostToDevice && !inputs.is_empty()).then(|| inputs.swap_remove(0));
        self.next = Some(Next { operation, arrays, first });
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let Next { operation, arrays, first } = self.next()?;
        if let Some(first) = first {
            let array = self.operations.upload(operation, 0, first)?;
            return Ok(self.operations.wait(&array)?);
        }
        if *operation == Operation::DeviceToHost {
            for array in arrays {
                std::hint::black_box(self.operations.download(array)?);
            }
            return Ok(());
        }
        let array = self.compute()?;
        Ok(self.operations.wait(&array)?)
    }

    fn output(&mut self) -> Result<HostArray> {
        Ok(self.operations.download(&self.compute()?)?)
    }
}
