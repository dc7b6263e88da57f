//! One change each to the sound plan, checksums made to hold again: the verifier must name it, by the right variant.

mod common;

use cofferdam_plan::audit::{Line, Name, line, payload};
use cofferdam_plan::*;
use cofferdam_verify::{Finding, Refusal};
use common::*;

/// Builds the changed plan and asks for a finding that `expected` accepts.
fn finds(what: &str, mut build: Build, change: impl FnOnce(&mut Build), expected: impl Fn(&Finding) -> bool) {
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
        changes! { from Build::two(); $($test: $change => $expected $(if $guard)?,)* }
    };
    (from $build:expr; $($test:ident: $change:expr => $expected:pat $(if $guard:expr)?,)*) => {
        $(#[test] fn $test() { finds(stringify!($test), $build, $change, |f| matches!(f, $expected $(if $guard)?)); })*
    };
}

// Memory: grants and stage 2.
changes! {
    ram_of_another_domain: |b| b.grants[3].pa = pa(0x4040_0000, 0x1000) => Finding::GrantsShareMemory { .. },
    ram_of_the_hypervisor: |b| b.grants[3].pa = pa(BASE + 0x1000, 0x1000)
        => Finding::GrantOverlaps { what: "the hypervisor's memory", .. },
    reserved_ram: |b| b.grants[3].pa = pa(0x5F00_0000, 0x1000) => Finding::GrantOverlaps { what: "reserved memory", .. },
    ram_that_is_not_there: |b| b.grants[3].pa = pa(0x6000_0000, 0x1000) => Finding::RamOutsideBoard { .. },
    distributor_granted: |b| { b.grants[4].pa = pa(GICD, 0x1000); } => Finding::GrantOverlaps { .. },
    el2_uart_granted: |b| b.grants[4].pa = pa(UART, 0x1000) => Finding::GrantOverlaps { .. },
    device_grant_over_ram: |b| b.grants[4].pa = pa(0x5200_0000, 0x1000) => Finding::GrantOverlaps { what: "RAM", .. },
    grant_over_emulated_gicd: |b| b.grants[3].ipa = ipa(GICD + 0xF000, 0x1000)
        => Finding::EmulatedWindow { what: "distributor", .. },
    grant_over_second_redistributor: |b| b.grants[3].ipa = ipa(GICR + 0x3_0000, 0x1000)
        => Finding::EmulatedWindow { what: "redistributors", .. },
    grant_over_vuart: |b| b.grants[3].ipa = ipa(0x080E_0000, 0x1000) => Finding::EmulatedWindow { what: "virtual PL011", .. },
    two_things_at_one_ipa: |b| b.grants[3].ipa = ipa(0x4000_0000, 0x1000) => Finding::GrantsShareIpa { .. },
    grant_beyond_input_size: |b| b.grants[3].ipa = ipa(0x1_0000_0000, 0x1000) => Finding::IpaTooLarge { .. },
    grant_that_wraps: |b| b.grants[3].pa = PaRegion { base: Pa(u64::MAX - 0xFFF), size: 0x1000 } => Finding::BadRecord { .. },
    grant_to_nobody: |b| b.grants[3].domain = 7 => Finding::BadRecord { table: "grants", .. },
    grant_of_unknown_kind: |b| b.grants[3].kind = 9 => Finding::BadRecord { table: "grants", .. },
    page_of_two_devices: |b| {
        let mut other = b.facts[7];
        other.region = pa(GPIO + 0x200, 0x200);
        b.facts.push(other);
    } => Finding::PageWithTwoOwners { .. },
    device_granted_in_part: |b| b.facts[6].region = pa(GPIO, 0x2000) => Finding::DeviceNotGranted { .. },
    device_of_another_domain: |b| b.facts[6].owner = 1 => Finding::PageWithTwoOwners { .. },
    device_of_nobody: |b| b.facts[6].owner = 0 => Finding::PageWithTwoOwners { .. },
    page_without_registers: |b| b.facts[6].region = pa(GPIO + 0x1000, 0x1000) => Finding::PageWithoutDevice { .. },
    owner_unknown: |b| b.facts[6].owner = 3 => Finding::BadRecord { table: "facts", .. },
    owner_of_ram: |b| b.facts[0].owner = 1 => Finding::BadRecord { table: "facts", .. },

    leaf_too_many: |b| b.stage2[0].push(Map { at: 0x5000_0000, pa: 0x5300_0000, size: 4096, attributes: S2_RAM })
        => Finding::LeafNotGranted { .. },
    leaf_between_grants: |b| b.stage2[1].push(Map { at: 0x1000_0000, pa: 0x5300_0000, size: 4096, attributes: S2_RAM })
        => Finding::LeafNotGranted { ipa, .. } if ipa.base == Ipa(0x1000_0000),
    leaf_larger_than_grant: |b| b.stage2[1][1].size = 0x2000 => Finding::LeafNotGranted { ipa, .. } if ipa.size == 0x1000,
    leaf_missing: |b| { b.stage2[1].remove(1); } => Finding::GrantNotMapped { .. },
    leaf_at_start_missing: |b| { b.stage2[1].remove(0); } => Finding::GrantNotMapped { .. },
    leaf_elsewhere: |b| b.stage2[1][1].pa = 0x5100_1000 => Finding::LeafWrongTarget { .. },
    leaf_at_foreign_ram: |b| b.stage2[1][1].pa = 0x4040_0000 => Finding::LeafWrongTarget { .. },
    leaf_at_hypervisor: |b| b.stage2[1][1].pa = BASE => Finding::LeafWrongTarget { .. },
    leaf_at_distributor: |b| b.stage2[1][2].pa = GICD => Finding::LeafWrongTarget { .. },
    ram_as_device: |b| b.stage2[1][1].attributes = S2_DEVICE => Finding::LeafWrongAttributes { .. },
    device_as_ram: |b| b.stage2[1][2].attributes = S2_RAM => Finding::LeafWrongAttributes { .. },
    device_executable: |b| b.stage2[1][2].attributes &= !(0b11 << 53) => Finding::LeafWrongAttributes { .. },
    ram_not_cacheable: |b| b.stage2[0][0].attributes = S2_RAM & !(0b1010 << 2) => Finding::LeafWrongAttributes { .. },
    ram_without_access_flag: |b| b.stage2[0][0].attributes &= !(1 << 10) => Finding::LeafWrongAttributes { .. },
    ram_read_only: |b| b.stage2[0][0].attributes &= !(0b10 << 6) => Finding::LeafWrongAttributes { .. },
    ram_not_shareable: |b| b.stage2[0][0].attributes &= !(0b11 << 8) => Finding::LeafWrongAttributes { .. },

    vmid_shared: |b| b.domains[1].vttbr = 1 << 48 => Finding::VmidShared { vmid: 1, .. },
    vmid_zero: |b| b.domains[1].vttbr = 0x8000 << 48 => Finding::BadVmid { vmid: 0, .. },
    vmid_too_large: |b| b.domains[1].vttbr = 0x100 << 48 => Finding::BadVmid { vmid: 0x100, .. },
    common_not_private: |b| b.domains[1].vttbr = 2 << 48 | 1 => Finding::BadRoot { .. },
    vtcr_reserved_bit: |b| b.domains[0].vtcr |= 1 << 21 => Finding::BadRegime { .. },
    vtcr_granule: |b| b.domains[0].vtcr |= 1 << 14 => Finding::BadRegime { .. },
    vtcr_start_level: |b| b.domains[0].vtcr &= !(3 << 6) => Finding::BadRoot { .. },
    vtcr_wide_vmid: |b| b.domains[0].vtcr |= 1 << 19 => Finding::BadRegime { .. },
    vtcr_physical_size: |b| b.domains[0].vtcr ^= 1 << 16 => Finding::BadRegime { .. },
    revocation_too_short: |b| b.domains[0].root_entries = 1 => Finding::RootEntries { .. },
    revocation_too_long: |b| b.domains[0].root_entries = 513 => Finding::RootEntries { entries: 513, .. },
}

