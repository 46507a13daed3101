//! The declarations of bridge/bridge.h. Whoever changes one changes both, and raises [`BRIDGE`].

use std::ffi::{c_char, c_int, c_void};

/// `MLXT_BRIDGE`
pub(crate) const BRIDGE: u32 = 2;

/// What a handle points to. Nothing of it is known here.
#[repr(C)]
pub(crate) struct Opaque<const KIND: u8> {
    _private: [u8; 0],
}

pub(crate) type Device = Opaque<0>;
pub(crate) type Array = Opaque<1>;
pub(crate) type Matrix = Opaque<2>;
pub(crate) type Norm = Opaque<3>;
pub(crate) type Relative = Opaque<4>;
pub(crate) type Function = Opaque<5>;

/// `mlxt_element`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Element {
    F32,
    F16,
    Bf16,
    I32,
    U32,
    U8,
}

/// `mlxt_kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
pub(crate) enum Kind {
    #[default]
    Input,
    Embed,
    Linear,
    Gate,
    Norm,
    AddNorm,
    Rotate,
    Attention,
    TakeRows,
    ReduceRows,
}

/// `mlxt_host`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Host {
    pub(crate) element: Element,
    pub(crate) dimensions: i32,
    pub(crate) shape: *const i32,
    pub(crate) data: *const c_void,
}

/// `mlxt_layout`
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Layout {
    pub(crate) first: i32,
    pub(crate) rows: i32,
    pub(crate) sequences: i32,
    pub(crate) longest: i32,
    pub(crate) packed: i32,
    pub(crate) full: i32,
}

/// `mlxt_step`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    pub(crate) result: i32,
    pub(crate) x: i32,
    pub(crate) residual: i32,
    pub(crate) input: i32,
    pub(crate) layout: i32,
    pub(crate) activation: i32,
    pub(crate) reduction: i32,
    pub(crate) mask: i32,
    pub(crate) radius: i32,
    pub(crate) heads: i32,
    pub(crate) head_size: i32,
    pub(crate) scale: f32,
    pub(crate) lookups: i32,
    pub(crate) tables: *const *const Array,
    pub(crate) ids: *const i32,
    pub(crate) matrix: *const Matrix,
    pub(crate) norm: *const Norm,
    pub(crate) relative: *const Relative,
    pub(crate) angles: *const Host,
}

impl Default for Step {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            result: 0,
            x: 0,
            residual: -1,
            input: 0,
            layout: 0,
            activation: 0,
            reduction: 0,
            mask: 0,
            radius: 0,
            heads: 0,
            head_size: 0,
            scale: 0.0,
            lookups: 0,
            tables: std::ptr::null(),
            ids: std::ptr::null(),
            matrix: std::ptr::null(),
            norm: std::ptr::null(),
            relative: std::ptr::null(),
            angles: std::ptr::null(),
        }
    }
}

/// `mlxt_plan`
#[repr(C)]
pub(crate) struct Plan {
    pub(crate) activations: Element,
    pub(crate) values: i32,
    pub(crate) steps: i32,
    pub(crate) step: *const Step,
    pub(crate) layouts: i32,
    pub(crate) layout: *const Layout,
    pub(crate) outputs: i32,
    pub(crate) output: *const i32,
}

/// `mlxt_memory`: what MLX holds, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Memory {
    /// In use.
    pub active: usize,
    /// Kept for later.
    pub cached: usize,
    /// The most that ever was in use.
    pub peak: usize,
}

type Status = c_int;

/// `mlxt_table`
#[repr(C)]
pub(crate) struct Table {
    pub(crate) bridge: u32,
    pub(crate) built_for: *const c_char,
    pub(crate) version: unsafe extern "C" fn() -> *const c_char,
    pub(crate) message: unsafe extern "C" fn() -> *const c_char,
    pub(crate) device_new:
        unsafe extern "C" fn(i32, usize, *const c_char, *const *const c_char, *mut *mut Device) -> Status,
    pub(crate) device_free: unsafe extern "C" fn(*mut Device),
    pub(crate) device_name: unsafe extern "C" fn(*const Device) -> *const c_char,
    pub(crate) memory: unsafe extern "C" fn(*mut Memory) -> Status,
    pub(crate) array_new: unsafe extern "C" fn(*mut Device, *const Host, *mut *mut Array) -> Status,
    pub(crate) indices_new: unsafe extern "C" fn(*mut Device, *const Host, i32, *mut *mut Array) -> Status,
    pub(crate) array_free: unsafe extern "C" fn(*mut Array),
    pub(crate) array_wait: unsafe extern "C" fn(*mut Device, *const Array) -> Status,
    pub(crate) array_values:
        unsafe extern "C" fn(*mut Device, *const Array, Element, usize, *mut *mut Array, *mut *const c_void) -> Status,
    pub(crate) matrix_new:
        unsafe extern "C" fn(*mut Device, *const Host, *const Host, Element, i32, i32, *mut *mut Matrix) -> Status,
    pub(crate) matrix_packed: unsafe extern "C" fn(
        *mut Device,
        *const Host,
        *const Host,
        *const Host,
        *const Host,
        *const c_char,
        Element,
        i32,
        i32,
        *mut *mut Matrix,
    ) -> Status,
    pub(crate) matrix_free: unsafe extern "C" fn(*mut Matrix),
    pub(crate) norm_new:
        unsafe extern "C" fn(*mut Device, i32, *const Host, *const Host, f32, *mut *mut Norm) -> Status,
    pub(crate) norm_free: unsafe extern "C" fn(*mut Norm),
    pub(crate) relative_new:
        unsafe extern "C" fn(*const i32, i32, *const Array, *const Array, *const Array, *mut *mut Relative) -> Status,
    pub(crate) relative_free: unsafe extern "C" fn(*mut Relative),
    pub(crate) function_plan: unsafe extern "C" fn(*mut Device, *const Plan, i32, *mut *mut Function) -> Status,
    pub(crate) function_operation: unsafe extern "C" fn(*mut Device, i32, i32, i32, *mut *mut Function) -> Status,
    pub(crate) function_free: unsafe extern "C" fn(*mut Function),
    pub(crate) function_call:
        unsafe extern "C" fn(*mut Device, *mut Function, *const *const Array, i32, *mut *mut Array) -> Status,
    pub(crate) quantise: unsafe extern "C" fn(
        *mut Device,
        *const Host,
        i32,
        i32,
        *mut *mut Array,
        *mut *mut Array,
        *mut *mut Array,
    ) -> Status,
}
