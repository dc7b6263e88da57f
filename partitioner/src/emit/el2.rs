//! EL2's own address space: image, plan, areas behind guards, devices, and the stub's page at its physical address.

use super::pages::{Pages, PagesError, Root};
use super::stage2::physical_size;
use crate::compile::{Access, HypImage};
use crate::resolve::util::{bits, up};
use crate::resolve::{GICD_SIZE, GICR_SIZE, PAGE};
use cofferdam_plan::va::{ATTR_DEVICE, ATTR_NORMAL, CPU_AREA, DOMAIN_AREA, GUARD, HYP_VA};

/// Access flag, and AP[1], which is RES1 where only one privilege level translates (DDI 0487, D8.4.1).
const BASE: u64 = 1 << 10 | 1 << 6;
/// Inner Shareable.
const SH_INNER: u64 = 3 << 8;
/// AP[2]: read-only.
const READ_ONLY: u64 = 1 << 7;
/// XN.
const EXECUTE_NEVER: u64 = 1 << 54;

const CODE: u64 = BASE | SH_INNER | ATTR_NORMAL << 2 | READ_ONLY;
const CONST: u64 = CODE | EXECUTE_NEVER;
const DATA: u64 = BASE | SH_INNER | ATTR_NORMAL << 2 | EXECUTE_NEVER;
const DEVICE: u64 = BASE | ATTR_DEVICE << 2 | EXECUTE_NEVER;

/// Where things are in EL2's address space. Computed from counts and lengths alone.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Space {
    /// Byte offset from `base` of the first CPU area.
    areas: u64,
    cpus: u64,
    domains: u64,
    spare: bool,
    roots: u64,
    devices: u64,
    /// Of a GICv2: frames beside the distributor.
    gicv2: Option<u64>,
    console: bool,
}

/// How many of each there are.
pub(crate) struct Counts {
    /// CPUs that domains have.
    pub(crate) cpus: usize,
    /// Domains.
    pub(crate) domains: usize,
    /// Pages of all stage-2 roots, which lie in one row.
    pub(crate) root_pages: u64,
}

impl Space {
    /// For a blob that ends at byte `end` of the image.
    pub(crate) fn new(end: u64, counts: &Counts, spare: bool, gicv2: Option<u64>, console: bool) -> Self {
        let mut space = Self {
            areas: up(end, PAGE),
            cpus: counts.cpus as u64 + u64::from(spare),
            domains: counts.domains as u64,
            spare,
            roots: 0,
            devices: 0,
            gicv2,
            console,
        };
        space.roots = space.domain(space.domains);
        space.devices = space.roots + counts.root_pages * PAGE + GUARD;
        space
    }

    /// EL2 address of a CPU's area.
    pub(crate) fn cpu(&self, index: u64) -> u64 {
        HYP_VA + self.areas + index * (GUARD + CPU_AREA) + GUARD
    }

    /// Physical offset from `base` of a CPU's area: areas follow each other without guards.
    fn cpu_offset(&self, index: u64) -> u64 {
        self.areas + index * CPU_AREA
    }

    /// Stack top of a boot CPU that no domain owns, 0 where there is none.
    pub(crate) fn spare_top(&self) -> u64 {
        if self.spare { self.cpu(self.cpus - 1) + CPU_AREA } else { 0 }
    }

    /// EL2 address of a domain's area.
    pub(crate) fn domain(&self, index: u64) -> u64 {
        self.cpu(self.cpus) - GUARD + index * (GUARD + DOMAIN_AREA) + GUARD
    }

    fn domain_offset(&self, index: u64) -> u64 {
        self.cpu_offset(self.cpus) + index * DOMAIN_AREA
    }

    /// Bytes of RAM from `base` that the hypervisor needs.
    pub(crate) fn ram(&self) -> u64 {
        self.domain_offset(self.domains)
    }

    /// EL2 address of a writable view of a stage-2 root, by its page in the row of roots.
    pub(crate) fn root(&self, page: usize) -> u64 {
        self.roots + page as u64 * PAGE
    }

    /// EL2 address of the distributor.
    pub(crate) fn gicd(&self) -> u64 {
        self.devices
    }

    /// Bytes mapped of the distributor, and of each frame behind it.
    fn frame_sizes(&self) -> (u64, u64) {
        if self.gicv2.is_some() { (PAGE, PAGE) } else { (GICD_SIZE, GICR_SIZE) }
    }

    /// EL2 address of a frame beside the distributor: a GICv3's redistributor of a planned CPU, by its index; a GICv2's CPU
    /// interface (0), virtual interface control (1), and with injected delivery the CPU interface's second page (2).
    pub(crate) fn gic_frame(&self, index: u64) -> u64 {
        let (gicd, frame) = self.frame_sizes();
        self.devices + gicd + GUARD + index * frame
    }

