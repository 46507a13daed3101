//! The only place with `unsafe`: libraries are loaded, the bridge is called, handles are owned.
//!
//! `table.rs` repeats bridge/bridge.h, `load.rs` opens libraries, `thread.rs` is the thread all calls are made on, `blas.rs`
//! what libmlx calls back. Everything here is checked before it is passed on: shapes fit their data, numbers name what there
//! is.

mod blas;
mod load;
pub(crate) mod table;
mod thread;

use std::ffi::{CStr, c_int};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use mlxt_backend::convert::decode;
use mlxt_backend::pieces::in_pieces;
use mlxt_backend::{DType, Error, Result};

use crate::kernels;
use crate::weights::element;

pub(crate) use blas::{cpu_info, products};
pub(crate) use load::{library, needs_nvidia, rest_at_exit};
pub use table::Memory;
use table::{Element, Host, Layout, Opaque, Step, Table};
use thread::Thread;

/// Values of a result that a thread converts at a time: what is written fits its own cache.
const PIECE: usize = 1 << 18;

/// libmlx and the bridge, loaded for good.
pub(crate) struct Library {
    table: &'static Table,
    thread: Thread,
}

// SAFETY: the table is constant, and its functions are called on one thread only.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

/// Something MLX holds, whose memory it gets back when this is dropped.
pub struct Owned<const KIND: u8> {
    handle: NonNull<Opaque<KIND>>,
    free: unsafe extern "C" fn(*mut Opaque<KIND>),
    library: Arc<Library>,
}

// SAFETY: what it points to is touched on MLX's thread only, and there one after the other.
unsafe impl<const KIND: u8> Send for Owned<KIND> {}
// SAFETY: as above.
unsafe impl<const KIND: u8> Sync for Owned<KIND> {}

pub(crate) type Array = Owned<1>;
pub(crate) type Matrix = Owned<2>;
pub(crate) type Norm = Owned<3>;
pub(crate) type Relative = Owned<4>;
pub(crate) type Function = Owned<5>;

impl<const KIND: u8> Drop for Owned<KIND> {
    fn drop(&mut self) {
        let (handle, free) = (Sent(self.handle), self.free);
        self.library.thread.post(move || {
            let Sent(handle) = { handle };
            // SAFETY: the handle is this one's own, and work is done in the order in which it was given: what used it is over.
            unsafe { free(handle.as_ptr()) }
        });
    }
}

impl<const KIND: u8> Owned<KIND> {
    pub(crate) fn as_ptr(&self) -> *const Opaque<KIND> {
        self.handle.as_ptr()
    }
}

/// A pointer on its way to MLX's thread.
struct Sent<const KIND: u8>(NonNull<Opaque<KIND>>);

// SAFETY: it is used there only.
unsafe impl<const KIND: u8> Send for Sent<KIND> {}

/// Values in host memory that are to become an array.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    element: Element,
    shape: &'a [i32],
    bytes: &'a [u8],
}

impl<'a> Values<'a> {
    /// Little-endian values of that type, row-major.
    pub(crate) fn new(element: Element, shape: &'a [i32], bytes: &'a [u8]) -> Result<Self> {
        let size = match element {
            Element::U8 => 1,
            Element::F16 | Element::Bf16 => 2,
            Element::F32 | Element::I32 | Element::U32 => 4,
        };
        let needed = shape.iter().try_fold(size, |n: usize, &d| n.checked_mul(usize::try_from(d).ok()?));
        mlxt_backend::check::size("array", "bytes", needed.unwrap_or(usize::MAX), bytes.len())?;
        Ok(Self { element, shape, bytes })
    }

    pub(crate) fn f32(shape: &'a [i32], values: &'a [f32]) -> Result<Self> {
        // SAFETY: any bytes of floats may be read.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        Self::new(Element::F32, shape, bytes)
    }

    pub(crate) fn i32(shape: &'a [i32], values: &'a [i32]) -> Result<Self> {
        // SAFETY: any bytes of integers may be read.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        Self::new(Element::I32, shape, bytes)
    }

