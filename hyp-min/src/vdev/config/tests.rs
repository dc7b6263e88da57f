//! Configuration space on memory, which forbids nothing: what stays as it is, only the code has kept.

use super::*;
use crate::vdev::fake::{Memory, Random};
use cofferdam_plan::pci::{Bar, NONE};
use core::cell::Cell;
use zerocopy::FromZeros;

/// Configuration space of functions as `lspci -xxxx` shows them on QEMU: the first 256 bytes.
pub(super) const E1000E: &str = "
    86 80 d3 10 00 00 10 00 00 00 00 02 00 00 00 00 00 00 40 10 00 00 42 10 e1 20 00 00 00 00 4a 10
    00 00 00 00 00 00 00 00 00 00 00 00 86 80 00 00 00 00 00 00 c8 00 00 00 00 00 00 00 00 01 00 00";
const NVME: &str = "
    36 1b 10 00 00 00 10 00 02 02 08 01 00 00 00 00 04 00 48 10 00 00 00 00 00 00 00 00 00 00 00 00
    00 00 00 00 00 00 00 00 00 00 00 00 f4 1a 00 11 00 00 00 00 40 00 00 00 00 00 00 00 00 01 00 00";

pub(super) fn bytes(dump: &str) -> Vec<u8> {
    dump.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn rule(offset: u16, kind: u16, read: u32, constant: u32, write: u32, clear: u32) -> Rule {
    Rule { offset, kind, read, constant, write, clear }
}

/// A function with a power management capability at 0xC8 and PCI Express at 0xE0.
pub(super) fn rules() -> Vec<Rule> {
    let bar = |offset| rule(offset, RuleKind::BAR, 0, 0, 0, 0);
    vec![
        rule(0x00, 0, !0, 0, 0, 0),
        rule(0x04, 0, 0xFFFF_0406, 0x400, 0xF900_0106, 0xF900_0000),
        rule(0x08, 0, !0, 0, 0, 0),
        rule(0x0C, 0, 0x00FF_00FF, 0, 0xFF, 0),
        bar(0x10),
        bar(0x14),
        bar(0x18),
        bar(0x1C),
        rule(0x2C, 0, !0, 0, 0, 0),
        bar(0x30),
        rule(0x34, 0, 0, 0xC8, 0, 0),
        rule(0x3C, 0, 0xFF, 0, 0xFF, 0),
        rule(0xC8, 0, 0, 0x0003_E001, 0, 0),
        rule(0xCC, RuleKind::POWER, 0x8103, 0, 0x8103, 0x8000),
        rule(0xE0, 0, 0, 0x0002_0010, 0, 0),
        rule(0xE4, 0, !0, 1 << 28, 0, 0),
        rule(0xE8, RuleKind::CONTROL, 0x003F_7FFF, 0, 0x000F_871F, 0x000F_0000),
    ]
}

pub(super) fn function(flags: u32) -> Function {
    let mut function = Function::new_zeroed();
    (function.id, function.class, function.subsystem) = (0x10D3_8086, 0x0200_0000, 0x0000_8086);
    (function.flags, function.reset, function.devfn) = (flags, 0xE8, 0x10);
    function.bars[0] = Bar { mask: 0xFFFE_0000, value: 0x1040_0000, shown: 0xFFFE_0000 };
    function.bars[1] = Bar { mask: 0xFFFE_0000, value: 0x1042_0000, shown: 0xFFFE_0000 };
    function.bars[2] = Bar { mask: 0xFFFF_FFE1, value: 0, shown: 0 };
    function.bars[3] = Bar { mask: 0xFFFF_C000, value: 0x104A_0000, shown: 0xFFFF_C000 };
    function
}

pub(super) const ALL: u32 = FunctionFlags::FLR | FunctionFlags::MSI | FunctionFlags::DMA;

/// For each dword which of the rules decides it.
pub(super) fn dwords(rules: &[Rule]) -> Vec<u8> {
    let of = |offset: u16| rules.iter().position(|rule| rule.offset == offset);
    let end = rules.last().map_or(0, |rule| rule.offset + 4);
    (0..end).step_by(4).map(|offset| of(offset).map_or(NONE, |at| at as u8)).collect()
}

pub(super) struct Bench {
    function: Function,
    rules: Vec<Rule>,
    dwords: Vec<u8>,
    pub(super) state: State,
    pub(super) memory: Memory,
}

thread_local! {
    pub(super) static NOW: Cell<u64> = const { Cell::new(5) };
}

pub(super) fn clock() -> (u64, u64) {
    (NOW.get(), 1000)
}

impl Bench {
    /// A function that runs, on memory that holds `dump`, and no idea of what may not be written.
    pub(super) fn new(flags: u32, rules: Vec<Rule>, dump: &str) -> Self {
        let memory = Memory::new(CONFIG_SIZE as usize, 0);
        for (at, byte) in (0..).zip(bytes(dump)) {
            memory.set(at, 1, byte.into());
        }
        let dwords = dwords(&rules);
        let bench = Self { function: function(flags), rules, dwords, state: State::new(), memory };
        bench.device().write_base_addresses();
        bench.device().begin();
        bench.memory.writes();
        bench
    }

    pub(super) fn device(&self) -> Device<'_, &Memory> {
        let (rules, dwords) = (&self.rules, &self.dwords);
        Device { function: &self.function, rules, dwords, state: &self.state, frame: &self.memory }
    }

    pub(super) fn access(&self, offset: u32, size: u8, write: Option<u64>) -> u64 {
        let (device, access) = (self.device(), Access { offset, size, write });
        let value = match write {
            _ if !device.is_there() && device.come_back(clock).is_err() => u64::MAX,
            Some(written) => {
                device.write(access, written, clock);
                0
            }
            None => device.read(access),
        };
        value & ((1 << (u32::from(size) * 8)) - 1)
    }

    pub(super) fn read(&self, offset: u32) -> u32 {
        self.access(offset, 4, None) as u32
    }

    pub(super) fn write(&self, offset: u32, value: u32) {
        self.access(offset, 4, Some(value.into()));
    }
}

