//! The audit section's part of PCI: what the board has, what functions are called, whose their registers and interrupts are.

use super::area::Area;
use super::assemble::Input;
use super::audit::Each;
use super::blob::Blob;
use super::pci::SMMU_SIZE;
use crate::lent::Full;
use crate::model::Carveout;
use crate::pci::model::{Mode, Space};
use cofferdam_plan::audit::{Fact, Line, Name, fact, line};
use cofferdam_plan::pci::{CONFIG_SIZE, ECAM_SIZE};
use cofferdam_plan::{IntId, Pa, PaRegion, Table};

/// Bytes of an ITS's frames (IHI 0069, 12.17).
const ITS_SIZE: u64 = 0x2_0000;

impl Input<'_, '_, '_> {
    /// Facts of plans with PCI.
    pub(super) fn pci_facts(&self, each: Each<'_, Fact>) -> Result<(), Full> {
        let Some((host, settlement)) = self.pci() else { return Ok(()) };
        let fact = |base, size, kind, owner| {
            let region = PaRegion { base: Pa(base), size };
            Fact { region, kind, owner, name: Name::default() }
        };
        let (first, last) = host.buses;
        let ecam = (u64::from(last) + 1).saturating_sub(first.into()) * ECAM_SIZE;
        each(fact(host.ecam.base.0, ecam, fact::ECAM, first.into()), &host.node.path())?;
        for window in host.windows.iter().filter(|window| window.space != Space::Io) {
            each(fact(window.pa.base.0, window.pa.size, fact::PCI_WINDOW, 0), &host.node.path())?;
        }
        if let Some(smmu) = &host.smmu {
            each(fact(smmu.region.base.0, SMMU_SIZE, fact::SMMU, 0), &smmu.node.path())?;
        }
        if let Some(its) = host.its.filter(|_| self.pci_sizes().senders != 0) {
            each(fact(its.region.base.0, ITS_SIZE, fact::ITS, 0), &its.node.path())?;
        }
        // Where it lies is known later, see `settle_area`.
        each(fact(0, 0, fact::DMA_AREA, 0), &"DMA area")?;
        for settled in &settlement.functions {
            let Some(function) = host.functions.get(settled.function) else { continue };
            let config = Self::config_pa(host, function);
            let trusted = settled.owner.filter(|_| settled.dma && function.stream.is_none());
            let ids = [
                (fact::STREAM, function.stream),
                (fact::DEVICE_ID, function.device_id),
                (fact::TRUSTED_DMA, trusted.map(|owner| owner as u32 + 1)),
            ];
            for (kind, id) in ids {
                if let Some(id) = id {
                    each(fact(config, CONFIG_SIZE, kind, id), &function.node.path())?;
                }
            }
            let owner = settled.owner.map_or(0, |owner| owner as u32 + 1);
            for (spec, place) in function.bars.iter().zip(settled.bars).filter(|(_, place)| *place != 0) {
                if let (Some(spec), Some(_)) = (spec, settled.owner) {
                    each(fact(place, spec.size, fact::DEVICE, owner), &function.node.path())?;
                }
            }
        }
        Ok(())
    }

    /// Whether a carve-out is a window of which domains have parts: a fact of another kind.
    pub(super) fn is_window(&self, taken: &Carveout<'_>) -> bool {
        let Some((host, _)) = self.pci() else { return false };
        let mut windows = host.windows.iter().filter(|window| window.space != Space::Io);
        taken.node == host.node && windows.any(|window| window.pa == taken.region)
    }

    /// Lines of the functions of domain `id`.
    pub(super) fn pci_lines(&self, id: u32, each: Each<'_, Line>) -> Result<(), Full> {
        let Some((host, settlement)) = self.pci() else { return Ok(()) };
        let line = |intid, kind, edge| Line { intid, domain: id, kind, edge, name: Name::default() };
        for settled in settlement.functions_of(id as usize) {
            let (Mode::Intx(intid), Some(function)) = (settled.mode, host.functions.get(settled.function)) else {
                continue;
            };
            if self.owners.first_user(intid) == Some(function.node.id()) {
                each(line(intid, line::DEVICE, 0), &function.node.path())?;
            }
        }
        let share = settlement.share(id as usize);
        for intid in share.first_spi.0..share.first_spi.0 + share.spi_count {
            each(line(IntId(intid), line::MSI, 1), &host.node.path())?;
        }
        Ok(())
    }

    /// Whether a function has a base address register in these pages.
    pub(super) fn has_bar_in(&self, function: usize, pages: &PaRegion) -> bool {
        let Some((host, settlement)) = self.pci() else { return false };
        let settled = settlement.functions.iter().filter(|settled| settled.function == function);
        let specs = host.functions.get(function).map(|function| function.bars).unwrap_or_default();
        settled.into_iter().any(|settled| {
            let placed = specs.iter().zip(settled.bars).filter(|(_, place)| *place != 0);
            let regions = placed.filter_map(|(spec, place)| Some(PaRegion { base: Pa(place), size: (*spec)?.size }));
            regions.into_iter().any(|region| region.overlaps(pages))
        })
    }

    /// Writes the fact of the DMA area, now that it has a place.
    pub(super) fn settle_area(&self, blob: &mut Blob<'_>, facts: Table, area: &Area) -> Result<(), Full> {
        for index in 0..facts.count as usize {
            let at = facts.offset as usize + index * size_of::<Fact>();
            let found = blob.bytes.get(at..at + size_of::<Fact>());
            let found: Option<Fact> = found.and_then(|bytes| zerocopy::FromBytes::read_from_bytes(bytes).ok());
            if let Some(found) = found.filter(|found| found.kind == fact::DMA_AREA) {
                let region = PaRegion { base: Pa(area.start), size: area.end - area.start };
                blob.set(facts, index, &Fact { region, ..found })?;
            }
        }
        Ok(())
    }
}