    pub(crate) fn host(&self) -> Host {
        Host {
            element: self.element,
            dimensions: self.shape.len() as i32,
            shape: self.shape.as_ptr(),
            data: self.bytes.as_ptr().cast(),
        }
    }
}

/// Weights that are packed already.
#[derive(Clone, Copy)]
pub(crate) struct Packed<'a> {
    /// MLX's name of the way they are packed.
    pub(crate) mode: &'static CStr,
    pub(crate) bits: i32,
    pub(crate) group: i32,
    pub(crate) codes: Values<'a>,
    pub(crate) scales: Values<'a>,
    pub(crate) biases: Option<Values<'a>>,
}

/// What a function is called with.
pub(crate) enum Argument<'a> {
    /// An array that is there.
    Array(&'a Array),
    /// One that is made for this call. Integers are not negative.
    Values(Values<'a>),
}

impl<'a> Argument<'a> {
    /// Integers that are made for this call.
    fn indices(&self) -> Option<&Values<'a>> {
        match self {
            Self::Values(values) if values.element == Element::I32 => Some(values),
            _ => None,
        }
    }
}

/// A device of MLX: its CPU or its GPU.
pub(crate) struct Device {
    handle: Owned<0>,
    name: String,
}

impl Device {
    /// At most `cache` bytes are kept for later; `folder` is for compiled kernels.
    pub(crate) fn new(library: &Arc<Library>, gpu: bool, cache: usize, folder: &CStr) -> Result<Self> {
        let (device_name, free) = (library.table.device_name, library.table.device_free);
        let attention = kernels::attention();
        let handle = library.make(free, |t, out| {
            let attention = attention.each_ref().map(|text| text.as_ptr());
            // SAFETY: `out` takes a pointer; the folder is a C string, and so are the two texts.
            unsafe { (t.device_new)(i32::from(gpu), cache, folder.as_ptr(), attention.as_ptr(), out) }
        })?;
        // SAFETY: the handle is a device, which keeps its name as long as it lives.
        let name = unsafe { text(device_name(handle.as_ptr())) };
        Ok(Self { handle, name })
    }

    /// A GPU's own name; empty for the CPU.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The MLX it is of.
    pub(crate) fn version(&self) -> String {
        // SAFETY: it takes nothing and gives a constant.
        unsafe { text((self.library().table.version)()) }
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        self.library().call(|t| {
            let mut memory = Memory::default();
            // SAFETY: there is room for the answer.
            t.checked(unsafe { (t.memory)(&raw mut memory) })?;
            Ok(memory)
        })
    }

    fn library(&self) -> &Arc<Library> {
        &self.handle.library
    }

    fn pointer(&self) -> Sent<0> {
        Sent(self.handle.handle)
    }

    pub(crate) fn array(&self, values: Values<'_>) -> Result<Array> {
        let (device, table) = (self.pointer(), self.library().table);
        self.library().make(table.array_free, move |t, out| {
            let Sent(device) = { device };
            let host = values.host();
            // SAFETY: the device lives; shape and bytes are as `Values` checked them.
            unsafe { (t.array_new)(device.as_ptr(), &raw const host, out) }
        })
    }

    pub(crate) fn wait(&self, x: &Array) -> Result<()> {
        let device = self.pointer();
        self.library().call(move |t| {
            let Sent(device) = { device };
            // SAFETY: both live.
            t.checked(unsafe { (t.array_wait)(device.as_ptr(), x.as_ptr()) })
        })
    }

    /// The first `count` values, which are kept as `kept`, as floats.
    pub(crate) fn read(&self, x: &Array, kept: DType, count: usize) -> Result<Vec<f32>> {
        // While the device is still at work: hidden states of a large batch are 12 MB, and a page that is touched for the
        // first time costs as much as converting what goes there.
        let out = vec![f32::NAN; count];
        // SAFETY: values of 32 and of 16 bits, of which any are some.
        unsafe {
            match kept {
                DType::F32 => self.read_as(x, element(kept), out, |from, to| to.copy_from_slice(from)),
                DType::F16 | DType::Bf16 => self.read_as(x, element(kept), out, |from: &[[u8; 2]], to| {
                    decode(kept, from.as_flattened(), to);
                }),
            }
        }
    }