#[test]
fn only_requests_of_pci_are_accesses() {
    for (offset, size, is) in [(0, 4, true), (1, 1, true), (3, 1, true), (2, 2, true), (1, 2, true), (0xFFC, 4, true)]
        .into_iter()
        .chain([(0, 8, false), (4, 8, false), (3, 2, false), (2, 4, false), (1, 4, false)])
    {
        assert_eq!(is_request(Access { offset, size, write: None }), is, "{offset} by {size}");
    }
}

#[test]
fn a_function_is_found_by_its_virtual_number() {
    let functions = [function(0), { Function { devfn: 0xFF, ..function(0) } }];
    let mut owner = PciDomain { places: [NONE; 256], ..PciDomain::new_zeroed() };
    (owner.places[0x10], owner.places[0xFF], owner.places[1]) = (0, 1, 2);
    let found = |offset| find(&functions, &owner, offset).map(|(function, index)| (function.devfn, index));
    assert_eq!(found(0x1_0004), Some((0x10, 0)));
    assert_eq!(found(0xF_FFFF), Some((0xFF, 1)));
    assert_eq!((found(0), found(0x1_1000)), (None, None));
    assert_eq!(found(0x1000), None, "no such function");
}

#[test]
fn what_no_rule_names_reads_zero_and_is_never_touched() {
    let bench = Bench::new(ALL, rules(), E1000E);
    for offset in (0..CONFIG_SIZE as u32).step_by(4).filter(|o| bench.rules.iter().all(|r| u32::from(r.offset) != *o)) {
        assert_eq!(bench.read(offset), 0, "{offset:#x}");
        bench.write(offset, u32::MAX);
        assert!(bench.memory.seen.borrow().is_empty(), "{offset:#x}");
    }
}

