//! What a report says, taken from the plan's bytes.

use super::{pci, unused};
use crate::elf::hex;
use crate::formats;
use crate::guests::Guests;
use crate::hyp::Hypervisor;
use crate::render::{Json, object, string};
use crate::repo;
use crate::trouble::Trouble;
use cofferdam_partitioner::compile::Compiled;
use cofferdam_plan::audit::{fact, grant, line, payload};
use cofferdam_plan::va::{CPU_AREA, DOMAIN_AREA};
use cofferdam_plan::{DomainFlags, HeaderFlags, NO_INTID, NO_WINDOW, Plan, Policy, RESTART_PERIOD_S};
use sha2::{Digest, Sha256};
use std::path::Path;
use zerocopy::IntoBytes;

/// A titled table.
pub(crate) struct Table {
    /// What it is about.
    pub(crate) title: String,
    /// Column heads.
    pub(crate) heads: Vec<&'static str>,
    /// Rows, as long as `heads`.
    pub(crate) rows: Vec<Vec<String>>,
}

/// One domain.
pub(crate) struct Domain {
    /// Name.
    pub(crate) name: String,
    /// Sentences: identity, CPUs, entry, delivery and why.
    pub(crate) says: Vec<(&'static str, String)>,
    /// Memory map, interrupts, images.
    pub(crate) tables: Vec<Table>,
    /// What a reader must not miss: red.
    pub(crate) alarms: Vec<String>,
}

/// A whole report.
pub(crate) struct Report {
    /// The layout's path.
    pub(crate) layout: String,
    /// About image and hypervisor.
    pub(crate) says: Vec<(&'static str, String)>,
    /// What the hypervisor keeps, and the board's facts.
    pub(crate) tables: Vec<Table>,
    /// The domains in order.
    pub(crate) domains: Vec<Domain>,
    /// What stays open even so.
    pub(crate) open: Vec<String>,
}

/// Named for every layout: no design on this hardware closes them. The first ones are those of direct delivery.
const OPEN: &[&str] = &[
    "direct delivery: a guest can clear the active state of a foreign SPI on its own CPU interface (EOIR1, DIR is trapped) and see its own CPU's highest pending interrupt (HPPIR1); both are harmless to others' data",
    "a CPU whose guest masks everything is reclaimed by revoking its stage 2 from another CPU, not by an interrupt",
    "shared caches, DRAM banks, the interconnect, GIC bandwidth and broadcast TLB maintenance carry timing from one domain to another",
    "the checksums guard against accident; against an attacker who can write the flash, sign the image",
];
/// How many of [`OPEN`] are of direct delivery only.
const OF_DIRECT: usize = 2;

impl Report {
    /// Reads the plan back.
    ///
    /// # Errors
    /// The compiler's own plan cannot be read: a fault of ours.
    pub(crate) fn new(
        layout: &Path,
        compiled: &Compiled<'_, '_>,
        hyp: &Hypervisor,
        guests: &Guests,
    ) -> Result<Self, Trouble> {
        let unreadable = |error| Trouble::other(format!("the compiler's plan cannot be read back: {error:?}"));
        let plan = Plan::read_whole(compiled.blob.as_bytes()).map_err(unreadable)?;
        let audit = plan.audit().map_err(unreadable)?;
        let image = formats::flat(compiled, hyp, guests)?;
        let header = plan.header;
        let ram = HypervisorRam::new(&plan);
        let mut says = vec![
            ("image", format!("{} bytes at {:#x}, SHA-256 {}", image.len(), header.base.0, sha256(&image))),
            (
                "hypervisor",
                format!("build ID {}, {} PCI", hex(&header.build_id), if hyp.pci { "with" } else { "without" }),
            ),
            ("plan", format!("{} bytes, {} of them translation tables", header.blob_len, ram.tables)),
            ("plan check at boot", checks(header.flags).into()),
            ("hypervisor RAM", ram.to_string()),
            ("machine needed", machine(&plan)),
            ("console input", console_input(&plan)),
        ];
        says.extend(pci::says(&plan));
        let mut kept =
            Table { title: "Hypervisor and board".into(), heads: vec!["range", "what", "node"], rows: vec![] };
        let mut board: Vec<_> = audit.facts.iter().collect();
        board.sort_by_key(|entry| entry.region.base.0);
        for entry in board {
            let what = match entry.kind {
                fact::RAM => "RAM",
                fact::RESERVED => "reserved",
                fact::FORBIDDEN => "in no domain's reach",
                fact::HYPERVISOR => "hypervisor",
                fact::CPU_INTERFACE => "each CPU's own, its domain's where delivery is direct",
                fact::VIRTUAL_INTERFACE => "each CPU's own, its domain's where delivery is injected",
                // Thousands on a real board; those granted stand with their domain.
                _ => continue,
            };
            let row = vec![entry.region.to_string(), what.into(), audit.name(entry.name).into()];
            // The console's UART is out of reach for two reasons; one line says it.
            if !kept.rows.contains(&row) {
                kept.rows.push(row);
            }
        }
        let domains = plan.domains.iter().enumerate().map(|(index, domain)| {
            let cpus = plan.vcpus_of(domain).unwrap_or(&[]);
            let cpus = cpus.iter().filter_map(|cpu| plan.cpus.get(usize::from(cpu.0)));
            let cpus: Vec<_> = cpus.map(|cpu| format!("{:#x}", cpu.mpidr.0)).collect();
            let flag = |bit| domain.flags & bit != 0;
            let console = match (flag(DomainFlags::CONSOLE), flag(DomainFlags::INPUT)) {
                (false, _) => "none".into(),
                (true, input) => format!(
                    "virtual PL011 at {:#x}, SPI {}{}",
                    domain.vuart_ipa.0,
                    if domain.vuart_intid == NO_INTID {
                        "none".into()
                    } else {
                        (domain.vuart_intid.0 - 32).to_string()
                    },
                    if input { ", reads the console first" } else { "" }
                ),
            };
            let delivery = delivery(&plan, index, domain);
            let mut says = vec![
                ("identity", format!("domain {index}, VMID {}", domain.vttbr >> 48)),
                ("vCPUs", format!("{} on MPIDR {}", cpus.len(), cpus.join(", "))),
                ("entry", format!("{:#x}, device tree at {:#x}", domain.entry.0, domain.dtb.0)),
                ("console", console),
                ("interrupt delivery", delivery),
                ("lifecycle", lifecycle(&plan, domain)),
                ("of its CPUs", grants(domain.flags)),
                (
                    "scrub",
                    if flag(DomainFlags::SCRUB_AT_BOOT) { "before the first entry" } else { "on restart only" }.into(),
                ),
            ];
            let is_mine = |owner: u32| owner as usize == index;
            let mut memory = Table {
                title: "Memory map".into(),
                heads: vec!["guest address", "physical", "what", "node"],
                rows: vec![],
            };
            for entry in audit.grants.iter().filter(|entry| is_mine(entry.domain)) {
                let what = match entry.kind {
                    grant::RAM => "RAM",
                    grant::CPU_INTERFACE => "each CPU's own interrupt interface",
                    grant::VIRTUAL_INTERFACE => "each CPU's own virtual interrupt interface",
                    _ => "device",
                };
                memory.rows.push(vec![
                    entry.ipa.to_string(),
                    entry.pa.to_string(),
                    what.into(),
                    audit.name(entry.name).into(),
                ]);
            }
            let mut lines =
                Table { title: "Interrupts".into(), heads: vec!["interrupt", "trigger", "what", "node"], rows: vec![] };
            for entry in audit.lines.iter().filter(|entry| is_mine(entry.domain)) {
                let what = match entry.kind {
                    line::DEVICE => "device",
                    line::VUART => "virtual PL011",
                    line::WATCHDOG => "watchdog",
                    line::MSI => "messages of its PCI functions",
                    line::MAINTENANCE => "the hypervisor's: maintenance of list registers",
                    line::PPI => "each vCPU's own",
                    _ => "hypervisor",
                };
                let name = if entry.intid.0 < 32 {
                    format!("PPI {}", entry.intid.0.saturating_sub(16))
                } else {
                    format!("SPI {}", entry.intid.0 - 32)
                };
                let trigger = if entry.edge != 0 { "edge" } else { "level" };
                lines.rows.push(vec![name, trigger.into(), what.into(), audit.name(entry.name).into()]);
            }
            let mut images = Table {
                title: "Images".into(),
                heads: vec!["guest address", "what", "bytes", "place", "file", "SHA-256"],
                rows: vec![],
            };
            for entry in audit.payloads.iter().filter(|entry| is_mine(entry.domain)) {
                let what = match entry.kind {
                    payload::KERNEL => "kernel",
                    payload::INITRD => "initrd",
                    payload::FILE => "file",
                    _ => "device tree",
                };
                let name = audit.name(entry.name);
                let found = (!name.is_empty()).then(|| guests.find(name));
                let path = found.and_then(|found| found.path.as_deref()).map_or("generated".into(), repo::shown);
                let hash = found.and_then(|found| found.bytes()).map_or(String::new(), sha256);
                let place = if entry.pa.base.0 == header.base.0.wrapping_add(entry.offset) {
                    "in the image, not copied"
                } else {
                    "copied at boot"
                };
                images.rows.push(vec![
                    entry.ipa.to_string(),
                    what.into(),
                    entry.len.to_string(),
                    place.into(),
                    path,
                    hash,
                ]);
            }
            let pci = pci::share(&plan, &audit, index, domain);
            says.extend(pci.says);
            let mut tables = vec![memory, lines];
            tables.extend(pci.tables);
            tables.push(images);
            Domain { name: domain.name().into(), says, tables, alarms: pci.alarms }
        });
        let is_direct = plan.domains.iter().any(|domain| domain.flags & DomainFlags::INJECTED == 0);
        let general = OPEN.get(if is_direct { 0 } else { OF_DIRECT }..).unwrap_or(&[]);
        Ok(Self {
            layout: layout.display().to_string(),
            says,
            domains: domains.collect(),
            tables: vec![kept, unused::table(&audit)],
            open: pci::open(&plan).into_iter().chain(general.iter().map(|text| (*text).to_owned())).collect(),
        })
    }