    /// The first `count` values as integers.
    pub(crate) fn read_integers(&self, x: &Array, count: usize) -> Result<Vec<i32>> {
        // SAFETY: an i32 has four bytes, of which any are one.
        unsafe { self.read_as(x, Element::I32, vec![0; count], |from, to| to.copy_from_slice(from)) }
    }

    /// Fills `out` by `convert` with as many values.
    ///
    /// # Safety
    /// `T` has as many bytes as an `element`, and any bytes are one.
    unsafe fn read_as<T: Sync, U: Send>(
        &self,
        x: &Array,
        element: Element,
        mut out: Vec<U>,
        convert: impl Fn(&[T], &mut [U]) + Send + Sync,
    ) -> Result<Vec<U>> {
        let device = self.pointer();
        self.library().call(move |t| {
            let Sent(device) = { device };
            let (mut ready, mut values) = (ptr::null_mut(), ptr::null());
            let (to, at) = (&raw mut ready, &raw mut values);
            // SAFETY: device and array live; both results have their places.
            t.checked(unsafe { (t.array_values)(device.as_ptr(), x.as_ptr(), element, out.len(), to, at) })?;
            let ready = Freed(ready, t);
            if !out.is_empty() {
                // SAFETY: as many values are there, of that type, for as long as `ready` lives.
                let from: &[T] = unsafe { std::slice::from_raw_parts(values.cast(), out.len()) };
                in_pieces(&mut out, PIECE, |number, to| {
                    convert(&from[number * PIECE..][..to.len()], to);
                    Ok(())
                })?;
            }
            drop(ready);
            Ok(out)
        })
    }

    /// `weight` is `[outputs, inputs]`, kept as `element`; or in numbers of `bits` with a scale for each `group` of inputs.
    pub(crate) fn matrix(
        &self,
        weight: Values<'_>,
        bias: Option<Values<'_>>,
        element: Element,
        quantised: Option<(i32, i32)>,
    ) -> Result<Matrix> {
        let (device, table) = (self.pointer(), self.library().table);
        self.library().make(table.matrix_free, move |t, out| {
            let Sent(device) = { device };
            let (weight, bias) = (weight.host(), bias.map(|b| b.host()));
            let (bits, group) = quantised.unwrap_or((0, 0));
            let bias = bias.as_ref().map_or(ptr::null(), ptr::from_ref);
            // SAFETY: the device lives; shapes and bytes are as `Values` checked them; a null bias is none.
            unsafe { (t.matrix_new)(device.as_ptr(), &raw const weight, bias, element, bits, group, out) }
        })
    }

    /// Packed by MLX's mode of that name: codes of `[outputs, inputs * bits / 32]`, scales and biases of
    /// `[outputs, inputs / group]`, which are kept as `element` unless they are bytes.
    pub(crate) fn packed_matrix(
        &self,
        packed: &Packed<'_>,
        bias: Option<Values<'_>>,
        element: Element,
    ) -> Result<Matrix> {
        let (device, table) = (self.pointer(), self.library().table);
        let packed = *packed;
        self.library().make(table.matrix_free, move |t, out| {
            let Sent(device) = { device };
            let Packed { mode, bits, group, codes, scales, biases } = packed;
            let (codes, scales) = (codes.host(), scales.host());
            let [biases, bias] = [biases, bias].map(|x| x.map(|x| x.host()));
            let [biases, bias] = [&biases, &bias].map(|x| x.as_ref().map_or(ptr::null(), ptr::from_ref));
            let (device, mode) = (device.as_ptr(), mode.as_ptr());
            let (codes, scales) = (&raw const codes, &raw const scales);
            // SAFETY: as for a matrix; the mode is a C string.
            unsafe { (t.matrix_packed)(device, codes, scales, biases, bias, mode, element, bits, group, out) }
        })
    }

