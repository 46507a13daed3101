//! Options that several commands share, and what is wrong with them before any work is done.
//!
//! Each group turns itself into checked values; defaults that the engine has are left to the engine.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};
use mlx_transformers::{Builder, Device, Hub, Load, MOST_THREADS, Precision};

use crate::input::{self, OnError, Rows, Source};
use crate::model::ModelSource;
use crate::output::{self, Document, Settings, Sink, Ticket};
use crate::progress::Progress;

/// Wrong usage: the program ends with status 2 instead of 1.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl Usage {
    /// An error that says what is wrong and what to do.
    pub(crate) fn error(what: impl Into<String>) -> anyhow::Error {
        Self(what.into()).into()
    }
}

impl Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// How much is said on standard error besides errors.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Verbosity {
    /// Say nothing but errors, and show no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more: the device and why it was chosen, where files come from
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

/// The call of the program as a whole.
#[derive(Debug)]
pub(crate) struct Call {
    /// What is said besides errors.
    pub(crate) verbosity: Verbosity,
    /// Options that change results.
    pub(crate) settings: Settings,
}

/// Where a model is found.
#[derive(Debug, Args)]
pub(crate) struct HubArgs {
    /// Branch, tag or commit on the hub [default: main]
    #[arg(long, value_name = "NAME")]
    pub(crate) revision: Option<String>,
    /// Never touch the network: folders and the hub cache only (also `HF_HUB_OFFLINE=1`)
    #[arg(long)]
    pub(crate) offline: bool,
}

/// Which model.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// A model folder, or a hub id such as sentence-transformers/all-MiniLM-L6-v2
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

/// Where and how a model runs.
#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// auto, cpu, mlx, mlx:cpu, mlx:gpu, cuda or cuda:N; `mlxt doctor` says what works here
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = Device::from_str)]
    device: Device,
    /// How weights are kept and multiplied: f32, bf16, f16, int8 or q4; on NVIDIA GPUs tf32 or fp8
    #[arg(long, value_name = "DTYPE", default_value = "f32", value_parser = Precision::from_str)]
    dtype: Precision,
    /// Threads on the host [default: all]
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
}

/// How texts become batches.
#[derive(Debug, Args)]
pub(crate) struct BatchArgs {
    /// Tokens computed together [default: 2048]; results do not depend on it
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    batch_tokens: Option<usize>,
    /// The most tokens of a text, special tokens included [default: what the model says]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_length: Option<usize>,
    /// Cut texts that are too long; without it they are errors
    #[arg(long)]
    truncate: bool,
}

/// What to read.
#[derive(Debug, Args)]
pub(crate) struct InputArgs {
    /// Texts (after `--` if one begins with a dash)
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    #[command(flatten)]
    file: FileArgs,
    /// The field that holds the text in .jsonl, .csv and .parquet [default: text]
    #[arg(long, value_name = "NAME", requires = "input")]
    column: Option<String>,
}

/// A file to read.
#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// A file of texts, `-` for standard input: a text per line, or .jsonl, .csv, .parquet
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The format of the input [default: by its extension, else text]
    #[arg(long, value_name = "FORMAT", requires = "input")]
    input_format: Option<input::Format>,
}

/// How a run over many rows deals with what goes wrong.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What becomes of a row that cannot be used: stop, or skip (it is reported and has no result; the others keep
    /// their index, and the exit status is 0)
    #[arg(long, value_name = "WHAT", default_value = "stop")]
    on_error: OnError,
    /// Go on with a run that was interrupted: the same command, from -i FILE to -o FILE
    #[arg(long)]
    resume: bool,
}

/// What to write.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Write to a file, which appears when it is complete (`-` for standard output)
    #[arg(short, long, value_name = "FILE", value_parser = new_file(".jsonl, .json, .csv, .npy, .parquet or .txt"))]
    output: Option<PathBuf>,
    /// text, json, jsonl, csv, npy or parquet [default: by the extension of -o; else text on a terminal, jsonl otherwise]
    #[arg(long, value_name = "FORMAT")]
    format: Option<output::Format>,
}

