//! CPUs: each belongs to one domain, and the two maps between CPUs and vCPUs say the same.

use crate::finding::Finding;
use crate::work::{Report, Work};
use cofferdam_plan::{CpuIndex, Mpidr, NO_DOMAIN};

pub(crate) fn prove(work: &Work<'_, '_>, report: &mut Report<'_>) {
    i02_one_domain_per_cpu(work, report);
    i60_vcpu_map_is_one_to_one(work, report);
}

/// I02: no CPU is named twice, so none runs under two VTTBRs.
pub(crate) fn i02_one_domain_per_cpu(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let cpus = work.plan.cpus;
    for (i, cpu) in cpus.iter().enumerate() {
        if cpu.mpidr != Mpidr::from_raw(cpu.mpidr.0) || cpu.reserved != 0 {
            report.add(Finding::BadCpu { cpu: CpuIndex(i as u16), why: "has bits that are not affinity" });
        }
        // One target list of ICC_SGI1R_EL1 reaches 16 values of Aff0 (IHI 0069, 12.2.17).
        if cpu.mpidr.aff0() > 15 {
            report.add(Finding::BadCpu { cpu: CpuIndex(i as u16), why: "has an Aff0 that no SGI reaches" });
        }
        if cpus.iter().skip(i + 1).any(|other| other.mpidr == cpu.mpidr) {
            report.add(Finding::CpuTwice { mpidr: cpu.mpidr });
        }
    }
}

/// I60: every vCPU has a CPU that says so, and every CPU is some vCPU.
pub(crate) fn i60_vcpu_map_is_one_to_one(work: &Work<'_, '_>, report: &mut Report<'_>) {
    let mut mapped = 0;
    for (id, domain) in work.domains() {
        for (vcpu, index) in work.plan.vcpus_of(domain).unwrap_or(&[]).iter().enumerate() {
            mapped += 1;
            let back = work.plan.cpus.get(usize::from(index.0));
            if back.is_none_or(|cpu| cpu.domain != id.0 || usize::from(cpu.vcpu) != vcpu) {
                report.add(Finding::BadCpu { cpu: *index, why: "is not the vCPU the domain believes" });
            }
        }
    }
    // Each vCPU names a CPU that names it back, so equal counts make the map one to one.
    let owned = work.plan.cpus.iter().filter(|cpu| cpu.domain != NO_DOMAIN).count();
    if mapped != owned || mapped != work.plan.vcpus.len() {
        report.add(Finding::VcpuCount { vcpus: mapped as u32, cpus: owned as u32 });
    }
}
