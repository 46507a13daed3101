//! `mlxt worker`: this program as an engine of the study, behind the same line protocol as every other
//! (`study/PROTOCOL.md`). For the study's runner, not for people.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use mlx_transformers::operations::{HostArray, Operation, Settings, Values};
use mlx_transformers::{
    Device, OperationDevice, Precision, Session, TokenBatch, limits, open_operations, open_session,
};
use mlxt_study::protocol::{
    Fault, Hello, Loaded, Operand, OperationRequest, Output, PROTOCOL, Reply, Request, Setting, Shape, Times,
};
use mlxt_study::record::Limits;
use serde::Serialize;
use serde_json::{Value, json};

/// Answers requests until standard input ends.
pub(crate) fn run() -> Result<()> {
    let mut engine = Engine::Empty;
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("standard input")?;
        let reply = match engine.answer(&line) {
            Ok(value) => Reply::Ok(value),
            Err((stage, error)) => {
                Reply::Error(Fault { stage: stage.into(), message: crate::chain(&error), fatal: false })
            }
        };
        serde_json::to_writer(&mut output, &reply)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

/// An error and the stage it belongs to.
type Staged<T> = Result<T, (&'static str, anyhow::Error)>;

/// What requests are computed with, and on.
enum Engine {
    /// Nothing is loaded.
    Empty,
    Model(Box<dyn Session>, Option<TokenBatch>),
    Operations(Box<dyn OperationDevice>),
}

impl Engine {
    fn answer(&mut self, line: &str) -> Staged<Value> {
        let request = serde_json::from_str(line).map_err(|e| ("protocol", e.into()))?;
        match request {
            Request::Hello => value(&Hello {
                protocol: PROTOCOL,
                name: "mlx-transformers".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                detail: String::new(),
            }),
            Request::Load { model, setting } => {
                let start = Instant::now();
                let session = load(&model, &setting).map_err(|e| ("load", e))?;
                let seconds = Some(start.elapsed().as_secs_f64());
                let info = session.info();
                let detail = format!("{}, {}", info.device.detail, info.precision);
                *self = Self::Model(session, None);
                value(&Loaded { seconds, detail })
            }
            Request::Open { setting } => {
                let device = open(&setting).map_err(|e| ("load", e))?;
                let detail = device.detail();
                // Opened in another type, a device has only been shown to be there: operations are computed in f32.
                *self = if setting.dtype == "f32" { Self::Operations(device) } else { Self::Empty };
                value(&Loaded { seconds: None, detail })
            }
            Request::Batch { ids } => self.batch(&ids).map_err(|e| ("batch", e)),
            Request::Operation(request) => self.operation(&request),
            Request::Run { iterations } => self.run(iterations).map_err(|e| ("run", e)),
            Request::Output { file } => self.output(&file).map_err(|e| ("output", e)),
            Request::Probe { threads } => {
                let found = limits(threads).map_err(|e| ("probe", e.into()))?;
                let gflops = found.gflops.into_iter().map(|(dtype, peak)| (dtype.to_owned(), peak)).collect();
                value(&Limits { gflops, gigabytes_per_second: found.gigabytes_per_second })
            }
        }
    }

    fn batch(&mut self, ids: &[Vec<u32>]) -> Result<Value> {
        let Self::Model(_, batch) = self else { bail!("no model is loaded") };
        *batch = Some(TokenBatch::from_sequences(ids)?);
        Ok(json!({}))
    }

    fn operation(&mut self, request: &OperationRequest) -> Staged<Value> {
        let Self::Operations(device) = self else {
            return Err(("operation", anyhow!("no device is open for operations, which are computed in f32")));
        };
        let (operation, inputs) = read_operation(request).map_err(|e| ("operation", e))?;
        device.prepare(operation, inputs).map_err(|e| ("operation", e.into()))?;
        Ok(json!({}))
    }

    fn run(&mut self, iterations: usize) -> Result<Value> {
        let mut host_ns = Vec::new();
        for _ in 0..iterations {
            let start = Instant::now();
            match self {
                Self::Empty => bail!("nothing is loaded"),
                Self::Model(_, None) => bail!("there is no batch"),
                // Read, so that a device which computes when it is asked for values has to.
                Self::Model(session, Some(batch)) => drop(std::hint::black_box(session.last_hidden(batch)?)),
                Self::Operations(device) => device.run()?,
            }
            host_ns.push(start.elapsed().as_nanos() as u64);
        }
        Ok(serde_json::to_value(Times { host_ns, device_ns: None, joules: None })?)
    }

    fn output(&mut self, file: &Path) -> Result<Value> {
        let start = Instant::now();
        let ns = || Some(start.elapsed().as_nanos() as u64);
        let (host_ns, shape, values) = match self {
            Self::Empty | Self::Model(_, None) => bail!("there is nothing to compute"),
            Self::Model(session, Some(batch)) => {
                let hidden = session.last_hidden(batch)?;
                let host_ns = ns();
                let shape = Shape::f32(&[hidden.data().len() / hidden.cols().max(1), hidden.cols()]);
                (host_ns, shape, hidden.data().iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
            }
            Self::Operations(device) => {
                let array = device.output()?;
                let host_ns = ns();
                match array.values() {
                    Values::F32(v) => {
                        (host_ns, Shape::f32(array.form().shape), v.iter().flat_map(|v| v.to_le_bytes()).collect())
                    }
                    Values::I32(v) => {
                        (host_ns, Shape::i32(array.form().shape), v.iter().flat_map(|v| v.to_le_bytes()).collect())
                    }
                }
            }
        };
        std::fs::write(file, values).with_context(|| file.display().to_string())?;
        Ok(serde_json::to_value(Output { shape, host_ns })?)
    }
}

fn value(reply: &impl Serialize) -> Staged<Value> {
    serde_json::to_value(reply).map_err(|e| ("protocol", e.into()))
}

fn load(folder: &Path, setting: &Setting) -> Result<Box<dyn Session>> {
    let dtype: Precision = setting.dtype.parse().map_err(|e: String| anyhow!(e))?;
    Ok(open_session(folder, device(setting)?, dtype, Some(setting.threads))?)
}

fn open(setting: &Setting) -> Result<Box<dyn OperationDevice>> {
    let _: Precision = setting.dtype.parse().map_err(|e: String| anyhow!(e))?;
    Ok(open_operations(device(setting)?, Some(setting.threads))?)
}

fn device(setting: &Setting) -> Result<Device> {
    Ok(setting.device.parse()?)
}

fn read_operation(request: &OperationRequest) -> Result<(Operation, Vec<HostArray>)> {
    let heads = request.settings.get("heads").map(|&heads| heads as usize);
    let operation = Operation::new(&request.operation, Settings { axis: request.axis, heads })?;
    let inputs = request.inputs.iter().map(read_operand).collect::<Result<Vec<_>>>()?;
    Ok((operation, inputs))
}

fn read_operand(operand: &Operand) -> Result<HostArray> {
    let bytes = std::fs::read(&operand.file).with_context(|| operand.file.display().to_string())?;
    let words = bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
    let values = match operand.shape.dtype.as_str() {
        "f32" => Values::F32(words.map(f32::from_le_bytes).collect()),
        "i32" => Values::I32(words.map(i32::from_le_bytes).collect()),
        other => bail!("operands are f32 or i32, found {other}"),
    };
    Ok(HostArray::new(operand.shape.shape.clone(), values)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_device_is_shown_to_be_there_in_types_without_operations() {
        let mut engine = Engine::Empty;
        let open = |dtype| format!(r#"{{"do":"open","device":"cpu","dtype":"{dtype}","mode":"default","threads":1}}"#);
        let add = Request::Operation(OperationRequest {
            operation: "Add".into(),
            axis: None,
            settings: BTreeMap::new(),
            inputs: vec![],
            output: Shape::f32(&[1]),
        });
        let add = serde_json::to_string(&add).unwrap();
        assert!(engine.answer(&open("int8")).is_ok());
        let (stage, error) = engine.answer(&add).unwrap_err();
        assert_eq!(stage, "operation");
        assert!(error.to_string().contains("computed in f32"), "{error}");
        let (stage, error) = engine.answer(&open("f7")).unwrap_err();
        assert_eq!(stage, "load");
        assert!(error.to_string().contains("f7"), "{error}");
    }
}
