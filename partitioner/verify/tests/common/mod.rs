//! A plan for the tests, written by hand: two domains on a board like QEMU's `virt`, with real tables and trees.
//!
//! Nothing of the compiler is used. A test changes one thing in [`Build`] (or in the bytes, then [`Blob::reseal`]) and asks
//! what the verifier says.
#![allow(dead_code, unreachable_pub)] // shared by several test programs, each of which uses a part

pub mod fdt;
pub mod pci;

use cofferdam_plan::audit::{Audit, Fact, Grant, Line, Name, Payload, fact, grant, line, payload};
use cofferdam_plan::*;
use cofferdam_verify::{Finding, Proof, Refusal, scratch_words, verify};
use fdt::Node;
use zerocopy::{FromZeros, IntoBytes};

pub const BASE: u64 = 0x4020_0000;
pub const BLOB_OFFSET: u64 = 0x1_0000;
pub const BLOB_PA: u64 = BASE + BLOB_OFFSET;
pub const GICD: u64 = 0x0800_0000;
pub const GICR: u64 = 0x080A_0000;
pub const UART: u64 = 0x0900_0000;
pub const GPIO: u64 = 0x0903_0000;
pub const HYP: u64 = va::HYP_VA;
/// EL2 addresses of areas, devices and windows, 64 KiB apart.
pub const AREAS: u64 = HYP + 0x100_0000;
pub const DEVICES: u64 = HYP + 0x200_0000;
pub const WINDOWS: u64 = HYP + 0x300_0000;
/// Where areas lie, inside the hypervisor's 2 MiB.
pub const AREAS_PA: u64 = BASE + 0x10_0000;

pub const S2_RAM: u64 = 0b1111 << 2 | 0b11 << 6 | 0b11 << 8 | 1 << 10;
pub const S2_DEVICE: u64 = 0b0001 << 2 | 0b11 << 6 | 1 << 10 | 0b10 << 53;
pub const EL2_CODE: u64 = 1 << 2 | 1 << 6 | 1 << 7 | 0b11 << 8 | 1 << 10;
pub const EL2_CONST: u64 = EL2_CODE | 1 << 54;
pub const EL2_DATA: u64 = EL2_CONST & !(1 << 7);
pub const EL2_DEVICE: u64 = 1 << 6 | 1 << 10 | 1 << 54;

/// Image offset of the pristine copy of `alpha`'s kernel.
pub const PRISTINE: u64 = 0x1F_0000;
/// Stands for the image offset of a domain's tree, which is known late.
pub const TREE: u64 = u64::MAX;

/// One mapping of a set of tables.
#[derive(Clone, Copy)]
pub struct Map {
    pub at: u64,
    pub pa: u64,
    pub size: u64,
    pub attributes: u64,
}

/// Everything the plan says, as data.
#[derive(Clone)]
pub struct Build {
    pub header: Header,
    pub cpus: Vec<Cpu>,
    pub domains: Vec<Domain>,
    pub vcpus: Vec<CpuIndex>,
    pub spis: Vec<Spi>,
    pub icfgr: Vec<u32>,
    pub moves: Vec<Move>,
    pub probes: Vec<Probe>,
    pub scrubs: Vec<Scrub>,
    pub reloads: Vec<Move>,
    /// Per domain: what its restart root maps beside the page of its tree; empty where it has none.
    pub restart: Vec<Vec<Map>>,
    pub facts: Vec<Fact>,
    pub grants: Vec<Grant>,
    pub lines: Vec<Line>,
    pub payloads: Vec<Payload>,
    pub names: Vec<u8>,
    pub el2: Vec<Map>,
    /// Per domain.
    pub stage2: Vec<Vec<Map>>,
    pub trees: Vec<Node>,
    pub pci: Option<pci::PciBuild>,
}

/// The finished bytes, aligned.
#[derive(Clone)]
pub struct Blob {
    words: Vec<u64>,
    len: usize,
}

