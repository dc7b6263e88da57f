//! `cargo xtask report`: the whole plan, readable. What was decided, why, and what remains open.
//!
//! Everything is read back from the finished blob, not from the compiler's head: the report shows what will run.

mod facts;
mod html;
mod pci;
mod ports;
mod text;
mod unused;

pub(crate) use facts::{HypervisorRam, Report};

use crate::files::Files;
use crate::guests::Guests;
use crate::hyp::Hypervisors;
use crate::pipeline::{self, Job, Options};
use crate::render;
use crate::trouble::{Done, Trouble};
use cofferdam_partitioner::devices;
use cofferdam_partitioner::model::{Board, Domain, Layout};
use std::io::IsTerminal;
use std::path::PathBuf;

/// Show the whole plan of a layout
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The layout
    layout: PathBuf,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    #[command(flatten)]
    options: Options,
}

/// Forms of the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// For a terminal
    Text,
    /// For scripts
    Json,
    /// For a browser, one file
    Html,
}

/// The command itself.
pub(crate) fn main(args: &Args) -> Done {
    let files = Files::default();
    if let Some(code) = without_hypervisor(args, &files)? {
        return Ok(code);
    }
    let builds = Hypervisors::default();
    let guests = Guests::new(&args.layout, &args.options.guest_dir, false);
    let job = Job {
        layout: &args.layout,
        options: &args.options,
        hypervisors: Some(&builds),
        guests: &guests,
        files: &files,
    };
    pipeline::compile(&job, |outcome| {
        eprint!("{}", render::render(&outcome.messages, render::Format::Human, std::io::stderr().is_terminal()));
        let (Some(compiled), Some(hypervisor)) = (outcome.compiled, outcome.hypervisor) else { return Ok(1) };
        let mut report = Report::new(&args.layout, compiled, hypervisor, &guests)?;
        for (domain, asked) in report.domains.iter_mut().zip(&outcome.layout.domains) {
            let hidden = pci::hidden(outcome.board, outcome.layout, asked);
            domain.says.extend(hidden.into_iter().map(|text| ("capabilities hidden", text)));
            let trusted = trusted(outcome.board, outcome.layout, asked);
            report.open.splice(0..0, trusted.iter().map(|text| format!("domain {}: {text}", domain.name)));
            domain.alarms.extend(trusted);
        }
        show(&report, args.format);
        Ok(0)
    })
}

/// Devices of a domain, other than PCI functions, that may master the bus: the plan knows nothing of their DMA.
fn trusted(board: &Board<'_>, layout: &Layout<'_, '_>, domain: &Domain<'_>) -> Vec<String> {
    let grants = layout.devices.get(domain.devices.clone()).unwrap_or(&[]);
    let masters = grants.iter().filter(|grant| {
        let harmless = devices::is_harmless(grant.node) || devices::authority(board, grant.node).is_some();
        domain.trusted_dma.is_some() && grant.function.is_none() && !grant.regions.is_empty() && !harmless
    });
    masters
        .map(|grant| {
            let path = grant.node.path();
            format!("{path} may read and write all of memory: no IOMMU holds it back, the layout trusts the domain (dma = \"trusted\")")
        })
        .collect()
}

/// Shows a board that there is no hypervisor for, without building one. `None` for any other board.
fn without_hypervisor(args: &Args, files: &Files) -> Result<Option<u8>, Trouble> {
    let guests = Guests::new(&args.layout, &args.options.guest_dir, true);
    let job = Job { layout: &args.layout, options: &args.options, hypervisors: None, guests: &guests, files };
    pipeline::compile(&job, |outcome| {
        if outcome.board.arch.hypervisor_supported() {
            return Ok(None);
        }
        eprint!("{}", render::render(&outcome.messages, render::Format::Human, std::io::stderr().is_terminal()));
        if outcome.errors > 0 {
            return Ok(Some(1));
        }
        show(&ports::report(&args.layout, &outcome), args.format);
        Ok(Some(0))
    })
}

fn show(report: &Report, format: Format) {
    match format {
        Format::Text => print!("{}", text::render(report, std::io::stdout().is_terminal())),
        Format::Json => println!("{}", report.json()),
        Format::Html => print!("{}", html::render(report)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report with an alarm, in a sentence and in a table.
    pub(super) fn trusted() -> Report {
        let row = vec!["nic0".to_owned(), pci::ALL_OF_MEMORY.to_owned()];
        let table = facts::Table { title: "PCI functions".into(), heads: vec!["function", "DMA"], rows: vec![row] };
        let alarms = vec!["nic0 <reads> all".to_owned()];
        let domain = facts::Domain { name: "a".into(), says: vec![], tables: vec![table], alarms };
        let (layout, open) = ("a.dts".to_owned(), vec!["nothing holds it".to_owned()]);
        Report { layout, says: vec![], tables: vec![], domains: vec![domain], open }
    }

    #[test]
    fn scripts_find_alarms() {
        let text = trusted().json().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("\"alarms\": [ \"nic0 <reads> all\" ]"), "{text}");
        assert!(text.contains("\"open\": [ \"nothing holds it\" ]"), "{text}");
    }
}