#[test]
fn all_ones_everywhere_change_only_what_the_rules_grant() {
    for (dump, flags) in [(E1000E, ALL), (NVME, ALL), (E1000E, FunctionFlags::FLR), (NVME, 0)] {
        let mut list = rules();
        // Not the reset, which ends the rest.
        list.retain(|rule| rule.kind != RuleKind::CONTROL);
        let bench = Bench::new(flags, list, dump);
        let before: Vec<u32> = (0..1024).map(|n| bench.memory.get(n * 4, 4) as u32).collect();
        for size in [1u8, 2, 4] {
            for offset in (0..CONFIG_SIZE as u32).step_by(size.into()) {
                bench.access(offset, size, Some(u64::MAX >> (64 - 8 * u32::from(size))));
            }
        }
        for (n, before) in before.into_iter().enumerate() {
            let after = bench.memory.get(n as u32 * 4, 4) as u32;
            let mut granted =
                bench.rules.iter().find(|r| usize::from(r.offset) == n * 4).map_or(0, |r| r.write | r.clear);
            if n == 1 {
                granted &= if flags & FunctionFlags::DMA == 0 { !5 } else { !1 };
            }
            if n == 0xCC / 4 {
                granted &= !3;
            }
            assert_eq!((before ^ after) & !granted, 0, "{:#x}", n * 4);
        }
    }
}

#[test]
fn io_decode_and_bus_mastering_stay_off_whatever_the_rules_say() {
    let mut random = Random::new(4);
    for round in 0..200 {
        let flags = random.next() as u32 & FunctionFlags::MSI;
        let mut list: Vec<Rule> = (0..32u16)
            .map(|n| {
                let mut bits = || random.next() as u32;
                rule(n * 4, (bits() % 4) as u16, bits(), bits(), bits(), bits())
            })
            .collect();
        list[1].kind = [RuleKind::REGISTER, RuleKind::POWER, RuleKind::CONTROL][round % 3];
        let bench = Bench::new(flags, list, E1000E);
        for _ in 0..200 {
            let size = [1, 2, 4][(random.next() % 3) as usize];
            let offset = random.next() as u32 & 0x7F & !(u32::from(size) - 1);
            bench.access(offset, size, Some(random.next() >> (64 - 8 * u32::from(size))));
            assert_eq!(bench.memory.get(COMMAND, 4) & u64::from(IO_DECODE | BUS_MASTER), 0);
        }
        let allowed =
            |offset: u32| bench.rules.iter().any(|r| u32::from(r.offset) == offset && r.kind != RuleKind::BAR);
        let planned: Vec<_> =
            bench.device().base_addresses().map(|(offset, bar)| (offset, 4, bar.value.into())).collect();
        let written = bench.memory.writes();
        assert!(written.iter().all(|write| allowed(write.0) || planned.contains(write)), "round {round}");
    }
}

#[test]
fn bus_mastering_goes_on_where_the_plan_knows_what_confines_it() {
    let bench = Bench::new(ALL, rules(), E1000E);
    bench.write(COMMAND, 0x107);
    assert_eq!(bench.memory.get(COMMAND, 2), 0x506);
    assert_eq!(bench.read(COMMAND) & 0xFFFF, 0x406);
    // Two lanes only: status, whose ones clear, is not written back.
    bench.memory.set(6, 2, 0xF910);
    bench.access(COMMAND, 2, Some(0));
    assert_eq!(bench.memory.writes().last(), Some(&(COMMAND, 4, 0x0010_0400)));
}

#[test]
fn status_bits_are_cleared_by_who_writes_them() {
    let bench = Bench::new(ALL, rules(), E1000E);
    bench.memory.set(COMMAND, 4, 0xF910_0400);
    bench.access(7, 1, Some(0x80));
    assert_eq!(bench.memory.writes(), [(COMMAND, 4, 0x8010_0400)]);
}

