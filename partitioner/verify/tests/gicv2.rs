//! The same two domains on a board with a GICv2: sound as they are, and one change each that the verifier must name.

mod common;

use cofferdam_plan::audit::{Fact, Grant, Line, Name, fact, grant, line};
use cofferdam_plan::*;
use cofferdam_verify::{Finding, Refusal};
use common::*;

const GICC: u64 = 0x0801_0000;
const GICH: u64 = 0x0803_0000;
const GICV: u64 = 0x0804_0000;
/// EL2 addresses of GICC and GICH.
const WINDOW: u64 = DEVICES + 0x4_0000;

/// Fact, grants and mappings in the places of the GICv3's. Grants 5 and 6 are the CPU interfaces, fact 8 says where it is.
fn two() -> Build {
    let mut b = Build::two();
    let forbidden = |base| Fact { region: pa(base, 0x1_0000), kind: fact::FORBIDDEN, owner: 0, name: Name::default() };
    b.facts[3] = forbidden(GICC);
    b.facts.push(Fact { region: pa(GICC, 0x1000), kind: fact::CPU_INTERFACE, ..forbidden(GICC) });
    b.facts.extend([forbidden(GICH), forbidden(GICV)]);
    for domain in 0..2 {
        let (at, page) = (ipa(GICC, 0x1000), pa(GICC, 0x1000));
        b.grants.push(Grant { ipa: at, pa: page, domain, kind: grant::CPU_INTERFACE, name: Name::default() });
        b.stage2[domain as usize].push(Map { at: GICC, pa: GICC, size: 0x1000, attributes: S2_DEVICE });
    }
    b.header.flags = HeaderFlags::GICV2;
    (b.header.gicr_ipa, b.header.console_intid) = (NO_WINDOW, NO_INTID);
    b.header.gicc_va = WINDOW;
    b.lines.retain(|line| line.domain != u32::MAX);
    b.el2.retain(|map| !(GICR..GICR + 0x10_0000).contains(&map.pa));
    b.el2[5].size = 0x1000;
    for (at, pa) in [(WINDOW, GICC), (WINDOW + 0x1000, GICH)] {
        b.el2.push(Map { at, pa, size: 0x1000, attributes: EL2_DEVICE });
    }
    for (n, cpu) in b.cpus.iter_mut().enumerate() {
        (cpu.gicr_va, cpu.gicv2_target) = (0, 1 << n);
    }
    for (n, domain) in b.domains.iter_mut().enumerate() {
        domain.gicd_typer = 8 | (n as u32) << 5;
        domain.flags = DomainFlags::CONSOLE | DomainFlags::OUTPUT_ONLY;
    }
    for (spi, target) in b.spis.iter_mut().zip([0b001, 0b010, 0b110]) {
        spi.router = target;
    }
    for tree in &mut b.trees {
        let gic = tree.get("intc@8000000");
        gic.properties.retain(|(name, _)| name != "compatible");
        gic.properties.push(("compatible".into(), b"arm,gic-400\0".to_vec()));
        gic.set("reg", &[0, GICD as u32, 0, 0x1000, 0, GICC as u32, 0, 0x1000]);
    }
    b
}

#[test]
fn the_plan_is_sound() {
    let (result, findings) = two().blob().verify();
    assert!(result.is_ok(), "{findings:#?}");
}

/// The same, `alpha` with injected delivery: its CPU takes what is typed, which it reads, and looks after the watchdog of `beta`.
/// Grant 5 is its virtual CPU interface, the last fact says where that is.
fn injected() -> Build {
    let mut b = two();
    b.domains[0].flags = DomainFlags::CONSOLE | DomainFlags::INPUT | DomainFlags::INJECTED;
    b.domains[1].flags = DomainFlags::CONSOLE;
    let line = |intid, domain, kind| Line { intid: IntId(intid), domain, kind, edge: 0, name: Name::default() };
    b.lines.extend([line(33, u32::MAX, line::HYPERVISOR), line(25, 0, line::MAINTENANCE)]);
    b.header.console_intid = IntId(33);
    (b.domains[1].watchdog_ms, b.cpus[0].watch_ms) = (400, 100);
    let pages = Fact { region: pa(GICV, 0x2000), kind: fact::VIRTUAL_INTERFACE, owner: 0, name: Name::default() };
    b.facts.push(pages);
    (b.grants[5].ipa, b.grants[5].pa, b.grants[5].kind) =
        (ipa(GICC, 0x2000), pa(GICV, 0x2000), grant::VIRTUAL_INTERFACE);
    *b.stage2[0].last_mut().expect("it has leaves") = Map { at: GICC, pa: GICV, size: 0x2000, attributes: S2_DEVICE };
    b.el2.push(Map { at: WINDOW + 0x2000, pa: GICC + 0x1000, size: 0x1000, attributes: EL2_DEVICE });
    b.trees[0].get("intc@8000000").set("reg", &[0, GICD as u32, 0, 0x1000, 0, GICC as u32, 0, 0x2000]);
    b
}

