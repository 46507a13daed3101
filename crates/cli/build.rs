//! Tells the program which commit it is built from, where that is known: records of the study name it.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=MLXT_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    // What somebody says in the environment counts; and a copy outside its repository has no commit.
    if env::var_os("MLXT_COMMIT").is_some() || git(&["ls-files", "--error-unmatch", "Cargo.toml"]).is_none() {
        return;
    }
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return };
    // Changes with every commit, whichever branch is checked out.
    if let Some(log) = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|files| !files.is_empty());
    println!("cargo::rustc-env=MLXT_COMMIT={commit}{}", if changed { ", changed" } else { "" });
}

/// What git says, if there is one that can answer.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