#[test]
fn base_addresses_show_their_size_and_cannot_be_moved() {
    let bench = Bench::new(ALL, rules(), E1000E);
    assert_eq!(bench.read(0x10), 0x1040_0000);
    bench.write(0x10, u32::MAX);
    assert_eq!(bench.read(0x10), 0xFFFE_0000);
    assert_eq!(bench.read(0x14), 0x1042_0000);
    bench.write(0x10, 0xDEAD_0000);
    assert_eq!(bench.read(0x10), 0x1040_0000);
    assert_eq!(bench.access(0x12, 2, None), 0x1040);
    // The I/O one is not there, nor those that are none.
    for offset in [0x18, 0x20, 0x30] {
        bench.write(offset, u32::MAX);
        assert_eq!(bench.read(offset), 0, "{offset:#x}");
    }
    bench.write(0x1C, 0xFFFF_F800);
    assert_eq!(bench.read(0x1C), 0xFFFF_C000);
    assert_eq!(bench.memory.writes(), []);
}

#[test]
fn a_wide_base_address_shows_both_halves() {
    let mut bench = Bench::new(ALL, rules(), NVME);
    bench.function.bars[0] = Bar { mask: 0x0000_000C, value: 0x0000_000C, shown: 0x0000_000C };
    bench.function.bars[1] = Bar { mask: 0xFFFF_FFFE, value: 0x80, shown: 0xFFFF_FFFE };
    let halves = |bench: &Bench| (bench.read(0x10), bench.read(0x14));
    assert_eq!(halves(&bench), (0xC, 0x80));
    bench.write(0x10, u32::MAX);
    bench.write(0x14, u32::MAX);
    assert_eq!(halves(&bench), (0xC, 0xFFFF_FFFE));
    bench.write(0x14, 0x80);
    bench.write(0x10, 0);
    assert_eq!(halves(&bench), (0xC, 0x80));
}

#[test]
fn the_power_state_is_kept_and_not_written() {
    let bench = Bench::new(ALL, rules(), E1000E);
    bench.access(0xCC, 2, Some(0x0103));
    assert_eq!((bench.read(0xCC), bench.memory.get(0xCC, 4)), (0x103, 0x100));
    bench.access(0xCD, 1, Some(0));
    assert_eq!((bench.read(0xCC), bench.memory.get(0xCC, 4)), (0x3, 0));
    bench.access(0xCC, 2, Some(0));
    assert_eq!(bench.read(0xCC), 0);
}

#[test]
fn a_reset_takes_its_time_and_gives_back_what_was_planned() {
    let bench = Bench::new(ALL, rules(), E1000E);
    bench.write(COMMAND, 6);
    bench.write(0x10, u32::MAX);
    bench.access(0xCC, 1, Some(3));
    bench.memory.writes();
    bench.memory.set(0xE8, 4, 0x000F_2810);
    bench.access(0xE9, 1, Some(0x80));
    // Silent before its reset.
    assert_eq!(bench.memory.writes(), [(COMMAND, 4, 0x400), (0xE8, 4, 0xA810)]);
    // What hardware does.
    bench.memory.set(COMMAND, 4, 0x0010_0000);
    (0..6).for_each(|n| bench.memory.set(BARS + 4 * n, 4, 0));
    for passed in [0, 50, 99] {
        NOW.set(5 + passed);
        assert_eq!(bench.read(0), u32::MAX);
        assert_eq!(bench.access(3, 1, None), 0xFF);
        bench.write(COMMAND, 6);
        bench.write(0xE8, FLR);
    }
    assert!(bench.memory.seen.borrow().is_empty());
    // Not ready yet: nobody waits.
    NOW.set(105);
    bench.memory.set(ID, 4, u64::from(u32::MAX));
    assert_eq!(bench.read(0), u32::MAX);
    assert_eq!(bench.memory.writes(), []);
    bench.memory.set(ID, 4, 0x10D3_8086);
    assert_eq!(bench.read(0), 0x10D3_8086);
    let placed =
        [(0x10, 4, 0x1040_0000), (0x14, 4, 0x1042_0000), (0x18, 4, 0), (0x1C, 4, 0x104A_0000), (COMMAND, 4, 0x400)];
    assert_eq!(bench.memory.writes(), placed);
    assert_eq!((bench.read(0x10), bench.read(0xCC)), (0x1040_0000, 0));
}