impl ModelArgs {
    /// Where its files are.
    pub(crate) fn source(&self) -> ModelSource {
        ModelSource::new(self.model.clone(), self.hub.revision.clone())
    }
}

impl DeviceArgs {
    /// Passes the options on.
    pub(crate) fn apply<T: Load>(&self, builder: Builder<T>) -> Builder<T> {
        let builder = builder.device(self.device).dtype(self.dtype);
        match self.threads {
            Some(threads) => builder.threads(threads),
            None => builder,
        }
    }
}

impl HubArgs {
    /// The hub itself.
    pub(crate) fn hub(&self) -> Hub {
        let hub = Hub::from_env();
        Hub { offline: hub.offline || self.offline, ..hub }
    }

    /// Passes the options on, and lets `progress` hear of downloads.
    pub(crate) fn apply<T: Load>(&self, mut builder: Builder<T>, progress: &Progress) -> Builder<T> {
        if let Some(revision) = &self.revision {
            builder = builder.revision(revision);
        }
        if self.offline {
            builder = builder.offline(true);
        }
        let progress = progress.clone();
        builder.progress(move |event| progress.hear(event))
    }
}

impl BatchArgs {
    /// Passes the options on.
    pub(crate) fn apply<T: Load>(&self, mut builder: Builder<T>) -> Builder<T> {
        if let Some(tokens) = self.batch_tokens {
            builder = builder.batch_tokens(tokens);
        }
        if let Some(tokens) = self.max_length {
            builder = builder.max_length(tokens);
        }
        builder.truncate(self.truncate)
    }
}

impl InputArgs {
    /// The one source of texts.
    pub(crate) fn source(self) -> Result<Source> {
        self.source_with(None)
    }

    /// The one source of texts, with a second column if there is one.
    pub(crate) fn source_with(self, second: Option<String>) -> Result<Source> {
        if self.file.is_given() {
            if !self.texts.is_empty() {
                return Err(Usage::error("both TEXT and -i FILE: give one of them"));
            }
            let lines_do = self.column.is_none() && second.is_none();
            let first = self.column.unwrap_or_else(|| "text".into());
            return self.file.source([Some(first), second].into_iter().flatten().collect(), lines_do);
        }
        match self.texts.len() {
            0 => Err(Usage::error("no text: give TEXT, or -i FILE (-i - for standard input)")),
            _ => Ok(Source::Arguments(self.texts.into_iter().map(|text| vec![text]).collect())),
        }
    }
}

impl FileArgs {
    /// Whether there is one.
    pub(crate) fn is_given(&self) -> bool {
        self.input.is_some()
    }

    /// Its columns as a source; lines of text are one if `lines_do`.
    pub(crate) fn source(self, columns: Vec<String>, lines_do: bool) -> Result<Source> {
        let path = self.input.filter(|path| !is_dash(path));
        let format = match (self.input_format, &path) {
            (Some(format), _) => format,
            (None, Some(path)) => input::Format::of(path)?,
            (None, None) => input::Format::Text,
        };
        if format == input::Format::Text && !lines_do {
            let columns = columns.join(", ");
            return Err(Usage::error(format!(
                "columns ({columns}) need an input of jsonl, csv or parquet: lines of text have no columns"
            )));
        }
        Ok(Source::File { path, format, columns })
    }
}

impl RunArgs {
    /// Opens input and output; a run that goes on finds both where the one before left them.
    pub(crate) fn open(
        &self,
        model: ModelSource,
        source: Source,
        output: OutputArgs,
        call: &Call,
        progress: &Progress,
    ) -> Result<(Rows, Sink)> {
        let format = output.format();
        if self.on_error == OnError::Skip && format == output::Format::Npy {
            return Err(Usage::error(
                "an npy array cannot say which rows were skipped: --format parquet, jsonl, json or csv",
            ));
        }
        source.is_not(output.file())?;
        let mut settings = call.settings.clone();
        // However it was found: a file may have another name today.
        settings.insert("the format of the input".into(), vec![source.format()]);
        let mut rows = source.open(self.on_error, progress)?;
        let sink = match (rows.identity(), output.into_file()) {
            (Some(input), Some(file)) => {
                let ticket = Ticket { settings, input, model };
                Sink::journaled(format, file, ticket, self.resume)?
            }
            _ if self.resume => {
                return Err(Usage::error("--resume needs -i FILE and -o FILE: both must be files that stay"));
            }
            (_, file) => Sink::open(format, file)?,
        };
        let done = sink.done();
        rows.go_on_after(done.rows, done.skipped)?;
        if done.rows > 0 {
            progress.detail(&format!("going on after {} rows", done.rows));
        }
        Ok((rows, sink))
    }

