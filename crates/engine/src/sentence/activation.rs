//! The activation of a `Dense`: a class of `torch.nn` that works on each value alone, with the defaults of that class (a
//! folder stores its name only).

use std::fmt;

use mlxt_backend::{Activation, reference};

/// An activation of `torch.nn`.
#[derive(Clone, Copy)]
pub struct Elementwise {
    name: &'static str,
    function: fn(f64) -> f64,
}

/// Slope below zero of an `RReLU` outside training: the middle of 1/8 and 1/3.
const RRELU: f64 = 11.0 / 48.0;

/// The two numbers of a `SELU` (Klambauer and others 2017, equation 14).
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

const ALL: [Elementwise; 22] = [
    of("Identity", |x| x),
    of("Tanh", f64::tanh),
    of("ReLU", |x| x.max(0.0)),
    of("ReLU6", |x| x.clamp(0.0, 6.0)),
    of("LeakyReLU", |x| reference::activate(Activation::LeakyRelu, x)),
    of("RReLU", |x| if x >= 0.0 { x } else { RRELU * x }),
    of("GELU", |x| reference::activate(Activation::Gelu, x)),
    of("SiLU", |x| reference::activate(Activation::Silu, x)),
    of("Mish", |x| reference::activate(Activation::Mish, x)),
    of("ELU", elu),
    of("CELU", elu),
    of("SELU", |x| SELU_SCALE * if x > 0.0 { x } else { SELU_ALPHA * x.exp_m1() }),
    of("Sigmoid", |x| reference::activate(Activation::Sigmoid, x)),
    of("LogSigmoid", |x| -softplus(-x)),
    of("Softplus", softplus),
    of("Softsign", |x| x / (1.0 + x.abs())),
    of("Tanhshrink", |x| x - x.tanh()),
    of("Softshrink", |x| x - x.clamp(-0.5, 0.5)),
    of("Hardshrink", |x| if x.abs() > 0.5 { x } else { 0.0 }),
    of("Hardtanh", |x| x.clamp(-1.0, 1.0)),
    of("Hardsigmoid", |x| (x + 3.0).clamp(0.0, 6.0) / 6.0),
    of("Hardswish", |x| reference::activate(Activation::HardSwish, x)),
];

/// All of them, for messages.
pub(super) const SUPPORTED: &str = "torch.nn's Identity, Tanh, ReLU, ReLU6, LeakyReLU, RReLU, GELU, SiLU, Mish, ELU, CELU, \
                                    SELU, Sigmoid, LogSigmoid, Softplus, Softsign, Tanhshrink, Softshrink, Hardshrink, \
                                    Hardtanh, Hardsigmoid, Hardswish";

const fn of(name: &'static str, function: fn(f64) -> f64) -> Elementwise {
    Elementwise { name, function }
}

impl Elementwise {
    /// That of a class, by its path: `torch.nn.modules.activation.Tanh`. `None` if there is none, or it has parameters or
    /// works on a whole row.
    #[must_use]
    pub fn of_class(path: &str) -> Option<Self> {
        let name = path.strip_prefix("torch.nn.")?.rsplit('.').next()?;
        ALL.into_iter().find(|activation| activation.name == name)
    }

    /// The name of its class.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it makes of a value; computed in f64, as `torch` does in f32 but for its last place.
    #[must_use]
    pub fn apply(&self, x: f32) -> f32 {
        (self.function)(f64::from(x)) as f32
    }
}

impl PartialEq for Elementwise {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl fmt::Debug for Elementwise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// With the factor 1, the same as a CELU.
fn elu(x: f64) -> f64 {
    if x > 0.0 { x } else { x.exp_m1() }
}

/// `ln(1 + eˣ)`, which never overflows.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: [f64; 6] = [-30.0, -3.0, -0.4, 0.3, 2.0, 25.0];

    /// Printed by PyTorch 2.15 in float64 for [`AT`]. The others are activations of models too and are checked there.
    #[rustfmt::skip]
    const EXPECTED: [(&str, [f64; 6]); 12] = [
        ("ELU", [-1.0, -0.950_212_932, -0.329_679_954, 0.3, 2.0, 25.0]),
        ("CELU", [-1.0, -0.950_212_932, -0.329_679_954, 0.3, 2.0, 25.0]),
        ("SELU", [-1.758_099_341, -1.670_568_729, -0.579_610_11, 0.315_210_296, 2.101_401_975, 26.267_524_684]),
        ("RReLU", [-6.875, -0.687_5, -0.091_666_667, 0.3, 2.0, 25.0]),
        ("LogSigmoid", [-30.0, -3.048_587_352, -0.913_015_252, -0.554_355_244, -0.126_928_011, 0.0]),
        ("Softplus", [0.0, 0.048_587_352, 0.513_015_252, 0.854_355_244, 2.126_928_011, 25.0]),
        ("Softsign", [-0.967_741_935, -0.75, -0.285_714_286, 0.230_769_231, 0.666_666_667, 0.961_538_462]),
        ("Tanhshrink", [-29.0, -2.004_945_246, -0.020_051_038, 0.008_687_388, 1.035_972_42, 24.0]),
        ("Softshrink", [-29.5, -2.5, 0.0, 0.0, 1.5, 24.5]),
        ("Hardshrink", [-30.0, -3.0, 0.0, 0.0, 2.0, 25.0]),
        ("Hardtanh", [-1.0, -1.0, -0.4, 0.3, 1.0, 1.0]),
        ("Hardsigmoid", [0.0, 0.0, 0.433_333_333, 0.55, 0.833_333_333, 1.0]),
    ];

    #[test]
    fn values_are_those_of_torch() {
        for (name, expected) in EXPECTED {
            let activation = Elementwise::of_class(&format!("torch.nn.modules.activation.{name}")).unwrap();
            for (x, expected) in AT.into_iter().zip(expected) {
                let found = (activation.function)(x);
                assert!((found - expected).abs() <= 1e-9, "{name} of {x} is {found}, not {expected}");
            }
        }
    }

    #[test]
    fn names_are_classes_of_torch_that_work_on_each_value() {
        for (class, name) in [("torch.nn.modules.linear.Identity", "Identity"), ("torch.nn.Hardswish", "Hardswish")] {
            assert_eq!(Elementwise::of_class(class).unwrap().name(), name);
        }
        let refused =
            ["Tanh", "my.module.Tanh", "", "torch.nn.modules.activation.PReLU", "torch.nn.modules.activation.Softmax"];
        for class in refused {
            assert_eq!(Elementwise::of_class(class), None, "{class}");
        }
        assert!(ALL.iter().all(|activation| SUPPORTED.contains(activation.name)));
    }
}
