//! The same two domains on a board with a GICv2: sound as they are, and one change each that the verifier must name.

mod common;

use cofferdam_plan::audit::{Fact, Grant, Name, fact, grant};
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

fn finds(what: &str, change: impl FnOnce(&mut Build), expected: impl Fn(&Finding) -> bool) {
    let mut build = two();
    change(&mut build);
    let (result, findings) = build.blob().verify();
    assert_eq!(result, Err(Refusal::Findings(findings.len() as u32)), "{what}");
    assert!(findings.iter().any(&expected), "{what}: found only {findings:#?}");
}

macro_rules! changes {
    ($($test:ident: $change:expr => $expected:pat $(if $guard:expr)?,)*) => {
        $(#[test] fn $test() { finds(stringify!($test), $change, |f| matches!(f, $expected $(if $guard)?)); })*
    };
}

fn move_to(b: &mut Build, to: u64, kind: u32) {
    (b.grants[5].pa, b.grants[5].kind) = (pa(to, 0x1000), kind);
    b.stage2[0].last_mut().expect("it has leaves").pa = to;
}

changes! {
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
