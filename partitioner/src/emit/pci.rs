//! The records of PCI plans, and where EL2 sees what belongs to them.

use super::area::{Area, Use};
use super::assemble::{EmitError, Input};
use super::blob::Blob;
use super::dma;
use super::el2::{Map, Space};
use super::its::{self, Baked};
use super::pages::Pages;
use super::records::Records;
use super::stage2::Stage2;
use crate::pci::model::{Mode, PciFunction, PciHost, Reset, Settled, Settlement};
use crate::pci::policy::{self, Terms};
use crate::resolve::PAGE;
use cofferdam_plan::limits::MAX_FUNCTIONS;
use cofferdam_plan::pci::{CONFIG_SIZE, Function, FunctionFlags, NONE, Pci, PciDomain};
use cofferdam_plan::va::GUARD;
use cofferdam_plan::{IntId, Ipa, NO_DOMAIN, NO_WINDOW, Table};
use heapless::Vec;
use zerocopy::FromZeros;

/// Bytes of an SMMU's registers (IHI 0070, 6.1), and of an ITS's control frame (IHI 0069, 12.17).
pub(super) const SMMU_SIZE: u64 = 0x2_0000;
const CONTROL_SIZE: u64 = 0x1_0000;
/// Most of what EL2 maps: a page for each function, SMMU, ITS, and four parts of the area.
const MAPS: usize = MAX_FUNCTIONS + 6;

/// EL2 virtual addresses; 0 where it is not there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Views {
    pub(super) registers: u64,
    pub(super) control: u64,
    /// Of the first function's configuration space; the others follow, a page each.
    configs: u64,
    pub(super) streams: u64,
    pub(super) commands: u64,
    pub(super) events: u64,
    state: u64,
}

/// Where record tables lie.
#[derive(Clone, Copy, Default)]
pub(super) struct PciTables {
    pub(super) record: Table,
    functions: Table,
    rules: Table,
    dwords: Table,
    owners: Table,
    lpis: Table,
    pending: Table,
}

/// Bytes of a name in a record.
const NAME: usize = 16;

impl<'a> Input<'_, 'a, '_> {
    /// Host bridge and settlement, where the plan has PCI.
    pub(super) fn pci(&self) -> Option<(&PciHost<'a>, &Settlement)> {
        self.board.pci.as_ref().zip(self.pci)
    }

    /// Configuration space of a function.
    pub(super) fn config_pa(host: &PciHost<'_>, function: &PciFunction<'_>) -> u64 {
        let first = u64::from(host.buses.0) << 8;
        host.ecam.base.0 + u64::from(function.bdf.0).saturating_sub(first) * CONFIG_SIZE
    }

    /// What EL2 maps besides, behind everything else, and where it sees it.
    pub(super) fn views(&self, space: &Space, area: &Area) -> Result<(Views, Vec<Map, MAPS>), EmitError> {
        let mut maps = Vec::new();
        let Some((host, settlement)) = self.pci() else { return Ok((Views::default(), maps)) };
        let mut at = space.log() + PAGE + GUARD;
        let mut add = |pa, size, is_device| {
            let va = at;
            if size != 0 {
                maps.push(Map { va, pa, size, is_device }).map_err(|_| EmitError::Internal)?;
                at += size;
            }
            Ok::<u64, EmitError>(if size != 0 { va } else { 0 })
        };
        let mut views = Views::default();
        if let Some(smmu) = &host.smmu {
            views.registers = add(smmu.region.base.0, SMMU_SIZE, true)?;
        }
        if let Some(its) = host.its.filter(|_| self.pci_sizes().senders != 0) {
            views.control = add(its.region.base.0, CONTROL_SIZE, true)?;
        }
        for (index, settled) in settlement.functions.iter().enumerate() {
            let function = host.functions.get(settled.function).ok_or(EmitError::Internal)?;
            let va = add(Self::config_pa(host, function), CONFIG_SIZE, true)?;
            if index == 0 {
                views.configs = va;
            }
        }
        let mut part = |of| {
            let part = area.part(of);
            add(part.pa, part.size, false)
        };
        views.streams = part(Use::Streams)?;
        views.commands = part(Use::Commands)?;
        views.events = part(Use::Events)?;
        views.state = part(Use::State)?;
        Ok((views, maps))
    }