// The hypervisor's own tables.
changes! {
    el2_maps_guest_ram: |b| b.el2.push(Map { at: HYP + 0x500_0000, pa: 0x4040_0000, size: 4096, attributes: EL2_DATA })
        => Finding::El2MapsGuest { device: false, .. },
    el2_maps_guest_device: |b| b.el2.push(Map { at: HYP + 0x500_0000, pa: GPIO, size: 4096, attributes: EL2_DEVICE })
        => Finding::El2MapsGuest { device: true, .. },
    el2_maps_for_no_purpose: |b| b.el2.push(Map { at: HYP + 0x500_0000, pa: BASE + 0x18_0000, size: 4096, attributes: EL2_DATA })
        => Finding::El2Stray { .. },
    el2_code_writable: |b| b.el2[0].attributes &= !(1 << 7) => Finding::El2WrongAttributes { what: "image", .. },
    el2_data_executable: |b| b.el2[2].attributes &= !(1 << 54) => Finding::El2WrongAttributes { what: "image", .. },
    el2_image_elsewhere: |b| b.el2[1].pa += 0x1000 => Finding::El2WrongTarget { what: "image", .. },
    el2_stub_writable: |b| b.el2[3].attributes = EL2_DATA => Finding::El2WrongAttributes { what: "boot stub", .. },
    el2_stub_two_pages: |b| b.el2[3].size = 0x2000 => Finding::El2Stray { .. },
    el2_stub_missing: |b| { b.el2.remove(3); } => Finding::El2Unmapped { what: "boot stub", .. },
    el2_stub_alias_writable: |b| { b.el2[0] = Map { size: 0x1000, attributes: EL2_DATA, ..b.el2[0] } }
        => Finding::El2WrongAttributes { what: "boot stub", .. },
    el2_plan_writable: |b| {
        b.el2.push(Map { at: HYP + BLOB_OFFSET + 0x1000, pa: BLOB_PA + 0x1000, size: 0x1000, attributes: EL2_DATA });
    } => Finding::El2WrongAttributes { what: "plan", .. },
    el2_device_executable: |b| b.el2[4].attributes &= !(1 << 54) => Finding::El2WrongAttributes { what: "console UART", .. },
    el2_device_cacheable: |b| b.el2[5].attributes = EL2_DATA => Finding::El2WrongAttributes { what: "distributor", .. },
    el2_console_elsewhere: |b| b.el2[4].pa = GPIO + 0x1000 => Finding::El2WrongTarget { what: "console UART", .. },
    el2_area_executable: |b| b.el2[6].attributes &= !(1 << 54) => Finding::El2WrongAttributes { what: "CPU area", .. },
    el2_area_missing: |b| { b.el2.remove(6); } => Finding::El2Unmapped { what: "CPU area", .. },
    el2_areas_share_memory: |b| b.el2[8].pa = b.el2[6].pa => Finding::El2AreaShared { .. },
    el2_area_over_image: |b| b.el2[8].pa = BASE + 0x8000 => Finding::El2WrongTarget { what: "CPU area", .. },
    el2_area_not_kept: |b| b.el2[8].pa = 0x5200_0000 => Finding::El2WrongTarget { what: "CPU area", .. },
    el2_guard_mapped: |b| b.el2.push(Map { at: AREAS - 0x1000, pa: BASE + 0x18_0000, size: 4096, attributes: EL2_DATA })
        => Finding::El2NoGuard { .. },
    el2_areas_without_guard: |b| {
        b.cpus[1].area_va = b.cpus[0].area_va + va::CPU_AREA;
        b.el2[8].at = b.cpus[1].area_va;
    } => Finding::El2NoGuard { .. },
    el2_two_cpus_one_stack: |b| b.cpus[1].area_va = b.cpus[0].area_va => Finding::El2PurposesOverlap { what: "CPU area", .. },
    el2_redistributor_shared: |b| b.el2[9].pa = b.el2[7].pa => Finding::El2DeviceTwice { .. },
    el2_redistributor_elsewhere: |b| b.el2[9].pa = 0x0902_0000 => Finding::El2DeviceGrantable { what: "redistributor", .. },
    el2_window_elsewhere: |b| b.domains[0].root_va = WINDOWS + 0x1_0000 => Finding::El2PurposesOverlap { .. },
    el2_window_missing: |b| b.domains[0].root_va = 0 => Finding::El2Unmapped { what: "revocation window", .. },
    el2_tcr: |b| b.header.tcr_el2 |= 1 << 20 => Finding::BadRegime { .. },
    el2_root_with_asid: |b| b.header.ttbr0_el2 = 1 << 48 => Finding::BadRoot { .. },
    forbidden_list_too_short: |b| { b.facts.remove(4); } => Finding::El2DeviceGrantable { what: "console UART", .. },
    hypervisor_not_in_ram: |b| b.facts[0].region = pa(0x4030_0000, 0x1FD0_0000) => Finding::HypervisorOutsideRam { .. },
    hypervisor_in_reserved: |b| b.facts[1].region = pa(BASE + 0x1F_0000, 0x1000) => Finding::HypervisorOverlaps { .. },
}

