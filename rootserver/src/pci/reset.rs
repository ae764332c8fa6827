//! Function-level reset (PCI Express 5.0 §6.6.2): the function forgets everything that it was told,
//! where its registers are too. What firmware or the `pci` server had assigned is put back, so that
//! the next driver finds the registers where its start info says.
//!
//! Not here: bus mastering and interrupts, which are off before and after ([`super::function`]).

use super::Registers;
use super::function::{COMMAND, NotSilent, RESET_POLLS, Silenced, identity};

const HEADER_TYPE: u32 = 0x0e;
/// Bit of the header type: the device has several functions.
const MULTIFUNCTION: u32 = 0x80;
/// Base address registers of an ordinary function, and that of its expansion ROM (PCI 3.0 §6.2.5).
const ADDRESSES: [u32; 7] = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30];
/// Cache line size and latency timer.
const LATENCY: u32 = 0x0c;
const INTERRUPT_LINE: u32 = 0x3c;

const EXPRESS_FLAGS: u32 = 2;
const DEVICE_CAPABILITIES: u32 = 4;
const FLR_CAPABLE: u32 = 1 << 28;
const DEVICE_CONTROL: u32 = 8;
const FLR_START: u32 = 1 << 15;
/// From version 2 of the capability on.
const DEVICE_CONTROL_2: u32 = 0x28;

/// What a reset clears and nothing but firmware knows.
struct Configuration {
    command: u32,
    latency: u32,
    interrupt_line: u32,
    addresses: [u32; ADDRESSES.len()],
    control: u32,
    control_2: Option<u32>,
}

impl Configuration {
    fn save(config: &impl Registers, express: u32) -> Configuration {
        let version = config.read(express + EXPRESS_FLAGS, 2) & 0xf;
        Configuration {
            command: config.read(COMMAND, 2),
            latency: config.read(LATENCY, 2),
            interrupt_line: config.read(INTERRUPT_LINE, 1),
            addresses: ADDRESSES.map(|offset| config.read(offset, 4)),
            control: config.read(express + DEVICE_CONTROL, 2) & !FLR_START,
            control_2: (version >= 2).then(|| config.read(express + DEVICE_CONTROL_2, 2)),
        }
    }

    /// Puts everything back; nothing is decoded before all addresses are.
    fn restore(&self, config: &mut impl Registers, express: u32) -> Result<(), NotSilent> {
        config.write(LATENCY, 2, self.latency);
        config.write(INTERRUPT_LINE, 1, self.interrupt_line);
        config.write(express + DEVICE_CONTROL, 2, self.control);
        if let Some(control) = self.control_2 {
            config.write(express + DEVICE_CONTROL_2, 2, control);
        }
        for (offset, value) in ADDRESSES.into_iter().zip(self.addresses) {
            config.write(offset, 4, value);
        }
        if ADDRESSES.map(|offset| config.read(offset, 4)) != self.addresses {
            return Err(NotSilent::Addresses);
        }
        config.write(COMMAND, 2, self.command);
        Ok(())
    }
}

/// Resets an ordinary function that can be; `express` is the offset of its PCI Express capability.
/// Its bus mastering is off.
///
/// # Errors
/// It does not come back, or not as it was.
pub fn function_level(config: &mut impl Registers, express: u32) -> Result<Silenced, NotSilent> {
    let is_ordinary = config.read(HEADER_TYPE, 1) & !MULTIFUNCTION == 0;
    if !is_ordinary || config.read(express + DEVICE_CAPABILITIES, 4) & FLR_CAPABLE == 0 {
        return Ok(Silenced::MasteringOff);
    }
    let saved = Configuration::save(config, express);
    config.write(express + DEVICE_CONTROL, 2, saved.control | FLR_START);
    if !(0..RESET_POLLS).any(|_| identity(config).is_some()) {
        return Err(NotSilent::Reset);
    }
    saved.restore(config, express)?;
    Ok(Silenced::Reset)
}

#[cfg(test)]
mod tests {
    use super::super::function::{Interrupts, activate, silence};
    use super::*;
    use std::cell::Cell;

    /// A function as PCI Express has it: a reset clears what was written to it.
    #[derive(Clone)]
    struct Function {
        bytes: [u8; 256],
        /// How many reads a reset takes.
        slow: u32,
        /// Reads that still find nobody there.
        away: Cell<u32>,
        resets: u32,
        /// Writes to it are lost after a reset.
        deaf: Option<u32>,
    }

