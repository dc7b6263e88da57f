//! The two domains with PCI functions: sound as they are, and one change each that the verifier must name.

mod common;

use cofferdam_plan::audit::{Fact, Line, Name, fact, line};
use cofferdam_plan::pci::{Bar, FunctionFlags, Rule, RuleKind};
use cofferdam_plan::*;
use cofferdam_verify::{Finding, Refusal, Root};
use common::pci::*;
use common::*;

#[test]
fn the_plan_is_sound() {
    let (result, findings) = Build::pci().blob().verify();
    assert!(result.is_ok(), "{findings:#?}");
    let two = Build::two().blob().verify().0.unwrap();
    assert!(result.unwrap().leaves > two.leaves);
}

fn finds(what: &str, change: impl FnOnce(&mut Build), expected: impl Fn(&Finding) -> bool) {
    let mut build = Build::pci();
    change(&mut build);
    let (result, findings) = build.blob().verify();
    assert_eq!(result, Err(Refusal::Findings(findings.len() as u32)), "{what}");
    assert!(findings.iter().any(&expected), "{what}: found only {findings:#?}");
    for finding in &findings {
        assert!(finding.invariant().starts_with('I') && !finding.to_string().is_empty());
    }
}

macro_rules! changes {
    ($($test:ident: $change:expr => $expected:pat $(if $guard:expr)?,)*) => {
        $(#[test] fn $test() { finds(stringify!($test), $change, |f| matches!(f, $expected $(if $guard)?)); })*
    };
}

/// The first fact of a kind.
fn the(b: &mut Build, kind: u32) -> &mut Fact {
    b.facts.iter_mut().find(|f| f.kind == kind).unwrap()
}

/// The rule of a function at an offset.
fn rule_at(b: &mut Build, function: usize, offset: u16) -> &mut Rule {
    let p = b.p();
    let (first, count) = (p.functions[function].first_rule as usize, p.functions[function].rule_count as usize);
    p.rules[first..first + count].iter_mut().find(|rule| rule.offset == offset).unwrap()
}

/// A function is reset by its bus, and by nothing else.
fn by_bus(b: &mut Build, function: usize, port: u16) {
    let f = &mut b.p().functions[function];
    f.flags = f.flags & !FunctionFlags::FLR | FunctionFlags::BUS_RESET;
    f.reset = port;
}

#[test]
fn a_bus_reset_for_its_owner_alone_is_sound() {
    let mut build = Build::pci();
    by_bus(&mut build, 1, 3);
    let (result, findings) = build.blob().verify();
    assert!(result.is_ok(), "{findings:#?}");
}

/// One more rule of the last function that has any.
fn add_rule(b: &mut Build, rule: Rule) {
    let p = b.p();
    p.rules.push(rule);
    p.functions[2].rule_count += 1;
}

// Functions and what the board says.
changes! {
    function_twice: |b| b.p().functions[4].rid = NIC => Finding::BadFunction { why: "is there twice", .. },
    function_beyond_the_ecam: |b| b.p().functions[4].rid = 0x0200
        => Finding::BadFunction { why: "has no place in configuration space", .. },
    functions_out_of_order: |b| b.p().functions.swap(0, 1) => Finding::BadFunction { .. },
    devfn_twice: |b| b.p().functions[1].devfn = 0x10 => Finding::BadFunction { .. },
    function_moved_to_another_domain: |b| b.p().functions[1].domain = 1 => Finding::BadDomain { .. },
    function_range_too_long: |b| b.p().owners[0].function_count = 3 => Finding::BadDomain { .. },
    bridge_behind_the_rest: |b| b.p().functions.swap(3, 4) => Finding::BadFunction { .. },
    bridge_with_an_owner: |b| b.p().functions[3].domain = 1 => Finding::BadFunction { .. },
    function_flag_unknown: |b| b.p().functions[0].flags |= 1 << 4 => Finding::BadFunction { .. },
    nobody_masters_the_bus: |b| b.p().functions[4].flags |= FunctionFlags::DMA => Finding::BadFunction { .. },
    nobody_has_rules: |b| { b.p().functions[4].rule_count = 1; b.p().rules.push(rule(0, !0, 0, 0, 0)); }
        => Finding::BadFunction { .. },
    rules_of_another: |b| b.p().functions[1].first_rule -= 1 => Finding::BadFunction { .. },
    reset_in_the_header: |b| b.p().functions[1].reset = 4 => Finding::BadFunction { .. },
    reset_by_another_register: |b| b.p().functions[1].reset = 0x70 => Finding::BadRule { .. },
    reset_without_a_register: |b| b.p().functions[1].reset = 0 => Finding::BadFunction { .. },
    reset_twice_over: |b| b.p().functions[1].flags |= FunctionFlags::BUS_RESET
        => Finding::BadFunction { why: "is reset twice over", .. },
    reset_by_nothing: |b| b.p().functions[0].reset = 0x68
        => Finding::BadFunction { why: "is reset, though nothing resets it", .. },
    bus_reset_by_no_port: |b| by_bus(b, 1, 2)
        => Finding::BadFunction { why: "is reset by what is no port to its bus", .. },
    bus_reset_by_nobody: |b| by_bus(b, 1, 99)
        => Finding::BadFunction { why: "is reset by what is no port to its bus", .. },
    bus_reset_of_another_bus: |b| by_bus(b, 0, 3)
        => Finding::BadFunction { why: "is reset by what is no port to its bus", .. },
    bus_reset_for_nobody: |b| { by_bus(b, 4, 3); b.p().functions[4].rid = 0x0101; }
        => Finding::BadFunction { why: "is reset by what is no port to its bus", .. },
    bus_reset_of_a_bridge: |b| by_bus(b, 3, 3)
        => Finding::BadFunction { why: "is a bridge with an owner, or with what a bridge does not have", .. },
    bus_reset_beside_anothers: |b| { by_bus(b, 1, 3); b.p().functions[2].rid = 0x0101; }
        => Finding::BadFunction { why: "is reset with what is not its domain's", .. },
    bus_reset_beside_nobodys: |b| { by_bus(b, 1, 3); b.p().functions[4].rid = 0x0101; }
        => Finding::BadFunction { why: "is reset with what is not its domain's", .. },
    bus_reset_of_buses_behind_it: |b| {
        by_bus(b, 1, 3);
        b.p().functions[3].bridge[0] = 0x0002_0100;
        b.p().functions[2].rid = 0x0200;
    } => Finding::BadFunction { why: "is reset with what is not its domain's", .. },
    name_with_escape: |b| b.p().functions[0].name[1] = 0x1B => Finding::BadFunction { .. },
    name_of_nothing: |b| b.p().functions[0].name = [0; 16] => Finding::BadFunction { .. },
    ecam_grantable: |b| b.facts.retain(|f| f.kind != fact::FORBIDDEN || f.region.base.0 != ECAM) => Finding::BadPci { .. },
    its_grantable: |b| b.facts.retain(|f| f.kind != fact::FORBIDDEN || f.region.base.0 != ITS) => Finding::BadPci { .. },
    ecam_missing: |b| b.facts.retain(|f| f.kind != fact::ECAM) => Finding::BadPci { .. },
    ecam_without_pci: |b| b.pci = None => Finding::BadPci { .. },
    window_over_ram: |b| the(b, fact::PCI_WINDOW).region = pa(0x3FF0_0000, 0x20_0000) => Finding::BadPci { what: "window" },
    window_over_registers: |b| the(b, fact::PCI_WINDOW).region = pa(SMMU & !0xF_FFFF, 0x10_0000)
        => Finding::BadPci { what: "window" },
    stream_of_two_functions: |b| the(b, fact::STREAM).owner = u32::from(DISK) => Finding::BadPci { what: "IDs of functions" },
    ecam_granted: |b| b.grants[4].pa = pa(ECAM, 0x1000) => Finding::GrantOverlaps { .. },
    doorbell_granted: |b| b.grants[4].pa = pa(DOORBELL, 0x1000) => Finding::GrantOverlaps { .. },
    area_granted: |b| b.grants[3].pa = pa(COMMANDS, 0x1000) => Finding::GrantOverlaps { .. },
    el2_config_page_of_another: |b| b.el2.iter_mut().find(|m| m.at == PCI_VA).unwrap().pa = ECAM + 0x1000
        => Finding::El2WrongTarget { what: "configuration space", .. },
    el2_config_page_missing: |b| b.el2.retain(|m| m.at != PCI_VA) => Finding::El2Unmapped { .. },
    el2_config_page_cacheable: |b| b.el2.iter_mut().find(|m| m.at == PCI_VA).unwrap().attributes = EL2_DATA
        => Finding::El2WrongAttributes { .. },
    el2_maps_more_of_the_ecam: |b| b.el2.push(Map { at: PCI_VA + 0x8000, pa: ECAM, size: 0x1000, attributes: EL2_DEVICE })
        => Finding::El2Stray { .. },
    el2_maps_the_doorbell: |b| b.el2.push(Map { at: PCI_VA + 0x13_0000, pa: DOORBELL, size: 0x1000, attributes: EL2_DEVICE })
        => Finding::El2Stray { .. },
    el2_two_functions_one_page: |b| b.p().functions[1].config_va = PCI_VA => Finding::El2PurposesOverlap { .. },
    el2_stream_table_elsewhere: |b| b.el2.iter_mut().find(|m| m.pa == STREAMS).unwrap().pa = AREA + 0x1_0000
        => Finding::El2WrongTarget { what: "stream table", .. },
    el2_queue_outside_the_area: |b| b.p().record.smmu.command_base = 1 << 62 | (BASE + 0x18_0000) | 8
        => Finding::El2WrongTarget { .. },
    el2_area_of_a_cpu_in_the_dma_area: |b| b.el2[8].pa = ITTS => Finding::El2WrongTarget { what: "CPU area", .. },
}

// Base address registers and bridges.
changes! {
    bar_outside_the_windows: |b| b.p().functions[2].bars[0].value = 0x2000_0000 => Finding::BadBar { .. },
    bar_over_ram: |b| b.p().functions[2].bars[0].value = 0x5200_0000 => Finding::BadBar { .. },
    bar_of_another_domain: |b| b.p().functions[2].bars[0].value = WINDOW as u32 => Finding::BadBar { .. },
    bar_in_a_foreign_page: |b| b.p().functions[2].bars[0].value = WINDOW as u32 + 0x1_FF00 => Finding::BadBar { .. },
    bar_not_aligned: |b| b.p().functions[0].bars[0].value = WINDOW as u32 + 0x1_0000 => Finding::BadBar { .. },
    bar_with_no_size: |b| b.p().functions[0].bars[0].mask = 0xFFFA_0000 => Finding::BadBar { .. },
    bar_of_another_kind: |b| b.p().functions[0].bars[0].value |= 8 => Finding::BadBar { .. },
    bar_hidden: |b| b.p().functions[0].bars[0].shown = 0 => Finding::BadBar { .. },
    bar_shown_larger: |b| b.p().functions[0].bars[0].shown = 0xFFF0_0000 => Finding::BadBar { .. },
    bar_left_at_zero: |b| {
        b.p().functions[0].bars[0] = Bar { value: 0, shown: 0, ..b.p().functions[0].bars[0] };
    } => Finding::BadBar { why: "has no address, but its function decodes memory", .. },
    bar_upper_half_moved: |b| b.p().functions[1].bars[1].value = 1 => Finding::BadBar { .. },
    bar_upper_half_hidden: |b| b.p().functions[1].bars[1].shown = 0 => Finding::BadBar { .. },
    io_bar_assigned: |b| b.p().functions[0].bars[2].value = 0x1001 => Finding::BadBar { .. },
    io_bar_shown: |b| b.p().functions[0].bars[2].shown = 0xFFFF_FFE1 => Finding::BadBar { .. },
    rom_assigned: |b| b.p().functions[0].bars[6].value = WINDOW as u32 + 0x4_0000 => Finding::BadBar { .. },
    bar_of_nobody_assigned: |b| b.p().functions[4].bars[0] = Bar { mask: 0xFFFF_F000, value: 0x1003_0000, shown: 0 }
        => Finding::BadBar { .. },
    bar_granted_elsewhere: |b| b.grants[5].ipa = ipa(0x2000_0000, 0x2_0000) => Finding::BadBar { .. },
    bar_granted_to_another: |b| { b.grants[5].domain = 1; } => Finding::BadBar { .. },
    window_granted_without_a_bar: |b| b.grants[4] = audit::Grant { ipa: ipa(WINDOW + 0x8_0000, 0x1000),
        pa: pa(WINDOW + 0x8_0000, 0x1000), ..b.grants[4] } => Finding::WindowGranted { .. },
    bridge_bar_granted: |b| b.grants[4] = audit::Grant { ipa: ipa(WINDOW + 0x20_0000, 0x1000),
        pa: pa(WINDOW + 0x20_0000, 0x1000), ..b.grants[4] } => Finding::WindowGranted { .. },
    bridge_bar_in_its_window: |b| b.p().functions[3].bars[0].value = WINDOW as u32 + 0x18_0000 => Finding::BadBar { .. },
    bridge_window_over_another: |b| b.p().functions[3].bridge[2] = 0x1010_1000 => Finding::BadBar { .. },
    bridge_window_too_small: |b| b.p().functions[3].bridge[2] = 0x1000_1010 => Finding::BadBar { .. },
    bridge_window_beyond_the_host: |b| b.p().functions[3].bridge[2] = 0x1100_1010 => Finding::BadBridge { .. },
    bridge_second_window: |b| b.p().functions[3].bridge[3] = 0x1000_1000 => Finding::BadBar { .. },
    bridge_lets_io_pass: |b| b.p().functions[3].bridge[1] = 0xF000 => Finding::BadBridge { why: "lets I/O pass", .. },
    bridge_to_its_own_bus: |b| b.p().functions[3].bridge[0] = 0x0001_0000 => Finding::BadBridge { .. },
    bridge_to_another_bus: |b| b.p().functions[3].bridge[0] = 0x0002_0200 => Finding::BadFunction { .. },
    bridge_beyond_the_ecam: |b| b.p().functions[3].bridge[0] = 0x0005_0100 => Finding::BadBridge { .. },
    bridge_primary_wrong: |b| b.p().functions[3].bridge[0] = 0x0001_0101 => Finding::BadBridge { .. },
    function_programmed_as_bridge: |b| b.p().functions[0].bridge[0] = 1 => Finding::BadFunction { .. },
    ram_at_a_bus_address: |b| {
        b.grants[2].ipa = ipa(WINDOW + 0x40_0000, 0x20_0000);
        (b.stage2[1][0].at, b.p().dma[1][0].at) = (WINDOW + 0x40_0000, WINDOW + 0x40_0000);
    } => Finding::RamOnBus { .. },
    domain_without_configuration_space: |b| b.p().owners[1].ecam = NO_WINDOW => Finding::BadDomain { .. },
    configuration_space_mapped: |b| b.p().owners[1].ecam = Ipa(0x4000_0000)
        => Finding::EmulatedWindow { what: "configuration space", .. },
    msi_frame_mapped: |b| b.p().owners[0].frame = Ipa(0x4000_0000) => Finding::EmulatedWindow { what: "MSI frame", .. },
    msi_frame_for_nobody: |b| b.p().owners[1].frame = Ipa(DOORBELL) => Finding::BadDomain { .. },
}

// Configuration space. Function 2 has INTx and no MSI.
changes! {
    rules_twice: |b| rule_at(b, 2, 0x08).offset = 0x04 => Finding::BadRule { why: "is out of order or there twice", .. },
    rule_of_no_dword: |b| rule_at(b, 2, 0x3C).offset = 0x3D => Finding::BadRule { .. },
    rule_of_unknown_kind: |b| rule_at(b, 2, 0x08).kind = 4 => Finding::BadRule { .. },
    io_decode_writable: |b| rule_at(b, 2, 0x04).write |= 1 => Finding::BadRule { why: "writes bits that no guest may", .. },
    io_decode_read: |b| rule_at(b, 2, 0x04).read |= 1 => Finding::BadRule { .. },
    bus_master_without_dma: |b| {
        b.p().functions[2].flags &= !FunctionFlags::DMA;
        (b.p().functions[2].ste, b.p().functions[2].ste_offset) = ([0; 4], 0);
        b.p().dma[1].clear();
    } => Finding::BadRule { offset: 4, .. },
    interrupt_disable_in_msi_mode: |b| rule_at(b, 0, 0x04).write |= 1 << 10 => Finding::BadRule { offset: 4, .. },
    status_written_back: |b| rule_at(b, 2, 0x04).clear = 0xF800_0000 => Finding::BadRule { offset: 4, .. },
    bist_writable: |b| rule_at(b, 2, 0x0C).write |= 1 << 30 => Finding::BadRule { offset: 0x0C, .. },
    header_of_a_bridge: |b| rule_at(b, 2, 0x0C).constant |= 1 << 16 => Finding::BadRule { offset: 0x0C, .. },
    bar_writable: |b| rule_at(b, 2, 0x10).write = !0 => Finding::BadRule { offset: 0x10, .. },
    bar_as_register: |b| rule_at(b, 2, 0x10).kind = RuleKind::REGISTER => Finding::BadRule { offset: 0x10, .. },
    register_as_bar: |b| rule_at(b, 2, 0x2C).kind = RuleKind::BAR => Finding::BadRule { offset: 0x2C, .. },
    capabilities_from_the_hardware: |b| rule_at(b, 2, 0x34).read = 0xFF => Finding::BadRule { offset: 0x34, .. },
    capabilities_in_a_ring: |b| rule_at(b, 2, 0x60).constant |= 0x4000
        => Finding::BadRule { why: "closes the list of capabilities to a ring", .. },
    capability_link_from_the_hardware: |b| rule_at(b, 2, 0x40).read |= 0xFF00 => Finding::BadRule { .. },
    capability_link_into_the_header: |b| rule_at(b, 2, 0x60).constant |= 0x1000 => Finding::BadRule { .. },
    capability_of_vital_data: |b| rule_at(b, 2, 0x40).constant ^= 1 ^ 3 => Finding::BadRule { .. },
    msi_x_without_msi_mode: |b| rule_at(b, 2, 0x40).constant ^= 1 ^ 0x11 => Finding::BadRule { .. },
    msi_x_table_size_from_the_hardware: |b| rule_at(b, 0, 0x48).read = !0 => Finding::BadRule { .. },
    power_state_writable: |b| rule_at(b, 2, 0x44).write |= 3 => Finding::BadRule { .. },
    power_state_as_register: |b| rule_at(b, 2, 0x44).kind = RuleKind::REGISTER => Finding::BadRule { .. },
    reset_writable: |b| rule_at(b, 1, 0x68).write |= 1 << 15 => Finding::BadRule { .. },
    control_as_any_register: |b| rule_at(b, 2, 0x68).kind = RuleKind::REGISTER => Finding::BadRule { .. },
    payload_size_writable: |b| rule_at(b, 2, 0x68).write |= 7 << 5 => Finding::BadRule { .. },
    request_size_writable: |b| rule_at(b, 2, 0x68).write |= 7 << 12 => Finding::BadRule { .. },
    link_control_writable: |b| add_rule(b, rule(0x104 + 0x1C, 0, 0, 1, 0)) => Finding::BadRule { .. },
    extended_ats: |b| rule_at(b, 2, 0x100).constant = 0x0001_000F => Finding::BadRule { offset: 0x100, .. },
    extended_virtual_functions: |b| rule_at(b, 2, 0x100).constant = 0x0001_0010 => Finding::BadRule { offset: 0x100, .. },
    extended_pasid: |b| rule_at(b, 2, 0x100).constant = 0x0001_001B => Finding::BadRule { offset: 0x100, .. },
    extended_from_the_hardware: |b| rule_at(b, 2, 0x100).read = !0 => Finding::BadRule { offset: 0x100, .. },
    extended_to_nowhere: |b| rule_at(b, 2, 0x100).constant |= 0x200 << 20 => Finding::BadRule { offset: 0x100, .. },
    extended_ring: |b| rule_at(b, 2, 0x100).constant |= 0x100 << 20 => Finding::BadRule { offset: 0x100, .. },
    error_mask_writable: |b| add_rule(b, rule(0x108, !0, 0, !0, 0)) => Finding::BadRule { offset: 0x108, .. },
    hidden_register_read: |b| add_rule(b, rule(0x200, !0, 0, 0, 0)) => Finding::BadRule { offset: 0x200, .. },
    hidden_register_written: |b| add_rule(b, rule(0xFFC, 0, 0, 1, 0)) => Finding::BadRule { offset: 0xFFC, .. },
    function_of_another_name: |b| rule_at(b, 2, 0x00).constant ^= 1 => Finding::BadRule { offset: 0, .. },
}

// The SMMU.
changes! {
    stream_of_another_function: |b| b.p().functions[2].stream = u32::from(NIC) => Finding::BadStream { .. },
    entry_of_another_stream: |b| b.p().functions[2].ste_offset = u32::from(NIC) * 64 => Finding::BadStream { .. },
    stream_beyond_the_table: |b| { b.p().record.smmu.stream_bits = 8; b.p().record.smmu.stream_table_cfg = 8; }
        => Finding::BadStream { why: "has a stream beyond the table", .. },
    bypass: |b| b.p().functions[2].ste[0] = 1 | 0b100 << 1 => Finding::BadStream { .. },
    stage_1_only: |b| b.p().functions[2].ste[0] = 1 | 0b101 << 1 => Finding::BadStream { .. },
    both_stages: |b| b.p().functions[2].ste[0] = 1 | 0b111 << 1 => Finding::BadStream { .. },
    ats_allowed: |b| b.p().functions[2].ste[1] |= 1 << 28 => Finding::BadStream { .. },
    foreign_vmid: |b| b.p().functions[2].ste[2] ^= 3 => Finding::BadStream { .. },
    another_geometry: |b| b.p().functions[2].ste[2] ^= 1 << 32 => Finding::BadStream { .. },
    no_fault_records: |b| b.p().functions[2].ste[2] ^= 1 << 58 => Finding::BadStream { .. },
    stalling: |b| b.p().functions[2].ste[2] |= 1 << 57 => Finding::BadStream { .. },
    big_endian_tables: |b| b.p().functions[2].ste[2] |= 1 << 52 => Finding::BadStream { .. },
    aarch32_tables: |b| b.p().functions[2].ste[2] ^= 1 << 51 => Finding::BadStream { .. },
    two_entries_in_a_domain: |b| b.p().functions[1].ste[1] |= 1 << 19 => Finding::BadStream { .. },
    master_without_entry: |b| {
        (b.p().functions[2].ste, b.p().functions[2].ste_offset) = ([0; 4], 0);
        b.p().dma[1].clear();
    } => Finding::BadStream { why: "may write memory and nothing holds or trusts it", .. },
    trusted_by_another_domain: |b| {
        (b.p().functions[2].ste, b.p().functions[2].ste_offset) = ([0; 4], 0);
        let page = pa(ECAM + u64::from(CARD) * 0x1000, 0x1000);
        b.facts.push(Fact { region: page, kind: fact::TRUSTED_DMA, owner: 1, name: Name::default() });
    } => Finding::BadStream { .. },
    trusted_with_ram_elsewhere: |b| {
        (b.p().functions[2].ste, b.p().functions[2].ste_offset) = ([0; 4], 0);
        let page = pa(ECAM + u64::from(CARD) * 0x1000, 0x1000);
        b.facts.push(Fact { region: page, kind: fact::TRUSTED_DMA, owner: 2, name: Name::default() });
    } => Finding::BadStream { .. },
    dma_to_foreign_ram: |b| b.p().dma[1][1].pa = 0x4040_0000 => Finding::LeafWrongTarget { root: Root::Dma(_), .. },
    dma_to_the_hypervisor: |b| b.p().dma[1].push(Map { at: 0x5000_0000, pa: BASE, size: 0x1000, attributes: S2_RAM })
        => Finding::LeafNotGranted { root: Root::Dma(_), .. },
    dma_to_a_device: |b| b.p().dma[1].push(Map { at: GPIO, pa: GPIO, size: 0x1000, attributes: S2_DEVICE })
        => Finding::LeafNotGranted { root: Root::Dma(_), .. },
    dma_to_its_own_bar: |b| b.p().dma[0].push(Map { at: WINDOW, pa: WINDOW, size: 0x1000, attributes: S2_DEVICE })
        => Finding::LeafNotGranted { root: Root::Dma(_), .. },
    dma_without_some_ram: |b| { b.p().dma[1].pop(); } => Finding::GrantNotMapped { root: Root::Dma(_), .. },
    dma_ram_as_device: |b| b.p().dma[1][1].attributes = S2_DEVICE => Finding::LeafWrongAttributes { root: Root::Dma(_), .. },
    doorbell_without_msis: |b| b.p().dma[1].push(Map { at: DOORBELL, pa: DOORBELL, size: 0x1000, attributes: S2_DEVICE })
        => Finding::LeafNotGranted { root: Root::Dma(_), .. },
    doorbell_missing: |b| b.p().dma[0].clear() => Finding::GrantNotMapped { root: Root::Dma(_), .. },
    doorbell_two_pages: |b| b.p().dma[0][0].size = 0x2000 => Finding::LeafNotGranted { root: Root::Dma(_), .. },
    doorbell_is_the_control_frame: |b| b.p().dma[0][0].pa = ITS => Finding::LeafWrongTarget { .. },
    doorbell_as_ram: |b| b.p().dma[0][0].attributes = S2_RAM => Finding::LeafWrongAttributes { .. },
    doorbell_read_only: |b| b.p().dma[0][0].attributes &= !(1 << 7) => Finding::LeafWrongAttributes { .. },
    doorbell_for_the_cpu: |b| b.stage2[0].push(Map { at: DOORBELL, pa: DOORBELL, size: 0x1000, attributes: S2_DEVICE })
        => Finding::LeafNotGranted { root: Root::Domain(_), .. },
    dma_by_foreign_tables: |b| { b.p().borrow = Some((1, 0)); } => Finding::TableShared { root: Root::Dma(_), .. },
    dma_by_tables_with_devices: |b| b.p().shared[0].push(0) => Finding::LeafNotGranted { root: Root::Dma(_), .. },
    stream_table_not_zero: |b| b.moves.clear() => Finding::BadPiece { what: "stream table", .. },
    stream_table_outside_the_area: |b| b.p().record.smmu.stream_table_base = BASE + 0x18_0000 => Finding::BadPiece { .. },
    stream_table_over_a_queue: |b| b.p().record.smmu.event_base = 1 << 62 | (STREAMS + 0x1000) | 7 => Finding::BadPiece { .. },
    stream_table_two_levels: |b| b.p().record.smmu.stream_table_cfg |= 1 << 16 => Finding::BadSmmu { .. },
    stream_table_not_aligned: |b| b.p().record.smmu.stream_table_base += 0x1000 => Finding::BadSmmu { .. },
    queue_too_long: |b| b.p().record.smmu.event_base |= 0x1F => Finding::BadSmmu { .. },
    smmu_interrupt_of_a_guest: |b| b.p().record.smmu.event_intid = IntId(40) => Finding::BadSmmu { what: "interrupts" },
    smmu_interrupts_the_same: |b| b.p().record.smmu.event_intid = IntId(109) => Finding::BadSmmu { what: "interrupts" },
    smmu_not_there: |b| b.facts.retain(|f| f.kind != fact::SMMU) => Finding::BadSmmu { what: "registers" },
    area_over_the_image: |b| the(b, fact::DMA_AREA).region = pa(BLOB_PA, 0x1000) => Finding::BadPiece { .. },
    area_not_kept: |b| the(b, fact::DMA_AREA).region = pa(0x5200_0000, 0x1_0000) => Finding::BadPci { what: "DMA area" },
}

// The ITS, LPIs and MSIs.
changes! {
    event_of_another_owner: |b| b.p().commands[2][1] = 8192 << 32 | 40 => Finding::BadCommand { index: 2, .. },
    event_to_another_interrupt: |b| b.p().lpis[0] = 39 => Finding::BadCommand { index: 2, .. },
    event_to_another_lpi: |b| b.p().commands[3][1] = 8192 << 32 | 65 => Finding::BadCommand { index: 3, .. },
    event_twice: |b| b.p().commands[3][1] = 8193 << 32 | 64 => Finding::BadCommand { index: 3, .. },
    event_of_another_device: |b| b.p().commands[3][0] = u64::from(DISK) << 32 | 0x0A => Finding::BadCommand { index: 3, .. },
    event_to_another_cpu: |b| b.p().commands[3][2] = 1 => Finding::BadCommand { index: 3, .. },
    event_without_device: |b| b.p().commands.swap(1, 2) => Finding::BadCommand { .. },
    device_without_msis: |b| b.p().commands[1][0] = u64::from(CARD) << 32 | 8 => Finding::BadCommand { index: 1, .. },
    device_unknown: |b| b.p().commands[1][0] = 0x77 << 32 | 8 => Finding::BadCommand { index: 1, .. },
    device_twice: |b| b.p().commands[4][0] = u64::from(NIC) << 32 | 8 => Finding::BadCommand { index: 4, .. },
    device_unmapped: |b| b.p().commands[1][2] &= !(1 << 63) => Finding::BadCommand { index: 1, .. },
    device_table_shared: |b| b.p().commands[4][2] = b.p().commands[1][2] => Finding::BadPiece { .. },
    device_table_in_guest_ram: |b| b.p().commands[4][2] = 1 << 63 | 0x5000_0000 => Finding::BadPiece { .. },
    device_table_too_large: |b| b.p().commands[4][1] = 15 => Finding::BadCommand { index: 4, .. },
    collection_to_another_cpu: |b| b.p().commands[0][2] = 1 << 63 | 1 << 16 => Finding::BadCommand { index: 0, .. },
    collection_of_another_cpu: |b| b.p().commands[0][2] = 1 << 63 | 1 => Finding::BadCommand { index: 0, .. },
    collection_missing: |b| b.p().commands[0] = [0x0D, 0, 0, 0] => Finding::BadIts { .. },
    command_to_move_an_event: |b| b.p().commands[8] = [0x01, 0, 0, 0] => Finding::BadCommand { why: "is none the plan may use", .. },
    command_with_unknown_bits: |b| b.p().commands[8][3] = 1 => Finding::BadCommand { .. },
    commands_beyond_the_plan: |b| b.p().record.its.command_end = 128 * 32 => Finding::BadIts { .. },
    commands_left_out: |b| b.p().record.its.command_end = 7 * 32 => Finding::BadIts { .. },
    commands_in_the_area: |b| b.p().record.its.command_base = 1 << 63 | COMMANDS => Finding::BadIts { .. },
    lpi_without_event: |b| b.p().lpis.push(64) => Finding::BadIts { what: "number of LPIs" },
    lpi_at_the_hypervisors_priority: |b| b.p().properties[0] = 0x03 => Finding::BadLpi { .. },
    lpi_enabled_and_unmapped: |b| b.p().properties[9] = 0x43 => Finding::BadLpi { .. },
    lpi_disabled: |b| b.p().properties[4] = 0x42 => Finding::BadLpi { .. },
    pending_table_of_a_cpu_without_lpis: |b| b.p().pending[1] = b.p().pending[0] => Finding::BadCpu { .. },
    pending_table_missing: |b| b.p().pending[0] = 0 => Finding::BadCpu { .. },
    pending_table_in_guest_ram: |b| b.p().pending[0] = 1 << 62 | 0x5000_0000 => Finding::BadPiece { .. },
    pending_table_not_zero: |b| b.p().pending[0] &= !(1 << 62) => Finding::BadCpu { .. },
    device_table_elsewhere: |b| b.p().record.its.device_base = 1 << 63 | 0x5000_0000 => Finding::BadPiece { .. },
    device_table_indirect: |b| b.p().record.its.device_base |= 1 << 62 => Finding::BadIts { .. },
    collection_table_invalid: |b| b.p().record.its.collection_base &= !(1 << 63) => Finding::BadIts { .. },
    its_not_there: |b| b.facts.retain(|f| f.kind != fact::ITS) => Finding::BadIts { what: "registers" },
    its_elsewhere: |b| b.el2.iter_mut().find(|m| m.pa == ITS).unwrap().pa = DOORBELL
        => Finding::El2WrongTarget { what: "ITS", .. },
    msis_delivered_directly: |b| {
        b.domains[0].flags &= !DomainFlags::INJECTED;
        b.lines.retain(|l| l.kind != line::MAINTENANCE);
    } => Finding::BadDomain { .. },
    msi_interrupts_of_another: |b| b.p().owners[0].first_spi = IntId(65) => Finding::BadFrame { .. },
    msi_interrupts_too_few: |b| b.p().owners[0].spi_count = 3 => Finding::BadFrame { .. },
    msi_interrupt_level: |b| {
        b.lines.iter_mut().find(|l| l.kind == line::MSI).unwrap().edge = 0;
        b.icfgr[2] = 0b1010_1000;
    } => Finding::BadFrame { .. },
    msi_interrupt_with_a_wire: |b| b.lines.push(Line { kind: line::DEVICE, ..*b.lines.iter().find(|l| l.kind == line::MSI).unwrap() })
        => Finding::LineTwice { .. },
    frame_elsewhere: |b| b.p().owners[0].frame = Ipa(0x0A00_0000) => Finding::BadDomain { .. },
}

// What guests are told.
changes! {
    tree_window_of_io: |b| b.trees[0].get("pcie@3f000000").set("ranges", &[0x0100_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x1000])
        => Finding::DtbRegion { .. },
    tree_window_elsewhere: |b| b.trees[0].get("pcie@3f000000").set("ranges", &[0x0200_0000, 0, 0x1000_0000, 0, 0x1001_0000, 0, 0x1000])
        => Finding::DtbRegion { .. },
    tree_window_beyond_the_board: |b| b.trees[0].get("pcie@3f000000").set("ranges", &[0x0200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 1, 0])
        => Finding::DtbRegion { .. },
    tree_configuration_space_elsewhere: |b| b.trees[0].get("pcie@3f000000").set("reg", &[0, 0x3F00_0000, 0, 0x20_0000])
        => Finding::DtbRegion { .. },
    tree_pin_of_another: |b| b.trees[1].get("pcie@3f000000").set("interrupt-map", &[0x1800, 0, 0, 1, 1, 0, 2, 4])
        => Finding::DtbInterrupt { .. },
    tree_pin_map_broken: |b| b.trees[1].get("pcie@3f000000").set("interrupt-map", &[0x1800, 0, 0, 1, 1, 0])
        => Finding::DtbUnreadable { .. },
    tree_frame_with_more_interrupts: |b| b.trees[0].get("intc@8000000").get("v2m@8090000").set("arm,msi-num-spis", &[5])
        => Finding::DtbInterrupt { .. },
    tree_frame_elsewhere: |b| b.trees[0].get("intc@8000000").get("v2m@8090000").set("reg", &[0, ITS as u32, 0, 0x1000])
        => Finding::DtbRegion { .. },
}