    /// EL2 address of the console UART's page.
    pub(crate) fn console(&self) -> u64 {
        let frames = self.gicv2.unwrap_or(self.cpus - u64::from(self.spare));
        self.gic_frame(frames) + GUARD
    }

    /// EL2 address of the log UART's page.
    pub(crate) fn log(&self) -> u64 {
        self.console() + if self.console { PAGE + GUARD } else { 0 }
    }
}

/// Physical addresses of what EL2 maps.
pub(crate) struct Physical<'p> {
    pub(crate) base: u64,
    pub(crate) blob: u64,
    pub(crate) blob_len: u64,
    pub(crate) gicd: u64,
    /// What [`Space::gic_frame`] gives addresses to.
    pub(crate) frames: &'p [u64],
    /// Page of the console UART.
    pub(crate) console: Option<u64>,
    /// Page of the log UART.
    pub(crate) log: Option<u64>,
    /// Highest physical address the restart roots map, plus one: they share TCR_EL2.
    pub(crate) restart_reach: u64,
    /// What belongs to PCI.
    pub(crate) pci: &'p [Map],
}

/// One more mapping, of whole pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Map {
    pub(crate) va: u64,
    pub(crate) pa: u64,
    pub(crate) size: u64,
    /// Registers; else data.
    pub(crate) is_device: bool,
}

/// Root and TCR_EL2 of the finished tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct El2 {
    pub(crate) root: Root,
    pub(crate) tcr: u64,
}

/// Builds the tables. `roots` are the stage-2 roots: page in their row, physical address, pages that revocation clears.
pub(crate) fn build(
    pages: &mut Pages<'_>,
    hypervisor: &HypImage<'_>,
    space: &Space,
    physical: &Physical<'_>,
    roots: impl Iterator<Item = (usize, u64, u64)>,
    pa_bits: u32,
) -> Result<El2, PagesError> {
    let base = physical.base;
    let last = physical.pci.iter().map(|map| map.va + map.size).fold(space.log() + PAGE, u64::max);
    if base < last && base + PAGE > HYP_VA {
        return Err(PagesError::Window(last));
    }
    let width = bits(last.max(base + PAGE).max(physical.restart_reach)).max(32);
    let root = pages.root(if width <= 39 { 1 } else { 0 }, 1)?;
    let mut map = |va, pa, size, attributes| pages.map(root, va, pa, size, attributes);
    map(base, base, PAGE, CODE)?;
    for segment in hypervisor.segments {
        let attributes = match segment.access {
            Access::Execute => CODE,
            Access::Read => CONST,
            Access::Write => DATA,
        };
        map(HYP_VA + segment.offset, base + segment.offset, segment.len, attributes)?;
    }
    let (blob, blob_len) = (physical.blob, up(physical.blob_len, PAGE));
    map(HYP_VA + blob, base + blob, blob_len, CONST)?;
    for (page, pa, pages) in roots {
        map(space.root(page), pa, pages * PAGE, DATA)?;
    }
    for index in 0..space.cpus {
        map(space.cpu(index), base + space.cpu_offset(index), CPU_AREA, DATA)?;
    }
    for index in 0..space.domains {
        map(space.domain(index), base + space.domain_offset(index), DOMAIN_AREA, DATA)?;
    }
    let (gicd_size, frame_size) = space.frame_sizes();
    map(space.gicd(), physical.gicd, gicd_size, DEVICE)?;
    for (index, pa) in physical.frames.iter().enumerate() {
        map(space.gic_frame(index as u64), *pa, frame_size, DEVICE)?;
    }
    if let Some(pa) = physical.console {
        map(space.console(), pa, PAGE, DEVICE)?;
    }
    if let Some(pa) = physical.log {
        map(space.log(), pa, PAGE, DEVICE)?;
    }
    for more in physical.pci {
        map(more.va, more.pa, more.size, if more.is_device { DEVICE } else { DATA })?;
    }
    // TCR_EL2 with E2H = 0 (DDI 0487, D19.2.140): T0SZ, write-back inner shareable walks, 4 KiB, PS, RES1 bits 31 and 23.
    let tcr = u64::from(64 - width) | 1 << 8 | 1 << 10 | 3 << 12 | physical_size(pa_bits) << 16 | 1 << 23 | 1 << 31;
    Ok(El2 { root, tcr })
}

/// Builds a restart root: the stub's page, a domain's RAM and its pristine copy, all at their physical addresses.
pub(crate) fn restart(
    pages: &mut Pages<'_>,
    level: u32,
    base: u64,
    ram: impl Iterator<Item = (u64, u64)>,
    pristine: impl Iterator<Item = (u64, u64)>,
) -> Result<Root, PagesError> {
    let root = pages.root(level, 1)?;
    pages.map(root, base, base, PAGE, CODE)?;
    for (pa, size) in ram {
        pages.map(root, pa, pa, size, DATA)?;
    }
    for (pa, size) in pristine {
        pages.map(root, pa, pa, size, CONST)?;
    }
    Ok(root)
}
