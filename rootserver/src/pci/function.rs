//! One PCI function: what its configuration page says, and what makes it active or silent.
//!
//! Sources: PCI Local Bus 3.0 §6.1 (header), §6.7 (capabilities), §6.8.2 (MSI-X); PCI Express 5.0
//! §7.5.3 (device control, function-level reset); virtio 1.2 §4.1.4 (PCI capabilities), §4.1.4.3
//! (common configuration).
//!
//! A function that was only kept from memory, and not reset, still has the addresses that its last
//! driver gave it: it must not reach memory again before its next driver has initialised it. That is
//! why [`activate`] asks how it was [`Silenced`], and [`allow_dma`] is a step of its own.
//!
//! Invariant: no loop here depends on what the device says; a capability list is followed 48
//! steps, a reset is polled [`RESET_POLLS`] times.

use super::{Registers, reset};

/// Reads of a status register before a reset is called failed.
pub const RESET_POLLS: u32 = 10_000;

const VENDOR: u32 = 0x00;
/// The command register.
pub const COMMAND: u32 = 0x04;
const STATUS: u32 = 0x06;
const SUBSYSTEM: u32 = 0x2e;
const CAPABILITIES: u32 = 0x34;
const INTERRUPT_PIN: u32 = 0x3d;
const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_BUS_MASTER: u32 = 1 << 2;
const COMMAND_NO_INTX: u32 = 1 << 10;
const STATUS_HAS_CAPABILITIES: u32 = 1 << 4;

const CAP_VENDOR: u8 = 0x09;
const CAP_EXPRESS: u8 = 0x10;
const CAP_MSIX: u8 = 0x11;
const MSIX_CONTROL: u32 = 2;
const MSIX_ENABLE: u32 = 1 << 15;
const MSIX_TABLE_BYTES: u32 = 16;
const VIRTIO_COMMON: u32 = 1;
const VIRTIO_DEVICE_STATUS: u32 = 20;

/// The MSI-X capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msix {
    /// Offset of the capability.
    pub capability: u32,
    /// Entries of the table.
    pub vectors: u16,
    /// BAR with the table.
    pub table_bar: u8,
    /// Byte of the table in that BAR.
    pub table_offset: u32,
}

impl Msix {
    /// The pages of its BAR that the table takes: first, and behind the last.
    pub fn table_pages(&self) -> core::ops::Range<u64> {
        let start = u64::from(self.table_offset);
        let end = start + u64::from(self.vectors) * u64::from(MSIX_TABLE_BYTES);
        start >> 12..end.div_ceil(4096)
    }
}

/// How a function interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// Not at all.
    None,
    /// By messages.
    Messages(Msix),
    /// By its INTx pin.
    Pin,
}

/// Where a virtio device has its common configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioCommon {
    /// The BAR.
    pub bar: u8,
    /// The byte in it.
    pub offset: u32,
}

/// How a device was silenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silenced {
    /// Bus mastering is off and the device was reset: it has forgotten all addresses.
    Reset,
    /// Bus mastering is off, and that is all that this device offers: it remembers everything.
    MasteringOff,
}

/// It did not obey: its DMA memory must never be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSilent {
    /// Bus mastering reads back as on.
    Mastering,
    /// The reset did not end within [`RESET_POLLS`] reads.
    Reset,
    /// After its reset its base address registers do not take what they held before.
    Addresses,
}

impl core::fmt::Display for NotSilent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            NotSilent::Mastering => "it goes on reaching memory by itself",
            NotSilent::Reset => "its reset does not end",
            NotSilent::Addresses => "it does not take its addresses again after its reset",
        })
    }
}

/// Vendor and device ID; `None` if no function is there.
pub fn identity(config: &impl Registers) -> Option<(u16, u16)> {
    let id = config.read(VENDOR, 4);
    (id as u16 != 0xffff).then_some((id as u16, (id >> 16) as u16))
}

/// The pin by which the function interrupts, 1 (INTA) to 4; 0 for none (PCI 3.0 §6.2.4).
pub fn interrupt_pin(config: &impl Registers) -> u8 {
    config.read(INTERRUPT_PIN, 1) as u8
}