    /// For scripts: the same content.
    pub(crate) fn json(&self) -> Json {
        let domains = self.domains.iter().map(|domain| {
            object([
                ("name", string(domain.name.as_str())),
                ("facts", facts(&domain.says)),
                ("alarms", Json::Array(domain.alarms.iter().map(|text| string(text.as_str())).collect())),
                ("tables", tables(&domain.tables)),
            ])
        });
        object([
            ("layout", string(self.layout.as_str())),
            ("facts", facts(&self.says)),
            ("tables", tables(&self.tables)),
            ("domains", Json::Array(domains.collect())),
            ("open", Json::Array(self.open.iter().map(|text| string(text.as_str())).collect())),
        ])
    }
}

/// What becomes of the domain when it ends, and what that costs.
fn lifecycle(plan: &Plan<'_>, domain: &cofferdam_plan::Domain) -> String {
    let word = |policy| match policy {
        Policy::RESTART => "restart",
        Policy::REBOOT_BOARD => "board reset",
        _ => "halt",
    };
    let (fault, reset, off) = (word(domain.on_fault), word(domain.on_reset), word(domain.on_off));
    let mut text = format!("fault: {fault}; reset: {reset}; off: {off}");
    if domain.restarts() {
        let own = u64::from(plan.header.blob_offset) + u64::from(plan.header.blob_len);
        // The device tree is in the plan anyway.
        let reloads = plan.reloads_of(domain).unwrap_or(&[]);
        let copy: u64 = reloads.iter().filter(|part| part.offset >= own).map(|part| part.len).sum();
        text += &format!(
            "; at most {} restarts in {RESTART_PERIOD_S} s, pristine copy {copy} bytes, in no domain's reach",
            domain.restart_limit
        );
    }
    if domain.watchdog_ms != 0
        && let Some(cpu) = plan.cpus.get(usize::from(domain.watcher.0))
    {
        let who = plan.domains.get(usize::from(cpu.domain)).map_or("?", |domain| domain.name());
        text += &format!(
            "; watchdog: {} ms, looked after every {} ms by MPIDR {:#x} of {who}",
            domain.watchdog_ms, cpu.watch_ms, cpu.mpidr.0
        );
        if domain.watchdog_ipa != NO_WINDOW {
            text += &format!(
                ", its registers (arm,sbsa-gwdt) at {:#x} and SPI {}",
                domain.watchdog_ipa.0,
                domain.watchdog_intid.0 - 32
            );
        }
    }
    if domain.flags & DomainFlags::TRAP_WFI != 0 {
        text += if domain.flags & DomainFlags::INJECTED != 0 {
            "; WFI comes to the hypervisor, as the board asks (cofferdam,trap-wfi)"
        } else {
            "; WFI comes to the hypervisor, so that its CPUs can be fetched"
        };
    }
    text
}

fn facts(says: &[(&'static str, String)]) -> Json {
    Json::Object(says.iter().map(|(name, text)| (*name, string(text.as_str()))).collect())
}

fn tables(tables: &[Table]) -> Json {
    let all = tables.iter().map(|table| {
        let rows = table.rows.iter().map(|row| {
            Json::Object(table.heads.iter().zip(row).map(|(head, cell)| (*head, string(cell.as_str()))).collect())
        });
        object([("title", string(table.title.as_str())), ("rows", Json::Array(rows.collect()))])
    });
    Json::Array(all.collect())
}

/// What of its CPUs a domain has beyond the ordinary.
fn grants(flags: u32) -> String {
    let words = [
        (DomainFlags::SVE, "SVE"),
        (DomainFlags::PMU, "performance counters"),
        (DomainFlags::DEBUG, "debug registers"),
    ];
    let has: Vec<_> = words.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, word)| *word).collect();
    if has.is_empty() { "no SVE, performance counters or debug registers".into() } else { has.join(", ") }
}

fn checks(flags: u32) -> &'static str {
    if flags & HeaderFlags::VERIFY_AT_BOOT != 0 {
        "header, records, tables and device trees"
    } else {
        "header and records"
    }
}

fn machine(plan: &Plan<'_>) -> String {
    let header = plan.header;
    let cpus: Vec<_> = plan.cpus.iter().map(|cpu| format!("{:#x}", cpu.mpidr.0)).collect();
    let frequency = if header.cntfrq == 0 { "any".into() } else { format!("{} Hz", header.cntfrq) };
    format!(
        "MPIDR {}; {} physical address bits, {} VMID bits, {} interrupts, counter {frequency}",
        cpus.join(", "),
        header.pa_bits,
        header.vmid_bits,
        header.gicd_words * 32,
    )
}

/// The RAM the hypervisor holds.
pub(crate) struct HypervisorRam {
    image: u64,
    blob: u64,
    areas: u64,
    /// What SMMU and ITS read and write.
    dma: u64,
    /// Bytes of translation tables, part of the blob.
    pub(crate) tables: u64,
}

impl HypervisorRam {
    /// Adds it up. The blob lies behind the image and is counted in whole pages.
    pub(crate) fn new(plan: &Plan<'_>) -> Self {
        let header = plan.header;
        let spare = u64::from(header.spare_area_va != 0);
        let facts = plan.audit().map(|audit| audit.facts).unwrap_or_default();
        let dma = facts.iter().filter(|fact| fact.kind == fact::DMA_AREA).map(|fact| fact.region.size);
        Self {
            dma: dma.sum(),
            image: u64::from(header.blob_offset),
            blob: u64::from(header.blob_len).next_multiple_of(4096),
            areas: (plan.cpus.len() as u64 + spare) * CPU_AREA + plan.domains.len() as u64 * DOMAIN_AREA,
            tables: u64::from(header.tables.count) * 4096,
        }
    }