impl Blob {
    pub fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[..self.len]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.words.as_mut_bytes()[..self.len]
    }

    /// Makes both checksums hold again, so that only the proof can object.
    pub fn reseal(&mut self) {
        let word = |b: &[u8], at: usize| u32::from_le_bytes(b[at..at + 4].try_into().unwrap());
        let bytes = self.bytes_mut();
        let (records_len, blob_len) = (word(bytes, 16), word(bytes, 20));
        let tables = tables_checksum(bytes, records_len, blob_len).unwrap();
        bytes[24..28].copy_from_slice(&tables.to_le_bytes());
        let records = records_checksum(bytes, records_len).unwrap();
        bytes[8..12].copy_from_slice(&records.to_le_bytes());
    }

    pub fn verify(&self) -> (Result<Proof, Refusal>, Vec<Finding>) {
        let mut findings = Vec::new();
        let mut scratch = vec![u32::MAX; scratch_words(self.bytes())];
        let result = verify(self.bytes(), &mut scratch, &mut |f| findings.push(f));
        (result, findings)
    }
}

pub fn name(text: &str) -> [u8; 32] {
    let mut name = [0; 32];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}

pub fn pa(base: u64, size: u64) -> PaRegion {
    PaRegion::new(Pa(base), size).unwrap()
}

pub fn ipa(base: u64, size: u64) -> IpaRegion {
    IpaRegion::new(Ipa(base), size).unwrap()
}

fn tree(cpus: u32, memory: &[u32], vuart: u32, spi: u32, gpio: bool) -> Node {
    let cpu = |n| Node::new(&format!("cpu@{n}")).text("device_type", "cpu").cells("reg", &[n]);
    let mut cpus_node = Node::new("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]);
    cpus_node.children = (0..cpus).map(cpu).collect();
    let mut root = Node::new("")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[2])
        .cells("interrupt-parent", &[1])
        .child(cpus_node)
        .child(Node::new("memory@40000000").text("device_type", "memory").cells("reg", memory))
        .child(
            Node::new("intc@8000000")
                .text("compatible", "arm,gic-v3")
                .cells("phandle", &[1])
                .cells("reg", &[0, GICD as u32, 0, 0x1_0000, 0, GICR as u32, 0, 0x2_0000 * cpus]),
        )
        .child(Node::new("timer").cells("interrupts", &[1, 14, 4, 1, 11, 4]))
        .child(Node::new("pl011").cells("reg", &[0, vuart, 0, 0x1000]).cells("interrupts", &[0, spi, 4]));
    if gpio {
        let device = Node::new("gpio@9030000").cells("reg", &[0x0903_0000, 0x1000]).cells("interrupts", &[0, 7, 4]);
        let bus = Node::new("soc").cells("#address-cells", &[1]).cells("#size-cells", &[1]);
        root = root.child(bus.cells("ranges", &[0x0900_0000, 0, 0x0900_0000, 0x10_0000]).child(device));
    }
    root
}

