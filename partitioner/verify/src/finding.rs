//! What the verifier can find, one variant per mistake, each with the invariant it breaks.

use cofferdam_plan::{Bdf, CpuIndex, DomainId, IntId, Ipa, IpaRegion, Mpidr, Pa, PaRegion};
use core::fmt;

/// Whose translation tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Root {
    /// The hypervisor's.
    El2,
    /// A domain's stage 2.
    Domain(DomainId),
    /// The hypervisor's while it reloads a domain.
    Restart(DomainId),
    /// What the functions of a domain reach through the SMMU.
    Dma(DomainId),
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::El2 => f.write_str("EL2"),
            Self::Domain(id) => write!(f, "domain {id}"),
            Self::Restart(id) => write!(f, "the restart of domain {id}"),
            Self::Dma(id) => write!(f, "DMA of domain {id}"),
        }
    }
}

/// One place that says everything about a finding: fields, invariant, text.
macro_rules! findings {
    ($($(#[$doc:meta])* $id:literal $name:ident { $($field:ident: $type:ty),* $(,)? } => $text:literal;)*) => {
        /// A violation, typed. Domains are named by their index in the plan.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[non_exhaustive]
        #[allow(missing_docs)] // the fields are the words of the text
        pub enum Finding { $($(#[$doc])* $name { $($field: $type),* }),* }

        impl Finding {
            /// The invariant of `docs/isolation.md` it breaks.
            pub fn invariant(&self) -> &'static str {
                match self { $(Self::$name { .. } => $id),* }
            }
        }

        impl fmt::Display for Finding {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Self::$name { $($field),* } => write!(f, $text)),* }
            }
        }
    };
}

findings! {
    /// A record of the audit section or of the header's tables is malformed.
    "I74" BadRecord { table: &'static str, index: u32, why: &'static str } => "record {index} of {table}: {why}";
    /// A header field has a value the hypervisor was not written for.
    "I74" BadHeader { field: &'static str } => "the header's {field} cannot be right";
    /// A domain record has a value the hypervisor was not written for.
    "I74" BadDomain { domain: DomainId, why: &'static str } => "domain {domain} {why}";
    /// The hypervisor's memory is not RAM.
    "I18" HypervisorOutsideRam { pa: PaRegion } => "the hypervisor keeps {pa}, which is not RAM";
    /// The hypervisor's memory is somebody else's.
    "I18" HypervisorOverlaps { pa: PaRegion, what: &'static str } => "the hypervisor keeps {pa}, which is {what}";
    /// A probe would read something that is not RAM for us.
    "I74" ProbeOutsideRam { at: Pa } => "the probe at {at} does not lie in usable RAM";

    /// Two grants hold the same bytes.
    "I18" GrantsShareMemory { pa: PaRegion, first: DomainId, second: DomainId }
        => "{pa} is granted to domain {first} and again to domain {second}";
    /// A grant reaches what nobody, or only another kind, may reach.
    "I18" GrantOverlaps { domain: DomainId, pa: PaRegion, what: &'static str }
        => "domain {domain} is granted {pa}, which is {what}";
    /// A RAM grant is not RAM.
    "I20" RamOutsideBoard { domain: DomainId, pa: PaRegion } => "domain {domain} is granted RAM at {pa}, where there is none";
    /// A page holds registers of a device this domain does not own.
    "I31" PageWithTwoOwners { pa: PaRegion, domain: DomainId }
        => "{pa} is granted to domain {domain} but holds registers of a device it does not own wholly";
    /// A page is granted as a device's that holds no registers.
    "I31" PageWithoutDevice { at: Pa, domain: DomainId }
        => "domain {domain} is granted the page at {at}, where none of its devices has registers";
    /// A device is granted in part.
    "I31" DeviceNotGranted { pa: PaRegion, domain: DomainId } => "domain {domain} has the device at {pa}, but not all its pages";
    /// Two grants of a domain overlap in what it sees.
    "I18" GrantsShareIpa { domain: DomainId, ipa: IpaRegion } => "domain {domain} sees two things at {ipa}";
    /// A grant lies beyond what stage 2 can translate.
    "I19" IpaTooLarge { domain: DomainId, bits: u32 } => "domain {domain} has a grant beyond its {bits} address bits";
    /// An emulated range is mapped, so accesses would not trap.
    "I21" EmulatedWindow { domain: DomainId, ipa: IpaRegion, what: &'static str }
        => "domain {domain}: {ipa} is the emulated {what} and something else too";

    /// VTCR_EL2 or TCR_EL2 is not what the plan may use.
    "I22" BadRegime { root: Root, why: &'static str } => "the translation control of {root} {why}";
    /// The root is not a table of the plan, is misaligned or carries other bits (CnP, ASID).
    "I22" BadRoot { root: Root, pa: Pa } => "the root of {root} at {pa} is not a table of the plan";
    /// A descriptor the plan's tables may not hold.
    "I18" BadDescriptor { root: Root, at: u64, level: u32, entry: u64, why: &'static str }
        => "the level {level} descriptor {entry:#x} of {root} for {at:#x} {why}";
    /// A table page has two references: a cycle, or a page two roots share.
    "I18" TableShared { root: Root, at: u64, pa: Pa } => "the table at {pa}, used by {root} for {at:#x}, is used elsewhere too";
    /// A table page has none.
    "I18" TableUnused { pa: Pa } => "no root leads to the table at {pa}";
    /// VMID zero or too large.
    "I22" BadVmid { domain: DomainId, vmid: u16 } => "domain {domain} has VMID {vmid}, which it cannot have";
    /// One VMID, two domains.
    "I22" VmidShared { vmid: u16, first: DomainId, second: DomainId } => "domains {first} and {second} share VMID {vmid}";
    /// Revocation would leave a valid entry in the root.
    "I28" RootEntries { domain: DomainId, entries: u32 }
        => "clearing {entries} root entries does not revoke all of domain {domain}";
    /// Stage 2 maps what is not granted.
    "I18" LeafNotGranted { root: Root, ipa: IpaRegion, pa: Pa } => "{root} maps {ipa} to {pa} without a grant";
    /// Stage 2 maps a grant elsewhere.
    "I18" LeafWrongTarget { root: Root, ipa: Ipa, is: Pa, granted: Pa }
        => "{root} maps {ipa} to {is}, but {granted} is granted";
    /// Stage 2 maps a grant with the wrong type or permissions.
    "I20" LeafWrongAttributes { root: Root, ipa: Ipa, entry: u64 }
        => "{root} maps {ipa} with attributes its grant does not have ({entry:#x})";
    /// Stage 2 leaves out part of a grant.
    "I19" GrantNotMapped { root: Root, ipa: IpaRegion } => "{root} is granted {ipa}, which is not mapped";

    /// EL2 maps a domain's memory or device.
    "I24" El2MapsGuest { va: u64, pa: PaRegion, domain: DomainId, device: bool }
        => "EL2 maps {pa} of domain {domain} at {va:#x} (device: {device})";
    /// EL2 maps something the plan gives no reason for.
    "I23" El2Stray { va: u64, pa: Pa } => "EL2 maps {pa} at {va:#x} for no purpose";
    /// EL2 maps a purpose to the wrong place.
    "I23" El2WrongTarget { va: u64, pa: Pa, what: &'static str } => "EL2 maps {va:#x} ({what}) to {pa}";
    /// EL2 maps a purpose with the wrong type or permissions.
    "I23" El2WrongAttributes { va: u64, entry: u64, what: &'static str }
        => "EL2 maps {va:#x} ({what}) with attributes it must not have ({entry:#x})";
    /// Two purposes at one address.
    "I23" El2PurposesOverlap { va: u64, what: &'static str } => "EL2 uses {va:#x} ({what}) twice";
    /// What EL2 will use is not mapped.
    "I23" El2Unmapped { va: u64, what: &'static str } => "EL2 does not map {va:#x} ({what})";
    /// Two areas in the same memory.
    "I23" El2AreaShared { va: u64, pa: Pa } => "the area at {va:#x} has its memory {pa} in common with another";
    /// No guard page below an area.
    "I23" El2NoGuard { va: u64, what: &'static str } => "the page below {va:#x} ({what}) is mapped";
    /// A domain could be granted what EL2 drives.
    "I21" El2DeviceGrantable { pa: PaRegion, what: &'static str }
        => "the {what} at {pa} is not on the list of what no domain may reach";
    /// Two of EL2's devices in the same place.
    "I23" El2DeviceTwice { pa: PaRegion, what: &'static str } => "the {what} at {pa} is mapped for two purposes";

    /// A CPU record is malformed.
    "I02" BadCpu { cpu: CpuIndex, why: &'static str } => "CPU {cpu} {why}";
    /// One CPU, two records.
    "I02" CpuTwice { mpidr: Mpidr } => "the CPU with affinity {mpidr} is named twice";
    /// CPUs and vCPUs do not match one to one.
    "I60" VcpuCount { vcpus: u32, cpus: u32 } => "{vcpus} vCPUs on {cpus} CPUs are not one to one";

    /// A name that is empty, too long or could imitate a prefix.
    "I56" BadName { domain: DomainId } => "the name of domain {domain} is empty, too long or not plain";
    /// Two domains of one name.
    "I56" NameTwice { first: DomainId, second: DomainId } => "domains {first} and {second} have the same name";
    /// A guest would start elsewhere.
    "I18" EntryOutsideRam { domain: DomainId, entry: Ipa } => "domain {domain} starts at {entry}, outside its RAM";
    /// x0 points elsewhere.
    "I18" DtbNotThere { domain: DomainId, ipa: Ipa } => "domain {domain} is told of a device tree at {ipa} that is not there";
    /// Console flags, page and interrupt contradict each other.
    "I54" BadConsole { domain: DomainId } => "flags, page and interrupt of domain {domain}'s console contradict each other";
    /// Two domains get console input at boot.
    "I54" InputTwice { first: DomainId, second: DomainId } => "domains {first} and {second} both get console input";

    /// An interrupt with two owners.
    "I32" LineTwice { intid: IntId } => "interrupt {intid} has two owners";
    /// An interrupt of the wrong sort for its line, or beyond the planned words.
    "I32" BadLine { intid: IntId } => "interrupt {intid} cannot be what its line says";
    /// The filter's word differs from the lines.
    "I32" OwnedBits { domain: DomainId, word: u32, is: u32, planned: u32 }
        => "domain {domain} owns {is:#x} of INTID word {word}, its lines say {planned:#x}";
    /// A domain has a CPU interface that is not the GICv2's, not in its place, or twice.
    "I47" CpuInterface { domain: DomainId, pa: PaRegion }
        => "domain {domain} is granted {pa} as its CPU interface, which that is not, or twice";
    /// A domain has none, on a GICv2.
    "I47" NoCpuInterface { domain: DomainId } => "domain {domain} has no CPU interface";
    /// A domain reads the console where EL2 has no interrupt for that.
    "I47" InputWithoutInterrupt { domain: DomainId }
        => "domain {domain} reads the console, but the hypervisor has no interrupt for that";
    /// A guest could send the hypervisor's SGI.
    "I35" KickOwned { domain: DomainId } => "domain {domain} owns the hypervisor's SGI";
    /// Performance counters are granted by half.
    "I10" CountersAndInterrupt { domain: DomainId } => "domain {domain} has performance counters or their PPI, but not both";
    /// A guest has a PPI that is EL2's or unknown.
    "I38" ForeignPpi { domain: DomainId, intid: IntId } => "domain {domain} owns PPI {intid}, which no guest may have";
    /// Injected delivery and its interrupts contradict each other.
    "I43" BadDelivery { domain: DomainId }
        => "domain {domain}: injected delivery without the hypervisor's maintenance interrupt or kick, or the reverse";
    /// Routes not ascending.
    "I34" RoutesUnordered { intid: IntId } => "the route of interrupt {intid} is out of order";
    /// A route for an interrupt nobody owns.
    "I34" RouteWithoutOwner { intid: IntId } => "interrupt {intid} has a route but no owner";
    /// An owned interrupt without a route.
    "I34" NoRoute { intid: IntId } => "interrupt {intid} has an owner but no route";
    /// A route to a CPU of somebody else, or to any.
    "I34" ForeignRoute { intid: IntId, router: u64 } => "interrupt {intid} is routed by {router:#x}, not to a CPU of its owner";
    /// Wrong number of GICD_ICFGR words.
    "I36" TriggerWords { is: u32 } => "{is} trigger words are not two per 32 SPIs";
    /// A GICD_ICFGR word differs from the lines.
    "I36" Triggers { first: IntId, is: u32, planned: u32 }
        => "the trigger word from interrupt {first} is {is:#x}, its lines say {planned:#x}";
    /// A guest owns EL2's console interrupt.
    "I48" ConsoleInterruptOwned { domain: DomainId } => "domain {domain} owns the hypervisor's console interrupt";

    /// A payload is not where the guest sees its RAM.
    "I18" PayloadNotInRam { domain: DomainId, pa: PaRegion } => "a payload of domain {domain} at {pa} is not in its RAM";
    /// A payload's bytes lie behind the image's end.
    "I74" PayloadOutsideImage { domain: DomainId, offset: u64 }
        => "a payload of domain {domain} at offset {offset:#x} ends behind the image";
    /// A payload's bytes are the hypervisor's own.
    "I18" PayloadInHypervisor { domain: DomainId, offset: u64 }
        => "a payload of domain {domain} at offset {offset:#x} is part of the hypervisor";
    /// A payload's bytes in the image can be reached by another domain.
    "I80" PayloadExposed { domain: DomainId, to: DomainId, pa: PaRegion }
        => "payload bytes of domain {domain} at {pa} lie in RAM of domain {to}";
    /// Nothing brings a payload where the guest expects it.
    "I74" PayloadNeverArrives { index: u32, domain: DomainId } => "payload {index} of domain {domain} is neither in place nor moved";
    /// Two payloads overlap.
    "I18" PayloadsOverlap { pa: PaRegion, first: DomainId, second: DomainId }
        => "payloads of domains {first} and {second} both hold {pa}";
    /// A move reads behind the image.
    "I74" MoveOutsideImage { index: u32 } => "move {index} reads behind the end of the image";
    /// A move writes over the hypervisor.
    "I18" MoveOverHypervisor { index: u32, to: PaRegion } => "move {index} to {to} overwrites the hypervisor";
    /// A move brings no payload.
    "I18" MoveWithoutPayload { index: u32 } => "move {index} brings no payload";
    /// A move writes outside the RAM of its domain.
    "I18" MoveOutsideDomain { index: u32, domain: DomainId, to: PaRegion }
        => "move {index} to {to} leaves the RAM of domain {domain}";
    /// A move writes over another payload or over bytes still needed.
    "I18" MoveOverPayload { index: u32, pa: PaRegion } => "move {index} overwrites the payload bytes at {pa}";
    /// A move copies bytes that are no payload of the domain.
    "I18" MoveCopiesMore { index: u32, offset: u64 } => "move {index} copies image offset {offset:#x}, which is no payload of its domain";
    /// A scrub would clear foreign memory.
    "I26" ScrubOutsideDomain { domain: DomainId, pa: PaRegion } => "domain {domain} would scrub {pa}, which is not its RAM";
    /// A scrub would clear a payload.
    "I26" ScrubOverPayload { domain: DomainId, pa: PaRegion } => "domain {domain} would scrub {pa}, which holds a payload";
    /// A page is neither scrubbed nor loaded.
    "I26" NotScrubbed { domain: DomainId, at: Pa } => "domain {domain} asks for scrubbed RAM, but {at} is left as found";
    /// Scrub records in no list or in two.
    "I26" ScrubLists { listed: u64, records: u64 } => "{listed} scrub ranges are listed, {records} exist";

    /// A restart would leave bytes of the last run, write some twice, or not in order.
    "I26" NotReloaded { domain: DomainId, at: Pa } => "a restart of domain {domain} does not write {at} when it should";
    /// A restart would write memory that is not the domain's.
    "I26" ReloadOutsideDomain { domain: DomainId, to: Pa } => "a restart of domain {domain} writes {to}, which is not its RAM";
    /// Reload records in no list or in two.
    "I26" ReloadLists { listed: u64, records: u64 } => "{listed} reloads are listed, {records} exist";
    /// The pristine copy is not in the image, or not in memory the hypervisor keeps.
    "I80" PristineNotKept { domain: DomainId, pa: PaRegion } => "the pristine copy of domain {domain} at {pa} is not the hypervisor's";
    /// A payload is not there again after a restart.
    "I78" PayloadNotReloaded { domain: DomainId, pa: PaRegion } => "a restart of domain {domain} does not bring its payload at {pa}";
    /// A restart copies bytes that are no payload of the domain.
    "I78" ReloadCopiesMore { domain: DomainId, offset: u64 }
        => "a restart of domain {domain} copies image offset {offset:#x}, which is no payload of its";
    /// A restart root maps what a reload does not need, or with more rights.
    "I24" RestartMapsMore { domain: DomainId, va: u64, pa: PaRegion }
        => "the restart root of domain {domain} maps {pa} at {va:#x}, which no reload needs so";
    /// A restart root leaves out what a reload needs.
    "I24" RestartMapsLess { domain: DomainId, mapped: u64, needed: u64 }
        => "the restart root of domain {domain} maps {mapped:#x} bytes, its reloads need {needed:#x}";

    /// The PCI records, or what the facts say of the host bridge, contradict themselves.
    "I21" BadPci { what: &'static str } => "the plan's {what} for PCI cannot be right";
    /// A record of a PCI function contradicts itself or another.
    "I74" BadFunction { function: Bdf, why: &'static str } => "PCI function {function} {why}";
    /// A base address register without a place of its own, or shown to the wrong domain.
    "I72" BadBar { function: Bdf, bar: u32, why: &'static str } => "base address register {bar} of PCI function {function} {why}";
    /// A grant in a window that no register of the domain's functions explains.
    "I72" WindowGranted { domain: DomainId, pa: PaRegion }
        => "domain {domain} is granted {pa} in a window of the host bridge, where none of its functions has registers";
    /// A bridge lets something through that is not behind it.
    "I72" BadBridge { function: Bdf, why: &'static str } => "bridge {function} {why}";
    /// A rule lets a guest do to configuration space what it may not.
    "I71" BadRule { function: Bdf, offset: u16, why: &'static str }
        => "configuration space of PCI function {function} at {offset:#x} {why}";
    /// RAM where the bus has registers.
    "I69" RamOnBus { domain: DomainId, ipa: IpaRegion }
        => "domain {domain} sees RAM at {ipa}, where its functions' accesses never leave the bus";
    /// The SMMU's registers would not hold what they must.
    "I63" BadSmmu { what: &'static str } => "the SMMU's {what} cannot be right";
    /// A stream lets its function reach more than its owner's RAM.
    "I66" BadStream { function: Bdf, why: &'static str } => "PCI function {function} {why}";
    /// The ITS's registers would not hold what they must.
    "I49" BadIts { what: &'static str } => "the ITS's {what} cannot be right";
    /// A command of the ITS maps what nobody is to send.
    "I49" BadCommand { index: u32, why: &'static str } => "ITS command {index} {why}";
    /// An LPI's configuration is not what the plan says of it.
    "I40" BadLpi { lpi: IntId, is: u8, planned: u8 } => "LPI {lpi} is configured as {is:#x} instead of {planned:#x}";
    /// A domain's interrupts for MSIs are not its own row.
    "I70" BadFrame { domain: DomainId } => "domain {domain} has other interrupts for MSIs than its frame says";
    /// Memory that SMMU, ITS or redistributors use is not theirs alone.
    "I63" BadPiece { what: &'static str, pa: PaRegion, why: &'static str } => "the {what} at {pa} {why}";

    /// A generated tree is not in the blob.
    "I74" DtbNotInPlan { domain: DomainId, offset: u64 }
        => "the device tree generated for domain {domain} (image offset {offset:#x}) is not in the plan";
    /// A generated tree cannot be read back.
    "I74" DtbUnreadable { domain: DomainId, why: &'static str } => "the device tree of domain {domain} {why}";
    /// A generated tree promises memory or registers.
    "I18" DtbRegion { domain: DomainId, ipa: IpaRegion } => "the device tree of domain {domain} names {ipa}, which it does not have";
    /// A generated tree promises an interrupt.
    "I32" DtbInterrupt { domain: DomainId, intid: IntId }
        => "the device tree of domain {domain} names interrupt {intid}, which it does not own";
    /// A generated tree promises another number of CPUs.
    "I60" DtbCpus { domain: DomainId, found: u32, planned: u32 }
        => "the device tree of domain {domain} names {found} CPUs instead of {planned}";
    /// A generated tree names a CPU by the wrong affinity.
    "I60" DtbCpu { domain: DomainId, affinity: u64 } => "the device tree of domain {domain} names CPU {affinity:#x} out of order";
}
