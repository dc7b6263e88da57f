//! The SMMUv3's language (IHI 0070): commands, events, and what a machine's identification registers must offer a plan.
//!
//! Pure: what is done with them is `unit`'s, where registers and queues are, `dev/smmu.rs`'s.

pub mod unit;

use cofferdam_plan::pci::Smmu;

/// A command (4.1.1).
pub type Command = [u64; 2];
/// Forgets every cached stream table entry: CMD_CFGI_STE_RANGE over all (4.3.2).
pub const CFGI_ALL: Command = [0x04, 31];
/// Forgets every translation of EL1 and below (4.4).
pub const TLBI_NSNH_ALL: Command = [0x30, 0];
/// Done when all before it are, and what they invalidated is no more in use (4.7.3). No signal: CMDQ_CONS says it.
pub const SYNC: Command = [0x46, 0];
/// Dword 0 of a stream table entry that aborts without an event: V, Config 0b000 (5.2).
pub const ABORT: u64 = 1;

/// Bytes of a stream table entry as a power of two (5.2).
pub const STE_LOG2: u32 = 6;

/// Forgets the entry of one stream (4.3.1). Leaf: the table has one level.
pub const fn cfgi_ste(stream: u32) -> Command {
    [0x03 | (stream as u64) << 32, 1]
}

/// Forgets the translations under one VMID, both stages (4.4).
pub const fn tlbi_vmid(vmid: u64) -> Command {
    [0x28 | (vmid & 0xFFFF) << 32, 0]
}

/// Bits of a queue's size in its base register: LOG2SIZE of SMMU_CMDQ_BASE and SMMU_EVENTQ_BASE (6.3).
pub const fn queue_bits(base: u64) -> u32 {
    (base & 0x1F) as u32
}

/// The index, wrap bit included, behind `index` in a queue of 2^`bits` entries (3.5.1).
pub const fn next(index: u32, bits: u32) -> u32 {
    index.wrapping_add(1) & index_mask(bits)
}

/// The bits of an index of such a queue, the wrap bit too.
pub const fn index_mask(bits: u32) -> u32 {
    (2u32 << (bits & 0x1F)).wrapping_sub(1)
}

/// Byte offset of the entry at `index`, of 2^`log2` bytes.
pub const fn entry(index: u32, bits: u32, log2: u32) -> u64 {
    ((index & (index_mask(bits) >> 1)) as u64) << log2
}

/// What the SMMU says of a transaction that it did not let through (7.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Whose it was.
    pub stream: u32,
    /// What it did, in words that `address` completes.
    pub did: &'static str,
    /// The address that the device used, an IPA; of an event that has none, the event's number.
    pub address: u64,
    /// Why not.
    pub why: &'static str,
}

/// Decodes an event record.
pub const fn decode(record: [u64; 4]) -> Event {
    let [first, second, address, _] = record;
    let kind = first & 0xFF;
    let why = match kind {
        0x10 => "not mapped",
        0x11 => "beyond all addresses",
        0x12 | 0x13 => "not permitted",
        0x0B => "its tables cannot be read",
        0x02 | 0x04 => "no stream of any domain",
        _ => "see IHI 0070, 7.3",
    };
    let (did, address) = match kind {
        0x10..=0x13 | 0x0B if second & 1 << 35 != 0 => ("read of", address),
        0x10..=0x13 | 0x0B => ("write to", address),
        _ => ("SMMU event", kind),
    };
    Event { stream: (first >> 32) as u32, did, address, why }
}

/// What a plan needs of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(target_os = "none", derive(defmt::Format))]
pub enum Lack {
    /// Stage 2.
    Stage2,
    /// Tables of AArch64, 4 KiB granule.
    TablesOf4KiB,
    /// Tables as the CPU writes them.
    LittleEndianTables,
    /// A device whose faults stall can fill it (invariant I66).
    FaultsThatTerminate,
    /// Accesses to tables and queues that see the CPU's caches.
    CoherentAccesses,
    /// Bits of stream ID.
    BitsOfStreamId,
    /// Tables and queues where the plan has them.
    TablesOfOurOwn,
    /// Room in the command queue.
    CommandsInItsQueue,
    /// Room in the event queue.
    EventsInItsQueue,
    /// Bits of address.
    BitsOfAddress,
}

