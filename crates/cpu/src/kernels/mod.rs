//! One operation per file, each written once for all instruction sets and tested against plain loops.

pub(crate) mod activate;
pub(crate) mod attention;
pub(crate) mod embed;
pub(crate) mod gate;
pub(crate) mod gemm;
pub(crate) mod integer;
pub(crate) mod linear;
pub(crate) mod math;
pub(crate) mod next;
pub(crate) mod norm;
pub(crate) mod rotate;
pub(crate) mod rows;
