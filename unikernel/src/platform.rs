//! What this domain consists of, read once from its device tree.
//!
//! Holds only what the runtime itself needs; anything else is looked up when asked for ([`Platform::device`]). It must not
//! touch hardware, so that it can be tested on a host.
#![allow(unsafe_code)] // one cell that is written before anything else runs

use crate::MAX_CPUS;
use crate::fdt::{Fdt, Node, Region};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// A device: its first register range and first interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Device {
    /// Registers.
    pub region: Region,
    /// INTID, if it has an interrupt.
    pub intid: Option<u32>,
}

/// The interrupt controller of this domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gic {
    /// Distributor.
    pub distributor: Region,
    /// What differs between the versions.
    pub frames: GicFrames,
}

impl Gic {
    /// Where the bits of INTIDs below 32 are: vCPU 0's SGI frame, or banked in the distributor. Region, and offset in it.
    pub fn private(&self) -> (Region, usize) {
        match self.frames {
            GicFrames::V3 { redistributors } => (redistributors, 0x1_0000),
            GicFrames::V2 { .. } => (self.distributor, 0),
        }
    }
}

/// The registers beside the distributor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GicFrames {
    /// GICv3.
    V3 {
        /// Redistributors, 128 KiB each, one after the other.
        redistributors: Region,
    },
    /// GICv2.
    V2 {
        /// CPU interface: each vCPU finds its own there.
        interface: Region,
    },
}

/// How PSCI is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// `hvc #0`.
    Hvc,
    /// `smc #0`.
    Smc,
}

/// The domain's hardware.
pub struct Platform {
    /// The device tree all this comes from.
    pub fdt: Fdt,
    /// PL011 of `/chosen/stdout-path`, else the first one.
    pub console: Option<Device>,
    /// Interrupt controller.
    pub gic: Option<Gic>,
    /// INTID of the virtual timer.
    pub timer: Option<u32>,
    /// PSCI conduit.
    pub psci: Option<Conduit>,
    /// `/chosen/bootargs`, empty without.
    pub bootargs: &'static str,
    /// First memory range.
    pub memory: Region,
    mpidrs: [u64; MAX_CPUS],
    cpus: usize,
}

impl Platform {
    /// Reads the tree. What is missing stays `None`; only a tree without memory is refused.
    pub fn read(fdt: Fdt) -> Option<Self> {
        let mut found = Self {
            fdt,
            console: None,
            gic: None,
            timer: None,
            psci: None,
            bootargs: fdt.string("/chosen", "bootargs").unwrap_or(""),
            memory: Region::default(),
            mpidrs: [0; MAX_CPUS],
            cpus: 0,
        };
        let stdout = stdout_path(&fdt);
        let _: Option<()> = fdt.find(|node| {
            found.visit(node, stdout);
            None
        });
        (found.memory.size != 0).then_some(found)
    }

    fn visit(&mut self, node: &Node, stdout: &str) {
        if !node.is_enabled() {
            return;
        }
        if node.is_compatible("arm,pl011") && (self.console.is_none() || node.is_at(stdout)) {
            self.console = device_of(node);
        } else if node.is_compatible("arm,gic-v3") {
            let ranges = node.reg(0).zip(node.reg(1));
            let v3 = |(distributor, redistributors)| Gic { distributor, frames: GicFrames::V3 { redistributors } };
            self.gic = ranges.map(v3);
        } else if node.is_compatible("arm,gic-400") || node.is_compatible("arm,cortex-a15-gic") {
            let ranges = node.reg(0).zip(node.reg(1));
            self.gic = ranges.map(|(distributor, interface)| Gic { distributor, frames: GicFrames::V2 { interface } });
        } else if node.is_compatible("arm,armv8-timer") {
            // By name where the node gives names, else by the binding's order: secure, physical, virtual, hypervisor.
            let names = node.property("interrupt-names");
            let by_name = names.and_then(|names| names.split(|byte| *byte == 0).position(|name| name == b"virt"));
            self.timer = node.interrupt(by_name.unwrap_or(2));
        } else if node.is_compatible("arm,psci-0.2") || node.is_compatible("arm,psci-1.0") {
            self.psci = node.string("method").map(|name| if name == "smc" { Conduit::Smc } else { Conduit::Hvc });
        } else if node.string("device_type") == Some("memory") && self.memory.size == 0 {
            self.memory = node.reg(0).unwrap_or_default();
        } else if node.string("device_type") == Some("cpu")
            && let (Some(slot), Some(reg)) = (self.mpidrs.get_mut(self.cpus), node.reg(0))
        {
            *slot = reg.base;
            self.cpus += 1;
        }
    }

    /// Affinity (MPIDR) of each vCPU, in the tree's order; at most [`MAX_CPUS`].
    pub fn cpus(&self) -> &[u64] {
        &self.mpidrs[..self.cpus]
    }

    /// The `index`-th enabled device compatible with `compatible`.
    pub fn device(&self, compatible: &str, index: usize) -> Option<Device> {
        let mut left = index;
        self.fdt.find(|node| {
            if !node.is_compatible(compatible) || !node.is_enabled() {
                return None;
            }
            if left == 0 {
                return device_of(node);
            }
            left -= 1;
            None
        })
    }

    /// Value of the word `key=value` in the boot arguments.
    pub fn argument(&self, key: &str) -> Option<&'static str> {
        self.bootargs.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }
}

fn device_of(node: &Node) -> Option<Device> {
    Some(Device { region: node.reg(0)?, intid: node.interrupt(0) })
}

/// The console's path: `stdout-path` without its options, an alias resolved.
fn stdout_path(fdt: &Fdt) -> &'static str {
    let value = fdt.string("/chosen", "stdout-path").unwrap_or("");
    let path = value.split(':').next().unwrap_or("");
    if path.starts_with('/') { path } else { fdt.string("/aliases", path).unwrap_or("") }
}

struct Once {
    ready: AtomicBool,
    value: UnsafeCell<Option<Platform>>,
}
// SAFETY: `value` is written by `set` only, before `ready` is set and before a second vCPU exists; read-only from then on.
unsafe impl Sync for Once {}

static PLATFORM: Once = Once { ready: AtomicBool::new(false), value: UnsafeCell::new(None) };

/// Keeps the platform for [`platform`]. The first call counts; boot makes it before it starts anything else.
#[cfg_attr(not(target_os = "none"), allow(dead_code))]
pub(crate) fn set(platform: Platform) {
    if !PLATFORM.ready.load(Ordering::Acquire) {
        // SAFETY: `ready` is false, so no reference exists; boot runs on one vCPU.
        unsafe { *PLATFORM.value.get() = Some(platform) };
        PLATFORM.ready.store(true, Ordering::Release);
    }
}

/// The platform, `None` before boot has read it (or could not).
pub fn get() -> Option<&'static Platform> {
    if !PLATFORM.ready.load(Ordering::Acquire) {
        return None;
    }
    // SAFETY: `ready` is set, so the value is written and never again.
    unsafe { (*PLATFORM.value.get()).as_ref() }
}

/// The platform.
///
/// # Panics
/// Before `main`, which nothing outside this crate can run.
pub fn platform() -> &'static Platform {
    get().expect("the platform is read before main")
}

#[cfg(test)]
#[path = "platform_tests.rs"]
mod tests;