// CPUs, domains, header.
changes! {
    cpu_twice: |b| b.cpus[2].mpidr = b.cpus[0].mpidr => Finding::CpuTwice { .. },
    cpu_beyond_target_list: |b| b.cpus[2].mpidr = Mpidr(16) => Finding::BadCpu { .. },
    cpu_with_mt_bit: |b| b.cpus[2].mpidr = Mpidr(1 << 24 | 2) => Finding::BadCpu { .. },
    vcpus_exchanged: |b| b.vcpus = vec![CpuIndex(0), CpuIndex(2), CpuIndex(1)] => Finding::BadCpu { .. },
    vcpu_on_foreign_cpu: |b| b.vcpus[2] = CpuIndex(0) => Finding::BadCpu { .. },
    cpu_without_vcpu: |b| b.cpus.push(Cpu { mpidr: Mpidr(3), ..b.cpus[2] }) => Finding::VcpuCount { .. },
    name_twice: |b| b.domains[1].name = b.domains[0].name => Finding::NameTwice { .. },
    name_empty: |b| b.domains[1].name = [0; 32] => Finding::BadName { .. },
    name_with_bracket: |b| b.domains[1].name = name("a] [b") => Finding::BadName { .. },
    name_with_tail: |b| b.domains[1].name[20] = b'x' => Finding::BadName { .. },
    entry_elsewhere: |b| b.domains[1].entry = Ipa(0x4020_1000) => Finding::EntryOutsideRam { .. },
    entry_in_device: |b| b.domains[1].entry = Ipa(GPIO) => Finding::EntryOutsideRam { .. },
    dtb_elsewhere: |b| b.domains[1].dtb = Ipa(0x4020_0100) => Finding::DtbNotThere { .. },
    unknown_flag: |b| b.domains[1].flags |= 1 << 9 => Finding::BadDomain { .. },
    input_pays_with_a_foreign_cpu: |b| b.header.housekeeping_cpu = CpuIndex(2) => Finding::BadHeader { field: "housekeeping_cpu" },
    escape_is_text: |b| b.header.console_escape = b'a' => Finding::BadHeader { field: "console_escape" },
    escape_is_a_line_end: |b| b.header.console_escape = 0x0D => Finding::BadHeader { field: "console_escape" },
    input_twice: |b| b.domains[1].flags |= DomainFlags::INPUT => Finding::InputTwice { .. },
    console_without_flag: |b| b.domains[1].flags = 0 => Finding::BadConsole { .. },
    console_with_foreign_interrupt: |b| b.domains[1].vuart_intid = IntId(34) => Finding::BadConsole { .. },
    base_outside_hypervisor: |b| b.header.base = Pa(BASE - 0x20_0000) => Finding::BadHeader { field: "base" },
    console_addresses_differ: |b| b.header.console_pa_again = Pa(0) => Finding::BadHeader { field: "console_pa_again" },
    image_shorter_than_plan: |b| b.header.image_len = 0x1_0000 => Finding::BadHeader { field: "image_len" },
    physical_size_unknown: |b| b.header.pa_bits = 41 => Finding::BadHeader { field: "pa_bits" },
    vmid_size_unknown: |b| b.header.vmid_bits = 12 => Finding::BadHeader { field: "vmid_bits" },
    blob_elsewhere: |b| b.header.blob_offset += 0x1000 => Finding::BadRoot { .. },
    header_flag_unknown: |b| b.header.flags |= 1 << 7 => Finding::BadHeader { field: "flags" },
    probe_outside_ram: |b| b.probes[0].at = Pa(0x6000_0000) => Finding::ProbeOutsideRam { .. },
    probe_in_reserved: |b| b.probes[0].at = Pa(0x5F00_0000) => Finding::ProbeOutsideRam { .. },
    probe_unaligned: |b| b.probes[0].at = Pa(0x5000_0004) => Finding::ProbeOutsideRam { .. },
}

