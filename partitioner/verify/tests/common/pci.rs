//! PCI for the two domains: `alpha` has a network card on the root bus and a disk behind a bridge, both with MSI-X; `beta` has a
//! function with INTx; a serial port is nobody's.

use super::fdt::Node;
use super::*;
use cofferdam_plan::pci::{Bar, Function, FunctionFlags, Its, NONE, Pci, PciDomain, Rule, RuleKind, Smmu};
use cofferdam_plan::{NO_DOMAIN, NO_WINDOW};

pub const ECAM: u64 = 0x3F00_0000;
pub const WINDOW: u64 = 0x1000_0000;
pub const SMMU: u64 = 0x0905_0000;
pub const ITS: u64 = 0x0808_0000;
pub const DOORBELL: u64 = ITS + 0x1_0000;
/// The DMA area and its pieces.
pub const AREA: u64 = BASE + 0x14_0000;
pub const STREAMS: u64 = AREA;
pub const PENDING: u64 = AREA + 0x1_0000;
pub const COMMANDS: u64 = AREA + 0x1_1000;
pub const EVENTS: u64 = AREA + 0x1_2000;
pub const DEVICES_TABLE: u64 = AREA + 0x1_3000;
pub const COLLECTIONS: u64 = AREA + 0x1_4000;
pub const STATE: u64 = AREA + 0x1_5000;
pub const ITTS: u64 = AREA + 0x1_6000;
pub const AREA_SIZE: u64 = 0x1_A000;
/// EL2 addresses.
pub const PCI_VA: u64 = HYP + 0x400_0000;
/// Requester IDs, in the order of the functions.
pub const NIC: u16 = 0x0010;
pub const DISK: u16 = 0x0100;
pub const CARD: u16 = 0x0018;
pub const BRIDGE: u16 = 0x0048;
pub const SERIAL: u16 = 0x0040;

/// Records and what they lead to, as data.
#[derive(Clone)]
pub struct PciBuild {
    pub record: Pci,
    pub functions: Vec<Function>,
    pub rules: Vec<Rule>,
    /// Which of them decides a dword; [`PciBuild::index`] makes it, and the owners' places.
    pub dwords: Vec<u8>,
    pub owners: Vec<PciDomain>,
    pub lpis: Vec<u32>,
    pub pending: Vec<u64>,
    pub commands: Vec<[u64; 4]>,
    pub properties: Vec<u8>,
    /// Per domain: what its functions reach, beside what `shared` takes from the CPU's tables.
    pub dma: Vec<Vec<Map>>,
    /// Per domain: entries of the CPU's root that its DMA root has too.
    pub shared: Vec<Vec<usize>>,
    /// A domain whose DMA root has a table of another's CPU root, and that other.
    pub borrow: Option<(usize, usize)>,
}

pub fn rule(offset: u16, read: u32, constant: u32, write: u32, clear: u32) -> Rule {
    Rule { offset, kind: RuleKind::REGISTER, read, constant, write, clear }
}

fn kind(kind: u16, rule: Rule) -> Rule {
    Rule { kind, ..rule }
}

/// Header of a Type 0 function, `bars` of its registers.
fn header(id: u32, bars: &[u16], msi: bool) -> Vec<Rule> {
    let pin = if msi { 0 } else { 0xFF00 };
    let disable = if msi { 0 } else { 1 << 10 };
    let mut rules = vec![
        rule(0x00, 0, id, 0, 0),
        rule(0x04, 0xFF00_0546 | disable, 1 << 20 | (1 << 10) ^ disable, 0xF900_0146 | disable, 0xF900_0000),
        rule(0x08, !0, 0, 0, 0),
        rule(0x0C, 0xFF, 0, 0xFF, 0),
    ];
    rules.extend(bars.iter().map(|bar| kind(RuleKind::BAR, rule(*bar, 0, 0, 0, 0))));
    rules.extend([rule(0x2C, !0, 0, 0, 0), rule(0x34, 0, 0x40, 0, 0), rule(0x3C, 0xFF | pin, 0, 0xFF, 0)]);
    rules.sort_by_key(|rule| rule.offset);
    rules
}