    pub(crate) fn norm(
        &self,
        root_mean_square: bool,
        gain: Values<'_>,
        shift: Option<Values<'_>>,
        eps: f32,
    ) -> Result<Norm> {
        let (device, table) = (self.pointer(), self.library().table);
        self.library().make(table.norm_free, move |t, out| {
            let Sent(device) = { device };
            let (gain, shift) = (gain.host(), shift.map(|s| s.host()));
            let shift = shift.as_ref().map_or(ptr::null(), ptr::from_ref);
            // SAFETY: as for a matrix.
            unsafe { (t.norm_new)(device.as_ptr(), i32::from(root_mean_square), &raw const gain, shift, eps, out) }
        })
    }

    /// `buckets` are an odd number.
    pub(crate) fn relative(&self, buckets: &[i32], [keys, queries, bias]: [Option<&Array>; 3]) -> Result<Relative> {
        let reach = (buckets.len() / 2) as i32;
        mlxt_backend::check::size("relative", "buckets", 2 * reach as usize + 1, buckets.len())?;
        self.library().make(self.library().table.relative_free, |t, out| {
            let part = |x: Option<&Array>| x.map_or(ptr::null(), Owned::as_ptr);
            // SAFETY: the parts live or are null; there are as many buckets as `reach` says.
            unsafe { (t.relative_new)(buckets.as_ptr(), reach, part(keys), part(queries), part(bias), out) }
        })
    }

    /// A plan's function. What the steps point to lives.
    pub(crate) fn function(&self, plan: &Steps<'_>, compiled: bool) -> Result<Function> {
        let (device, table) = (self.pointer(), self.library().table);
        self.library().make(table.function_free, move |t, out| {
            let Sent(device) = { device };
            let given = table::Plan {
                activations: plan.activations,
                values: plan.values as i32,
                steps: plan.list.len() as i32,
                step: plan.list.as_ptr(),
                layouts: plan.layouts.len() as i32,
                layout: plan.layouts.as_ptr(),
                outputs: plan.outputs.len() as i32,
                output: plan.outputs.as_ptr(),
            };
            // SAFETY: the device lives, and so does what the steps point to, which `Steps` borrows.
            unsafe { (t.function_plan)(device.as_ptr(), &raw const given, i32::from(compiled), out) }
        })
    }

    /// The function of one operation of the study, by its number.
    pub(crate) fn operation(&self, operation: usize, setting: i64, compiled: bool) -> Result<Function> {
        let (device, table) = (self.pointer(), self.library().table);
        self.library().make(table.function_free, move |t, out| {
            let Sent(device) = { device };
            let setting = i32::try_from(setting).unwrap_or(i32::MAX);
            // SAFETY: the device lives; an unknown operation is an error when it is called.
            unsafe { (t.function_operation)(device.as_ptr(), operation as i32, setting, i32::from(compiled), out) }
        })
    }