    /// Refuses to go on with a run whose results are written at its end.
    pub(crate) fn no_resume(&self, why: &str) -> Result<()> {
        if self.resume { Err(Usage::error(format!("--resume has nothing to go on with: {why}"))) } else { Ok(()) }
    }
}

impl OutputArgs {
    /// The file results are written to, if it is not standard output, which is called `-` as it is where texts come from.
    fn file(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| !is_dash(path))
    }

    fn into_file(self) -> Option<PathBuf> {
        self.output.filter(|path| !is_dash(path))
    }

    /// The format results are written in.
    pub(crate) fn format(&self) -> output::Format {
        output::Format::choose(self.format, self.file())
    }

    /// Refuses npy for results of a kind that has no array.
    pub(crate) fn no_array(&self, results: &str) -> Result<()> {
        match self.format() {
            output::Format::Npy => Err(Usage::error(format!(
                "{results} are no array of numbers: --format jsonl, json, csv, parquet or text"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether results go to standard output.
    pub(crate) fn is_stdout(&self) -> bool {
        self.file().is_none()
    }

    /// The destination of one whole answer.
    pub(crate) fn document(self) -> Result<Document> {
        Document::new(self.format(), self.into_file())
    }
}

/// Whether a path stands for standard input or output.
fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A file to write, whose name says what is in it: one of `formats`, and nothing that is compressed or another's.
pub(crate) fn new_file(formats: &'static str) -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(move |path| {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if output::COMPRESSED.contains(&extension.as_str()) {
            return Err(format!("nothing is compressed here: leave out .{extension}, and let it end in {formats}"));
        }
        if output::FOREIGN.contains(&extension.as_str()) {
            return Err(format!("no .{extension} files are written: let it end in {formats}"));
        }
        Ok(path)
    })
}

/// A number of something there must be one of.
pub(crate) fn at_least_one(value: &str) -> Result<usize, String> {
    within(1..=usize::MAX, value)
}

/// A number of threads.
pub(crate) fn threads(value: &str) -> Result<usize, String> {
    within(1..=MOST_THREADS, value)
}

/// A whole number in a range.
pub(crate) fn within<N: FromStr + PartialOrd + Display>(range: RangeInclusive<N>, value: &str) -> Result<N, String> {
    let (least, most) = (range.start(), range.end());
    let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("must be a whole number".into());
    }
    match value.parse() {
        Ok(n) if range.contains(&n) => Ok(n),
        Ok(n) if n > *least => Err(format!("must be at most {most}")),
        // Too long to be read at all.
        Err(_) if !value.starts_with('-') => Err(format!("must be at most {most}")),
        _ => Err(format!("must be at least {least}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_told_their_range() {
        assert_eq!((at_least_one("1"), threads("4096")), (Ok(1), Ok(4096)));
        assert_eq!(at_least_one(&usize::MAX.to_string()), Ok(usize::MAX));
        assert_eq!((within(0..=9_u64, "+0"), within(0..=9_u64, "-1")), (Ok(0), Err("must be at least 0".into())));
        for (value, expected) in [
            ("0", "must be at least 1"),
            ("-1", "must be at least 1"),
            ("-99999999999999999999999999", "must be at least 1"),
            ("4097", "must be at most 4096"),
            ("18446744073709551615", "must be at most 4096"),
            ("99999999999999999999999999", "must be at most 4096"),
            ("", "must be a whole number"),
            ("-", "must be a whole number"),
            ("1.5", "must be a whole number"),
            ("many", "must be a whole number"),
        ] {
            assert_eq!(threads(value).unwrap_err(), expected, "{value:?}");
        }
    }
}
