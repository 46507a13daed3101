//! Damages the files of a model, reads them, and fails if anything but a value or an error comes of it.
//!
//! ```text
//! cargo run -p mlxt-fuzz -- TARGET SECONDS [SEED]      TARGET: safetensors, torch, config, tokenizer
//! ```
//!
//! A finding is a panic, more than 512 MB at once, or more than ten seconds on one input; its files are kept in
//! `target/fuzz/TARGET`. An abort ends the program, and leaves its input in `target/fuzz/TARGET/current`. The same seed
//! makes the same inputs.
//!
//! There is no coverage to guide it (that takes a nightly compiler); what guides it are the errors: an input that gives one
//! not seen before is damaged further. Where next: `targets.rs` for what is read, `damage.rs` for how it is damaged,
//! `memory.rs` for how memory is counted.

mod damage;
mod memory;
mod targets;

use std::collections::HashSet;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use damage::{Random, damaged};
use targets::{Files, Target};

/// The most memory that reading one input may take.
const MEMORY: usize = 512 << 20;

/// The longest that one input may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most inputs that are kept for further damage.
const KEPT: usize = 4000;

/// Findings after which it stops.
const ENOUGH: usize = 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).map(|text| text.parse::<u64>());
    let target = arguments.first().and_then(|name| Target::named(name));
    let (Some(target), Some(Ok(seconds)), seed @ (None | Some(Ok(_)))) = (target, number(1), number(2)) else {
        eprintln!("usage: mlxt-fuzz safetensors|torch|config|tokenizer SECONDS [SEED]");
        return ExitCode::from(2);
    };
    let seed = seed.and_then(Result::ok).unwrap_or(1);
    match run(target, Duration::from_secs(seconds), seed) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot run: {error}");
            ExitCode::from(2)
        }
    }
}

/// Reads damaged inputs for `time` and gives the number of findings.
fn run(target: Target, time: Duration, seed: u64) -> std::io::Result<usize> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz").join(target.name());
    let current = kept.join("current");
    fs::remove_dir_all(&kept).ok();
    fs::create_dir_all(&kept)?;
    // What a library panics with and catches itself is not printed either.
    panic::set_hook(Box::new(|_| ()));
    watch(target);

    let mut corpus = target.seeds()?;
    let mut random = Random::new(seed);
    let mut seen = HashSet::new();
    let (mut executions, mut findings) = (0_usize, 0);
    let begun = Instant::now();
    while begun.elapsed() < time && findings < ENOUGH {
        // First everything as it is.
        let input = match corpus.get(executions) {
            Some(whole) => whole.clone(),
            None => damaged(&corpus, &mut random),
        };
        write(&current, &input)?;
        BEGUN.store(1 + begun.elapsed().as_secs(), Ordering::Relaxed);
        memory::reset();
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| target.read(&current)));
        let peak = memory::peak();
        BEGUN.store(0, Ordering::Relaxed);
        NOW.store(begun.elapsed().as_secs(), Ordering::Relaxed);
        executions += 1;
        let found = match &outcome {
            Err(payload) => Some(format!("a panic: {}", words(payload.as_ref()))),
            Ok(_) if peak > MEMORY => Some(format!("{} MB", peak >> 20)),
            Ok(_) => None,
        };
        if let Some(found) = found {
            let folder = kept.join(format!("finding-{findings}"));
            write(&folder, &input)?;
            println!("finding: {found}; {}", folder.display());
            findings += 1;
        } else if let Ok(outcome) = outcome {
            // Places and lengths differ in every input; the words do not.
            let kind: String = outcome.chars().filter(|c| !c.is_ascii_digit()).take(160).collect();
            if corpus.len() < KEPT && seen.insert(kind) {
                corpus.push(input);
            }
        }
    }
    println!(
        "{}: {executions} executions in {} s, seed {seed}, {} kinds of outcome, {findings} findings",
        target.name(),
        begun.elapsed().as_secs(),
        seen.len()
    );
    Ok(findings)
}

/// One more than the second at which the current input was begun; 0 between inputs.
static BEGUN: AtomicU64 = AtomicU64::new(0);
/// The second at which the last input ended.
static NOW: AtomicU64 = AtomicU64::new(0);

/// Ends the program when one input takes too long: it may never come back.
fn watch(target: Target) {
    let begun = Instant::now();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let started = BEGUN.load(Ordering::Relaxed);
            let last = NOW.load(Ordering::Relaxed).max(started.saturating_sub(1));
            if started > 0 && begun.elapsed().as_secs() > last + PATIENCE.as_secs() {
                println!("finding: more than {} s; target/fuzz/{}/current", PATIENCE.as_secs(), target.name());
                std::process::exit(1);
            }
        }
    });
}

fn words(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}

/// Makes `folder` hold exactly these files.
fn write(folder: &Path, files: &Files) -> std::io::Result<()> {
    fs::remove_dir_all(folder).ok();
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, content)?;
    }
    Ok(())
}