/// Power management at 0x40, MSI-X at 0x48 or nothing, PCI Express at 0x60, errors at 0x100.
fn capabilities(msi_x: Option<u32>) -> Vec<Rule> {
    let next = if msi_x.is_some() { 0x48 } else { 0x60 };
    let mut rules = vec![
        rule(0x40, 0xFFFF_0000, next << 8 | 0x01, 0, 0),
        kind(RuleKind::POWER, rule(0x44, 0x8008, 0, 0x8000, 0x8000)),
    ];
    if let Some(vectors) = msi_x {
        rules.extend([
            rule(0x48, 0xC000_0000, (vectors - 1) << 16 | 0x6011, 0xC000_0000, 0),
            rule(0x4C, !0, 0, 0, 0),
            rule(0x50, !0, 0, 0, 0),
        ]);
    }
    rules.extend([
        rule(0x60, 0, 0x0002_0010, 0, 0),
        rule(0x64, !0, 0, 0, 0),
        kind(RuleKind::CONTROL, rule(0x68, 0x003F_FFFF, 0, 0x000F_0810, 0x000F_0000)),
        rule(0x100, 0, 0x0002_0001, 0, 0),
        rule(0x104, !0, 0, !0, !0),
    ]);
    rules
}

fn bar(mask: u32, value: u32) -> Bar {
    Bar { mask, value, shown: mask }
}

fn name16(text: &str) -> [u8; 16] {
    let mut name = [0; 16];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}

/// The entry of a stream, without its root.
fn ste(vmid: u64, vtcr: u64) -> [u64; 4] {
    let geometry = (vtcr & 0x7_FFFF) << 32 | 1 << 51;
    [1 | 0b110 << 1, 0b01 << 44, vmid | geometry | 1 << 58, 0]
}

