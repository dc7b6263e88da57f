//! The records `hyp-min` reads, in place. Every field is plain data: any bit pattern is a value, so reading never fails,
//! and what a value means is checked once, by the checksum and the verifier, not at each use.

use crate::limits::INTID_WORDS;
use crate::{CpuIndex, IntId, Ipa, Mpidr, Pa};
use core::mem::{offset_of, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First eight bytes of every plan.
pub const MAGIC: u64 = u64::from_le_bytes(*b"COFRDAM\0");
/// Counts incompatible changes of anything in this crate. The hypervisor refuses every other value.
pub const VERSION: u32 = 4;
/// `Cpu::domain` of a CPU that no domain owns.
pub const NO_DOMAIN: u16 = u16::MAX;
/// Seconds within which [`Domain::restart_limit`] counts.
pub const RESTART_PERIOD_S: u64 = 60;
/// Function by which a guest calls its watchdog: SMC32 fast call, vendor-specific hypervisor service, number 1 (DEN 0028, 6).
pub const WATCHDOG_FUNCTION: u32 = 0x8600_0001;
/// "No interrupt". INTID 1023 is the GIC's own spurious value (IHI 0069, 2.2.1).
pub const NO_INTID: IntId = IntId(1023);
/// "No such window": further from every guest address, which has 48 bits at most, than any window is long.
pub const NO_WINDOW: Ipa = Ipa(1 << 63);

/// Where a record table lies: byte offset from the start of the blob (8-byte aligned) and number of records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Table {
    /// Byte offset from the start of the blob.
    pub offset: u32,
    /// Number of records.
    pub count: u32,
}

/// Bits of [`Header::flags`].
pub struct HeaderFlags;
impl HeaderFlags {
    /// The boot stub checks the second checksum too.
    pub const VERIFY_AT_BOOT: u32 = 1 << 0;
    /// EL2 needs Group 0 interrupts (console input, kicks) and has been planned on a board without EL3 firmware that keeps
    /// them (GICD_CTLR.DS = 1).
    pub const GROUP0: u32 = 1 << 1;
    /// The interrupt controller is a GICv2 (IHI 0048), else a GICv3.
    pub const GICV2: u32 = 1 << 2;
    /// The board wants WFI of domains with injected delivery to come to EL2.
    pub const TRAP_WFI: u32 = 1 << 3;
}

/// Bits of [`Domain::flags`].
pub struct DomainFlags;
impl DomainFlags {
    /// Has a virtual PL011.
    pub const CONSOLE: u32 = 1 << 0;
    /// Console input goes to this domain after boot.
    pub const INPUT: u32 = 1 << 1;
    /// Its virtual PL011 is for output: console input never goes to it.
    pub const OUTPUT_ONLY: u32 = 1 << 8;
    /// Its scrub ranges are cleared before the first entry (`scrub = "boot"`).
    pub const SCRUB_AT_BOOT: u32 = 1 << 2;
    /// Its interrupts are taken at EL2 and reach it through list registers (`delivery = "injected"`).
    pub const INJECTED: u32 = 1 << 3;
    /// Its WFI comes to EL2: its CPUs must be reclaimable whatever it has done to their interrupt priorities, because another
    /// CPU may restart it; or the board wants it so ([`HeaderFlags::TRAP_WFI`]).
    pub const TRAP_WFI: u32 = 1 << 4;
    /// SVE is the domain's; its CPUs must have it.
    pub const SVE: u32 = 1 << 5;
    /// The performance counters of its CPUs are the domain's, without what EL2 does where the CPU can leave that out.
    pub const PMU: u32 = 1 << 6;
    /// Self-hosted debug (breakpoints, watchpoints, single step) of its CPUs is the domain's.
    pub const DEBUG: u32 = 1 << 7;
}

/// What becomes of a domain that ends: [`Domain::on_fault`], [`Domain::on_reset`], [`Domain::on_off`].
pub struct Policy;
impl Policy {
    /// It stays as it is: parked after a fault, otherwise off.
    pub const HALT: u8 = 0;
    /// It starts again, as at its first start.
    pub const RESTART: u8 = 1;
    /// The firmware resets the board.
    pub const REBOOT_BOARD: u8 = 2;
}

