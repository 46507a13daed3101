//! `mlxt doctor`: every device, usable or why not and what mends it; where models come from and are kept.

use std::thread;

use anyhow::Result;
use clap::Args;
use mlx_transformers::{DeviceReport, Hub, devices};
use serde::Serialize;

use crate::args::OutputArgs;
use crate::one_line;
use crate::output::Text;

/// Arguments of `mlxt doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    system: String,
    threads: usize,
    memory: Option<Memory>,
    devices: Vec<DeviceState>,
    hub: HubReport,
}

/// Bytes of main memory.
#[derive(Serialize)]
struct Memory {
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<u64>,
}

#[derive(Serialize)]
struct DeviceState {
    device: String,
    usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    hardware: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Serialize)]
struct HubReport {
    cache: String,
    models: usize,
    data: String,
    /// The public hub if there is none.
    endpoint: Option<String>,
    token: bool,
    offline: bool,
}

/// Looks at the machine and tells.
pub(crate) fn run(args: DoctorArgs) -> Result<()> {
    let document = args.output.document()?;
    let report = examine();
    document.write(&report, || describe(&report))
}

fn examine() -> Report {
    let hub = Hub::from_env();
    let entries = std::fs::read_dir(&hub.cache).into_iter().flatten().flatten();
    let models = entries.filter(|e| e.file_name().to_string_lossy().starts_with("models--")).count();
    Report {
        version: env!("CARGO_PKG_VERSION"),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        threads: thread::available_parallelism().map_or(1, usize::from),
        memory: memory(),
        devices: devices().into_iter().map(DeviceState::from).collect(),
        hub: HubReport {
            cache: hub.cache.display().to_string(),
            models,
            data: hub.data.display().to_string(),
            endpoint: hub.endpoint,
            token: hub.token.is_some(),
            offline: hub.offline,
        },
    }
}

impl From<DeviceReport> for DeviceState {
    fn from(report: DeviceReport) -> Self {
        let device = report.device.to_string();
        match report.state {
            Ok(info) => Self {
                device,
                usable: true,
                hardware: Some(info.hardware),
                detail: Some(info.detail),
                reason: None,
                advice: None,
            },
            Err(unavailable) => Self {
                device,
                usable: false,
                hardware: None,
                detail: None,
                reason: Some(unavailable.reason),
                advice: Some(unavailable.advice),
            },
        }
    }
}

fn describe(report: &Report) -> Text {
    let Report { version, system, threads, memory, devices, hub } = report;
    let mut text = Text::default();
    let memory = memory.as_ref().map_or_else(String::new, |m| format!(", {} of memory{}", gib(m.total), available(m)));
    text.line(format_args!("mlxt {version} on {system}, {threads} threads{memory}\n\ndevices"));
    for d in devices {
        let state = if d.usable { "usable" } else { "no" };
        let parts = [&d.hardware, &d.detail, &d.reason, &d.advice].into_iter().flatten();
        let parts: Vec<&str> = parts.map(String::as_str).collect();
        text.line(format_args!("  {:<8}  {state:<6}  {}", d.device, one_line(&parts.join("; "))));
    }
    let yes = |b| if b { "yes" } else { "no" };
    let endpoint = hub.endpoint.as_deref().unwrap_or("the public one");
    text.line(format_args!("\nmodels"));
    text.line(format_args!("  hub       {endpoint} (HF_ENDPOINT)"));
    text.line(format_args!("  offline   {} (HF_HUB_OFFLINE)", yes(hub.offline)));
    text.line(format_args!("  token     {} (HF_TOKEN)", yes(hub.token)));
    text.line(format_args!("  cache     {}, {} models (HF_HOME, HF_HUB_CACHE)", hub.cache, hub.models));
    text.line(format_args!("  own data  {} (XDG_DATA_HOME)", hub.data));
    text
}

fn available(memory: &Memory) -> String {
    memory.available.map_or_else(String::new, |bytes| format!(" ({} available)", gib(bytes)))
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// What the system says of its memory; nothing where there is no simple way to ask.
fn memory() -> Option<Memory> {
    if cfg!(target_os = "macos") {
        let said = std::process::Command::new("sysctl").args(["-n", "hw.memsize"]).output().ok()?;
        let total = String::from_utf8(said.stdout).ok()?.trim().parse().ok()?;
        return Some(Memory { total, available: None });
    }
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = |name: &str| {
        let value = text.lines().find_map(|l| l.strip_prefix(name))?;
        Some(value.trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
    };
    Some(Memory { total: bytes("MemTotal:")?, available: bytes("MemAvailable:") })
}
