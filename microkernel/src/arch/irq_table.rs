//! The interrupts that are claimed, and what raises each.
//!
//! Pure: tested on every host. The index of an interrupt is what `IrqHandler` capabilities name.
//! A backend adds what its controller needs to find an index.

use core::ops::Range;

use skink_abi::invocation::Trigger;

use crate::addr::KernelAddr;
use crate::machine::{Irq, MAX_IRQS};
use crate::obj::Obj;
use crate::slot::CapSlot;

/// What raises an interrupt of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A message of a device.
    Message,
    /// A line of the interrupt controller.
    Line(u32, Trigger),
}

/// Sources by index.
pub struct IrqTable([Option<Source>; MAX_IRQS]);

impl IrqTable {
    /// Nothing is claimed.
    pub const EMPTY: IrqTable = IrqTable([None; MAX_IRQS]);

    /// Gives a free index in `among` to a source.
    pub fn claim(&mut self, source: Source, among: Range<u16>) -> Option<Irq> {
        let index = among.into_iter().find(|index| self.0[usize::from(*index)].is_none())?;
        self.0[usize::from(index)] = Some(source);
        Some(Irq(index))
    }

    /// What raises an interrupt, if it is claimed.
    pub fn source(&self, irq: Irq) -> Option<Source> {
        *self.0.get(usize::from(irq.0))?
    }

    /// The line that raises an interrupt.
    pub fn line(&self, irq: Irq) -> Option<u32> {
        match self.source(irq)? {
            Source::Line(line, _) => Some(line),
            Source::Message => None,
        }
    }

    /// The interrupt that a line raises.
    pub fn of_line(&self, line: u32) -> Option<Irq> {
        let is_it =
            |source: &Option<Source>| matches!(source, Some(Source::Line(l, _)) if *l == line);
        self.0.iter().position(is_it).map(|index| Irq(index as u16))
    }

    /// Gives an index back.
    pub fn release(&mut self, irq: Irq) {
        if let Some(source) = self.0.get_mut(usize::from(irq.0)) {
            *source = None;
        }
    }
}

/// See [`crate::machine::Machine::irq_slot`].
pub struct IrqSlots([CapSlot; MAX_IRQS]);

// SAFETY: slots are only touched by the CPU that holds the kernel lock.
unsafe impl Sync for IrqSlots {}

impl IrqSlots {
    /// Empty slots.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> IrqSlots {
        IrqSlots([const { CapSlot::EMPTY }; MAX_IRQS])
    }

    /// The slot of an interrupt.
    pub fn slot(&'static self, irq: Irq) -> Obj<CapSlot> {
        let slot = &raw const self.0[usize::from(irq.0)];
        // SAFETY: the slots live for ever.
        unsafe { Obj::from_addr(KernelAddr(slot as u64)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_given_once_and_again_after_its_release() {
        let mut table = IrqTable::EMPTY;
        let line = Source::Line(9, Trigger::LevelHigh);
        assert_eq!(table.claim(line, 3..5), Some(Irq(3)));
        assert_eq!(table.claim(Source::Message, 3..5), Some(Irq(4)));
        assert_eq!(table.claim(Source::Message, 3..5), None, "all are taken");
        assert_eq!((table.of_line(9), table.line(Irq(3))), (Some(Irq(3)), Some(9)));
        assert_eq!((table.source(Irq(4)), table.line(Irq(4))), (Some(Source::Message), None));
        table.release(Irq(3));
        assert_eq!((table.of_line(9), table.source(Irq(3))), (None, None));
        assert_eq!(table.claim(Source::Message, 0..MAX_IRQS as u16), Some(Irq(0)));
        assert_eq!(table.claim(Source::Message, 3..5), Some(Irq(3)));
    }

    #[test]
    fn an_index_out_of_bounds_is_nothing() {
        let mut table = IrqTable::EMPTY;
        table.release(Irq(MAX_IRQS as u16));
        assert_eq!(table.source(Irq(MAX_IRQS as u16)), None);
    }
}
