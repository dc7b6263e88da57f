//! `cargo xtask check`: compiles and verifies layouts; all that is wrong, at once.

use crate::files::Files;
use crate::guests::Guests;
use crate::pipeline::{self, Job, Options};
use crate::render::{self, Format, Message};
use crate::trouble::Done;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Compile and verify layouts. Exit code 0: clean or warnings only, 1: errors, 2: usage or tool trouble
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Layouts
    #[arg(required = true)]
    layouts: Vec<PathBuf>,
    /// How diagnostics are written to standard output
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    /// Do not look at guest images: check a layout whose guests are not there yet
    #[arg(long)]
    no_images: bool,
    #[command(flatten)]
    options: Options,
}

/// The command itself.
pub(crate) fn main(args: &Args) -> Done {
    let files = Files::default();
    let mut messages: Vec<Message<'_>> = Vec::new();
    let mut wrong = 0;
    for layout in &args.layouts {
        let guests = Guests::new(layout, &args.options.guest_dir, args.no_images);
        let job = Job { layout, options: &args.options, hypervisors: None, guests: &guests, files: &files };
        pipeline::compile(&job, |outcome| {
            wrong += usize::from(outcome.errors > 0);
            if args.format == Format::Human {
                print!("{}", render::render(&outcome.messages, Format::Human, std::io::stdout().is_terminal()));
                eprintln!("{}: {}", layout.display(), summary(&outcome.messages));
            } else {
                messages.extend(outcome.messages);
            }
            Ok(())
        })?;
    }
    if args.format != Format::Human {
        print!("{}", render::render(&messages, args.format, false));
    }
    Ok(u8::from(wrong > 0))
}

/// `2 errors, 1 warning`.
pub(crate) fn summary(messages: &[Message<'_>]) -> String {
    use cofferdam_dts::Severity::{Error, Note, Warning};
    let mut parts = Vec::new();
    for (severity, one) in [(Error, "error"), (Warning, "warning"), (Note, "note")] {
        match messages.iter().filter(|message| message.severity == severity).count() {
            0 => {}
            1 => parts.push(format!("1 {one}")),
            count => parts.push(format!("{count} {one}s")),
        }
    }
    if parts.is_empty() { "clean".into() } else { parts.join(", ") }
}