impl Build {
    /// Two domains: `alpha` with one CPU, `beta` with two, a GPIO block and memory that is not whole blocks.
    pub fn two() -> Self {
        let mut names = Vec::new();
        let mut named = |text: &str| {
            names.extend(text.as_bytes());
            Name { offset: (names.len() - text.len()) as u32, len: text.len() as u32 }
        };
        let gpio_name = named("/pl061@9030000");
        let file = named("kernel.elf");
        let none = Name::default();
        let fact = |region, kind, name| Fact { region, kind, owner: 0, name };
        let facts = vec![
            fact(pa(0x4000_0000, 0x2000_0000), fact::RAM, none),
            fact(pa(0x5F00_0000, 0x10_0000), fact::RESERVED, none),
            fact(pa(GICD, 0x1_0000), fact::FORBIDDEN, none),
            fact(pa(GICR, 0xF6_0000), fact::FORBIDDEN, none),
            fact(pa(UART, 0x1000), fact::FORBIDDEN, none),
            fact(pa(BASE, 0x20_0000), fact::HYPERVISOR, none),
            Fact { owner: 2, ..fact(pa(GPIO, 0x1000), fact::DEVICE, gpio_name) },
            fact(pa(0x0901_0000, 0x1000), fact::DEVICE, named("/rtc@9010000")),
        ];
        let ram = |i, p, size, domain| Grant {
            ipa: ipa(i, size),
            pa: pa(p, size),
            domain,
            kind: grant::RAM,
            name: Name::default(),
        };
        let grants = vec![
            ram(0x4000_0000, 0x4040_0000, 0x20_0000, 0),
            ram(0x4020_0000, 0x5000_0000, 0x20_0000, 0),
            ram(0x4000_0000, 0x4060_0000, 0x20_0000, 1),
            ram(0x4020_0000, 0x5100_0000, 0x1000, 1),
            Grant { ipa: ipa(GPIO, 0x1000), pa: pa(GPIO, 0x1000), domain: 1, kind: grant::DEVICE, name: gpio_name },
        ];
        let line = |intid, domain, kind, edge| Line { intid: IntId(intid), domain, kind, edge, name: Name::default() };
        let lines = vec![
            line(27, 0, line::PPI, 0),
            line(30, 0, line::PPI, 0),
            line(27, 1, line::PPI, 0),
            line(30, 1, line::PPI, 0),
            line(33, u32::MAX, line::HYPERVISOR, 0),
            line(34, 0, line::VUART, 0),
            line(35, 1, line::VUART, 0),
            line(39, 1, line::DEVICE, 1),
        ];
        let mut icfgr = vec![0; 16];
        icfgr[0] = 2 << (2 * 7);
        let trees = vec![
            tree(1, &[0, 0x4000_0000, 0, 0x40_0000], 0x080C_0000, 2, false),
            tree(2, &[0, 0x4000_0000, 0, 0x20_1000], 0x080E_0000, 3, true),
        ];

        let mut header = Header::new_zeroed();
        header.magic = MAGIC;
        header.version = VERSION;
        header.flags = HeaderFlags::GROUP0;
        header.base = Pa(BASE);
        header.image_len = 0x40_3000;
        header.tcr_el2 = 0x8080_0000 | 2 << 16 | 0x3500 | (64 - 32);
        header.console_pa = Pa(UART);
        header.console_pa_again = Pa(UART);
        header.console_va = DEVICES;
        header.console_kind = UartKind::PL011;
        header.console_intid = IntId(33);
        header.gicd_va = DEVICES + 0x2_0000;
        header.gicd_ipa = Ipa(GICD);
        header.gicr_ipa = Ipa(GICR);
        header.gicd_words = 9;
        header.kick_sgi = IntId(15);
        header.pa_bits = 40;
        header.vmid_bits = 8;
        header.blob_offset = BLOB_OFFSET as u32;

        let cpu = |n: u64, domain, vcpu| Cpu {
            mpidr: Mpidr(n),
            gicr_va: DEVICES + 0x4_0000 + n * 0x4_0000,
            area_va: AREAS + n * 0x1_0000,
            domain,
            vcpu,
            gicv2_target: 0,
            watch_ms: 0,
            reserved: 0,
        };
        let domain = |n: u64, text, vuart: u64, first_vcpu, vcpu_count, owned: &[u32]| {
            let mut d = Domain::new_zeroed();
            d.name = name(text);
            d.vtcr = 1 << 31 | 2 << 16 | 0x3500 | 1 << 6 | (64 - 32);
            d.entry = Ipa(0x4000_0000);
            d.dtb = Ipa(0x4020_0000);
            d.vuart_ipa = Ipa(vuart);
            d.root_va = WINDOWS + n * 0x1_0000;
            d.area_va = AREAS + 0x80_0000 + n * 0x1_0000;
            d.root_entries = 4;
            d.vuart_intid = IntId(34 + n as u32);
            (d.watchdog_ipa, d.watchdog_intid) = (NO_WINDOW, NO_INTID);
            d.flags = DomainFlags::CONSOLE | if n == 0 { DomainFlags::INPUT } else { 0 };
            d.first_vcpu = first_vcpu;
            d.vcpu_count = vcpu_count;
            d.first_scrub = n as u32;
            d.scrub_count = 1;
            d.gicd_typer = 8;
            d.owned[0] = 0x7FFF | 1 << 27 | 1 << 30;
            d.owned[1] = owned.iter().map(|i| 1 << (i - 32)).sum();
            d
        };
        let mut el2 = vec![
            Map { at: HYP, pa: BASE, size: 0x8000, attributes: EL2_CODE },
            Map { at: HYP + 0x8000, pa: BASE + 0x8000, size: 0x4000, attributes: EL2_CONST },
            Map { at: HYP + 0xC000, pa: BASE + 0xC000, size: 0x4000, attributes: EL2_DATA },
            Map { at: BASE, pa: BASE, size: 0x1000, attributes: EL2_CODE },
            Map { at: DEVICES, pa: UART, size: 0x1000, attributes: EL2_DEVICE },
            Map { at: DEVICES + 0x2_0000, pa: GICD, size: 0x1_0000, attributes: EL2_DEVICE },
        ];
        for n in 0..3 {
            let area = AREAS_PA + n * va::CPU_AREA;
            el2.push(Map { at: AREAS + n * 0x1_0000, pa: area, size: va::CPU_AREA, attributes: EL2_DATA });
            let at = DEVICES + 0x4_0000 + n * 0x4_0000;
            el2.push(Map { at, pa: GICR + n * 0x2_0000, size: 0x2_0000, attributes: EL2_DEVICE });
        }
        for n in 0..2 {
            let pa = AREAS_PA + 0x1_0000 + n * va::DOMAIN_AREA;
            el2.push(Map { at: AREAS + 0x80_0000 + n * 0x1_0000, pa, size: va::DOMAIN_AREA, attributes: EL2_DATA });
        }
        let stage2 = (0..2)
            .map(|n| {
                let own = grants.iter().filter(|g| g.domain == n);
                let attributes = |g: &Grant| if g.kind == grant::RAM { S2_RAM } else { S2_DEVICE };
                own.map(|g| Map { at: g.ipa.base.0, pa: g.pa.base.0, size: g.pa.size, attributes: attributes(g) })
                    .collect()
            })
            .collect();
        let kernel = |i, p: u64, len, size, domain| Payload {
            ipa: ipa(i, size),
            pa: pa(p, size),
            offset: p - BASE,
            len,
            pristine: 0,
            domain,
            kind: payload::KERNEL,
            name: file,
        };
        Self {
            header,
            cpus: vec![cpu(0, 0, 0), cpu(1, 1, 0), cpu(2, 1, 1)],
            domains: vec![
                domain(0, "alpha", 0x080C_0000, 0, 1, &[34]),
                domain(1, "beta", 0x080E_0000, 1, 2, &[35, 39]),
            ],
            vcpus: vec![CpuIndex(0), CpuIndex(1), CpuIndex(2)],
            spis: [(34, 0), (35, 1), (39, 1)].map(|(i, router)| Spi { router, intid: IntId(i), reserved: 0 }).to_vec(),
            icfgr,
            moves: Vec::new(),
            probes: vec![Probe { at: Pa(0x501F_FFF8) }, Probe { at: Pa(0x5100_0FF8) }],
            scrubs: vec![
                Scrub { base: Pa(0x5010_0000), size: 0x10_0000 },
                Scrub { base: Pa(0x4061_0000), size: 0x1F_0000 },
            ],
            reloads: Vec::new(),
            restart: vec![Vec::new(); 2],
            facts,
            grants,
            lines,
            payloads: vec![
                kernel(0x4000_0000, 0x4040_0000, 0x3000, 0x3000, 0),
                kernel(0x4000_0000, 0x4060_0000, 0x3000, 0x4000, 1),
            ],
            names,
            el2,
            stage2,
            trees,
            pci: None,
        }
    }