// Interrupts.
changes! {
    spi_of_two_domains: |b| b.lines[5].intid = IntId(39) => Finding::LineTwice { .. },
    spi_of_the_hypervisor: |b| b.lines[7].intid = IntId(33) => Finding::LineTwice { .. },
    vuart_on_a_wired_line: |b| b.lines[6].intid = IntId(39) => Finding::LineTwice { .. },
    line_beyond_words: |b| b.lines[7].intid = IntId(400) => Finding::BadLine { .. },
    line_that_is_a_ppi: |b| b.lines[7].intid = IntId(23) => Finding::BadLine { .. },
    foreign_owned_bit: |b| b.domains[0].owned[1] |= 1 << 7 => Finding::OwnedBits { word: 1, .. },
    console_owned_bit: |b| b.domains[0].owned[1] |= 1 << 1 => Finding::ConsoleInterruptOwned { .. },
    owned_bit_missing: |b| b.domains[1].owned[1] = 1 << 3 => Finding::OwnedBits { .. },
    owned_bit_in_last_word: |b| b.domains[1].owned[31] = 1 => Finding::OwnedBits { word: 31, .. },
    kick_owned: |b| b.domains[1].owned[0] |= 1 << 15 => Finding::KickOwned { .. },
    el2_timer_owned: |b| b.domains[1].owned[0] |= 1 << 26 => Finding::ForeignPpi { intid: IntId(26), .. },
    el2_timer_line: |b| b.lines[0].intid = IntId(26) => Finding::OwnedBits { word: 0, .. },
    maintenance_granted: |b| {
        b.lines[0].intid = IntId(25);
        b.domains[0].owned[0] = 0x7FFF | 1 << 25 | 1 << 30;
    } => Finding::ForeignPpi { intid: IntId(25), .. },
    counters_without_interrupt: |b| b.domains[1].flags |= DomainFlags::PMU => Finding::CountersAndInterrupt { .. },
    counters_interrupt_without_counters: |b| {
        b.lines[0].intid = IntId(23);
        b.domains[0].owned[0] = 0x7FFF | 1 << 23 | 1 << 30;
    } => Finding::CountersAndInterrupt { .. },
    injected_without_maintenance: |b| b.domains[0].flags |= DomainFlags::INJECTED => Finding::BadDelivery { .. },
    maintenance_of_direct_delivery: |b| {
        b.lines.push(Line { intid: IntId(25), domain: 1, kind: line::MAINTENANCE, edge: 0, name: Name::default() });
    } => Finding::BadDelivery { .. },
    injected_without_kick: |b| {
        b.lines.push(Line { intid: IntId(25), domain: 1, kind: line::MAINTENANCE, edge: 0, name: Name::default() });
        b.domains[1].flags |= DomainFlags::INJECTED;
        b.header.flags = 0;
    } => Finding::BadDelivery { .. },
    maintenance_elsewhere: |b| {
        b.lines.push(Line { intid: IntId(24), domain: 0, kind: line::MAINTENANCE, edge: 0, name: Name::default() });
        b.domains[0].flags |= DomainFlags::INJECTED;
    } => Finding::BadLine { intid: IntId(24), .. },
    maintenance_in_the_words: |b| {
        b.lines.push(Line { intid: IntId(25), domain: 0, kind: line::MAINTENANCE, edge: 0, name: Name::default() });
        b.domains[0].flags |= DomainFlags::INJECTED;
        b.domains[0].owned[0] |= 1 << 25;
    } => Finding::ForeignPpi { intid: IntId(25), .. },
    route_to_foreign_cpu: |b| b.spis[2].router = 0 => Finding::ForeignRoute { intid: IntId(39), .. },
    route_to_any: |b| b.spis[2].router |= 1 << 31 => Finding::ForeignRoute { .. },
    route_to_unknown_cpu: |b| b.spis[2].router = 1 << 32 => Finding::ForeignRoute { .. },
    route_missing: |b| { b.spis.remove(2); } => Finding::NoRoute { intid: IntId(39) },
    route_too_many: |b| b.spis.push(Spi { router: 1, intid: IntId(40), reserved: 0 }) => Finding::RouteWithoutOwner { .. },
    routes_unordered: |b| b.spis.swap(0, 1) => Finding::RoutesUnordered { .. },
    trigger_flipped: |b| b.icfgr[0] = 0 => Finding::Triggers { .. },
    trigger_of_foreign_line: |b| b.icfgr[3] = 2 => Finding::Triggers { .. },
    trigger_words_missing: |b| { b.icfgr.pop(); } => Finding::TriggerWords { is: 15 },
    typer_shows_lpis: |b| b.domains[0].gicd_typer |= 1 << 17 => Finding::BadDomain { .. },
    typer_shows_more: |b| b.domains[1].gicd_typer = 9 => Finding::BadDomain { .. },
    kick_is_a_ppi: |b| b.header.kick_sgi = IntId(16) => Finding::BadHeader { field: "kick_sgi" },
    group0_undeclared: |b| b.header.flags = 0 => Finding::BadHeader { field: "console_intid" },
    console_line_not_el2s: |b| { b.lines.retain(|l| l.kind != line::HYPERVISOR); } => Finding::BadHeader { field: "console_intid" },
}