    const EXPRESS: u32 = 0x40;

    impl Function {
        fn new(capabilities: u32) -> Function {
            let mut function =
                Function { bytes: [0; 256], slow: 50, away: Cell::new(0), resets: 0, deaf: None };
            function.put(0, &[0x86, 0x80, 0xd3, 0x10, 7, 0, 0x10, 0]);
            function.put(0x0c, &[0x10, 0x20]);
            function.put(0x34, &[EXPRESS as u8]);
            function.put(EXPRESS as usize, &[0x10, 0, 2, 0]);
            function.put(EXPRESS as usize + 4, &capabilities.to_le_bytes());
            function.put(EXPRESS as usize + 8, &[0x30, 0x28]);
            function.put(EXPRESS as usize + 0x28, &[0x05, 0]);
            function.put(0x10, &0xfeb0_000cu32.to_le_bytes());
            function.put(0x14, &0x8u32.to_le_bytes());
            function.put(0x20, &0xc001u32.to_le_bytes());
            function.put(0x30, &0xfea0_0001u32.to_le_bytes());
            function.put(0x3c, &[11, 1]);
            function
        }

        fn put(&mut self, at: usize, bytes: &[u8]) {
            self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        }

        fn reset(&mut self) {
            self.resets += 1;
            self.away.set(self.slow);
            for cleared in [4..6, 0x0c..0x0e, 0x10..0x28, 0x30..0x34, 0x3c..0x3d, 0x48..0x4a] {
                self.bytes[cleared].fill(0);
            }
            self.bytes[0x68..0x6a].fill(0);
        }
    }

    impl Registers for Function {
        fn read(&self, offset: u32, width: u8) -> u32 {
            if self.away.get() > 0 {
                self.away.set(self.away.get() - 1);
                return u32::MAX;
            }
            let mut word = [0; 4];
            let at = offset as usize;
            word[..usize::from(width)].copy_from_slice(&self.bytes[at..at + usize::from(width)]);
            u32::from_le_bytes(word)
        }

        fn write(&mut self, offset: u32, width: u8, value: u32) {
            if self.resets > 0 && self.deaf == Some(offset) {
                return;
            }
            let bytes = value.to_le_bytes();
            self.put(offset as usize, &bytes[..usize::from(width)]);
            if offset == EXPRESS + DEVICE_CONTROL && value & FLR_START != 0 {
                self.reset();
            }
        }
    }

    #[test]
    fn a_reset_function_has_all_its_addresses_again() {
        let mut function = Function::new(FLR_CAPABLE);
        let before = function.clone();
        assert_eq!(silence(&mut function, None::<&mut Function>), Ok(Silenced::Reset));
        assert_eq!(function.resets, 1);
        // Bus mastering and its pin are off; nothing else has changed.
        assert_eq!(function.read(COMMAND, 2), 0x403);
        assert_eq!(function.bytes[6..], before.bytes[6..]);
        activate(&mut function, Interrupts::None, Silenced::Reset);
        assert_eq!(function.read(COMMAND, 2), 0x407);
    }

    #[test]
    fn what_cannot_be_reset_does_not_reach_memory_when_it_is_switched_on() {
        let mut bridge = Function::new(FLR_CAPABLE);
        bridge.put(0x0e, &[0x81]);
        for mut function in [Function::new(0), bridge] {
            let silenced = silence(&mut function, None::<&mut Function>);
            assert_eq!((silenced, function.resets), (Ok(Silenced::MasteringOff), 0));
            activate(&mut function, Interrupts::None, Silenced::MasteringOff);
            assert_eq!(function.read(COMMAND, 2), 0x403);
        }
    }

    #[test]
    fn a_function_that_does_not_come_back_as_it_was_is_not_silent() {
        let mut function = Function { deaf: Some(0x20), ..Function::new(FLR_CAPABLE) };
        let silenced = silence(&mut function, None::<&mut Function>);
        assert_eq!(silenced, Err(NotSilent::Addresses));
        assert_eq!(function.read(COMMAND, 2), 0, "it decodes nothing");
        let mut function = Function { slow: RESET_POLLS, ..Function::new(FLR_CAPABLE) };
        let silenced = silence(&mut function, None::<&mut Function>);
        assert_eq!(silenced, Err(NotSilent::Reset));
    }
}
