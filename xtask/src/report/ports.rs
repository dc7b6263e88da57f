//! The report of a board with I/O ports and no hypervisor: there is no plan, but each domain's port bitmap.

use super::facts::{Domain, Report, Table};
use crate::pipeline::Outcome;
use cofferdam_partitioner::ports::PortBitmap;
use sha2::{Digest, Sha256};
use std::path::Path;

/// What the compiler decided for such a board.
pub(super) fn report(layout: &Path, outcome: &Outcome<'_, '_, '_, '_>) -> Report {
    let maps = outcome.compiled.map_or(&[][..], |compiled| compiled.ports);
    let arch = outcome.board.arch.name();
    Report {
        layout: layout.display().to_string(),
        says: vec![
            ("architecture", arch.into()),
            ("image", format!("none: there is no hypervisor for {arch} yet")),
            ("CPUs of the board", outcome.board.cpus.len().to_string()),
        ],
        tables: vec![],
        domains: outcome.layout.domains.iter().zip(maps).map(|(domain, map)| one(domain.name, map)).collect(),
        open: vec!["there is no hypervisor for this architecture yet: nothing enforces what stands here".into()],
    }
}

fn one(name: &str, map: &PortBitmap) -> Domain {
    let runs: Vec<(u16, u16)> = map.open().collect();
    let count: u32 = runs.iter().map(|(first, last)| u32::from(last - first) + 1).sum();
    let rows = runs.iter().map(|(first, last)| vec![format!("{first:#x}..={last:#x}"), (last - first + 1).to_string()]);
    let hash = crate::elf::hex(&Sha256::digest(map.0));
    Domain {
        name: name.into(),
        says: vec![("I/O port bitmap", format!("{count} of 65536 ports open, SHA-256 {hash}"))],
        tables: vec![Table { title: "I/O ports".into(), heads: vec!["ports", "count"], rows: rows.collect() }],
        alarms: vec![],
    }
}

#[cfg(test)]
mod tests {
    use crate::files::Files;
    use crate::guests::Guests;
    use crate::pipeline::{self, Job, Options};
    use crate::repo;

    /// Each domain with its ports.
    fn ports(layout: &str) -> Vec<(String, Vec<String>)> {
        let report = report(layout);
        let ports = |domain: &super::Domain| {
            domain.tables[0].rows.iter().map(|row| format!("{} {}", row[0], row[1])).collect::<Vec<_>>()
        };
        report.domains.iter().map(|domain| (domain.name.clone(), ports(domain))).collect()
    }

    fn report(layout: &str) -> super::Report {
        let layout = repo::root().join(layout);
        let (files, options) = (Files::default(), Options::default());
        let guests = Guests::new(&layout, &[], true);
        let job = Job { layout: &layout, options: &options, hypervisors: None, guests: &guests, files: &files };
        let report = pipeline::compile(&job, |outcome| Ok(super::report(&layout, &outcome)));
        let Ok(report) = report else { panic!("the layout compiles") };
        report
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn each_domain_shows_its_ports_and_no_other() {
        let layout = "layouts/x86-ports.dts";
        let keyboard = ("keyboard".to_owned(), texts(&["0x60..=0x60 1", "0x64..=0x64 1"]));
        assert_eq!(ports(layout), [keyboard, ("modem".to_owned(), texts(&["0x2f8..=0x2ff 8"]))]);
        assert!(report(layout).domains[0].says[0].1.starts_with("2 of 65536 ports open"));
    }

    /// The I/O BARs of e1000e (0x20) and e1000 (0x40) behind that of a virtio device (0x20), in the order of their BDFs.
    #[test]
    fn functions_bring_their_io_bars() {
        let a = ("a".to_owned(), texts(&["0xc020..=0xc07f 96"]));
        let b = ("b".to_owned(), texts(&["0xc000..=0xc01f 32"]));
        assert_eq!(ports("partitioner/tests/accept/io-bars-x86.dts"), [a, b]);
        let all =
            ("a".to_owned(), texts(&["0x60..=0x60 1", "0x64..=0x64 1", "0xc020..=0xc03f 32", "0xc080..=0xc087 8"]));
        assert_eq!(ports("partitioner/tests/accept/x86-io-demanded.dts"), [all]);
    }
}
