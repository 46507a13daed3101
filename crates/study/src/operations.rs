//! The operations of the study: which there are (`study/operations.json`), what each is given and what has to come out.
//!
//! What they mean is in `study/OPERATIONS.md`; the workers compute them, this only knows their shapes and costs.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde::Deserialize;

use crate::protocol::{Operand, OperationRequest, Shape};
use crate::random::Random;
use crate::record::{Cell, Work};
use crate::{Error, Result};

/// One case: an operation on operands of given sizes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Case {
    /// `published` or `encoder`.
    pub set: String,
    /// Its name.
    pub operation: String,
    /// The operands' shapes as the suite names them.
    pub dims: Vec<Vec<usize>>,
    /// The axis, for operations that have one.
    #[serde(default)]
    pub axis: Option<i64>,
    /// What else it needs to know.
    #[serde(default)]
    pub settings: BTreeMap<String, u64>,
}

/// What an operand's values are drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    /// The standard normal.
    Normal,
    /// Uniform in the open interval 0..1.
    Uniform,
    /// 0 or 1, as floats.
    Bits,
    /// Integers from 0 to below this.
    Index(usize),
    /// Lengths of sequences, at most this; the first is this long.
    Lengths(usize),
    /// Lengths that add up to this, all the same.
    Shares(usize),
}

/// What a case is given, what comes out, and what it costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    inputs: Vec<(Shape, Values)>,
    /// What has to come out.
    pub output: Shape,
    /// Floating point operations of its products.
    pub flops: u64,
    /// How many terms the longest sum has: it says how far rounding may carry two right results apart.
    pub terms: usize,
}

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

/// Every case, in the order of the published suite, then ours.
///
/// # Errors
/// None with the file this program is built with.
pub fn cases() -> Result<Vec<Case>> {
    let file: Result<File, _> = serde_json::from_str(include_str!("../../../study/operations.json"));
    file.map(|file| file.cases).map_err(|e| Error::Plan { name: "operations.json".into(), what: e.to_string() })
}

impl Case {
    /// Names the case: operation, shapes, axis.
    pub fn id(&self) -> String {
        let shapes = self.dims.iter().map(|d| d.iter().map(usize::to_string).collect::<Vec<_>>().join("x"));
        let shapes = shapes.collect::<Vec<_>>().join(",");
        let axis = self.axis.map_or_else(String::new, |axis| format!("/axis={axis}"));
        format!("{}/{shapes}{axis}", self.operation)
    }

    /// The case as a cell of the study.
    ///
    /// # Errors
    /// As [`Case::form`].
    pub fn cell(&self) -> Result<Cell> {
        let form = self.form()?;
        let values = form.inputs.iter().map(|(shape, _)| shape.len()).sum::<usize>() + form.output.len();
        let Self { set, operation, dims, axis, .. } = self.clone();
        let work = Work::Operation { set, operation, dims, axis };
        Ok(Cell { id: self.id(), work, flops: form.flops, bytes: 4 * values as u64 })
    }

    /// What the case is given and what comes out.
    ///
    /// # Errors
    /// An operation that is not known, or operands that do not fit it.
    pub fn form(&self) -> Result<Form> {
        self.shapes().ok_or_else(|| Error::Plan {
            name: self.id(),
            what: "the operation is not one of study/OPERATIONS.md, or its operands do not fit it".into(),
        })
    }

    /// Writes the operands into `folder` and gives the request for them.
    ///
    /// # Errors
    /// As [`Case::form`]; the disk's own.
    pub fn write_inputs(&self, seed: u64, folder: &Path) -> Result<OperationRequest> {
        let form = self.form()?;
        let mut inputs = Vec::with_capacity(form.inputs.len());
        for (i, (shape, values)) in form.inputs.into_iter().enumerate() {
            let file = folder.join(format!("input-{i}.bin"));
            let mut random = Random::new(seed, &format!("{}#{i}", self.id()));
            write_values(&file, shape.len(), values, &mut random).map_err(Error::io("write", &file))?;
            inputs.push(Operand { file, shape });
        }
        let Self { operation, axis, settings, .. } = self.clone();
        Ok(OperationRequest { operation, axis, settings, inputs, output: form.output })
    }

