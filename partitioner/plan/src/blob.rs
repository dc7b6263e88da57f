//! Reading a plan in place: one structural check, then plain slices.

use crate::audit::{Audit, Fact, Grant, Line, Name, Payload};
use crate::crc::crc32c;
use crate::limits::{MAX_CPUS, MAX_DOMAINS, MAX_FUNCTIONS, MAX_RECORDS, MAX_VCPUS};
use crate::pci::{Function, Pci, PciDomain, Rule};
use crate::{Cpu, CpuIndex, Domain, Header, IntId, MAGIC, Move, NO_DOMAIN, Probe, Scrub, Spi, Table, VERSION};
use core::mem::size_of;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Why a blob is not a plan this code can read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlanError {
    /// Shorter than its header, or than the header says.
    Short,
    /// The first eight bytes are not [`MAGIC`].
    Magic,
    /// Made for another version of the plan's format.
    Version(u32),
    /// Lengths that contradict each other.
    Length,
    /// The checksum over header and records does not hold.
    RecordsChecksum,
    /// The checksum over audit section, tables and device trees does not hold.
    TablesChecksum,
    /// A table lies outside its section, is misaligned or too long.
    Table(&'static str),
    /// An index in a record points outside its table.
    Index(&'static str),
}

/// CRC-32C over header and records of `blob`, without the fields before byte 16. `None` where the blob is too short.
pub fn records_checksum(blob: &[u8], records_len: u32) -> Option<u32> {
    blob.get(16..records_len as usize).map(crc32c)
}

/// CRC-32C over everything behind the records.
pub fn tables_checksum(blob: &[u8], records_len: u32, blob_len: u32) -> Option<u32> {
    blob.get(records_len as usize..blob_len as usize).map(crc32c)
}

/// A plan whose structure holds: every table lies in its section and every index in its table.
///
/// It borrows the blob and copies nothing.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The bytes read: at least header and records.
    pub bytes: &'a [u8],
    /// The header.
    pub header: &'a Header,
    /// The CPUs.
    pub cpus: &'a [Cpu],
    /// The domains.
    pub domains: &'a [Domain],
    /// CPU of each vCPU.
    pub vcpus: &'a [CpuIndex],
    /// Routes of owned SPIs.
    pub spis: &'a [Spi],
    /// GICD_ICFGR words from INTID 32.
    pub icfgr: &'a [u32],
    /// Copies of the boot stub.
    pub moves: &'a [Move],
    /// RAM probes of the boot stub.
    pub probes: &'a [Probe],
    /// Scrub ranges.
    pub scrubs: &'a [Scrub],
    /// What restarts write.
    pub reloads: &'a [Move],
    /// PCI, where the plan has it.
    pub pci: Option<PciView<'a>>,
}

/// The PCI records.
#[derive(Clone, Copy, Debug)]
pub struct PciView<'a> {
    /// The SMMU, the ITS, the rest.
    pub record: &'a Pci,
    /// The functions.
    pub functions: &'a [Function],
    /// The rules of their configuration space.
    pub rules: &'a [Rule],
    /// Which of them decides a dword.
    pub dwords: &'a [u8],
    /// Per domain.
    pub owners: &'a [PciDomain],
    /// The SPI of each LPI.
    pub lpis: &'a [u32],
    /// GICR_PENDBASER of each CPU.
    pub pending: &'a [u64],
}

