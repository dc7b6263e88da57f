//! 32 domains with 512 devices: the proof takes a fraction of the compiler's second.

mod common;

use cofferdam_plan::audit::{Fact, Grant, Line, fact, grant, line};
use cofferdam_plan::*;
use common::*;
use std::time::{Duration, Instant};

/// Domains that differ in place only, each with one CPU and `devices` devices of one page and one interrupt.
fn many(domains: u64, devices: u64) -> Build {
    let mut b = Build::two();
    let (cpu, d) = (b.cpus[0], b.domains[0]);
    for list in [&mut b.cpus as &mut dyn Clear, &mut b.domains, &mut b.vcpus, &mut b.spis, &mut b.moves] {
        list.clear_all();
    }
    (b.trees, b.payloads, b.probes, b.scrubs) = Default::default();
    b.grants.clear();
    b.stage2.clear();
    b.lines.retain(|l| l.kind == line::HYPERVISOR);
    b.facts.retain(|f| f.kind != fact::DEVICE);
    b.el2.truncate(6);
    b.header.gicd_words = 32;

    b.icfgr = vec![0; 62];
    b.header.image_len = 0x100_0000;
    b.facts[5].region = pa(BASE, 0x100_0000);
    let none = audit::Name::default();
    for n in 0..domains {
        let mut owned = d.owned;
        let affinity = ((n / 16) << 8) | (n % 16);
        owned[1] = 0;
        let area_va = AREAS + n * 0x1_0000;
        let cpu_area = AREAS_PA + n * va::CPU_AREA;
        let gicr_va = DEVICES + 0x4_0000 + n * 0x4_0000;
        b.el2.push(Map { at: area_va, pa: cpu_area, size: va::CPU_AREA, attributes: EL2_DATA });
        b.el2.push(Map { at: gicr_va, pa: GICR + n * 0x2_0000, size: 0x2_0000, attributes: EL2_DEVICE });
        let domain_area = AREAS + 0x80_0000 + n * 0x1_0000;
        let area_pa = AREAS_PA + 0x10_0000 + n * va::DOMAIN_AREA;
        b.el2.push(Map { at: domain_area, pa: area_pa, size: va::DOMAIN_AREA, attributes: EL2_DATA });
        b.cpus.push(Cpu { mpidr: Mpidr(affinity), gicr_va, area_va, domain: n as u16, vcpu: 0, ..cpu });
        b.vcpus.push(CpuIndex(n as u16));
        let ram = Grant {
            ipa: ipa(0x4000_0000, 0x20_1000),
            pa: pa(0x4200_0000 + n * 0x40_0000, 0x20_1000),
            domain: n as u32,
            kind: grant::RAM,
            name: none,
        };
        let mut maps = vec![Map { at: 0x4000_0000, pa: ram.pa.base.0, size: 0x20_1000, attributes: S2_RAM }];
        b.grants.push(ram);
        for i in 0..devices / domains {
            let (k, at) = (n * (devices / domains) + i, 0x1000_0000 + (i * domains + n) * 0x1000);
            let intid = IntId(40 + k as u32);
            let owner = n as u32;
            b.facts.push(Fact { region: pa(at, 0x200), kind: fact::DEVICE, owner: owner + 1, name: none });
            let kind = grant::DEVICE;
            b.grants.push(Grant { ipa: ipa(at, 0x1000), pa: pa(at, 0x1000), domain: owner, kind, name: none });
            b.lines.push(Line { intid, domain: owner, kind: line::DEVICE, edge: 0, name: none });
            b.spis.push(Spi { router: affinity, intid, reserved: 0 });
            owned[intid.word()] |= intid.bit();
            maps.push(Map { at, pa: at, size: 0x1000, attributes: S2_DEVICE });
        }
        for ppi in [27, 30] {
            b.lines.push(Line { intid: IntId(ppi), domain: n as u32, kind: line::PPI, edge: 0, name: none });
        }
        b.stage2.push(maps);
        b.domains.push(Domain {
            name: name(&format!("domain-{n}")),
            vttbr: (n + 1) << 48,
            dtb: Ipa(0),
            vuart_ipa: Ipa(0),
            vuart_intid: NO_INTID,
            flags: 0,
            root_va: WINDOWS + n * 0x1_0000,
            area_va: domain_area,
            first_vcpu: n as u32,
            vcpu_count: 1,
            first_scrub: 0,
            scrub_count: 0,
            gicd_typer: 31,
            owned,
            ..d
        });
    }
    b
}

/// Clears vectors of any type.
trait Clear {
    fn clear_all(&mut self);
}

impl<T> Clear for Vec<T> {
    fn clear_all(&mut self) {
        self.clear();
    }
}

#[test]
fn many_domains_and_devices_are_proven_quickly() {
    let blob = many(32, 512).blob();
    let start = Instant::now();
    let (result, findings) = blob.verify();
    let took = start.elapsed();
    assert_eq!(findings, []);
    assert_eq!(result.expect("a proof").domains, 32);
    // The goal is 200 ms in a release build; this is a debug build on a machine that does other things too.
    assert!(took < Duration::from_secs(1), "{took:?}");
    println!("{took:?}");
}
