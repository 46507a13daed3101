//! What people see on standard error while work goes on: a bar for downloads and for texts, and a few notes.
//!
//! A bar is drawn only on a terminal, never with `-q`, and only once the work has taken a second. Programs see nothing.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use mlx_transformers::{Event, Info};

use crate::args::Verbosity;
use crate::say::note;

/// Work shorter than this has no bar.
const LONG: Duration = Duration::from_secs(1);

/// Steps of a full bar.
const STEPS: u64 = 1000;

/// A handle on what is shown. Clones show the same thing.
#[derive(Clone)]
pub(crate) struct Progress {
    verbosity: Verbosity,
    terminal: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    bars: bool,
    /// The part of the input, 0 to 1, that was done by an earlier run.
    origin: f64,
    bar: Option<ProgressBar>,
    file: Option<Download>,
    texts: Option<Texts>,
}

struct Download {
    name: String,
    started: Instant,
    received: u64,
    total: Option<u64>,
}

/// Texts done before the current chunk, and where in the whole (0 to 1) the chunk begins and ends.
struct Texts {
    started: Instant,
    before: u64,
    chunk: u64,
    span: Option<(f64, f64)>,
}

impl Progress {
    /// Bars are left out where results go to a terminal themselves: they show how far the work is.
    pub(crate) fn new(verbosity: Verbosity, results_on_stdout: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let results_seen = results_on_stdout && std::io::stdout().is_terminal();
        let bars = terminal && !verbosity.quiet && !results_seen;
        Self { verbosity, terminal, state: Arc::new(Mutex::new(State { bars, ..State::default() })) }
    }

    /// Says which device was chosen, to people and to those who ask.
    pub(crate) fn device(&self, info: &Info) {
        if self.verbosity.verbose || (self.terminal && !self.verbosity.quiet) {
            self.say(&device_line(info));
        }
    }

    /// Says `what` to those who ask for more.
    pub(crate) fn detail(&self, what: &str) {
        if self.verbosity.verbose {
            self.say(what);
        }
    }

    /// Listens to the engine.
    pub(crate) fn hear(&self, event: Event<'_>) {
        match event {
            Event::Download { file, bytes } => {
                let size = bytes.map_or_else(String::new, |b| format!(" ({})", HumanBytes(b)));
                if !self.state().bars {
                    self.detail(&format!("downloading {file}{size}"));
                }
                let download = Download { name: file.to_owned(), started: Instant::now(), received: 0, total: bytes };
                self.state().file = Some(download);
            }
            Event::Received { bytes, .. } => self.state().received(bytes),
            Event::Downloaded { file } => {
                self.state().clear();
                self.detail(&format!("downloaded {file}"));
            }
            Event::SourceFailed { source, reason } => {
                self.state().clear();
                self.detail(&format!("{source}: {}", crate::one_line(reason)));
            }
            Event::Computed { done, total } => self.state().computed(done as u64, total as u64),
            _ => {}
        }
    }

    /// Says `what` whatever was asked for.
    pub(crate) fn warn(&self, what: &str) {
        self.say(what);
    }

    /// The work begins where an earlier run left it.
    pub(crate) fn begin_at(&self, fraction: Option<f64>) {
        self.state().origin = fraction.unwrap_or(0.0);
    }

    /// A chunk of `texts` begins; when it is done, `fraction` of the whole is.
    pub(crate) fn chunk(&self, texts: u64, fraction: Option<f64>) {
        let mut state = self.state();
        let (started, before, from) = match &state.texts {
            Some(t) => (t.started, t.before + t.chunk, t.span.map_or(0.0, |s| s.1)),
            None => (Instant::now(), 0, state.origin),
        };
        state.texts = Some(Texts { started, before, chunk: texts, span: fraction.map(|to| (from, to)) });
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.state().clear();
    }

    fn say(&self, what: &str) {
        self.state().clear();
        note(format_args!("mlxt: {what}"));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn received(&mut self, bytes: u64) {
        let Some(file) = &mut self.file else { return };
        file.received += bytes;
        let (spent, rate) = rate(file.started, file.received);
        let total = file.total.map_or_else(String::new, |t| format!(" of {}", HumanBytes(t)));
        let message = format!("{}  {}{total}  {}/s", file.name, HumanBytes(file.received), HumanBytes(rate as u64));
        let fraction = file.total.filter(|&t| t > 0).map(|t| file.received as f64 / t as f64);
        self.draw(spent, fraction, 0.0, &message);
    }

    fn computed(&mut self, done: u64, total: u64) {
        let Some(texts) = &self.texts else { return };
        let all = texts.before + done;
        let (spent, rate) = rate(texts.started, all);
        let part = done as f64 / total.max(1) as f64;
        let fraction = texts.span.map(|(from, to)| from + part * (to - from));
        let message = format!("{} texts  {rate:.0}/s", HumanCount(all));
        self.draw(spent, fraction, self.origin, &message);
    }

    /// `origin` is the part that took none of the time spent.
    fn draw(&mut self, spent: Duration, fraction: Option<f64>, origin: f64, message: &str) {
        if !self.bars || spent < LONG {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| ProgressBar::new(STEPS));
        let left = fraction.filter(|&f| f > origin).map(|f| spent.mul_f64((1.0 - f).max(0.0) / (f - origin)));
        let template = if left.is_some() { "{bar:30} {percent:>3}%  {msg}" } else { "{spinner} {msg}" };
        // A template that cannot be read would leave indicatif's own style.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(match left {
            Some(left) => format!("{message}  {} left", HumanDuration(left)),
            None => message.to_owned(),
        });
        bar.set_position((fraction.unwrap_or(0.0) * STEPS as f64) as u64);
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// A device, how it is used and why, in a line.
pub(crate) fn device_line(info: &Info) -> String {
    let Info { device, precision, why, .. } = info;
    format!("running on {} ({}, {}) in {precision}: {why}", device.device, device.hardware, device.detail)
}

fn rate(started: Instant, done: u64) -> (Duration, f64) {
    let spent = started.elapsed();
    (spent, done as f64 / spent.as_secs_f64().max(1e-9))
}

/// A bar that moves by itself, seen on a terminal only. Moving takes a thread, for which nobody else asks.
pub(crate) fn spinner(verbosity: Verbosity) -> ProgressBar {
    if !std::io::stderr().is_terminal() || verbosity.quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// What another program says meanwhile, one line in place of the one before; all of them for those who ask for more.
pub(crate) struct Lines {
    bar: ProgressBar,
    verbose: bool,
}

impl Lines {
    /// Nothing is seen off a terminal, unless it is asked for.
    pub(crate) fn new(verbosity: Verbosity) -> Self {
        Self { bar: spinner(verbosity), verbose: verbosity.verbose }
    }

    /// Shows a line.
    pub(crate) fn hear(&self, line: &str) {
        let line = crate::one_line(line);
        if self.verbose {
            self.bar.suspend(|| note(&line));
        }
        self.bar.set_message(line);
    }

    /// Takes it away.
    pub(crate) fn clear(self) {
        self.bar.finish_and_clear();
    }
}