// Payloads, moves, scrubs.
changes! {
    payload_in_foreign_ram: |b| b.payloads[0].pa = pa(0x4060_8000, 0x3000) => Finding::PayloadNotInRam { .. },
    payload_longer_than_image: |b| b.payloads[1].offset = 0x40_2000 => Finding::PayloadOutsideImage { .. },
    payload_of_hypervisor_bytes: |b| b.payloads[0].offset = 0x1000 => Finding::PayloadInHypervisor { .. },
    payload_never_moved: |b| b.payloads[0].offset = 0x20_8000 => Finding::PayloadNeverArrives { .. },
    payload_of_unknown_kind: |b| b.payloads[0].kind = payload::FILE + 1 => Finding::BadRecord { table: "payloads", .. },
    file_in_foreign_ram: |b| {
        b.payloads[0].kind = payload::FILE;
        b.payloads[0].pa = pa(0x4060_8000, 0x3000);
    } => Finding::PayloadNotInRam { .. },
    file_never_moved: |b| {
        b.payloads[0].kind = payload::FILE;
        b.payloads[0].offset = 0x20_8000;
    } => Finding::PayloadNeverArrives { .. },
    payload_bytes_in_foreign_ram: |b| b.payloads[0].offset = b.payloads[1].offset => Finding::PayloadExposed { .. },
    payloads_overlap: |b| {
        let mut again = b.payloads[0];
        (again.ipa, again.pa) = (ipa(0x4000_2000, 0x3000), pa(0x4040_2000, 0x3000));
        again.offset += 0x2000;
        b.payloads.push(again);
    } => Finding::PayloadsOverlap { .. },
    move_over_hypervisor: |b| b.moves.push(Move { offset: 0x20_0000, to: Pa(BASE), len: 0x1000, zero: 0 })
        => Finding::MoveOverHypervisor { .. },
    move_over_foreign_payload: |b| b.moves.push(Move { offset: 0x20_0000, to: Pa(0x4060_0000), len: 0x1000, zero: 0 })
        => Finding::MoveWithoutPayload { .. } | Finding::MoveOverPayload { .. },
    move_leaves_domain: |b| b.moves.push(Move { offset: 0x20_0000, to: Pa(0x4040_0000), len: 0x3000, zero: 0x20_0000 })
        => Finding::MoveOutsideDomain { .. },
    move_zeroes_payload: |b| b.moves.push(Move { offset: 0, to: Pa(0x4040_0000), len: 0, zero: 0x1000 })
        => Finding::MoveOverPayload { .. },
    move_copies_the_hypervisor: |b| {
        b.moves.push(Move { offset: 0x1F_F000, to: Pa(0x403F_F000), len: 0x4000, zero: 0 });
    } => Finding::MoveOverHypervisor { .. },
    move_copies_more_than_payload: |b| b.moves.push(Move { offset: 0x20_0000, to: Pa(0x4040_0000), len: 0x4000, zero: 0 })
        => Finding::MoveCopiesMore { .. },
    move_behind_image: |b| b.moves.push(Move { offset: 0x40_3000, to: Pa(0x5100_0100), len: 0x10, zero: 0 })
        => Finding::MoveOutsideImage { .. },
    move_wraps: |b| b.moves.push(Move { offset: 0, to: Pa(!15), len: 0x10, zero: 0 }) => Finding::BadRecord { .. },
    move_unaligned: |b| b.moves.push(Move { offset: 8, to: Pa(0x5100_0100), len: 0x10, zero: 0 }) => Finding::BadRecord { .. },
    scrub_of_foreign_ram: |b| b.scrubs[0].base = Pa(0x4068_0000) => Finding::ScrubOutsideDomain { .. },
    scrub_of_payload: |b| b.scrubs[1].base = Pa(0x4060_1000) => Finding::ScrubOverPayload { .. },
    scrub_unaligned: |b| b.scrubs[0].size += 8 => Finding::BadRecord { .. },
    scrub_unlisted: |b| b.scrubs.push(b.scrubs[0]) => Finding::ScrubLists { .. },
    scrub_incomplete: |b| b.domains[0].flags |= DomainFlags::SCRUB_AT_BOOT => Finding::NotScrubbed { .. },
}