impl Build {
    /// Two domains with PCI functions.
    pub fn pci() -> Self {
        let mut b = Self::two();
        let fact = |region, kind, owner| Fact { region, kind, owner, name: Name::default() };
        let page = |rid: u16| pa(ECAM + u64::from(rid) * 0x1000, 0x1000);
        for (base, size, kind) in
            [(ECAM, 0x20_0000, fact::ECAM), (SMMU, 0x2_0000, fact::SMMU), (ITS, 0x2_0000, fact::ITS)]
        {
            b.facts.extend([fact(pa(base, size), kind, 0), fact(pa(base, size), fact::FORBIDDEN, 0)]);
        }
        b.facts.push(fact(pa(WINDOW, 0x100_0000), fact::PCI_WINDOW, 0));
        b.facts.push(fact(pa(AREA, AREA_SIZE), fact::DMA_AREA, 0));
        for rid in [NIC, DISK, CARD, SERIAL] {
            b.facts.push(fact(page(rid), fact::STREAM, u32::from(rid)));
            b.facts.push(fact(page(rid), fact::DEVICE_ID, u32::from(rid)));
        }
        // Registers: of the network card, the disk behind the bridge, and the card of beta.
        for (base, size, domain) in
            [(WINDOW, 0x2_0000, 0), (WINDOW + 0x10_0000, 0x4000, 0), (WINDOW + 0x2_0000, 0x100, 1)]
        {
            let pages = 0x1000.max(size);
            b.facts.push(Fact { owner: domain + 1, ..fact(pa(base, size), fact::DEVICE, 0) });
            let (at, to) = (ipa(base, pages), pa(base, pages));
            b.grants.push(Grant { ipa: at, pa: to, domain, kind: grant::DEVICE, name: Name::default() });
            b.stage2[domain as usize].push(Map { at: base, pa: base, size: pages, attributes: S2_DEVICE });
        }
        b.moves.push(Move { offset: 0, to: Pa(AREA), len: 0, zero: AREA_SIZE });
        b.lines.extend((64..68).map(|i| Line {
            intid: IntId(i),
            domain: 0,
            kind: line::MSI,
            edge: 1,
            name: Name::default(),
        }));
        let of = |intid, domain, kind, edge| Line { intid: IntId(intid), domain, kind, edge, name: Name::default() };
        b.lines.push(of(25, 0, line::MAINTENANCE, 0));
        b.lines.push(of(40, 1, line::DEVICE, 0));
        b.lines.extend([106, 109].map(|i| of(i, u32::MAX, line::HYPERVISOR, 1)));
        b.icfgr[2] = 0b1010_1010;
        b.icfgr[4] = 2 << 20 | 2 << 26;
        b.spis.push(Spi { router: 1, intid: IntId(40), reserved: 0 });
        b.spis.extend((64..68).map(|i| Spi { router: 0, intid: IntId(i), reserved: 0 }));
        // Alpha is told of a frame for MSIs, beta of a pin.
        let reg = [0, ECAM as u32, 0, 0x10_0000];
        let host = |ranges: &[u32]| {
            let node = Node::new("pcie@3f000000").text("device_type", "pci").cells("reg", &reg).cells("ranges", ranges);
            node.cells("#address-cells", &[3]).cells("#size-cells", &[2])
        };
        let window = WINDOW as u32;
        let frame = Node::new("v2m@8090000").cells("reg", &[0, DOORBELL as u32, 0, 0x1000]);
        let frame = frame.cells("arm,msi-base-spi", &[64]).cells("arm,msi-num-spis", &[4]);
        let gic = b.trees[0].get("intc@8000000");
        gic.children.push(frame);
        gic.set("ranges", &[]);
        gic.set("#address-cells", &[2]);
        gic.set("#size-cells", &[2]);
        b.trees[0].children.push(host(&[0x0200_0000, 0, window, 0, window, 0, 0x20_0000]));
        let card = host(&[0x0200_0000, 0, window + 0x2_0000, 0, window + 0x2_0000, 0, 0x1000]);
        b.trees[1]
            .children
            .push(card.cells("#interrupt-cells", &[1]).cells("interrupt-map", &[0x1800, 0, 0, 1, 1, 0, 8, 4]));
        b.domains[0].flags |= DomainFlags::INJECTED;
        b.domains[0].owned[2] = 0b1111;
        b.domains[1].owned[1] |= 1 << 8;

        let mut rules = Vec::new();
        let mut take = |list: Vec<Rule>| {
            let first = rules.len() as u32;
            rules.extend(list);
            (first, rules.len() as u32 - first)
        };
        let mut function = |index: u64, rid: u16, domain: u16, id: u32, flags: u32, list: Vec<Rule>, text: &str| {
            let mut f = Function::new_zeroed();
            f.config_va = PCI_VA + index * 0x1000;
            (f.id, f.class, f.flags, f.rid, f.domain) = (id, 0x0200_0000, flags, rid, domain);
            (f.first_rule, f.rule_count) = take(list);
            f.name = name16(text);
            if flags & FunctionFlags::DMA != 0 {
                (f.stream, f.ste_offset) = (u32::from(rid), u32::from(rid) * 64);
            }
            f
        };
        let powers = FunctionFlags::DMA | FunctionFlags::MSI;
        let list = [header(0x10D3_8086, &[0x10, 0x18, 0x30], true), capabilities(Some(2))].concat();
        let mut nic = function(0, NIC, 0, 0x10D3_8086, powers, list, "nic0");
        nic.bars[0] = bar(0xFFFE_0000, WINDOW as u32);
        nic.bars[2] = Bar { mask: 0xFFFF_FFE1, value: 0, shown: 0 };
        nic.bars[6] = Bar { mask: 0xFFFC_0001, value: 0, shown: 0 };
        nic.devfn = 0x10;
        let list = [header(0x0010_1B36, &[0x10, 0x14], true), capabilities(Some(2))].concat();
        let mut disk = function(1, DISK, 0, 0x0010_1B36, powers | FunctionFlags::FLR, list, "nvme0");
        disk.bars[0] = bar(0xFFFF_C004, WINDOW as u32 + 0x10_0004);
        disk.bars[1] = bar(0xFFFF_FFFF, 0);
        (disk.devfn, disk.reset) = (0x20, 0x68);
        let list = [header(0x11E8_1234, &[0x10], false), capabilities(None)].concat();
        let mut card = function(2, CARD, 1, 0x11E8_1234, FunctionFlags::DMA, list, "edu0");
        card.bars[0] = bar(0xFFFF_FF00, WINDOW as u32 + 0x2_0000);
        card.devfn = 0x18;
        let mut bridge = function(3, BRIDGE, NO_DOMAIN, 0x000C_1B36, FunctionFlags::BRIDGE, vec![], "rp0");
        bridge.bars[0] = Bar { mask: 0xFFFF_F000, value: WINDOW as u32 + 0x20_0000, shown: 0 };
        // Bus 1, no I/O, one MiB from the window's second on, nothing prefetchable.
        bridge.bridge = [0x0001_0100, 0x00F0, 0x1010_1010, 0x0000_FFF0, 0];
        let mut serial = function(4, SERIAL, NO_DOMAIN, 0x0002_1B36, 0, vec![], "serial0-pci");
        serial.bars[0] = Bar { mask: 0xFFFF_FFF9, value: 0, shown: 0 };
        nic.ste = ste(1, b.domains[0].vtcr);
        disk.ste = nic.ste;
        card.ste = ste(2, b.domains[1].vtcr);

        for i in 0..5u64 {
            let rid = [NIC, DISK, CARD, BRIDGE, SERIAL][i as usize];
            let at = ECAM + u64::from(rid) * 0x1000;
            b.el2.push(Map { at: PCI_VA + i * 0x1000, pa: at, size: 0x1000, attributes: EL2_DEVICE });
        }
        let registers = [(0x10_0000, SMMU, 0x2_0000), (0x12_0000, ITS, 0x1_0000)];
        b.el2.extend(registers.map(|(at, pa, size)| Map { at: PCI_VA + at, pa, size, attributes: EL2_DEVICE }));
        let memory = [
            (0x20_0000, STREAMS, 0x1_0000),
            (0x21_0000, COMMANDS, 0x1000),
            (0x21_1000, EVENTS, 0x1000),
            (0x21_2000, STATE, 0x1000),
        ];
        b.el2.extend(memory.map(|(at, pa, size)| Map { at: PCI_VA + at, pa, size, attributes: EL2_DATA }));

        let write_back = 7 << 59 | 1 << 10;
        let mut record = Pci::new_zeroed();
        record.smmu = Smmu {
            registers_va: PCI_VA + 0x10_0000,
            stream_table_base: 1 << 62 | STREAMS,
            stream_table_va: PCI_VA + 0x20_0000,
            command_base: 1 << 62 | COMMANDS | 8,
            commands_va: PCI_VA + 0x21_0000,
            event_base: 1 << 62 | EVENTS | 7,
            events_va: PCI_VA + 0x21_1000,
            stream_table_cfg: 10,
            event_intid: IntId(106),
            error_intid: IntId(109),
            stream_bits: 10,
            address_bits: 40,
            cr1: 0xD75,
        };
        record.its = Its {
            control_va: PCI_VA + 0x12_0000,
            command_base: 1 << 63 | write_back,
            command_end: 10 * 32,
            device_base: 1 << 63 | write_back | DEVICES_TABLE,
            collection_base: 1 << 63 | write_back | COLLECTIONS,
            properties: 7 << 7 | 1 << 10 | 13,
            device_bits: 10,
            event_bits: 10,
            entry_size: 8,
            reserved: 0,
        };
        record.state_va = PCI_VA + 0x21_2000;
        let map_event = |rid: u16, event: u64, lpi: u64| [u64::from(rid) << 32 | 0x0A, lpi << 32 | event, 0, 0];
        let map_device = |rid: u16, n: u64| [u64::from(rid) << 32 | 0x08, 9, 1 << 63 | (ITTS + n * 0x2000), 0];
        let commands = vec![
            [0x09, 0, 1 << 63, 0],
            map_device(NIC, 0),
            map_event(NIC, 64, 8192),
            map_event(NIC, 65, 8193),
            map_device(DISK, 1),
            map_event(DISK, 64, 8194),
            map_event(DISK, 66, 8195),
            map_event(DISK, 67, 8196),
            [0x0D, 0, 0, 0],
            [0x05, 0, 0, 0],
        ];
        let mut properties = vec![0x43; 5];
        properties.resize(8192, 0);
        let ram = |n: usize| b.stage2[n].iter().filter(|m| m.attributes == S2_RAM).copied();
        let bell = Map { at: DOORBELL, pa: DOORBELL, size: 0x1000, attributes: S2_DEVICE };
        b.pci = Some(PciBuild {
            record,
            functions: vec![nic, disk, card, bridge, serial],
            rules,
            dwords: vec![],
            owners: vec![
                PciDomain {
                    ecam: Ipa(ECAM),
                    frame: Ipa(DOORBELL),
                    first_function: 0,
                    function_count: 2,
                    first_spi: IntId(64),
                    spi_count: 4,
                    places: [NONE; 256],
                },
                PciDomain {
                    ecam: Ipa(ECAM),
                    frame: NO_WINDOW,
                    first_function: 2,
                    function_count: 1,
                    first_spi: NO_INTID,
                    spi_count: 0,
                    places: [NONE; 256],
                },
            ],
            lpis: vec![64, 65, 64, 66, 67],
            pending: vec![1 << 62 | 7 << 7 | 1 << 10 | PENDING, 0, 0],
            commands,
            properties,
            // Alpha's RAM is the second GiB and nothing else is: the table is the CPU's. Beta's has tables of its own.
            dma: vec![vec![bell], ram(1).collect()],
            shared: vec![vec![1], vec![]],
            borrow: None,
        });
        b
    }

