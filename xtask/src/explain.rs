//! `cargo xtask explain`: the long text of one code.

use crate::trouble::Done;
use cofferdam_partitioner::catalog;

/// Print the long text of one code, with a wrong and a right example
#[derive(clap::Args)]
pub(crate) struct Args {
    /// For example E0301
    code: String,
}

/// The command itself. An unknown code is the caller's mistake: exit code 2, and what comes near.
pub(crate) fn main(args: &Args) -> Done {
    let code = args.code.to_ascii_uppercase();
    if let Some(text) = catalog::explain(&code) {
        print!("{text}");
        return Ok(0);
    }
    eprintln!("error: there is no code {}", args.code);
    let group = code.get(1..3).unwrap_or("");
    let near = catalog::CODES
        .iter()
        .map(|(code, _)| *code)
        .filter(|known| !group.is_empty() && known.get(1..3) == Some(group));
    let near: Vec<_> = near.collect();
    if !near.is_empty() {
        eprintln!("  help: codes of its group: {}", near.join(", "));
    }
    Ok(2)
}