// Generated device trees.
changes! {
    tree_with_more_memory: |b| b.trees[1].get("memory@40000000").set("reg", &[0, 0x4000_0000, 0, 0x20_2000])
        => Finding::DtbRegion { .. },
    tree_with_foreign_memory: |b| b.trees[0].get("memory@40000000").set("reg", &[0, 0x5000_0000, 0, 0x1000])
        => Finding::DtbRegion { .. },
    tree_with_foreign_device: |b| b.trees[0].get("pl011").set("reg", &[0, GPIO as u32, 0, 0x1000]) => Finding::DtbRegion { .. },
    tree_with_device_beyond_ranges: |b| b.trees[1].get("soc").get("gpio@9030000").set("reg", &[0x0A00_0000, 0x1000])
        => Finding::DtbUnreadable { .. },
    tree_with_translated_foreign_device: |b| b.trees[1].get("soc").set("ranges", &[0x0900_0000, 0, 0x0800_0000, 0x10_0000])
        => Finding::DtbRegion { .. },
    tree_with_more_redistributors: |b| b.trees[0].get("intc@8000000").set("reg", &[0, GICR as u32, 0, 0x4_0000])
        => Finding::DtbRegion { .. },
    tree_with_foreign_interrupt: |b| b.trees[0].get("pl011").set("interrupts", &[0, 7, 4])
        => Finding::DtbInterrupt { intid: IntId(39), .. },
    tree_with_el2_timer: |b| b.trees[0].get("timer").set("interrupts", &[1, 10, 4]) => Finding::DtbInterrupt { intid: IntId(26), .. },
    tree_with_extended_foreign_interrupt: |b| b.trees[0].get("timer").set("interrupts-extended", &[1, 0, 7, 4])
        => Finding::DtbInterrupt { intid: IntId(39), .. },
    tree_with_more_cpus: |b| {
        let cpu = fdt::Node::new("cpu@1").text("device_type", "cpu").cells("reg", &[1]);
        b.trees[0].get("cpus").children.push(cpu);
    } => Finding::DtbCpus { found: 2, planned: 1, .. },
    tree_with_foreign_affinity: |b| b.trees[1].get("cpus").get("cpu@1").set("reg", &[2]) => Finding::DtbCpu { .. },
    tree_without_controller: |b| b.trees[0].children.retain(|c| c.name != "intc@8000000") => Finding::DtbUnreadable { .. },
    tree_with_long_name: |b| b.trees[0].children.push(fdt::Node::new("a-name-of-more-than-29-bytes@0")) => Finding::DtbUnreadable { .. },
}

#[test]
fn a_table_two_domains_share_is_found() {
    let mut blob = Build::two().blob();
    let plan = Plan::read(blob.bytes()).unwrap();
    let tables = plan.header.tables.offset as usize;
    let root = |i: usize| (plan.domains[i].vttbr & 0xFFFF_FFFF_F000) - BLOB_PA;
    // Slot 1 of each level 1 root leads to the level 2 table of guest RAM.
    let (from, to) = (root(0) as usize + 8, root(1) as usize + 8);
    assert!(from >= tables);
    blob.bytes_mut().copy_within(from..from + 8, to);
    blob.reseal();
    let (_, findings) = blob.verify();
    assert!(findings.iter().any(|f| matches!(f, Finding::TableShared { .. })), "{findings:?}");
    assert!(findings.iter().any(|f| matches!(f, Finding::TableUnused { .. })), "{findings:?}");
}

#[test]
fn a_cycle_ends_the_walk() {
    let mut blob = Build::two().blob();
    let plan = Plan::read(blob.bytes()).unwrap();
    let root = plan.domains[0].vttbr & 0xFFFF_FFFF_F000;
    let at = (root - BLOB_PA) as usize + 2 * 8;
    blob.bytes_mut()[at..at + 8].copy_from_slice(&(root | 3).to_le_bytes());
    blob.reseal();
    let (_, findings) = blob.verify();
    assert!(findings.iter().any(|f| matches!(f, Finding::TableShared { .. })), "{findings:?}");
}

#[test]
fn facts_of_unknown_kind_are_refused() {
    finds("kind", Build::two(), |b| b.facts[0].kind = 0, |f| matches!(f, Finding::BadRecord { table: "facts", .. }));
}

/// [`Build::two`], where `alpha` may start again: its kernel lies in the hypervisor's block once more.
fn restarting() -> Build {
    let mut b = Build::two();
    b.payloads[0].pristine = PRISTINE;
    b.reloads = vec![
        Move { offset: PRISTINE, to: Pa(0x4040_0000), len: 0x3000, zero: 0x1F_D000 },
        Move { offset: TREE, to: Pa(0x5000_0000), len: 0, zero: 0x20_0000 },
    ];
    let map = |at, size, attributes| Map { at, pa: at, size, attributes };
    b.restart[0] = vec![
        map(BASE, 0x1000, EL2_CODE),
        map(0x4040_0000, 0x20_0000, EL2_DATA),
        map(0x5000_0000, 0x20_0000, EL2_DATA),
        map(BASE + PRISTINE, 0x3000, EL2_CONST),
    ];
    let d = &mut b.domains[0];
    (d.reload_count, d.restart_limit, d.on_fault) = (2, 5, Policy::RESTART);
    b
}

