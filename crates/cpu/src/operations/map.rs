//! Functions of each value alone.

use super::copy::write;
use super::{Context, FAR};
use crate::kernels::activate::{gelu, gelu_tanh, relu, softplus};
use crate::kernels::math::{exp, sigmoid};
use crate::simd::{Kernel, Simd};

/// Which.
#[derive(Debug, Clone, Copy)]
pub(super) enum Function {
    LeakyRelu,
    Relu,
    Prelu(f32),
    Selu,
    Sigmoid,
    Softplus,
    Gelu,
    GeluTanh,
}

impl Function {
    /// Steps for each value, of those that [`crate::threads::Pool::rows`] counts.
    fn steps(self) -> usize {
        match self {
            Self::LeakyRelu | Self::Relu | Self::Prelu(_) => 1,
            _ => 4,
        }
    }
}

/// `out = f(x)`
pub(super) fn map(context: Context<'_>, function: Function, x: &[f32], out: &mut [f32]) {
    let far = out.len() >= FAR;
    // A row is 16 values, so that pieces begin at whole vectors; what is left over is done last.
    let whole = out.len() / 16 * 16;
    let (out, tail) = out.split_at_mut(whole);
    context.pool.rows(out, 16, 2 * function.steps(), |first, out| {
        context.token.run(Map { function, x: &x[16 * first..][..out.len()], out, far });
    });
    context.token.run(Map { function, x: &x[whole..], out: tail, far: false });
}

struct Map<'a> {
    function: Function,
    x: &'a [f32],
    out: &'a mut [f32],
    far: bool,
}

impl Kernel for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { function, x, out, far } = self;
        let zero = s.splat(0.0);
        match function {
            Function::LeakyRelu => write(s, x, out, far, |x| s.max(x, s.mul(x, s.splat(0.01)))),
            Function::Relu => write(s, x, out, far, |x| relu(s, x)),
            Function::Prelu(a) => write(s, x, out, far, |x| s.mul_add(s.splat(a), s.min(zero, x), s.max(zero, x))),
            Function::Selu => write(s, x, out, far, |x| selu(s, x)),
            Function::Sigmoid => write(s, x, out, far, |x| sigmoid(s, x)),
            Function::Softplus => write(s, x, out, far, |x| softplus(s, x)),
            Function::Gelu => write(s, x, out, far, |x| gelu(s, x)),
            Function::GeluTanh => write(s, x, out, far, |x| gelu_tanh(s, x)),
        }
        s.fence();
    }
}

/// `scale (max(0, x) + alpha (e^min(0, x) - 1))`
#[inline(always)]
fn selu<S: Simd>(s: S, x: S::V) -> S::V {
    const SCALE: f32 = 1.050_701;
    const SCALE_ALPHA: f32 = 1.758_099_3;
    let below = s.sub(exp(s, s.min(s.splat(0.0), x)), s.splat(1.0));
    s.mul_add(s.splat(SCALE_ALPHA), below, s.mul(s.splat(SCALE), relu(s, x)))
}
