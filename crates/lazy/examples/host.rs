//! What a forward costs the host before the device may start: BERT-base's operations on a device that does nothing.
//! `cargo run --release -p mlxt-lazy --example host`; arguments are shapes, `32x122`, and `cold` for caches that other work has
//! used meanwhile, as they are found after the wait for a GPU.
//!
//! Nanoseconds, medians: noting (all of `forward` and pooling), finding (from `read` until the device is asked to run) and letting
//! go (the rest of `read`, and what is dropped).

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mlxt_backend::{
    Arithmetic, Backend, DeviceInfo, HostTensor, MatrixSource, NormSource, Precision, RelativeSource, Result, Segments,
    TokenBatch,
};
use mlxt_lazy::plan::SegmentsRoom;
use mlxt_lazy::{Device, Held, Input, Lazy, Plan};
use mlxt_models::{Config, Encoder, Pooling, Weights, pool};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

type Outcome<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Sequences and their length.
const SHAPES: [(usize, usize); 3] = [(1, 14), (1, 122), (32, 122)];
const SAMPLES: usize = 1000;
/// More than caches hold: what a forward touches comes from memory then, its code too.
const OTHERS: usize = 64 << 20;

// BERT-base but for its columns, of which the host sees nothing.
const HIDDEN: usize = 12;
const LAYERS: usize = 12;
const VOCABULARY: usize = 30522;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|a| a == name);
    let cold = has("cold");
    let all = arguments.iter().all(|a| a == "cold");
    let (config, weights) = bert()?;
    let lazy = Lazy::new(Idle::default());
    let encoder = Encoder::load(&lazy, &config, &weights, Precision::F32)?;
    let mut others = vec![0_u8; if cold { OTHERS } else { 0 }];
    for (sequences, tokens) in SHAPES {
        if !all && !has(&format!("{sequences}x{tokens}")) {
            continue;
        }
        let sequence = |s: usize| (0..tokens).map(|t| ((s * 131 + t * 31) % VOCABULARY) as u32).collect::<Vec<_>>();
        let batch = TokenBatch::from_sequences(&(0..sequences).map(sequence).collect::<Vec<_>>())?;
        let mut samples: [Vec<Duration>; 3] = Default::default();
        for _ in 0..SAMPLES {
            others.iter_mut().step_by(64).for_each(|byte| *byte = black_box(byte.wrapping_add(1)));
            let times = forward(&lazy, &encoder, &batch)?;
            samples.iter_mut().zip(times).for_each(|(samples, time)| samples.push(time));
        }
        let [noting, finding, letting_go] = samples.map(|mut samples| {
            samples.sort();
            samples[SAMPLES / 2].as_nanos()
        });
        println!(
            "{}",
            json!({ "shape": format!("{sequences}x{tokens}"), "cold": cold, "noting_ns": noting, "finding_ns": finding,
                "letting_go_ns": letting_go })
        );
    }
    Ok(())
}

/// Noting, finding, letting go.
fn forward(lazy: &Lazy<Idle>, encoder: &Encoder<Lazy<Idle>>, batch: &TokenBatch) -> Outcome<[Duration; 3]> {
    let started = Instant::now();
    let hidden = encoder.forward(lazy, batch)?;
    let pooled = pool(lazy, &hidden, Pooling::Mean)?;
    drop(hidden);
    let noted = Instant::now();
    lazy.read(&pooled)?;
    drop(pooled);
    let done = Instant::now();
    let found = lazy.device().asked().unwrap_or(done);
    Ok([noted - started, found - noted, done - found])
}

/// A device that remembers when it was asked to run, and does not.
#[derive(Debug, Default)]
struct Idle {
    asked: Mutex<Option<Instant>>,
}

impl Idle {
    fn asked(&self) -> Option<Instant> {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Idle {
    type Buffer = ();
    type Matrix = ();
    type Norm = ();
    type Table = ();
    type Relative = ();
    type Program = usize;

    fn info(&self) -> DeviceInfo {
        let (hardware, detail) = (String::new(), String::new());
        DeviceInfo { device: "idle".into(), hardware, detail, arithmetic: Arithmetic::default() }
    }

    fn matrix(&self, _: MatrixSource) -> Result<()> {
        Ok(())
    }

    fn table(&self, _: HostTensor) -> Result<()> {
        Ok(())
    }

    fn norm_weights(&self, _: NormSource) -> Result<()> {
        Ok(())
    }

    fn relative(&self, _: RelativeSource<Held<()>>) -> Result<()> {
        Ok(())
    }

    /// As on CUDA: multiples of 16, then of a sixteenth of the power of two below.
    fn room(&self, rows: usize) -> usize {
        let below = rows.saturating_sub(1).checked_ilog2().map_or(1, |power| 1 << power);
        rows.max(1).next_multiple_of(16.max(below / 16))
    }

    fn segments_room(&self, segments: &Segments) -> SegmentsRoom {
        let rows = self.room(segments.rows());
        SegmentsRoom { rows, sequences: segments.count().next_power_of_two().max(16), longest: rows }
    }

    fn compile(&self, plan: Arc<Plan<Self>>) -> Result<usize> {
        Ok(plan.outputs.len())
    }

    fn run(&self, outputs: &usize, inputs: &[Input<'_, ()>]) -> Result<Vec<()>> {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        black_box(inputs);
        Ok(vec![(); *outputs])
    }

    fn read(&self, (): &(), _: usize, _: usize) -> Result<Vec<f32>> {
        Ok(vec![])
    }
}

/// A checkpoint of BERT-base's layers, without its pooler.
fn bert() -> Outcome<(Config, Weights)> {
    let mut tensors: Vec<(String, Vec<usize>)> = Vec::new();
    for (name, entries) in [("word", VOCABULARY), ("position", 512), ("token_type", 2)] {
        tensors.push((format!("embeddings.{name}_embeddings.weight"), vec![entries, HIDDEN]));
    }
    let mut with_bias = |name: String, shape: &[usize]| {
        tensors.push((format!("{name}.weight"), shape.to_vec()));
        tensors.push((format!("{name}.bias"), shape[..1].to_vec()));
    };
    with_bias("embeddings.LayerNorm".into(), &[HIDDEN]);
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("attention.self.query", &[HIDDEN, HIDDEN][..]),
            ("attention.self.key", &[HIDDEN, HIDDEN]),
            ("attention.self.value", &[HIDDEN, HIDDEN]),
            ("attention.output.dense", &[HIDDEN, HIDDEN]),
            ("attention.output.LayerNorm", &[HIDDEN]),
            ("intermediate.dense", &[4 * HIDDEN, HIDDEN]),
            ("output.dense", &[HIDDEN, 4 * HIDDEN]),
            ("output.LayerNorm", &[HIDDEN]),
        ] {
            with_bias(format!("encoder.layer.{layer}.{name}"), shape);
        }
    }
    let zeros = vec![0_u8; 4 * VOCABULARY * HIDDEN];
    let view = |(name, shape): &(String, Vec<usize>)| {
        let bytes = 4 * shape.iter().product::<usize>();
        Ok((name.clone(), TensorView::new(Dtype::F32, shape.clone(), &zeros[..bytes])?))
    };
    let views = tensors.iter().map(view).collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("model.safetensors"), safetensors::serialize(views, None)?)?;
    let config = json!({ "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS, "num_attention_heads": 12, "intermediate_size": 4 * HIDDEN });
    // Mapped files stay mapped when their folder is gone.
    Ok((Config::from_json(&config.to_string())?, Weights::open(folder.path())?))
}