// Restart.
changes! { from restarting();
    restart_without_limit: |b| b.domains[0].restart_limit = 0 => Finding::BadDomain { .. },
    restart_policy_unknown: |b| b.domains[0].on_off = 3 => Finding::BadDomain { why: "has an unknown policy", .. },
    restart_never: |b| b.domains[0].on_fault = Policy::HALT => Finding::BadDomain { .. },
    restart_root_without_restart: |b| b.domains[1].restart_ttbr = BASE => Finding::BadDomain { .. },
    restart_reserved: |b| b.domains[0].reserved1[1] = 1 => Finding::BadDomain { why: "has an unknown policy", .. },
    wfi_trapped_for_nothing: |b| b.domains[0].flags |= DomainFlags::TRAP_WFI => Finding::BadDomain { .. },
    reloads_of_one_that_never_restarts: |b| {
        b.domains[1].first_reload = 1;
        b.domains[1].reload_count = 1;
    } => Finding::BadDomain { why: "has reloads and never restarts", .. },
    reload_unlisted: |b| b.reloads.push(b.reloads[0]) => Finding::ReloadLists { .. },
    reload_too_short: |b| b.reloads[0].zero -= 0x1000 => Finding::NotReloaded { at: Pa(0x405F_F000), .. },
    reload_too_long: |b| b.reloads[0].zero += 0x1000 => Finding::NotReloaded { .. },
    reload_of_foreign_ram: |b| b.reloads[0].to = Pa(0x4060_0000) => Finding::NotReloaded { .. },
    reload_missing: |b| {
        b.reloads.truncate(1);
        b.domains[0].reload_count = 1;
    } => Finding::NotReloaded { at: Pa(0x5000_0000), .. },
    reload_after_the_end: |b| {
        b.reloads.push(Move { offset: 0, to: Pa(0x5100_0000), len: 0, zero: 0x1000 });
        b.domains[0].reload_count = 3;
    } => Finding::ReloadOutsideDomain { to: Pa(0x5100_0000), .. },
    reload_unaligned: |b| b.reloads[0].zero += 8 => Finding::BadRecord { table: "reloads", .. },
    reload_wraps: |b| b.reloads[0].zero = u64::MAX - 15 => Finding::BadRecord { table: "reloads", .. },
    pristine_in_foreign_ram: |b| b.reloads[0].offset = 0x40_0000 => Finding::PayloadExposed { .. },
    pristine_in_its_own_ram: |b| b.reloads[0].offset = 0x20_0000 => Finding::PayloadExposed { .. },
    pristine_behind_the_image: |b| b.header.image_len = 0x1F_2000 => Finding::PristineNotKept { .. },
    pristine_not_kept: |b| b.facts[5].region = pa(BASE, 0x1F_1000) => Finding::PristineNotKept { .. },
    payload_reloaded_from_elsewhere: |b| b.payloads[0].pristine += 0x1000 => Finding::PayloadNotReloaded { .. },
    payload_reloaded_in_part: |b| {
        b.reloads[0].len -= 0x1000;
        b.reloads[0].zero += 0x1000;
    } => Finding::PayloadNotReloaded { .. },
    reload_copies_more: |b| {
        b.reloads[0].len += 0x1000;
        b.reloads[0].zero -= 0x1000;
    } => Finding::ReloadCopiesMore { .. },
    restart_maps_foreign_ram: |b| b.restart[0][1].size += 0x20_0000 => Finding::RestartMapsMore { .. },
    restart_maps_the_hypervisor: |b| b.restart[0][3].size += 0x1000 => Finding::RestartMapsMore { .. },
    restart_maps_elsewhere: |b| b.restart[0][2].pa = 0x4060_0000 => Finding::RestartMapsMore { .. },
    restart_maps_at_another_address: |b| b.restart[0][2].at = 0x5020_0000 => Finding::RestartMapsMore { .. },
    restart_maps_pristine_writable: |b| b.restart[0][3].attributes = EL2_DATA => Finding::RestartMapsMore { .. },
    restart_maps_ram_executable: |b| b.restart[0][1].attributes = EL2_CODE & !(1 << 7) => Finding::RestartMapsMore { .. },
    restart_maps_stub_writable: |b| b.restart[0][0].attributes = EL2_DATA => Finding::RestartMapsMore { .. },
    restart_maps_less_ram: |b| { b.restart[0].remove(2); } => Finding::RestartMapsLess { .. },
    restart_maps_less_pristine: |b| b.restart[0][3].size -= 0x1000 => Finding::RestartMapsLess { .. },
    restart_root_elsewhere: |b| b.domains[0].restart_ttbr = 1 << 47 => Finding::BadRoot { .. },
    restart_root_with_asid: |b| b.domains[0].restart_ttbr = 1 => Finding::BadRoot { .. },
}