    /// Highest physical address that PCI adds to what EL2 and SMMU reach, plus one.
    pub(super) fn pci_reach(&self) -> u64 {
        let Some((host, settlement)) = self.pci() else { return 0 };
        let functions = settlement.functions.iter().filter_map(|settled| host.functions.get(settled.function));
        let configs = functions.map(|function| Self::config_pa(host, function) + CONFIG_SIZE);
        let smmu = host.smmu.map(|smmu| smmu.region.end().0);
        let its = host.its.map(|its| its.region.end().0);
        configs.chain(smmu).chain(its).max().unwrap_or(0)
    }

    /// Appends the tables. What holds addresses is a placeholder until they are known.
    pub(super) fn pci_tables(&self, blob: &mut Blob<'_>) -> Result<PciTables, EmitError> {
        let Some((host, settlement)) = self.pci() else { return Ok(PciTables::default()) };
        let mut tables = PciTables { record: blob.table()?, ..PciTables::default() };
        blob.push(&mut tables.record, &Pci::new_zeroed())?;
        tables.functions = blob.table()?;
        for _ in &settlement.functions {
            blob.push(&mut tables.functions, &Function::new_zeroed())?;
        }
        tables.rules = blob.table()?;
        for settled in settlement.functions.iter().filter(|settled| settled.owner.is_some()) {
            let function = host.functions.get(settled.function).ok_or(EmitError::Internal)?;
            for rule in policy::rules(function, terms(settled)) {
                blob.push(&mut tables.rules, &rule)?;
            }
        }
        tables.dwords = blob.table()?;
        for settled in settlement.functions.iter().filter(|settled| settled.owner.is_some()) {
            let function = host.functions.get(settled.function).ok_or(EmitError::Internal)?;
            let mut next = 0;
            for (index, rule) in (0u8..).zip(policy::rules(function, terms(settled))) {
                for _ in next..rule.offset / 4 {
                    blob.push(&mut tables.dwords, &NONE)?;
                }
                blob.push(&mut tables.dwords, &index)?;
                next = rule.offset / 4 + 1;
            }
        }
        tables.owners = blob.table()?;
        for domain in 0..self.layout.domains.len() {
            let share = settlement.share(domain);
            let sends = share.spi_count != 0;
            let mut places = [NONE; 256];
            for (index, settled) in (0u8..).zip(&settlement.functions).filter(|(_, it)| it.owner == Some(domain)) {
                places[usize::from(settled.devfn)] = index;
            }
            let owner = PciDomain {
                ecam: if share.count != 0 { Ipa(host.ecam.base.0) } else { NO_WINDOW },
                frame: host.its.filter(|_| sends).map_or(NO_WINDOW, |its| Ipa(its.doorbell())),
                first_function: if share.count != 0 { share.first as u32 } else { 0 },
                function_count: share.count as u32,
                first_spi: if sends { share.first_spi } else { IntId(0) },
                spi_count: share.spi_count,
                places,
            };
            blob.push(&mut tables.owners, &owner)?;
        }
        tables.lpis = blob.table()?;
        for spi in self.lpis() {
            blob.push(&mut tables.lpis, &spi)?;
        }
        tables.pending = blob.table()?;
        for _ in 0..self.planned_cpus() {
            blob.push(&mut tables.pending, &0u64)?;
        }
        Ok(tables)
    }