impl<'a> Plan<'a> {
    /// Reads header and records. Checks structure, not the checksums; `bytes` may end with the records.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn read(bytes: &'a [u8]) -> Result<Self, PlanError> {
        let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| PlanError::Short)?;
        if header.magic != MAGIC {
            return Err(PlanError::Magic);
        }
        if header.version != VERSION {
            return Err(PlanError::Version(header.version));
        }
        let lengths_hold = header.records_len as usize >= size_of::<Header>()
            && header.records_len <= MAX_RECORDS
            && header.records_len <= header.blob_len
            && (header.records_len | header.blob_len) % 16 == 0;
        if !lengths_hold {
            return Err(PlanError::Length);
        }
        let records = bytes.get(..header.records_len as usize).ok_or(PlanError::Short)?;
        let plan = Self {
            bytes,
            header,
            cpus: table(records, header.cpus, "cpus")?,
            domains: table(records, header.domains, "domains")?,
            vcpus: table(records, header.vcpus, "vcpus")?,
            spis: table(records, header.spis, "spis")?,
            icfgr: table(records, header.icfgr, "icfgr")?,
            moves: table(records, header.moves, "moves")?,
            probes: table(records, header.probes, "probes")?,
            scrubs: table(records, header.scrubs, "scrubs")?,
            reloads: table(records, header.reloads, "reloads")?,
            pci: pci(records, header.pci)?,
        };
        plan.check_indices()?;
        Ok(plan)
    }

    /// Reads a whole blob and checks both checksums.
    ///
    /// # Errors
    /// As [`Plan::read`], and a checksum that does not hold.
    pub fn read_whole(bytes: &'a [u8]) -> Result<Self, PlanError> {
        let plan = Self::read(bytes)?;
        let header = plan.header;
        if records_checksum(bytes, header.records_len) != Some(header.records_crc) {
            return Err(PlanError::RecordsChecksum);
        }
        match tables_checksum(bytes, header.records_len, header.blob_len) {
            None => Err(PlanError::Short),
            Some(crc) if crc != header.tables_crc => Err(PlanError::TablesChecksum),
            Some(_) => Ok(plan),
        }
    }

    fn check_indices(&self) -> Result<(), PlanError> {
        if self.cpus.len() > MAX_CPUS {
            return Err(PlanError::Table("cpus"));
        }
        if self.domains.len() > MAX_DOMAINS {
            return Err(PlanError::Table("domains"));
        }
        for cpu in self.cpus {
            let domain = self.domains.get(usize::from(cpu.domain)).ok_or(PlanError::Index("cpu.domain"))?;
            if u32::from(cpu.vcpu) >= domain.vcpu_count {
                return Err(PlanError::Index("cpu.vcpu"));
            }
        }
        for domain in self.domains {
            if domain.vcpu_count == 0 || domain.vcpu_count as usize > MAX_VCPUS || self.vcpus_of(domain).is_none() {
                return Err(PlanError::Index("domain.vcpus"));
            }
            if self.scrubs_of(domain).is_none() {
                return Err(PlanError::Index("domain.scrubs"));
            }
            if self.reloads_of(domain).is_none() {
                return Err(PlanError::Index("domain.reloads"));
            }
            if usize::from(domain.watcher.0) >= self.cpus.len() {
                return Err(PlanError::Index("domain.watcher"));
            }
        }
        if self.vcpus.iter().any(|cpu| usize::from(cpu.0) >= self.cpus.len()) {
            return Err(PlanError::Index("vcpus"));
        }
        if usize::from(self.header.housekeeping_cpu.0) >= self.cpus.len() {
            return Err(PlanError::Index("housekeeping_cpu"));
        }
        self.pci.as_ref().map_or(Ok(()), |pci| pci.check_indices(self))
    }

    /// The CPUs of `domain`, by vCPU number.
    pub fn vcpus_of(&self, domain: &Domain) -> Option<&'a [CpuIndex]> {
        slice(self.vcpus, domain.first_vcpu, domain.vcpu_count)
    }

    /// The scrub ranges of `domain`.
    pub fn scrubs_of(&self, domain: &Domain) -> Option<&'a [Scrub]> {
        slice(self.scrubs, domain.first_scrub, domain.scrub_count)
    }

    /// What a restart of `domain` writes.
    pub fn reloads_of(&self, domain: &Domain) -> Option<&'a [Move]> {
        slice(self.reloads, domain.first_reload, domain.reload_count)
    }

    /// The audit section. Needs the whole blob.
    ///
    /// # Errors
    /// A table of the section that does not lie in the blob.
    pub fn audit(&self) -> Result<AuditView<'a>, PlanError> {
        let blob = self.bytes.get(..self.header.blob_len as usize).ok_or(PlanError::Short)?;
        let from = self.header.audit.offset as usize;
        let bytes = blob.get(from..).ok_or(PlanError::Table("audit"))?;
        let (audit, _) = Audit::ref_from_prefix(bytes).map_err(|_| PlanError::Table("audit"))?;
        Ok(AuditView {
            facts: table(blob, audit.facts, "facts")?,
            grants: table(blob, audit.grants, "grants")?,
            lines: table(blob, audit.lines, "lines")?,
            payloads: table(blob, audit.payloads, "payloads")?,
            names: table(blob, audit.names, "names")?,
        })
    }

    /// The translation tables as bytes. Needs the whole blob.
    ///
    /// # Errors
    /// The tables do not lie in the blob.
    pub fn tables(&self) -> Result<&'a [u8], PlanError> {
        let at = self.header.tables;
        let len = (at.count as usize).checked_mul(4096).ok_or(PlanError::Table("tables"))?;
        let end = (at.offset as usize).checked_add(len).ok_or(PlanError::Table("tables"))?;
        if !at.offset.is_multiple_of(4096) || at.offset < self.header.records_len || end > self.header.blob_len as usize
        {
            return Err(PlanError::Table("tables"));
        }
        self.bytes.get(at.offset as usize..end).ok_or(PlanError::Table("tables"))
    }
}