/// `alpha` restarts and has a watchdog, after which CPU 1, of `beta`, looks.
fn watched() -> Build {
    let mut b = restarting();
    let d = &mut b.domains[0];
    (d.watchdog_ms, d.watcher) = (400, CpuIndex(1));
    d.flags |= DomainFlags::TRAP_WFI;
    b.cpus[1].watch_ms = 100;
    b
}

// Watchdogs.
changes! { from watched();
    watchdog_of_its_own: |b| {
        b.domains[0].watcher = CpuIndex(0);
        (b.cpus[0].watch_ms, b.cpus[1].watch_ms) = (100, 0);
    } => Finding::BadDomain { why: "has a watchdog that nobody sure looks after in time", .. },
    watchdog_unwatched: |b| b.cpus[1].watch_ms = 0 => Finding::BadDomain { .. },
    watchdog_watched_rarely: |b| b.cpus[1].watch_ms = 300 => Finding::BadDomain { .. },
    watchdog_watched_too_often: |b| b.cpus[1].watch_ms = 1 => Finding::BadCpu { .. },
    watchdog_watched_by_two: |b| b.cpus[2].watch_ms = 100 => Finding::BadCpu { .. },
    watcher_without_watchdog: |b| b.domains[1].watcher = CpuIndex(2) => Finding::BadDomain { why: "has a watcher and no watchdog", .. },
    watchdog_without_group0: |b| b.header.flags = 0 => Finding::BadDomain { why: "has a watchdog, but EL2 has no interrupts", .. },
    watchdog_wfi_not_trapped: |b| b.domains[0].flags &= !DomainFlags::TRAP_WFI => Finding::BadDomain { .. },
}

/// The same, where `alpha` has its watchdog as registers.
fn watched_by_registers() -> Build {
    let mut b = watched();
    let d = &mut b.domains[0];
    (d.watchdog_ipa, d.watchdog_intid) = (Ipa(0x0A00_0000), IntId(36));
    d.owned[1] |= 1 << 4;
    let spi = b.spis[0];
    b.spis.insert(2, Spi { intid: IntId(36), ..spi });
    b.lines.insert(7, Line { intid: IntId(36), kind: line::WATCHDOG, ..b.lines[5] });
    b
}

// Registers of a watchdog.
changes! { from watched_by_registers();
    registers_without_watchdog: |b| {
        b.domains[0] = Domain { watchdog_ms: 0, watcher: CpuIndex(0), ..b.domains[0] };
        b.domains[0].flags &= !DomainFlags::TRAP_WFI;
        b.cpus[1].watch_ms = 0;
    } => Finding::BadDomain { why: "has registers of a watchdog that contradict each other", .. },
    registers_over_the_console: |b| b.domains[0].watchdog_ipa = Ipa(0x080B_F000) => Finding::EmulatedWindow { .. },
    registers_over_memory: |b| b.domains[0].watchdog_ipa = Ipa(0x4000_0000) => Finding::EmulatedWindow { what: "watchdog", .. },
    registers_across_pages: |b| b.domains[0].watchdog_ipa = Ipa(0x0A00_0800) => Finding::BadDomain { .. },
    registers_with_foreign_interrupt: |b| b.domains[0].watchdog_intid = IntId(35) => Finding::BadDomain { .. },
    interrupt_without_registers: |b| b.domains[0].watchdog_ipa = NO_WINDOW => Finding::BadDomain { .. },
    watchdog_interrupt_by_edges: |b| b.lines[7].edge = 1 => Finding::BadLine { .. },
    watchdog_interrupt_of_another: |b| b.lines[7].domain = 1 => Finding::BadDomain { .. },
}

/// The same, where `alpha` has injected delivery and its own CPU looks.
fn watching_itself() -> Build {
    let mut b = watched();
    let d = &mut b.domains[0];
    d.flags = d.flags & !DomainFlags::TRAP_WFI | DomainFlags::INJECTED;
    d.watcher = CpuIndex(0);
    (b.cpus[0].watch_ms, b.cpus[1].watch_ms) = (100, 0);
    b.lines.push(Line { intid: IntId(25), domain: 0, kind: line::MAINTENANCE, edge: 0, name: Name::default() });
    b
}

// The board's wish.
changes! { from watching_itself();
    wfi_not_trapped_where_the_board_wants_it: |b| b.header.flags |= HeaderFlags::TRAP_WFI => Finding::BadDomain { .. },
    wfi_trapped_where_it_does_not: |b| b.domains[0].flags |= DomainFlags::TRAP_WFI => Finding::BadDomain { .. },
}

#[test]
fn a_board_may_want_wfi_to_be_trapped() {
    let mut b = watching_itself();
    b.header.flags |= HeaderFlags::TRAP_WFI;
    b.domains[0].flags |= DomainFlags::TRAP_WFI;
    let (result, findings) = b.blob().verify();
    assert!(result.is_ok(), "{findings:#?}");
}

#[test]
fn the_restarting_plan_is_sound() {
    let (result, findings) = watching_itself().blob().verify();
    assert!(result.is_ok(), "{findings:#?}");
    let (result, findings) = watched_by_registers().blob().verify();
    assert!(result.is_ok(), "{findings:#?}");
    let (result, findings) = watched().blob().verify();
    assert!(result.is_ok(), "{findings:#?}");
    let (result, findings) = restarting().blob().verify();
    assert!(result.is_ok(), "{findings:#?}");
}