    /// The PCI part.
    pub fn p(&mut self) -> &mut PciBuild {
        self.pci.as_mut().unwrap()
    }
}

impl PciBuild {
    /// What leads from a place to a function, and from a dword to a rule, of functions and rules as they are.
    fn index(&mut self) {
        for (index, f) in self.functions.iter_mut().enumerate() {
            if let Some(owner) = self.owners.get_mut(usize::from(f.domain)) {
                owner.places[usize::from(f.devfn)] = index as u8;
            }
            f.first_dword = self.dwords.len() as u32;
            let rules = self.rules.iter().skip(f.first_rule as usize).take(f.rule_count as usize);
            for (rule, dword) in (0..).zip(rules.map(|rule| usize::from(rule.offset) / 4)) {
                let at = f.first_dword as usize + dword;
                self.dwords.resize(self.dwords.len().max(at + 1), NONE);
                self.dwords[at] = rule;
            }
            f.dword_count = self.dwords.len() as u32 - f.first_dword;
        }
    }

    pub fn append(&mut self, out: &mut Vec<u8>) -> Table {
        self.index();
        self.record.dwords = append(out, &self.dwords);
        self.record.functions = append(out, &self.functions);
        self.record.rules = append(out, &self.rules);
        self.record.owners = append(out, &self.owners);
        self.record.lpis = append(out, &self.lpis);
        self.record.pending = append(out, &self.pending);
        append(out, &[self.record])
    }