/// Whether the function is a virtio device of type `kind`: a modern one says so by its device ID,
/// a transitional one by its subsystem ID (virtio 1.2 §4.1.2).
pub fn is_virtio(config: &impl Registers, kind: u16) -> bool {
    const QUMRANET: u16 = 0x1af4;
    const MODERN: u16 = 0x1040;
    match identity(config) {
        Some((QUMRANET, 0x1000..MODERN)) => config.read(SUBSYSTEM, 2) == u32::from(kind),
        Some((QUMRANET, device)) => device.checked_sub(MODERN) == Some(kind),
        _ => false,
    }
}

/// Capabilities in order: offset and number.
fn capabilities(config: &impl Registers) -> impl Iterator<Item = (u32, u8)> {
    let has = config.read(STATUS, 2) & STATUS_HAS_CAPABILITIES != 0;
    let first = if has { config.read(CAPABILITIES, 1) & 0xfc } else { 0 };
    let mut at = first;
    (0..48).map_while(move |_| {
        let here = at;
        if here < 0x40 {
            return None;
        }
        let head = config.read(here, 2);
        at = head >> 8 & 0xfc;
        Some((here, head as u8))
    })
}

fn find(config: &impl Registers, wanted: u8) -> Option<u32> {
    capabilities(config).find(|(_, number)| *number == wanted).map(|(at, _)| at)
}

/// The MSI-X capability, if there is one.
pub fn msix(config: &impl Registers) -> Option<Msix> {
    let capability = find(config, CAP_MSIX)?;
    let table = config.read(capability + 4, 4);
    Some(Msix {
        capability,
        vectors: (config.read(capability + MSIX_CONTROL, 2) & 0x7ff) as u16 + 1,
        table_bar: (table & 7) as u8,
        table_offset: table & !7,
    })
}

/// The common configuration of a virtio device.
pub fn virtio_common(config: &impl Registers) -> Option<VirtioCommon> {
    let is_common = |at: u32| config.read(at + 3, 1) == VIRTIO_COMMON;
    let mut vendor = capabilities(config).filter(|(_, number)| *number == CAP_VENDOR);
    let (at, _) = vendor.find(|(at, _)| is_common(*at))?;
    let bar = config.read(at + 4, 1) as u8;
    (bar < 6).then(|| VirtioCommon { bar, offset: config.read(at + 8, 4) })
}

fn change_command(config: &mut impl Registers, clear: u32, set: u32) -> u32 {
    let old = config.read(COMMAND, 2);
    config.write(COMMAND, 2, old & !clear | set);
    config.read(COMMAND, 2)
}

/// Programs entry `index` of an MSI-X table and lets it fire. `table` begins at the table.
pub fn program_vector(table: &mut impl Registers, index: u16, address: u64, data: u32) {
    let entry = u32::from(index) * MSIX_TABLE_BYTES;
    table.write(entry + 12, 4, 1);
    table.write(entry, 4, address as u32);
    table.write(entry + 4, 4, (address >> 32) as u32);
    table.write(entry + 8, 4, data);
    table.write(entry + 12, 4, 0);
}

/// Lets the function decode memory and interrupt in this way; and reach memory by itself, if it has
/// forgotten what its last driver told it. Else its driver says first that it was initialised anew:
/// [`allow_dma`].
pub fn activate(config: &mut impl Registers, interrupts: Interrupts, silenced: Silenced) {
    match interrupts {
        Interrupts::Pin => change_command(config, COMMAND_NO_INTX, COMMAND_MEMORY),
        _ => change_command(config, 0, COMMAND_MEMORY | COMMAND_NO_INTX),
    };
    if let Interrupts::Messages(msix) = interrupts {
        set_msix(config, msix, MSIX_ENABLE);
    }
    if silenced == Silenced::Reset {
        allow_dma(config);
    }
}

/// Lets the function reach memory by itself.
pub fn allow_dma(config: &mut impl Registers) {
    change_command(config, 0, COMMAND_BUS_MASTER);
}

fn set_msix(config: &mut impl Registers, msix: Msix, enable: u32) {
    let at = msix.capability + MSIX_CONTROL;
    let old = config.read(at, 2);
    config.write(at, 2, old & !MSIX_ENABLE | enable);
}