/// Kinds of physical UART the hypervisor has a driver for.
pub struct UartKind;
impl UartKind {
    /// No console.
    pub const NONE: u32 = 0;
    /// Arm PrimeCell PL011 (DDI 0183).
    pub const PL011: u32 = 1;
}

/// The start of the plan. The boot stub reads it by fixed offsets, checked below.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u64,
    /// CRC-32C of bytes 16 to `records_len`.
    pub records_crc: u32,
    /// [`VERSION`].
    pub version: u32,
    /// Bytes of header and records together; a multiple of 16.
    pub records_len: u32,
    /// Bytes of the whole blob; a multiple of 16.
    pub blob_len: u32,
    /// CRC-32C of bytes `records_len` to `blob_len`.
    pub tables_crc: u32,
    /// See [`HeaderFlags`].
    pub flags: u32,
    /// Physical address the image is planned for: of its first byte. 2 MiB aligned, or the board's fixed address.
    pub base: Pa,
    /// Bytes of the flat image, guests included: what is moved when it is found elsewhere. A multiple of 16.
    pub image_len: u64,
    /// Value of TTBR0_EL2: PA of the root of the EL2 tables.
    pub ttbr0_el2: u64,
    /// Value of TCR_EL2.
    pub tcr_el2: u64,
    /// Physical address of the console UART, for messages before the tables are on. 0 without a console.
    pub console_pa: Pa,
    /// The same again: only two equal values are trusted before the checksum has been.
    pub console_pa_again: Pa,
    /// EL2 virtual address of the console UART, 0 without.
    pub console_va: u64,
    /// EL2 virtual address of the UART that carries the hypervisor's log instead of the console, 0 without.
    pub log_va: u64,
    /// See [`UartKind`]; the kind of both UARTs.
    pub console_kind: u32,
    /// The console UART's interrupt, Group 0 at EL2, or [`NO_INTID`].
    pub console_intid: IntId,
    /// EL2 virtual address of the distributor.
    pub gicd_va: u64,
    /// Where guests see the distributor (64 KiB, of a GICv2 4 KiB): the board's own address.
    pub gicd_ipa: Ipa,
    /// GICv3: where guests see the first redistributor; vCPU n's frames follow at n × 128 KiB. Else [`NO_WINDOW`].
    pub gicr_ipa: Ipa,
    /// GICv2: EL2 virtual address of the CPU interface's first page, and behind it of the virtual interface control's; where a
    /// domain's interrupts are injected, behind that of the CPU interface's second page (GICC_DIR). Else 0.
    pub gicc_va: u64,
    /// Words of 32 INTIDs the plan uses: the machine must have at least GICD_TYPER.ITLinesNumber = this − 1.
    pub gicd_words: u32,
    /// SGI the hypervisor keeps for itself; of a GICv3, Group 0.
    pub kick_sgi: IntId,
    /// CPU that takes EL2's SPIs.
    pub housekeeping_cpu: CpuIndex,
    /// Byte on the console that begins the chord for another reader of its input; 0: there is no chord.
    pub console_escape: u8,
    /// Zero.
    pub reserved0: u8,
    /// Physical address bits needed: the machine's ID_AA64MMFR0_EL1.PARange must offer as many.
    pub pa_bits: u32,
    /// VMID bits needed, 8 or 16.
    pub vmid_bits: u32,
    /// CNTFRQ_EL0 in Hz, 0 where the board does not say.
    pub cntfrq: u32,
    /// Stack top (end of area) in EL2 virtual addresses for a boot CPU that the plan does not name; 0 where it names all.
    pub spare_area_va: u64,
    /// GNU build ID of the `hyp-min` this plan was made for; the log is decoded with it.
    pub build_id: [u8; 20],
    /// Byte offset of this blob in the image, 4 KiB aligned: the blob's physical address is `base` plus this. The verifier
    /// finds the tables by it; the hypervisor compares it with its own linked length.
    pub blob_offset: u32,
    /// [`Cpu`] records.
    pub cpus: Table,
    /// [`Domain`] records; index = `DomainId`.
    pub domains: Table,
    /// [`CpuIndex`] per vCPU, all domains in a row.
    pub vcpus: Table,
    /// [`Spi`] records, ascending INTID: every SPI a domain owns.
    pub spis: Table,
    /// `u32` words of GICD_ICFGR, starting with ICFGR2 (INTID 32).
    pub icfgr: Table,
    /// [`Move`] records, done by the stub at every boot, in order.
    pub moves: Table,
    /// [`Probe`] records: the last word of each RAM range the plan uses.
    pub probes: Table,
    /// [`Scrub`] records.
    pub scrubs: Table,
    /// [`Move`] records, done when a domain restarts.
    pub reloads: Table,
    /// The audit section: offset, and length in bytes instead of a count.
    pub audit: Table,
    /// The translation tables: offset (4 KiB aligned), and count of 4 KiB pages.
    pub tables: Table,
    /// One [`crate::pci::Pci`] record, or none.
    pub pci: Table,
}