    /// The bytes, with addresses that depend on them filled in.
    pub fn blob(&self) -> Blob {
        let mut b = self.clone();
        let mut out = vec![0u8; size_of::<Header>()];
        b.header.cpus = append(&mut out, &b.cpus);
        b.header.vcpus = append(&mut out, &b.vcpus);
        b.header.spis = append(&mut out, &b.spis);
        b.header.icfgr = append(&mut out, &b.icfgr);
        b.header.moves = append(&mut out, &b.moves);
        // Trees add one move each, tables change what the domains say: room first, contents below.
        let moves_end = out.len() + b.trees.len() * size_of::<Move>();
        out.resize(moves_end, 0);
        b.header.probes = append(&mut out, &b.probes);
        b.header.scrubs = append(&mut out, &b.scrubs);
        b.header.reloads = append(&mut out, &b.reloads);
        b.header.domains = append(&mut out, &b.domains);
        if let Some(pci) = &mut b.pci {
            b.header.pci = pci.append(&mut out);
        }
        out.resize(out.len().next_multiple_of(16), 0);
        b.header.records_len = out.len() as u32;

        let mut audit = Audit::default();
        let audit_at = out.len();
        out.resize(audit_at + size_of::<Audit>(), 0);
        audit.facts = append(&mut out, &b.facts);
        audit.grants = append(&mut out, &b.grants);
        audit.lines = append(&mut out, &b.lines);
        audit.names = append(&mut out, &b.names);
        out.resize(out.len().next_multiple_of(8), 0);
        // Trees' payloads follow the given ones.
        let payloads_at = out.len();
        let payloads_len = (b.payloads.len() + b.trees.len()) * size_of::<Payload>();
        out.resize((payloads_at + payloads_len).next_multiple_of(4096), 0);

        let tables_at = out.len();
        let mut tables = Tables { pages: Vec::new(), pa: BLOB_PA + tables_at as u64 };
        let mut cpu_roots = Vec::new();
        let start = |t0sz: u64| {
            if t0sz <= 24 {
                0
            } else if t0sz <= 33 {
                1
            } else {
                2
            }
        };
        for (d, maps) in b.domains.iter_mut().zip(&b.stage2) {
            let root = tables.page();
            cpu_roots.push(root);
            maps.iter().for_each(|m| tables.map(root, start(d.vtcr & 0x3F), *m));
            // A test may have put a VMID or CnP there already.
            let (vmid, low) = (d.vttbr >> 48, d.vttbr & 1);
            let vmid = if vmid == 0 { u64::from(d.vuart_intid.0) - 33 } else { vmid & 0x7FFF };
            d.vttbr = vmid << 48 | tables.pa_of(root) | low;
            if d.root_va != 0 {
                let window = Map { at: d.root_va, pa: tables.pa_of(root), size: 4096, attributes: EL2_DATA };
                b.el2.push(window);
            }
        }
        if let Some(pci) = &mut b.pci {
            pci.add_tables(&mut tables, &cpu_roots, &b.domains);
        }
        let root = tables.page();
        b.header.ttbr0_el2 |= tables.pa_of(root);
        let records_pages = u64::from(b.header.records_len).next_multiple_of(4096);
        b.el2.push(Map { at: HYP + BLOB_OFFSET, pa: BLOB_PA, size: records_pages, attributes: EL2_CONST });
        b.el2.iter().for_each(|m| tables.map(root, start(b.header.tcr_el2 & 0x3F), *m));
        for (d, maps) in b.domains.iter_mut().zip(&b.restart).filter(|(_, maps)| !maps.is_empty()) {
            let root = tables.page();
            d.restart_ttbr |= tables.pa_of(root);
            maps.iter().for_each(|m| tables.map(root, start(b.header.tcr_el2 & 0x3F), *m));
            // The first tree follows the tables; its page is in a table that is there already.
            let at = tables.pa_of(tables.pages.len());
            let tree = Map { at, pa: at, size: 0x1000, attributes: EL2_CONST };
            tables.map(root, start(b.header.tcr_el2 & 0x3F), tree);
        }
        b.header.tables = Table { offset: tables_at as u32, count: tables.pages.len() as u32 };
        tables.pages.iter().for_each(|page| out.extend(page.as_bytes()));

        for (i, tree) in b.trees.iter().enumerate() {
            let bytes = tree.flatten();
            let len = (bytes.len() as u64).next_multiple_of(16);
            let to = if i == 0 { 0x5000_0000 } else { 0x5100_0000 };
            let offset = BLOB_OFFSET + out.len() as u64;
            b.moves.push(Move { offset, to: Pa(to), len, zero: 0 });
            for reload in b.reloads.iter_mut().filter(|reload| reload.offset == TREE && reload.to.0 == to) {
                (reload.offset, reload.len, reload.zero) = (offset, len, reload.zero - len);
            }
            b.payloads.push(Payload {
                ipa: ipa(0x4020_0000, len),
                pa: pa(to, len),
                offset,
                len,
                pristine: if b.domains[i].restart_ttbr != 0 { offset } else { 0 },
                domain: i as u32,
                kind: payload::DTB,
                name: Name::default(),
            });
            out.extend(bytes);
            out.resize(out.len().next_multiple_of(16), 0);
        }
        b.header.moves.count = b.moves.len() as u32;
        audit.payloads = Table { offset: payloads_at as u32, count: b.payloads.len() as u32 };
        b.header.audit = Table { offset: audit_at as u32, count: size_of::<Audit>() as u32 };
        b.header.blob_len = out.len() as u32;
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b.header.as_bytes());
        put(b.header.domains.offset as usize, b.domains.as_bytes());
        put(b.header.moves.offset as usize, b.moves.as_bytes());
        put(b.header.reloads.offset as usize, b.reloads.as_bytes());
        if let Some(pci) = &b.pci {
            pci.put(b.header.pci, &mut put);
        }
        put(audit_at, audit.as_bytes());
        put(payloads_at, b.payloads.as_bytes());