#[test]
fn without_a_reset_there_is_none() {
    let bench = Bench::new(FunctionFlags::DMA, rules(), E1000E);
    bench.write(0xE8, 0xFFFF);
    assert_eq!(bench.memory.writes(), [(0xE8, 4, 0x071F)]);
    assert_eq!(bench.read(0), 0x10D3_8086);
    assert!(!bench.device().prepare(Step::Reset, None, 0));
    assert_eq!(bench.memory.writes(), []);
}

#[test]
fn one_that_is_not_the_guests_reads_all_ones() {
    let bench = Bench::new(ALL, rules(), E1000E);
    bench.write(COMMAND, 6);
    bench.device().end(clock().0);
    bench.device().rest();
    assert_eq!(bench.memory.writes().last(), Some(&(COMMAND, 4, 0x400)));
    bench.memory.seen.borrow_mut().clear();
    for offset in (0..CONFIG_SIZE as u32).step_by(4) {
        bench.write(offset, u32::MAX);
        assert_eq!(bench.read(offset), u32::MAX);
    }
    assert!(bench.memory.seen.borrow().is_empty());
}

#[test]
fn the_next_run_finds_nothing_of_the_last() {
    let mut list = rules();
    list[1] = rule(0x04, 0, 0xFFFF_0406, 0, 0xF900_0506, 0xF900_0000);
    let mut bench = Bench::new(FunctionFlags::DMA, list, E1000E);
    assert_eq!(bench.memory.get(COMMAND, 2), 0);
    bench.write(COMMAND, 0x406);
    bench.write(0x3C, 0x55);
    bench.write(0x10, u32::MAX);
    bench.access(0xCC, 2, Some(0x103));
    bench.device().end(clock().0);
    bench.device().rest();
    assert_eq!(bench.device().place(), Err(Mismatch { offset: 0x10, found: u32::MAX, planned: 0xFFFE_0000 }));
    // Memory keeps all it is given; a base address of such hardware has all its bits.
    bench.function.bars.iter_mut().filter(|bar| bar.mask != 0).for_each(|bar| bar.mask = u32::MAX);
    assert_eq!(bench.device().place(), Ok(()));
    bench.device().begin();
    assert_eq!((bench.memory.get(COMMAND, 2), bench.memory.get(0x3C, 1), bench.memory.get(0xCC, 2)), (0, 0, 0));
    assert_eq!((bench.read(0x10), bench.memory.get(0x10, 4)), (0x1040_0000, 0x1040_0000));
}

#[test]
fn another_function_than_planned_is_told() {
    for (offset, value) in [(0, 0x10D3_8087), (8, 0x0200_0001), (0x2C, 1), (0, u32::MAX)] {
        let bench = Bench::new(ALL, rules(), E1000E);
        let planned = bench.memory.get(offset, 4) as u32;
        bench.memory.set(offset, 4, value.into());
        assert_eq!(bench.device().place(), Err(Mismatch { offset, found: value, planned }));
        assert_eq!(bench.memory.writes(), []);
    }
}

#[test]
fn a_bridge_is_programmed_and_opened() {
    let mut bench = Bench::new(FunctionFlags::BRIDGE, Vec::new(), E1000E);
    bench.function.bars = [Bar::default(); 7];
    bench.function.bars[6] = Bar { mask: 0xFFFF_F801, value: 0, shown: 0 };
    bench.function.bridge = [0x0001_0100, 0x0000_00F0, 0x1040_1040, 0x0001_FFF1, 0x80];
    bench.device().silence();
    bench.device().lead();
    assert_eq!(bench.device().place(), Ok(()));
    bench.device().open();
    let [buses, io, memory, prefetchable, upper] = bench.function.bridge.map(u64::from);
    let windows = [
        (0x18, 4, buses),
        (0x1C, 4, io),
        (0x20, 4, memory),
        (0x24, 4, prefetchable),
        (0x28, 4, upper),
        (0x2C, 4, upper),
        (0x3C, 4, 0),
    ];
    let written = bench.memory.writes();
    assert_eq!(written.first(), Some(&(COMMAND, 4, 0x400)));
    assert_eq!(written[1..8], windows);
    assert_eq!(written[8..], [(COMMAND, 4, 0x406)]);
}