    /// Bytes in all.
    pub(crate) fn total(&self) -> u64 {
        self.image + self.blob + self.areas + self.dma
    }
}

impl std::fmt::Display for HypervisorRam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} bytes: image with .bss {}, plan and tables {}, stacks and domain state {}",
            self.total(),
            self.image,
            self.blob,
            self.areas
        )?;
        if self.dma != 0 { write!(f, ", tables and queues of SMMU and ITS {}", self.dma) } else { Ok(()) }
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// How interrupts reach a domain, and why so.
fn delivery(plan: &Plan<'_>, index: usize, domain: &cofferdam_plan::Domain) -> String {
    let header = plan.header;
    let v2 = header.flags & HeaderFlags::GICV2 != 0;
    if domain.flags & DomainFlags::INJECTED == 0 {
        let own = if v2 {
            "the hypervisor has none of its own there while the guest runs"
        } else if header.flags & HeaderFlags::GROUP0 != 0 {
            "the hypervisor's own are Group 0 FIQs"
        } else {
            "the hypervisor needs none of its own"
        };
        return format!("direct: its CPUs are its own, so interrupts go to EL1 with no exit; {own}");
    }
    if pci::sends(plan, index) {
        let why = "injected, for the messages of its PCI functions, which arrive as LPIs: the hypervisor takes its interrupts and hands them on through list registers; each costs an exit. With delivery = \"direct\" functions use their pins, without exits";
        return why.into();
    }
    let is_its = |cpu: &&cofferdam_plan::Cpu| usize::from(cpu.domain) == index;
    let taker = plan.cpus.get(usize::from(header.housekeeping_cpu.0)).filter(|_| header.console_intid != NO_INTID);
    let why = if v2 && taker.as_ref().is_some_and(is_its) {
        "since its first CPU takes what is typed"
    } else if v2 && plan.cpus.iter().filter(is_its).any(|cpu| cpu.watch_ms != 0) {
        "since its first CPU looks after a watchdog"
    } else {
        "as the layout asks"
    };
    format!(
        "injected, {why}: the hypervisor takes its interrupts and hands them on through list registers, and can preempt it; each costs an exit"
    )
}

/// Who gets what is typed, who pays for it, and how that is changed.
fn console_input(plan: &Plan<'_>) -> String {
    let header = plan.header;
    let reader = plan.domains.iter().find(|domain| domain.flags & DomainFlags::INPUT != 0);
    let (Some(reader), Some(cpu)) = (reader, plan.cpus.get(usize::from(header.housekeeping_cpu.0))) else {
        return "none".into();
    };
    let chord = match header.console_escape {
        0 => "nobody else can be chosen".into(),
        escape => format!("{escape:#04x} begins the chord for another domain"),
    };
    format!("to {} first; its CPU {:#x} takes the interrupt, whoever reads; {chord}", reader.name(), cpu.mpidr.0)
}