/// One physical CPU a domain owns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Cpu {
    /// Its affinity.
    pub mpidr: Mpidr,
    /// GICv3: EL2 virtual address of its redistributor: RD frame, SGI frame 64 KiB above. Else 0.
    pub gicr_va: u64,
    /// EL2 virtual address of the lower end of its area of [`crate::va::CPU_AREA`] bytes.
    pub area_va: u64,
    /// Index of its domain.
    pub domain: u16,
    /// Its vCPU number there.
    pub vcpu: u16,
    /// GICv2: its one bit of a GICD_ITARGETSR byte (IHI 0048, 4.3.12). Else 0.
    pub gicv2_target: u32,
    /// How often it looks after the watchdogs of other domains, in ms; 0 where it has none to look after.
    pub watch_ms: u32,
    /// Zero.
    pub reserved: u32,
}

/// One domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Domain {
    /// Name in UTF-8, zero padded.
    pub name: [u8; 32],
    /// VTTBR_EL2: VMID in bits 63:48, PA of the stage-2 root.
    pub vttbr: u64,
    /// VTCR_EL2.
    pub vtcr: u64,
    /// Where vCPU 0 starts.
    pub entry: Ipa,
    /// x0 at entry: the guest device tree.
    pub dtb: Ipa,
    /// The virtual PL011's page, where [`DomainFlags::CONSOLE`] is set.
    pub vuart_ipa: Ipa,
    /// EL2 virtual address, writable, of the stage-2 root table: for revocation only.
    pub root_va: u64,
    /// EL2 virtual address of the domain's area of [`crate::va::DOMAIN_AREA`] bytes.
    pub area_va: u64,
    /// Entries of the root table that can be valid (the rest are zero): what revocation clears.
    pub root_entries: u32,
    /// The virtual PL011's SPI, or [`NO_INTID`].
    pub vuart_intid: IntId,
    /// See [`DomainFlags`].
    pub flags: u32,
    /// Index of its first entry in `vcpus`.
    pub first_vcpu: u32,
    /// Number of vCPUs, 1 to [`crate::limits::MAX_VCPUS`].
    pub vcpu_count: u32,
    /// Index of its first entry in `scrubs`.
    pub first_scrub: u32,
    /// Number of scrub ranges.
    pub scrub_count: u32,
    /// What it reads from GICD_TYPER.
    pub gicd_typer: u32,
    /// TTBR0_EL2 while its RAM is reloaded: PA of its restart root, whose tables map that RAM and the pristine copy at their
    /// physical addresses. 0 where it never restarts.
    pub restart_ttbr: u64,
    /// Index of its first entry in `reloads`.
    pub first_reload: u32,
    /// Number of reloads.
    pub reload_count: u32,
    /// Restarts it may have within [`RESTART_PERIOD_S`] seconds, counted from the first of them. 0 where it never restarts.
    pub restart_limit: u32,
    /// Longest time between two pats of its watchdog in milliseconds, 0 without one.
    pub watchdog_ms: u32,
    /// The CPU that looks after its watchdog: of another domain, or its own with injected delivery. 0 without one.
    pub watcher: CpuIndex,
    /// After a fault or an expired watchdog, see [`Policy`].
    pub on_fault: u8,
    /// After PSCI SYSTEM_RESET, see [`Policy`].
    pub on_reset: u8,
    /// After PSCI SYSTEM_OFF or the CPU_OFF of its last vCPU, see [`Policy`].
    pub on_off: u8,
    /// Zero.
    pub reserved1: [u8; 3],
    /// Where its watchdog shows as an SBSA Generic Watchdog: the control frame's page and, behind it, the refresh frame's. Else
    /// [`NO_WINDOW`].
    pub watchdog_ipa: Ipa,
    /// The SPI by which that watchdog gives its first signal, or [`NO_INTID`].
    pub watchdog_intid: IntId,
    /// Zero.
    pub reserved2: u32,
    /// Bit per INTID it owns. Word 0: its SGIs and the PPIs granted to each of its vCPUs.
    pub owned: [u32; INTID_WORDS],
}