    fn shapes(&self) -> Option<Form> {
        use Values::{Bits, Index, Lengths, Normal, Shares, Uniform};
        let d = |i: usize| self.dims.get(i).map(Vec::as_slice);
        let x = d(0)?;
        let normal = |shape: &[usize]| (Shape::f32(shape), Normal);
        let same = |terms| Form { inputs: vec![normal(x)], output: Shape::f32(x), flops: 0, terms };
        let (&last, head) = x.split_last()?;
        let axis = || {
            let axis = self.axis?;
            let axis = if axis < 0 { x.len().checked_sub(axis.unsigned_abs() as usize)? } else { axis as usize };
            (axis < x.len()).then_some(axis)
        };
        let without = |axis: usize| [&x[..axis], &x[axis + 1..]].concat();
        let with = |axis: usize, size: usize| [&x[..axis], &[size], &x[axis + 1..]].concat();
        let form = |inputs, output, flops: usize, terms| Form { inputs, output, flops: flops as u64, terms };
        Some(match self.operation.as_str() {
            "ReLU" | "LeakyReLU" | "SeLU" | "Sigmoid" | "Softplus" | "Gelu" | "GeluTanh" | "HostToDevice"
            | "DeviceToHost" | "RoPE" => same(1),
            "PReLU" => form(vec![normal(x), normal(d(1)?)], Shape::f32(x), 0, 1),
            "LayerNorm" => same(last),
            "Softmax" => same(x[axis()?]),
            "Sort" => same(axis().map(|_| 1)?),
            "Argmax" => form(vec![normal(x)], Shape::i32(&without(axis()?)), 0, 1),
            "Sum" => form(vec![normal(x)], Shape::f32(&without(axis()?)), 0, x[axis()?]),
            "SumAll" => form(vec![normal(x)], Shape::f32(&[1]), 0, x.iter().product()),
            "BCE" => {
                form(vec![(Shape::f32(x), Uniform), (Shape::f32(d(1)?), Bits)], Shape::f32(&[1]), 0, x.iter().product())
            }
            "Concat" => {
                let axis = axis()?;
                let both = with(axis, x[axis] + d(1)?.get(axis)?);
                form(vec![normal(x), normal(d(1)?)], Shape::f32(&both), 0, 1)
            }
            "Conv1d" => {
                let (&[n, l, c], &[o, k, c2]) = (x, d(1)?) else { return None };
                let long = (c == c2).then(|| (l + 1).checked_sub(k))??;
                form(vec![normal(x), normal(d(1)?)], Shape::f32(&[n, long, o]), 2 * n * long * o * k * c, k * c)
            }
            "Conv2d" => {
                let (&[n, h, w, c], &[o, kh, kw, c2]) = (x, d(1)?) else { return None };
                let (high, wide) = ((h + 1).checked_sub(kh)?, (w + 1).checked_sub(kw)?);
                let terms = (c == c2).then_some(kh * kw * c)?;
                let output = Shape::f32(&[n, high, wide, o]);
                form(vec![normal(x), normal(d(1)?)], output, 2 * n * high * wide * o * terms, terms)
            }
            "Gather" | "Embedding" => {
                let (&[n, f], &[e]) = (x, d(1)?) else { return None };
                form(vec![normal(x), (Shape::i32(&[e]), Index(n))], Shape::f32(&[e, f]), 0, 1)
            }
            "Scatter" | "ScatterSum" | "ScatterMax" => {
                let (&[n, _], &[e]) = (x, d(1)?) else { return None };
                let index = (Shape::i32(&[e]), Index(n));
                form(vec![normal(x), index.clone(), index], Shape::f32(x), 0, e.div_ceil(n))
            }
            "Linear" | "LinearGelu" | "PackedQKV" | "LinearInt8" | "LinearQ4" => {
                let &[k, n] = d(1)? else { return None };
                let rows = (k == last).then(|| head.iter().product::<usize>())?;
                let output = Shape::f32(&[head, &[n]].concat());
                form(vec![normal(x), normal(d(1)?), normal(d(2)?)], output, 2 * rows * k * n, k)
            }
            "MatMul" => {
                let (&k, &n) = (d(1)?.get(d(1)?.len().checked_sub(2)?)?, d(1)?.last()?);
                let rows = (k == last).then(|| head.iter().product::<usize>())?;
                let output = Shape::f32(&[head, &[n]].concat());
                form(vec![normal(x), normal(d(1)?)], output, 2 * rows * k * n, k)
            }
            "ScaledDotProductAttention" => {
                let (&[b, h, tq, size], &[_, _, tk, _]) = (x, d(1)?) else { return None };
                let seen: usize = (0..tq).map(|i| (i + 1).min(tk)).sum();
                let inputs = vec![normal(x), normal(d(1)?), normal(d(2)?)];
                form(inputs, Shape::f32(x), 4 * b * h * seen * size, size.max(tk))
            }
            "AddLayerNorm" => {
                let inputs = vec![normal(x), normal(d(1)?), normal(d(2)?), normal(d(3)?)];
                form(inputs, Shape::f32(x), 0, last)
            }
            "RMSNorm" => form(vec![normal(x), normal(d(1)?)], Shape::f32(x), 0, last),
            "SelfAttention" => {
                let &[b, h, t, size] = x else { return None };
                let lengths = (Shape::i32(d(3)?), Lengths(t));
                let inputs = vec![normal(x), normal(d(1)?), normal(d(2)?), lengths];
                form(inputs, Shape::f32(x), 4 * b * h * t * t * size, size.max(t))
            }
            "RaggedAttention" => {
                let (&[rows, wide], &[b]) = (x, d(1)?) else { return None };
                let inputs = vec![normal(x), (Shape::i32(&[b]), Shares(rows))];
                let flops = 4 * rows * (rows / b.max(1)) * (wide / 3);
                form(inputs, Shape::f32(&[rows, wide / 3]), flops, wide.max(rows))
            }
            "MeanPoolNormalize" => {
                let (&[rows, cols], &[b]) = (x, d(1)?) else { return None };
                form(vec![normal(x), (Shape::i32(&[b]), Shares(rows))], Shape::f32(&[b, cols]), 0, rows.max(cols))
            }
            _ => return None,
        })
    }
}