impl<'a> PciView<'a> {
    fn check_indices(&self, plan: &Plan<'_>) -> Result<(), PlanError> {
        if self.functions.len() > MAX_FUNCTIONS {
            return Err(PlanError::Table("functions"));
        }
        if self.owners.len() != plan.domains.len() {
            return Err(PlanError::Table("owners"));
        }
        if self.pending.len() != plan.cpus.len() {
            return Err(PlanError::Table("pending"));
        }
        if self.owners.iter().any(|owner| self.functions_of(owner).is_none()) {
            return Err(PlanError::Index("owner.functions"));
        }
        for function in self.functions {
            if function.domain != NO_DOMAIN && usize::from(function.domain) >= plan.domains.len() {
                return Err(PlanError::Index("function.domain"));
            }
            if self.rules_of(function).is_none() {
                return Err(PlanError::Index("function.rules"));
            }
            if self.dwords_of(function).is_none() {
                return Err(PlanError::Index("function.dwords"));
            }
        }
        if self.lpis.iter().any(|spi| !IntId(*spi).is_spi()) {
            return Err(PlanError::Index("lpis"));
        }
        Ok(())
    }

    /// The functions of a domain.
    pub fn functions_of(&self, owner: &PciDomain) -> Option<&'a [Function]> {
        slice(self.functions, owner.first_function, owner.function_count)
    }

    /// The rules of a function.
    pub fn rules_of(&self, function: &Function) -> Option<&'a [Rule]> {
        slice(self.rules, function.first_rule, function.rule_count)
    }

    /// For each dword of a function which of its rules decides it, as far as there are any.
    pub fn dwords_of(&self, function: &Function) -> Option<&'a [u8]> {
        slice(self.dwords, function.first_dword, function.dword_count)
    }
}

/// The audit section's tables.
#[derive(Clone, Copy, Debug)]
pub struct AuditView<'a> {
    /// Board facts.
    pub facts: &'a [Fact],
    /// Grants to domains.
    pub grants: &'a [Grant],
    /// Interrupts with owners.
    pub lines: &'a [Line],
    /// What of the image lies where.
    pub payloads: &'a [Payload],
    names: &'a [u8],
}

impl<'a> AuditView<'a> {
    /// The text of a name, `"?"` where it does not lie in the names table or is not UTF-8.
    pub fn name(&self, name: Name) -> &'a str {
        let end = (name.offset as usize).checked_add(name.len as usize);
        end.and_then(|end| self.names.get(name.offset as usize..end))
            .and_then(|bytes| core::str::from_utf8(bytes).ok())
            .unwrap_or("?")
    }
}

fn pci(records: &[u8], at: Table) -> Result<Option<PciView<'_>>, PlanError> {
    let found: &[Pci] = table(records, at, "pci")?;
    let record = match found {
        [] => return Ok(None),
        [record] => record,
        _ => return Err(PlanError::Table("pci")),
    };
    Ok(Some(PciView {
        record,
        functions: table(records, record.functions, "functions")?,
        rules: table(records, record.rules, "rules")?,
        dwords: table(records, record.dwords, "dwords")?,
        owners: table(records, record.owners, "owners")?,
        lpis: table(records, record.lpis, "lpis")?,
        pending: table(records, record.pending, "pending")?,
    }))
}

fn slice<T>(all: &[T], first: u32, count: u32) -> Option<&[T]> {
    let end = (first as usize).checked_add(count as usize)?;
    all.get(first as usize..end)
}

fn table<'a, T>(section: &'a [u8], at: Table, name: &'static str) -> Result<&'a [T], PlanError>
where
    T: FromBytes + Immutable + KnownLayout,
{
    let len = (at.count as usize).checked_mul(size_of::<T>()).ok_or(PlanError::Table(name))?;
    let end = (at.offset as usize).checked_add(len).ok_or(PlanError::Table(name))?;
    let bytes = section.get(at.offset as usize..end).ok_or(PlanError::Table(name))?;
    <[T]>::ref_from_bytes(bytes).map_err(|_| PlanError::Table(name))
}