    /// Starts a function that gives `results` arrays.
    pub(crate) fn call(&self, function: &Function, arguments: &[Argument<'_>], results: usize) -> Result<Vec<Array>> {
        let device = self.pointer();
        let (library, table) = (self.library(), self.library().table);
        let handles = library.call(move |t| {
            let Sent(device) = { device };
            let mut made = Vec::new();
            let indices: Vec<Host> = arguments.iter().filter_map(Argument::indices).map(Values::host).collect();
            let mut outs = vec![ptr::null_mut(); indices.len()];
            let (hosts, count, to) = (indices.as_ptr(), indices.len() as i32, outs.as_mut_ptr());
            // SAFETY: as in `array`, for each of them; each has a place.
            t.checked(unsafe { (t.indices_new)(device.as_ptr(), hosts, count, to) })?;
            made.extend(outs.iter().map(|&out| Freed(out, t)));
            let mut outs = outs.into_iter();
            let mut inputs = Vec::with_capacity(arguments.len());
            for argument in arguments {
                let own = if argument.indices().is_some() { outs.next() } else { None };
                inputs.push(match (argument, own) {
                    (_, Some(index)) => index.cast_const(),
                    (Argument::Array(x), None) => x.as_ptr(),
                    (Argument::Values(values), None) => {
                        let (host, mut out) = (values.host(), ptr::null_mut());
                        // SAFETY: as in `array`.
                        t.checked(unsafe { (t.array_new)(device.as_ptr(), &raw const host, &raw mut out) })?;
                        made.push(Freed(out, t));
                        out.cast_const()
                    }
                });
            }
            let mut outputs = vec![ptr::null_mut(); results];
            let (first, count) = (inputs.as_ptr(), inputs.len() as i32);
            let function = function.handle.as_ptr();
            // SAFETY: device, function and inputs live; the function has as many results as there is room for.
            t.checked(unsafe { (t.function_call)(device.as_ptr(), function, first, count, outputs.as_mut_ptr()) })?;
            Ok(outputs.into_iter().filter_map(NonNull::new).map(Sent).collect::<Vec<_>>())
        })?;
        let own = |Sent(handle)| Owned { handle, free: table.array_free, library: Arc::clone(library) };
        Ok(handles.into_iter().map(own).collect())
    }

    /// Packed numbers, scales and biases of a weight of `[inputs, outputs]`.
    pub(crate) fn quantise(&self, weight: Values<'_>, bits: i32, group: i32) -> Result<[Array; 3]> {
        let device = self.pointer();
        let (library, table) = (self.library(), self.library().table);
        let handles = library.call(move |t| {
            let Sent(device) = { device };
            let (host, mut out) = (weight.host(), [ptr::null_mut(); 3]);
            let [packed, scales, biases] = &mut out;
            // SAFETY: as in `matrix`; each result has its place.
            t.checked(unsafe { (t.quantise)(device.as_ptr(), &raw const host, bits, group, packed, scales, biases) })?;
            let lost = || Error::Device { backend: "mlx", message: "quantised weights are missing".into() };
            let mut handles = Vec::new();
            for handle in out {
                handles.push(Sent(NonNull::new(handle).ok_or_else(lost)?));
            }
            Ok(handles)
        })?;
        let own = |Sent(handle)| Owned { handle, free: table.array_free, library: Arc::clone(library) };
        let arrays: Vec<Array> = handles.into_iter().map(own).collect();
        let wrong = |arrays: Vec<Array>| mlxt_backend::check::size("quantise", "parts", 3, arrays.len()).err();
        arrays.try_into().map_err(|arrays| wrong(arrays).unwrap_or(Error::Empty { found: "no part".into() }))
    }
}

/// An array that is freed on MLX's thread, where it was made.
struct Freed<'a>(*mut table::Array, &'a Table);

impl Drop for Freed<'_> {
    fn drop(&mut self) {
        // SAFETY: it was made by this table and is used no more.
        unsafe { (self.1.array_free)(self.0) }
    }
}

/// A plan in the bridge's words. What its pointers point to is lent.
pub(crate) struct Steps<'a> {
    pub(crate) activations: Element,
    pub(crate) values: usize,
    pub(crate) list: Vec<Step>,
    pub(crate) layouts: Vec<Layout>,
    pub(crate) outputs: Vec<i32>,
    /// For as long as this lives.
    pub(crate) lent: std::marker::PhantomData<&'a ()>,
}

// SAFETY: the pointers are of things that live and are only read.
unsafe impl Sync for Steps<'_> {}