fn write_values(file: &Path, len: usize, values: Values, random: &mut Random) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, std::fs::File::create(file)?);
    for i in 0..len {
        let bytes = match values {
            Values::Normal => random.normal().to_le_bytes(),
            Values::Uniform => random.uniform().to_le_bytes(),
            Values::Bits => (if random.bits() >> 63 == 1 { 1.0_f32 } else { 0.0 }).to_le_bytes(),
            Values::Index(limit) => (random.below(limit) as i32).to_le_bytes(),
            Values::Lengths(most) if i == 0 => (most as i32).to_le_bytes(),
            Values::Lengths(most) => (1 + random.below(most) as i32).to_le_bytes(),
            // The first ones are one longer where it does not divide.
            Values::Shares(all) => ((all / len + usize::from(i < all % len)) as i32).to_le_bytes(),
        };
        out.write_all(&bytes)?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_form_and_a_name_of_its_own() {
        let cases = cases().unwrap();
        assert_eq!(cases.iter().filter(|c| c.set == "published").count(), 91);
        let mut operations: Vec<&str> =
            cases.iter().filter(|c| c.set == "published").map(|c| c.operation.as_str()).collect();
        operations.sort_unstable();
        operations.dedup();
        assert_eq!(operations.len(), 23);
        let mut ids: Vec<String> = cases.iter().map(Case::id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), cases.len());
        for case in &cases {
            let form = case.form().unwrap();
            assert!(!form.output.is_empty() && form.terms > 0, "{}", case.id());
        }
    }

    fn case(operation: &str, dims: &[&[usize]], axis: Option<i64>) -> Case {
        let dims = dims.iter().map(|d| d.to_vec()).collect();
        Case { set: "published".into(), operation: operation.into(), dims, axis, settings: BTreeMap::new() }
    }

    #[test]
    fn axes_and_products_shape_the_result() {
        let shape = |c: &Case| c.form().unwrap().output.shape;
        assert_eq!(shape(&case("Sum", &[&[2, 3, 4]], Some(1))), [2, 4]);
        assert_eq!(shape(&case("Argmax", &[&[2, 3, 4]], Some(-1))), [2, 3]);
        assert_eq!(shape(&case("Concat", &[&[2, 3], &[2, 5]], Some(1))), [2, 8]);
        assert_eq!(shape(&case("Conv2d", &[&[1, 9, 8, 3], &[7, 3, 2, 3]], None)), [1, 7, 7, 7]);
        let product = case("MatMul", &[&[5, 2, 3], &[3, 4]], None).form().unwrap();
        assert_eq!((product.output.shape, product.flops), (vec![5, 2, 4], 2 * 5 * 2 * 3 * 4));
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        assert!(case("Sum", &[&[2, 3]], Some(2)).form().is_err());
        assert!(case("Sum", &[&[2, 3]], Some(-3)).form().is_err());
        assert!(case("Sum", &[&[2, 3]], None).form().is_err());
        assert!(case("Linear", &[&[2, 3], &[4, 5], &[5]], None).form().is_err());
        assert!(case("Conv1d", &[&[1, 2, 3], &[1, 4, 3]], None).form().is_err());
        assert!(case("Fourier", &[&[2]], None).form().is_err());
        assert!(case("ReLU", &[], None).form().is_err());
    }

    #[test]
    fn the_same_seed_writes_the_same_operands() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let case = case("ScatterSum", &[&[7, 3], &[20]], None);
        let requests = [case.write_inputs(5, one.path()).unwrap(), case.write_inputs(5, two.path()).unwrap()];
        for (a, b) in requests[0].inputs.iter().zip(&requests[1].inputs) {
            let bytes = std::fs::read(&a.file).unwrap();
            assert_eq!(bytes, std::fs::read(&b.file).unwrap());
            assert_eq!(bytes.len(), 4 * a.shape.len());
        }
        let indices = std::fs::read(&requests[0].inputs[1].file).unwrap();
        let indices = indices.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        assert!(indices.clone().all(|i| (0..7).contains(&i)) && indices.clone().any(|i| i > 0));
    }
}