    /// Writes what holds addresses.
    #[allow(clippy::too_many_arguments)] // each is another thing that has got its place
    pub(super) fn pci_records(
        &self,
        blob: &mut Blob<'_>,
        records: &Records,
        views: &Views,
        area: &Area,
        stage2: &[Stage2],
        its: &cofferdam_plan::pci::Its,
        tables_pa: u64,
        pa_bits: u32,
    ) -> Result<(), EmitError> {
        let Some((host, settlement)) = self.pci() else { return Ok(()) };
        let tables = &records.pci;
        let (mut first_rule, mut first_dword) = (0, 0);
        for (index, settled) in settlement.functions.iter().enumerate() {
            let function = host.functions.get(settled.function).ok_or(EmitError::Internal)?;
            let mut record = self.function(function, settled);
            match settled.reset {
                Reset::None => {}
                Reset::Function(control) => (record.flags, record.reset) = (record.flags | FunctionFlags::FLR, control),
                Reset::Bus(port) => {
                    let at = settlement.functions.iter().position(|other| other.function == port);
                    record.reset = at.ok_or(EmitError::Internal)? as u16;
                    record.flags |= FunctionFlags::BUS_RESET;
                }
            }
            record.config_va = views.configs + index as u64 * CONFIG_SIZE;
            if let Some(owner) = settled.owner {
                let rules = policy::rules(function, terms(settled));
                let dwords = rules.last().map_or(0, |rule| u32::from(rule.offset) / 4 + 1);
                (record.first_rule, record.rule_count) = (first_rule, rules.len() as u32);
                (record.first_dword, record.dword_count) = (first_dword, dwords);
                first_rule += record.rule_count;
                first_dword += dwords;
                if let (Some(stream), Some(root)) = (function.stream, stage2.get(owner)) {
                    record.ste = self.ste(owner, root, tables_pa);
                    record.ste_offset = dma::offset(stream);
                }
            }
            blob.set(tables.functions, index, &record)?;
        }
        for ((cpu, _), part) in self.takers().zip(area.pending()) {
            blob.set(tables.pending, cpu, &its::pending_base(part))?;
        }
        let record = Pci {
            functions: tables.functions,
            rules: tables.rules,
            dwords: tables.dwords,
            owners: tables.owners,
            lpis: tables.lpis,
            pending: tables.pending,
            smmu: self.smmu(area, views, pa_bits),
            its: *its,
            state_va: views.state,
        };
        blob.set(tables.record, 0, &record)?;
        Ok(())
    }

    /// A function's record, without what depends on where things lie.
    fn function(&self, function: &PciFunction<'_>, settled: &Settled) -> Function {
        let mut record = Function::new_zeroed();
        let is_bridge = function.bridge.is_some();
        record.stream = function.stream.unwrap_or(0);
        (record.id, record.class) = (function.id, function.class);
        record.subsystem = if is_bridge { 0 } else { function.subsystem };
        record.rid = function.bdf.0;
        record.domain = settled.owner.map_or(NO_DOMAIN, |owner| owner as u16);
        record.devfn = settled.devfn;
        record.bars = policy::bars(function, &settled.bars, settled.owner.is_some());
        if is_bridge {
            record.flags |= FunctionFlags::BRIDGE;
            record.bridge = settled.bridge;
        }
        if matches!(settled.mode, Mode::Msi(_)) {
            record.flags |= FunctionFlags::MSI;
        }
        if settled.dma {
            record.flags |= FunctionFlags::DMA;
        }
        for (to, from) in record.name.iter_mut().zip(name(function).bytes()) {
            *to = from;
        }
        record
    }

    /// The ITS's record; fills the pages baked for it.
    pub(super) fn bake_its(
        &self,
        pages: &mut Pages<'_>,
        baked: &Baked,
        area: Option<&Area>,
        views: &Views,
    ) -> cofferdam_plan::pci::Its {
        match area {
            Some(area) => self.its(pages, baked, area, views.control),
            None => cofferdam_plan::pci::Its::new_zeroed(),
        }
    }
}

fn terms(settled: &Settled) -> Terms {
    Terms { mode: settled.mode, dma: settled.dma, siblings: settled.siblings }
}

/// What records and messages call it: as much as a record holds, in whole characters.
fn name<'a>(function: &PciFunction<'a>) -> &'a str {
    let end = (0..=NAME.min(function.name.len())).rev().find(|end| function.name.is_char_boundary(*end)).unwrap_or(0);
    function.name.get(..end).unwrap_or("")
}