/// Silences the function: no DMA, no interrupt, all its state forgotten. `common` is a virtio
/// device's common configuration.
///
/// # Errors
/// It did not obey.
pub fn silence(
    config: &mut impl Registers,
    common: Option<&mut impl Registers>,
) -> Result<Silenced, NotSilent> {
    // Its registers must answer, which nobody may have asked for yet.
    let decode = if common.is_some() { COMMAND_MEMORY } else { 0 };
    let command = change_command(config, COMMAND_BUS_MASTER, COMMAND_NO_INTX | decode);
    if command & COMMAND_BUS_MASTER != 0 {
        return Err(NotSilent::Mastering);
    }
    if let Some(msix) = msix(config) {
        set_msix(config, msix, 0);
    }
    if let Some(common) = common {
        // Writing 0 resets; it reads as 0 when the reset is done (virtio 1.2 §4.1.4.3.2).
        common.write(VIRTIO_DEVICE_STATUS, 1, 0);
        let done = (0..RESET_POLLS).any(|_| common.read(VIRTIO_DEVICE_STATUS, 1) == 0);
        return if done { Ok(Silenced::Reset) } else { Err(NotSilent::Reset) };
    }
    match find(config, CAP_EXPRESS) {
        Some(express) => reset::function_level(config, express),
        None => Ok(Silenced::MasteringOff),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::Deaf;
    use std::cell::Cell;

    /// A configuration page or BAR as plain bytes, with a device's own will about some.
    struct Device {
        bytes: [u8; 256],
        /// Bits of the command register that cannot be cleared.
        stuck: u32,
        /// Reads of the status until a reset is done.
        reset_after: Cell<u32>,
    }

    impl Device {
        fn new() -> Device {
            Device { bytes: [0; 256], stuck: 0, reset_after: Cell::new(0) }
        }
        fn put(&mut self, at: usize, bytes: &[u8]) {
            self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    impl Registers for Device {
        fn read(&self, offset: u32, width: u8) -> u32 {
            if offset == VIRTIO_DEVICE_STATUS && self.reset_after.get() > 0 {
                self.reset_after.set(self.reset_after.get() - 1);
                return 0x0f;
            }
            let mut word = [0; 4];
            for (i, byte) in word.iter_mut().take(usize::from(width)).enumerate() {
                *byte = *self.bytes.get(offset as usize + i).unwrap_or(&0xff);
            }
            u32::from_le_bytes(word)
        }
        fn write(&mut self, offset: u32, width: u8, value: u32) {
            let value = if offset == COMMAND { value | self.stuck } else { value };
            let bytes = value.to_le_bytes();
            self.put(offset as usize, &bytes[..usize::from(width)]);
        }
    }

    /// As QEMU's virtio-blk: MSI-X, three vendor capabilities, then PCI Express.
    fn virtio() -> Device {
        let mut d = Device::new();
        d.put(0, &[0xf4, 0x1a, 0x42, 0x10, 7, 0, 0x10, 0]);
        d.put(0x34, &[0x98]);
        d.put(0x98, &[CAP_MSIX, 0x84, 2, 0x80, 0x01, 0x08, 0, 0, 1, 0, 0, 0]);
        d.put(0x84, &[CAP_VENDOR, 0x70, 0x14, 5, 0]);
        d.put(0x70, &[CAP_VENDOR, 0x40, 0x10, 1, 4, 0, 0, 0, 0x00, 0x10, 0, 0, 0, 0x10]);
        d.put(0x40, &[CAP_EXPRESS, 0]);
        d
    }

    #[test]
    fn capabilities_are_found() {
        let d = virtio();
        assert_eq!(identity(&d), Some((0x1af4, 0x1042)));
        let found = msix(&d).unwrap();
        let expected = Msix { capability: 0x98, vectors: 3, table_bar: 1, table_offset: 0x800 };
        assert_eq!(found, expected);
        assert_eq!(found.table_pages(), 0..1);
        let wide = Msix { vectors: 2048, table_offset: 0x2000, ..found };
        assert_eq!(wide.table_pages(), 2..10);
        assert_eq!(virtio_common(&d), Some(VirtioCommon { bar: 4, offset: 0x1000 }));
        let mut absent = Device::new();
        absent.bytes = [0xff; 256];
        assert_eq!(identity(&absent), None);
    }

    #[test]
    fn a_list_in_a_circle_ends() {
        let mut d = virtio();
        d.put(0x41, &[0x98]);
        assert_eq!(find(&d, 0x55), None);
        d.put(0x34, &[0x10]);
        assert_eq!(find(&d, CAP_MSIX), None);
    }

    #[test]
    fn a_function_is_switched_on_and_silenced() {
        let mut d = virtio();
        d.put(4, &[0, 0]);
        let found = msix(&d).unwrap();
        activate(&mut d, Interrupts::Messages(found), Silenced::Reset);
        assert_eq!(d.read(COMMAND, 2), 0x406);
        assert_ne!(d.read(0x9a, 2) & MSIX_ENABLE, 0);
        let mut common = Device::new();
        common.put(20, &[0x0f]);
        common.reset_after = Cell::new(50);
        assert_eq!(silence(&mut d, Some(&mut common)), Ok(Silenced::Reset));
        assert_eq!(d.read(COMMAND, 2) & COMMAND_BUS_MASTER, 0);
        assert_eq!(d.read(0x9a, 2) & MSIX_ENABLE, 0);
        assert_eq!(common.bytes[20], 0);
    }

    #[test]
    fn a_function_that_no_firmware_enabled_answers_to_be_silenced() {
        let mut d = virtio();
        d.put(4, &[0, 0]);
        assert_eq!(silence(&mut d, Some(&mut Device::new())), Ok(Silenced::Reset));
        assert_eq!(d.read(COMMAND, 2), COMMAND_MEMORY | COMMAND_NO_INTX);
    }

    #[test]
    fn a_function_with_a_pin_may_raise_it_until_it_is_silenced() {
        let mut d = virtio();
        d.put(4, &[0, 4]);
        d.put(0x3d, &[1]);
        assert_eq!(interrupt_pin(&d), 1);
        // As when it is taken over: firmware may have left messages on.
        assert_eq!(silence(&mut d, None::<&mut Device>), Ok(Silenced::MasteringOff));
        activate(&mut d, Interrupts::Pin, Silenced::MasteringOff);
        assert_eq!(d.read(COMMAND, 2), 0x002, "its driver has not initialised it yet");
        allow_dma(&mut d);
        assert_eq!(d.read(COMMAND, 2), 0x006);
        assert_eq!(d.read(0x9a, 2) & MSIX_ENABLE, 0);
        assert_eq!(silence(&mut d, None::<&mut Device>), Ok(Silenced::MasteringOff));
        assert_eq!(d.read(COMMAND, 2), 0x402);
    }

    #[test]
    fn virtio_types_are_told_by_device_or_subsystem() {
        let mut d = virtio();
        assert!(is_virtio(&d, 2) && !is_virtio(&d, 1));
        d.put(2, &[0x01, 0x10]);
        d.put(0x2e, &[2, 0]);
        assert!(is_virtio(&d, 2) && !is_virtio(&d, 1), "transitional");
        d.put(0, &[0x86, 0x80]);
        assert!(!is_virtio(&d, 2), "another vendor");
    }

    #[test]
    fn disobedience_is_noticed() {
        let mut d = virtio();
        d.stuck = COMMAND_BUS_MASTER;
        assert_eq!(silence(&mut d, None::<&mut Device>), Err(NotSilent::Mastering));
        let mut d = virtio();
        let mut common = Device::new();
        common.reset_after = Cell::new(RESET_POLLS + 1);
        assert_eq!(silence(&mut d, Some(&mut common)), Err(NotSilent::Reset));
    }

    #[test]
    fn a_deaf_function_goes_on_as_it_was_and_that_is_noticed() {
        let (mut d, mut common) = (Deaf(virtio()), Deaf(Device::new()));
        common.0.put(20, &[0x0f]);
        for (command, expected) in [(0x06, NotSilent::Mastering), (0x02, NotSilent::Reset)] {
            d.0.put(4, &[command, 0]);
            assert_eq!(silence(&mut d, Some(&mut common)), Err(expected));
            assert_eq!((d.read(COMMAND, 2), common.0.bytes[20]), (command.into(), 0x0f));
        }
    }

    #[test]
    fn a_vector_is_masked_while_it_changes() {
        let mut table = Device::new();
        program_vector(&mut table, 2, 0xfee0_1000, 0x31);
        let entry: [u32; 4] = core::array::from_fn(|i| table.read(32 + 4 * i as u32, 4));
        assert_eq!(entry, [0xfee0_1000, 0, 0x31, 0]);
    }
}
