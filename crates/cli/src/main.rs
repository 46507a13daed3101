//! `mlxt`: transformer inference on the command line.
//!
//! This file is the frame: it reads the command line, runs one command and turns its result into an exit status and at
//! most one line on standard error. Status 0 is success, 1 failed work, 2 wrong usage; a closed standard output
//! (`| head`) is a success that ends early. Commands are in `cmd/`, one per file, where texts come from in `input/`,
//! where results go in `output/`.
#![forbid(unsafe_code)]

mod args;
mod cmd;
mod folder;
mod input;
mod mlx;
mod model;
mod output;
mod progress;
mod say;

use std::cell::Cell;
use std::ffi::OsString;
use std::panic::{self, PanicHookInfo};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};

use crate::args::{Call, Usage, Verbosity};
use crate::cmd::Command;
use crate::output::{Settings, StdoutClosed};

/// Transformer inference from Hugging Face checkpoints, as they are, on the fastest backend this machine has.
///
/// Start with `mlxt demo`. `mlxt doctor` says which devices work here.
#[derive(Debug, Parser)]
#[command(name = "mlxt", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(
    after_help = "Exit status: 0 done, 1 the work failed, 2 wrong usage. An error is one line on standard error."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    verbosity: Verbosity,
}

fn main() -> ExitCode {
    panic::set_hook(Box::new(internal_error));
    let mut command = numbers_are_values(Cli::command());
    let parsed = command.try_get_matches_from_mut(std::env::args_os()).and_then(|matches| {
        let settings = settings(&command, &matches);
        Ok((Cli::from_arg_matches(&matches)?, settings))
    });
    let (cli, settings) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return help_or_usage(&error, &command),
    };
    let call = Call { verbosity: cli.verbosity, settings };
    // The hook has said what there is to say. Unwinding up to here removes temporary files.
    let run = panic::AssertUnwindSafe(|| cli.command.run(&call));
    match panic::catch_unwind(run) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) if error.is::<StdoutClosed>() => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            complain(&chain(&error));
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Options that change no result: only with them may a run that goes on differ from the one that was interrupted. Of
/// `device` counts what it stands for, which is known when the model is loaded.
const HARMLESS: [&str; 11] = [
    "input",
    "output",
    "resume",
    "on_error",
    "device",
    "threads",
    "batch_tokens",
    "offline",
    "quiet",
    "verbose",
    "help",
];

/// The command, its version and all its options that may change results, as they were given or left out.
fn settings(command: &clap::Command, matches: &ArgMatches) -> Settings {
    let mut settings = Settings::from([("version".to_owned(), vec![env!("CARGO_PKG_VERSION").to_owned()])]);
    let Some((name, matches)) = matches.subcommand() else { return settings };
    settings.insert("the command".into(), vec![name.to_owned()]);
    let arguments = command.find_subcommand(name).into_iter().flat_map(clap::Command::get_arguments);
    for argument in arguments.filter(|argument| !HARMLESS.contains(&argument.get_id().as_str())) {
        let id = argument.get_id().as_str();
        let option = argument.get_long().map_or_else(|| id.to_owned(), |long| format!("--{long}"));
        let values = matches.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy().into_owned());
        settings.insert(option, values.collect());
    }
    settings
}

/// A number below zero behind an option is its value and no option: what is wrong with it is then told by its name.
fn numbers_are_values(command: clap::Command) -> clap::Command {
    let takes_value = |argument: &clap::Arg| argument.get_action().takes_values() && !argument.is_positional();
    command
        .mut_args(|argument| if takes_value(&argument) { argument.allow_negative_numbers(true) } else { argument })
        .mut_subcommands(numbers_are_values)
}

/// Help and version go to standard output; anything else is wrong usage, shortened to what is wrong.
fn help_or_usage(error: &clap::Error, command: &clap::Command) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match error.print() {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                complain(&format!("cannot write standard output: {error}"));
                ExitCode::FAILURE
            }
            _ => ExitCode::SUCCESS,
        },
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            complain(&no_command(command, std::env::args_os()));
            ExitCode::from(2)
        }
        ErrorKind::InvalidUtf8 => {
            complain(&not_text(std::env::args_os()));
            ExitCode::from(2)
        }
        _ => {
            let text = error.to_string();
            let what = text.split("\n\nUsage:").next().unwrap_or(&text);
            let what = what.split("\n\nFor more information").next().unwrap_or(what);
            let what = what.strip_prefix("error: ").unwrap_or(what);
            complain(&format!("{} (see --help)", one_line(what)));
            ExitCode::from(2)
        }
    }
}

/// Which commands there are: those of the command that was named, or a hint for who named none.
fn no_command(command: &clap::Command, mut arguments: impl Iterator<Item = OsString>) -> String {
    let Some(named) = arguments.find_map(|argument| command.find_subcommand(argument).filter(|c| c.has_subcommands()))
    else {
        return "no command: try `mlxt demo`, or `mlxt --help` for all of them".into();
    };
    let name = named.get_name();
    let known: Vec<&str> = named.get_subcommands().filter(|c| !c.is_hide_set()).map(clap::Command::get_name).collect();
    format!("{name} does what? One of: {} (see mlxt {name} --help)", known.join(", "))
}

/// Which arguments are no text. Those that are files may be so; clap does not tell which it meant.
fn not_text(arguments: impl Iterator<Item = OsString>) -> String {
    let odd = |(place, argument): (usize, OsString)| match argument.into_string() {
        Ok(_) => None,
        Err(odd) => Some(format!("argument {place} is {:?}", odd.to_string_lossy())),
    };
    let found: Vec<String> = arguments.enumerate().filter_map(odd).collect();
    format!("what is no file's name must be UTF-8: {}", found.join(", "))
}

/// An error and its causes in one line; a cause that its error has quoted already is not repeated.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    one_line(&text)
}

/// `text` with every break and run of white space made one space, and other control characters shown as escapes.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut line = String::new();
    for c in words.join(" ").chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

fn complain(what: &str) {
    say::note(format_args!("mlxt: {what}"));
}

thread_local! {
    /// Whether a panic of this thread is caught and told by [`catching`].
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, a library that panics on damaged input; a panic becomes an error. What `f` works on must not be used again
/// then.
pub(crate) fn catching<T>(f: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    CATCHING.set(true);
    let result = panic::catch_unwind(panic::AssertUnwindSafe(f));
    CATCHING.set(false);
    result.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Err(anyhow::anyhow!("damaged ({})", text.unwrap_or("unknown")))
    })
}

/// The last line of defence: an error of ours, not of the user's, still ends as one line.
fn internal_error(info: &PanicHookInfo<'_>) {
    if CATCHING.get() {
        return;
    }
    let what = info.payload_as_str().unwrap_or("unknown");
    let place = info.location().map_or_else(String::new, |l| format!(" at {}:{}", l.file(), l.line()));
    complain(&one_line(&format!("internal error{place}: {what} (this is a bug, please report it)")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        numbers_are_values(Cli::command()).debug_assert();
    }

    #[test]
    fn errors_are_one_line_without_repetition() {
        let cause = std::io::Error::other("disk on\nfire");
        let error = anyhow::Error::new(cause).context("cannot read x: disk on\nfire").context("loading");
        assert_eq!(chain(&error), "loading: cannot read x: disk on fire");
        assert_eq!(one_line("a\u{1b}[31m  b\n"), "a\\u{1b}[31m b");
    }
}