    pub fn add_tables(&mut self, tables: &mut Tables, cpu_roots: &[usize], domains: &[Domain]) {
        for (i, _) in domains.iter().enumerate() {
            let root = tables.page();
            for slot in &self.shared[i] {
                tables.pages[root][*slot] = tables.pages[cpu_roots[i]][*slot];
            }
            self.dma[i].iter().for_each(|m| tables.map(root, 1, *m));
            if let Some((_, other)) = self.borrow.filter(|(domain, _)| *domain == i) {
                tables.pages[root][1] = tables.pages[cpu_roots[other]][1];
            }
            let pa = tables.pa_of(root);
            let own = |f: &&mut Function| usize::from(f.domain) == i && f.ste[0] & 1 != 0;
            self.functions.iter_mut().filter(own).for_each(|f| f.ste[3] ^= pa);
        }
        let mut bake = |bytes: &[u8]| {
            let first = tables.pages.len();
            for chunk in bytes.chunks(4096) {
                let page = tables.page();
                tables.pages[page].as_mut_bytes()[..chunk.len()].copy_from_slice(chunk);
            }
            tables.pa_of(first)
        };
        let commands: Vec<u8> = self.commands.iter().flat_map(|c| c.as_bytes().to_vec()).collect();
        self.record.its.command_base ^= bake(&commands);
        self.record.its.properties ^= bake(&self.properties);
    }

    pub fn put(&self, at: Table, put: &mut impl FnMut(usize, &[u8])) {
        put(self.record.functions.offset as usize, self.functions.as_bytes());
        put(at.offset as usize, self.record.as_bytes());
    }
}