/// Routing of one owned SPI after reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Spi {
    /// GICv3: GICD_IROUTER value: affinity of the owner's vCPU 0, IRM = 0 (IHI 0069, 12.9.22). GICv2: its byte of
    /// GICD_ITARGETSR.
    pub router: u64,
    /// The interrupt.
    pub intid: IntId,
    /// Zero.
    pub reserved: u32,
}

/// Copy from the image to RAM, before anything runs or before a domain starts again. All fields are multiples of 16.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Move {
    /// Byte offset in the image.
    pub offset: u64,
    /// Destination.
    pub to: Pa,
    /// Bytes copied.
    pub len: u64,
    /// Bytes zeroed behind them.
    pub zero: u64,
}

/// A doubleword that must be readable RAM. 8-byte aligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Probe {
    /// Its address.
    pub at: Pa,
}

/// A range of a domain's RAM that holds nothing from the image. 4 KiB aligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Scrub {
    /// First byte.
    pub base: Pa,
    /// Bytes.
    pub size: u64,
}

impl Domain {
    /// The domain's name, empty where the bytes are not UTF-8.
    pub fn name(&self) -> &str {
        let len = self.name.iter().position(|b| *b == 0).unwrap_or(self.name.len());
        core::str::from_utf8(self.name.get(..len).unwrap_or(&[])).unwrap_or("")
    }

    /// Whether it may start again.
    pub const fn restarts(&self) -> bool {
        self.restart_limit != 0
    }

    /// Whether this domain owns `intid`.
    pub fn owns(&self, intid: IntId) -> bool {
        self.owned.get(intid.word()).is_some_and(|word| word & intid.bit() != 0)
    }
}

// The boot stub (hyp-min/src/arch/aarch64/boot.S) knows these.
const _: () = {
    assert!(offset_of!(Header, records_crc) == 8);
    assert!(offset_of!(Header, version) == 12);
    assert!(offset_of!(Header, records_len) == 16);
    assert!(offset_of!(Header, blob_len) == 20);
    assert!(offset_of!(Header, tables_crc) == 24);
    assert!(offset_of!(Header, flags) == 28);
    assert!(offset_of!(Header, base) == 32);
    assert!(offset_of!(Header, image_len) == 40);
    assert!(offset_of!(Header, ttbr0_el2) == 48);
    assert!(offset_of!(Header, tcr_el2) == 56);
    assert!(offset_of!(Header, console_pa) == 64);
    assert!(offset_of!(Header, console_pa_again) == 72);
    assert!(size_of::<Header>().is_multiple_of(16));
    assert!(size_of::<Cpu>().is_multiple_of(8) && size_of::<Domain>().is_multiple_of(8));
};