        let mut blob = Blob { words: vec![0; out.len().div_ceil(8)], len: out.len() };
        blob.bytes_mut().copy_from_slice(&out);
        blob.reseal();
        blob
    }
}

pub fn append<T: IntoBytes + zerocopy::Immutable>(out: &mut Vec<u8>, records: &[T]) -> Table {
    out.resize(out.len().next_multiple_of(8), 0);
    let offset = out.len() as u32;
    records.iter().for_each(|r| out.extend(r.as_bytes()));
    Table { offset, count: records.len() as u32 }
}

/// The tests' own table writer.
pub struct Tables {
    pub pages: Vec<[u64; 512]>,
    pub pa: u64,
}

impl Tables {
    pub fn page(&mut self) -> usize {
        self.pages.push([0; 512]);
        self.pages.len() - 1
    }

    pub fn pa_of(&self, page: usize) -> u64 {
        self.pa + page as u64 * 4096
    }

    pub fn map(&mut self, root: usize, start: u32, m: Map) {
        let mut done = 0;
        while done < m.size {
            let (at, pa) = (m.at + done, m.pa + done);
            let block = (at | pa) % 0x20_0000 == 0 && m.size - done >= 0x20_0000;
            let (last, kind, size) = if block { (2, 1, 0x20_0000) } else { (3, 3, 4096) };
            let mut page = root;
            for level in start..last {
                let slot = (at >> (12 + 9 * (3 - level)) & 511) as usize;
                if self.pages[page][slot] == 0 {
                    let next = self.page();
                    self.pages[page][slot] = self.pa_of(next) | 3;
                }
                page = (((self.pages[page][slot] & 0xFFFF_FFFF_F000) - self.pa) / 4096) as usize;
            }
            let slot = (at >> (12 + 9 * (3 - last)) & 511) as usize;
            self.pages[page][slot] = pa | m.attributes | kind;
            done += size;
        }
    }
}
