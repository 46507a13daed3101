//! A report of records that are made up: to look at, and for `scripts/check-report` to try in a browser.
//!
//! `cargo run -p mlxt-study --example sample-report -- FOLDER`

#[path = "../tests/synthetic/mod.rs"]
mod synthetic;

use std::path::PathBuf;

fn main() -> mlxt_study::Result<()> {
    let out = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "sample-report".into()));
    let written = mlxt_study::report::write(&synthetic::records(synthetic::PLAIN), &out)?;
    println!("{}", written.page.display());
    Ok(())
}