impl Library {
    /// Calls the bridge on its thread.
    fn call<T: Send>(&self, work: impl FnOnce(&'static Table) -> Result<T> + Send) -> Result<T> {
        let table = self.table;
        self.thread.run(move || work(table))
    }

    /// Calls what makes a handle.
    fn make<const KIND: u8>(
        self: &Arc<Self>,
        free: unsafe extern "C" fn(*mut Opaque<KIND>),
        work: impl FnOnce(&'static Table, *mut *mut Opaque<KIND>) -> c_int + Send,
    ) -> Result<Owned<KIND>> {
        let Sent(handle) = self.call(move |t| {
            let mut out = ptr::null_mut();
            t.checked(work(t, &raw mut out))?;
            let none = || Error::Device { backend: "mlx", message: "the bridge gave nothing".into() };
            NonNull::new(out).map(Sent).ok_or_else(none)
        })?;
        Ok(Owned { handle, free, library: Arc::clone(self) })
    }
}

// SAFETY: constant functions and text.
unsafe impl Sync for Table {}

impl Table {
    /// What a call that failed left as its message.
    fn checked(&self, status: c_int) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: it takes nothing; the text stays until the next call on this thread.
        let message = unsafe { text((self.message)()) };
        Err(Error::Device { backend: "mlx", message })
    }
}

/// # Safety
/// `from` is null or a C string that lives.
unsafe fn text(from: *const std::ffi::c_char) -> String {
    if from.is_null() {
        return String::new();
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Installation, LoadError, MlxDevice, MlxOptions, find};

    /// Says aloud if there is no MLX; where `MLXT_FORBID_SKIPS` is set, that is a failure.
    fn device() -> Option<MlxDevice> {
        let found = match std::env::var_os("MLXT_TEST_MLX") {
            Some(folder) => Installation::at(folder.as_ref(), "MLXT_TEST_MLX"),
            None => find(None),
        };
        if let Err(LoadError::NotFound { .. }) = found {
            assert!(std::env::var_os("MLXT_FORBID_SKIPS").is_none(), "a test was skipped: no MLX");
            println!("skipped: no MLX (set MLXT_TEST_MLX to the folder that holds its lib and include)");
            return None;
        }
        Some(MlxDevice::new(MlxOptions { installation: Some(found.unwrap()), ..MlxOptions::default() }).unwrap())
    }

    #[track_caller]
    fn fails<T>(result: Result<T>, with: &str) {
        match result {
            Ok(_) => panic!("it did not fail"),
            Err(Error::Device { backend: "mlx", message }) => assert!(message.contains(with), "{message}"),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn what_mlx_throws_comes_back_as_its_message_and_nothing_is_left_behind() {
        let Some(mlx) = device() else { return };
        let device = &mlx.device;
        let x = device.array(Values::f32(&[2, 3], &[1.0; 6]).unwrap()).unwrap();
        let before = device.memory().unwrap().active;
        for _ in 0..100 {
            fails(device.read(&x, DType::F32, 7), "more values are asked for");
            let unknown = device.operation(38, 0, false).unwrap();
            fails(device.call(&unknown, &[Argument::Array(&x)], 1), "an operation this bridge has not");
            // A product of [2, 3] and [2, 3]: MLX's own error. The second is made for the call, and freed.
            let product = device.operation(12, 0, false).unwrap();
            let other = Argument::Values(Values::f32(&[2, 3], &[1.0; 6]).unwrap());
            fails(device.call(&product, &[Argument::Array(&x), other], 1), "matmul");
            // An input that is not there.
            fails(device.call(&product, &[Argument::Array(&x)], 1), "");
        }
        assert_eq!(device.read(&x, DType::F32, 6).unwrap(), [1.0; 6]);
        assert!(device.memory().unwrap().active <= before, "arrays of calls that failed are still there");
    }

    #[test]
    fn values_that_do_not_fit_their_shape_never_reach_mlx() {
        assert!(Values::f32(&[2, 3], &[0.0; 5]).is_err());
        assert!(Values::f32(&[-1, 3], &[0.0; 5]).is_err());
        assert!(Values::new(Element::F16, &[4], &[0; 8]).is_ok());
        assert!(Values::new(Element::U8, &[i32::MAX, i32::MAX, i32::MAX], &[0; 8]).is_err());
    }
}