/// What the plan needs and a machine with these SMMU_IDR0, IDR1 and IDR5 (6.3.1 to 6.3.6) has not got.
pub fn lacks(smmu: &Smmu, idr0: u32, idr1: u32, idr5: u32) -> Option<Lack> {
    /// IDR5.OAS (6.3.6).
    const OAS: [u32; 8] = [32, 36, 40, 42, 44, 48, 52, 52];
    let needs = [
        (idr0 & 1 != 0, Lack::Stage2),
        (idr0 >> 2 & 2 != 0 && idr5 >> 4 & 1 != 0, Lack::TablesOf4KiB),
        (idr0 >> 21 & 3 != 3, Lack::LittleEndianTables),
        // A device whose faults stall can fill the SMMU (invariant I66).
        (idr0 >> 24 & 3 != 2, Lack::FaultsThatTerminate),
        (idr0 >> 4 & 1 != 0 || smmu.cr1 & 0x3CF == 0, Lack::CoherentAccesses),
        (idr1 & 0x3F >= smmu.stream_bits, Lack::BitsOfStreamId),
        (idr1 >> 29 & 3 == 0, Lack::TablesOfOurOwn),
        (idr1 >> 21 & 0x1F >= queue_bits(smmu.command_base), Lack::CommandsInItsQueue),
        (idr1 >> 16 & 0x1F >= queue_bits(smmu.event_base), Lack::EventsInItsQueue),
        (OAS.get(idr5 as usize & 7).is_some_and(|bits| *bits >= smmu.address_bits), Lack::BitsOfAddress),
    ];
    needs.iter().find(|(met, _)| !met).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    /// QEMU 10.0, `virt`.
    const QEMU: [u32; 3] = [0x0D44_101B, 0x0273_0010, 0x74];

    fn plan() -> Smmu {
        Smmu {
            command_base: 0x4400_0008,
            event_base: 0x4400_1007,
            stream_table_cfg: 10,
            stream_bits: 10,
            address_bits: 40,
            cr1: 0xD75,
            ..Smmu::new_zeroed()
        }
    }

    fn lacking(idr: [u32; 3], plan: Smmu) -> Option<Lack> {
        lacks(&plan, idr[0], idr[1], idr[2])
    }

    #[test]
    fn each_thing_that_is_not_there_is_named() {
        assert_eq!(lacking(QEMU, plan()), None);
        let without = |n: usize, bits: u32| {
            let mut idr = QEMU;
            idr[n] &= !bits;
            lacking(idr, plan())
        };
        assert_eq!(without(0, 1), Some(Lack::Stage2));
        assert_eq!(without(0, 1 << 3), Some(Lack::TablesOf4KiB));
        assert_eq!(without(2, 1 << 4), Some(Lack::TablesOf4KiB));
        assert_eq!(without(0, 1 << 4), Some(Lack::CoherentAccesses));
        assert_eq!(lacking([QEMU[0] & !(1 << 4), QEMU[1], QEMU[2]], Smmu { cr1: 0, ..plan() }), None);
        assert_eq!(lacking([QEMU[0] | 1 << 21, QEMU[1], QEMU[2]], plan()), Some(Lack::LittleEndianTables));
        assert_eq!(lacking([QEMU[0] ^ 3 << 24, QEMU[1], QEMU[2]], plan()), Some(Lack::FaultsThatTerminate));
        assert_eq!(lacking(QEMU, Smmu { stream_bits: 17, ..plan() }), Some(Lack::BitsOfStreamId));
        assert_eq!(lacking([QEMU[0], QEMU[1] | 1 << 30, QEMU[2]], plan()), Some(Lack::TablesOfOurOwn));
        assert_eq!(lacking(QEMU, Smmu { command_base: 0x1F, ..plan() }), Some(Lack::CommandsInItsQueue));
        assert_eq!(lacking(QEMU, Smmu { event_base: 0x1F, ..plan() }), Some(Lack::EventsInItsQueue));
        assert_eq!(lacking(QEMU, Smmu { address_bits: 48, ..plan() }), Some(Lack::BitsOfAddress));
    }

    #[test]
    fn events_name_stream_direction_and_address() {
        let read = decode([0x10 | 0x28 << 32, 1 << 35 | 1 << 39, 0x5000_0000, 0]);
        assert_eq!(read, Event { stream: 0x28, did: "read of", address: 0x5000_0000, why: "not mapped" });
        let write = decode([0x13 | 0x30 << 32, 1 << 39, 0x808_0040, 0]);
        assert_eq!(write, Event { stream: 0x30, did: "write to", address: 0x808_0040, why: "not permitted" });
        let unknown = decode([0x04 | 0xFFFF_FFFF << 32, u64::MAX, u64::MAX, u64::MAX]);
        assert_eq!((unknown.stream, unknown.did, unknown.address), (u32::MAX, "SMMU event", 4));
        for kind in 0..=255 {
            assert!(!decode([kind, 0, 0, 0]).why.is_empty());
        }
    }

    #[test]
    fn queues_wrap() {
        assert_eq!((next(6, 2), next(7, 2), next(0xFFFF_FFFF, 2)), (7, 0, 0));
        assert_eq!((entry(5, 2, 4), entry(7, 2, 5), entry(u32::MAX, 7, 5)), (0x10, 0x60, 127 * 32));
        // A queue as large as a base register can say.
        assert_eq!(queue_bits(u64::MAX), 31);
        assert_eq!(next(3, 31) & 3, 0);
    }

    #[test]
    fn commands_hold_whom_they_are_about() {
        assert_eq!(cfgi_ste(0x1_0028), [0x1_0028_0000_0003, 1]);
        assert_eq!(tlbi_vmid(0x1_0002), [0x2_0000_0028, 0]);
    }
}