#[test]
fn the_injected_plan_is_sound() {
    let (result, findings) = injected().blob().verify();
    assert!(result.is_ok(), "{findings:#?}");
}

fn finds(what: &str, mut build: Build, change: impl FnOnce(&mut Build), expected: impl Fn(&Finding) -> bool) {
    change(&mut build);
    let (result, findings) = build.blob().verify();
    assert_eq!(result, Err(Refusal::Findings(findings.len() as u32)), "{what}");
    assert!(findings.iter().any(&expected), "{what}: found only {findings:#?}");
}

macro_rules! changes {
    ($from:expr; $($test:ident: $change:expr => $expected:pat $(if $guard:expr)?,)*) => {
        $(#[test] fn $test() { finds(stringify!($test), $from, $change, |f| matches!(f, $expected $(if $guard)?)); })*
    };
}

fn move_to(b: &mut Build, to: u64, kind: u32) {
    (b.grants[5].pa, b.grants[5].kind) = (pa(to, 0x1000), kind);
    b.stage2[0].last_mut().expect("it has leaves").pa = to;
}

changes! {
    two();
    second_page_granted: |b| move_to(b, GICC + 0x1000, grant::CPU_INTERFACE) => Finding::CpuInterface { .. },
    distributor_as_interface: |b| move_to(b, GICD, grant::CPU_INTERFACE) => Finding::CpuInterface { .. },
    control_as_interface: |b| move_to(b, GICH, grant::CPU_INTERFACE) => Finding::CpuInterface { .. },
    virtual_interface_as_interface: |b| move_to(b, GICV, grant::CPU_INTERFACE) => Finding::CpuInterface { .. },
    rtc_as_interface: |b| move_to(b, 0x0901_0000, grant::CPU_INTERFACE) => Finding::CpuInterface { .. },
    interface_as_device: |b| move_to(b, GICC, grant::DEVICE)
        => Finding::GrantOverlaps { what: "registers no domain may reach", .. },
    control_as_device: |b| move_to(b, GICH, grant::DEVICE) => Finding::GrantOverlaps { .. },
    two_pages_granted: |b| {
        (b.grants[5].pa, b.grants[5].ipa) = (pa(GICC, 0x2000), ipa(GICC, 0x2000));
        b.stage2[0].last_mut().unwrap().size = 0x2000;
    } => Finding::CpuInterface { .. },
    interface_elsewhere: |b| {
        b.grants[5].ipa = ipa(GICC + 0x2000, 0x1000);
        b.stage2[0].last_mut().unwrap().at = GICC + 0x2000;
    } => Finding::CpuInterface { .. },
    interface_twice_in_a_domain: |b| {
        let again = b.grants[5];
        b.grants.push(Grant { ipa: ipa(GICC + 0x2000, 0x1000), ..again });
        b.stage2[0].push(Map { at: GICC + 0x2000, pa: GICC, size: 0x1000, attributes: S2_DEVICE });
    } => Finding::CpuInterface { .. },
    second_page_mapped: |b| b.stage2[0].push(Map { at: GICC + 0x1000, pa: GICC + 0x1000, size: 0x1000, attributes: S2_DEVICE })
        => Finding::LeafNotGranted { .. },
    control_mapped: |b| b.stage2[1].push(Map { at: GICH, pa: GICH, size: 0x1000, attributes: S2_DEVICE })
        => Finding::LeafNotGranted { .. },
    interface_executable: |b| b.stage2[0].last_mut().unwrap().attributes &= !(0b11 << 53) => Finding::LeafWrongAttributes { .. },
    interface_of_two_pages: |b| b.facts[8].region = pa(GICC, 0x2000) => Finding::BadHeader { .. },
    interface_not_forbidden: |b| b.facts[3].region = pa(GICC + 0x1000, 0x1000) => Finding::BadHeader { .. },
    no_interface: |b| b.facts[8].kind = fact::FORBIDDEN => Finding::BadHeader { .. },
    not_a_gicv2: |b| b.header.flags = 0 => Finding::BadHeader { .. },

    target_of_another_domain: |b| b.spis[0].router = 0b010 => Finding::ForeignRoute { .. },
    target_of_nobody: |b| b.spis[0].router = 0 => Finding::ForeignRoute { .. },
    target_beyond_a_byte: |b| b.spis[2].router = 0x102 => Finding::ForeignRoute { .. },
    one_interface_of_two_cpus: |b| b.cpus[1].gicv2_target = 1 => Finding::BadCpu { .. },
    two_interfaces_of_one_cpu: |b| b.cpus[2].gicv2_target = 0b1100 => Finding::BadCpu { .. },
    interface_beyond_eight: |b| b.cpus[2].gicv2_target = 0x100 => Finding::BadCpu { .. },
    cpu_without_interface: |b| b.cpus[2].gicv2_target = 0 => Finding::BadCpu { .. },
    redistributor_too: |b| b.cpus[0].gicr_va = DEVICES + 0x8_0000 => Finding::BadCpu { .. },
    redistributor_window: |b| b.header.gicr_ipa = Ipa(GICR) => Finding::BadHeader { .. },
    typer_shows_more_cpus: |b| b.domains[0].gicd_typer |= 3 << 5 => Finding::BadDomain { .. },
    typer_shows_security: |b| b.domains[0].gicd_typer |= 1 << 10 => Finding::BadDomain { .. },

    group0_planned: |b| b.header.flags |= HeaderFlags::GROUP0 => Finding::BadHeader { .. },
    console_is_read: |b| b.domains[0].flags = DomainFlags::CONSOLE => Finding::InputWithoutInterrupt { .. },
    output_is_read: |b| b.domains[0].flags |= DomainFlags::INPUT => Finding::BadConsole { .. },
    el2_has_another_interface: |b| {
        let at = b.el2.iter().position(|map| map.pa == GICC).unwrap();
        b.el2[at].pa = GICV;
    } => Finding::El2WrongTarget { .. },
    el2_has_no_control: |b| b.el2.retain(|map| map.pa != GICH) => Finding::El2Unmapped { .. },
    el2_has_the_whole_frame: |b| b.el2[5].size = 0x2000 => Finding::El2Stray { .. },
    dtb_of_a_gicv3: |b| b.trees[0].get("intc@8000000").properties.iter_mut().for_each(|(name, value)| {
        if name == "compatible" {
            *value = b"arm,gic-v3\0".to_vec();
        }
    }) => Finding::DtbUnreadable { .. },
    dtb_promises_the_second_page: |b| b.trees[0].get("intc@8000000").set(
        "reg", &[0, GICD as u32, 0, 0x1000, 0, GICC as u32, 0, 0x2000]) => Finding::DtbRegion { .. },
}

changes! {
    injected();
    physical_interface_of_an_injected: |b| {
        (b.grants[5].ipa, b.grants[5].pa, b.grants[5].kind) = (ipa(GICC, 0x1000), pa(GICC, 0x1000), grant::CPU_INTERFACE);
        *b.stage2[0].last_mut().unwrap() = Map { at: GICC, pa: GICC, size: 0x1000, attributes: S2_DEVICE };
    } => Finding::CpuInterface { .. },
    both_interfaces: |b| {
        b.grants.push(Grant { domain: 0, ipa: ipa(GICC + 0x4000, 0x1000), ..b.grants[6] });
        b.stage2[0].push(Map { at: GICC + 0x4000, pa: GICC, size: 0x1000, attributes: S2_DEVICE });
    } => Finding::CpuInterface { .. },
    no_interface_at_all: |b| {
        b.grants.remove(5);
        b.stage2[0].pop();
    } => Finding::NoCpuInterface { .. },
    virtual_interface_of_a_direct: |b| {
        (b.grants[6].ipa, b.grants[6].pa, b.grants[6].kind) = (ipa(GICC, 0x2000), pa(GICV, 0x2000), grant::VIRTUAL_INTERFACE);
        *b.stage2[1].last_mut().unwrap() = Map { at: GICC, pa: GICV, size: 0x2000, attributes: S2_DEVICE };
    } => Finding::CpuInterface { .. },
    delivery_swapped: |b| (b.domains[0].flags, b.domains[1].flags) = (b.domains[1].flags, b.domains[0].flags)
        => Finding::CpuInterface { .. },
    control_as_virtual_interface: |b| {
        b.grants[5].pa = pa(GICH, 0x2000);
        b.stage2[0].last_mut().unwrap().pa = GICH;
    } => Finding::CpuInterface { .. },
    control_said_to_be_virtual: |b| {
        let last = b.facts.len() - 1;
        b.facts[last].region = pa(GICC, 0x2000);
        b.grants[5].pa = pa(GICC, 0x2000);
        b.stage2[0].last_mut().unwrap().pa = GICC;
    } => Finding::BadHeader { field: "GICv2 virtual CPU interface" },
    virtual_interface_over_the_second_page: |b| {
        let last = b.facts.len() - 1;
        b.facts[last].region = pa(GICC + 0x1000, 0x2000);
    } => Finding::BadHeader { .. },
    virtual_interface_of_one_page: |b| {
        let last = b.facts.len() - 1;
        b.facts[last].region = pa(GICV, 0x1000);
    } => Finding::BadHeader { .. },
    virtual_interface_of_nobody: |b| b.domains[0].flags &= !DomainFlags::INJECTED => Finding::BadHeader { .. },
    virtual_interface_elsewhere: |b| {
        b.grants[5].ipa = ipa(GICC + 0x2000, 0x2000);
        b.stage2[0].last_mut().unwrap().at = GICC + 0x2000;
    } => Finding::CpuInterface { .. },
    el2_maps_the_virtual_interface: |b| b.el2.push(Map { at: WINDOW + 0x4000, pa: GICV, size: 0x1000, attributes: EL2_DEVICE })
        => Finding::El2MapsGuest { .. },
    el2_has_no_second_page: |b| { b.el2.pop(); } => Finding::El2Unmapped { .. },
    el2_has_another_second_page: |b| b.el2.last_mut().unwrap().pa = GICC + 0x2000 => Finding::El2WrongTarget { .. },
    maintenance_missing: |b| { b.lines.pop(); } => Finding::BadDelivery { .. },
    maintenance_of_the_other: |b| b.lines.last_mut().unwrap().domain = 1 => Finding::BadDelivery { .. },
    input_pays_with_a_direct_cpu: |b| b.header.housekeeping_cpu = CpuIndex(1) => Finding::BadHeader { .. },
    console_without_interrupt: |b| b.header.console_intid = NO_INTID => Finding::InputWithoutInterrupt { .. },
    group0_of_an_injected: |b| b.header.flags |= HeaderFlags::GROUP0 => Finding::BadHeader { .. },
    watcher_without_a_timer: |b| {
        b.domains[1].watchdog_ms = 0;
        (b.domains[0].watchdog_ms, b.domains[0].watcher) = (400, CpuIndex(1));
        (b.cpus[0].watch_ms, b.cpus[1].watch_ms) = (0, 100);
    } => Finding::BadCpu { why: "looks after a watchdog, but all its interrupts go to its domain", .. },
    dtb_promises_three_pages: |b| b.trees[0].get("intc@8000000").set(
        "reg", &[0, GICD as u32, 0, 0x1000, 0, GICC as u32, 0, 0x3000]) => Finding::DtbRegion { .. },
}

#[test]
fn a_gicv3_has_no_interface_to_grant() {
    let mut b = Build::two();
    let page = Fact { region: pa(GICR, 0x1000), kind: fact::CPU_INTERFACE, owner: 0, name: Name::default() };
    b.facts.push(page);
    let (result, findings) = b.blob().verify();
    assert!(result.is_err() && findings.iter().any(|f| matches!(f, Finding::BadHeader { .. })), "{findings:#?}");
    let mut b = Build::two();
    b.cpus[0].gicv2_target = 1;
    assert!(b.blob().verify().1.iter().any(|f| matches!(f, Finding::BadCpu { .. })));
}
