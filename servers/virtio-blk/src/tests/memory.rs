//! Memory that is mapped for the driver, bits of registers, and the device in words.

use super::fake::{Fake, Wiring};
use super::start;
use crate::access::{DmaMemory, Registers, Words};
use crate::error::DeviceError;
use crate::transport::Causes;
use libipc::mmio::Mmio;
use libipc::start::Region;
use std::string::ToString;
use std::vec::Vec;

/// 64 bytes that lie elsewhere for the device.
fn mapped() -> Mmio {
    let vaddr = std::vec![0u64; 8].leak().as_mut_ptr() as u64;
    Mmio::granted(Region { vaddr, size: 64, paddr: 0x8765_4000 })
}

#[test]
fn registers_are_read_and_written_at_their_width_and_place() {
    let memory = mapped();
    let mut registers = memory;
    let registers: &mut dyn Registers = &mut registers;
    let word = |index: usize| memory.read64(8 * index);
    assert_eq!(registers.size(), 64);
    registers.write8(3, 0xab);
    registers.write16(6, 0xcdef);
    registers.write32(12, 0x1234_5678);
    registers.write64(20, 0x0102_0304_0506_0708);
    assert_eq!((word(0), word(1)), (0xcdef_0000_ab00_0000, 0x1234_5678_0000_0000));
    assert_eq!((word(2), word(3)), (0x0506_0708_0000_0000, 0x0102_0304));
    assert_eq!((registers.read8(3), registers.read16(6)), (0xab, 0xcdef));
    assert_eq!((registers.read32(12), registers.read8(0)), (0x1234_5678, 0));
}

#[test]
fn shared_memory_is_read_and_written_at_its_width_and_place() {
    let mut memory = mapped();
    let same = memory;
    let word = |index: usize| same.read64(8 * index);
    assert_eq!(Words::size(&memory), 64);
    assert_eq!(memory.device_address(), 0x8765_4000);
    Words::write8(&mut memory, 1, 0xab);
    Words::write16(&mut memory, 2, 0xcdef);
    Words::write32(&mut memory, 4, 0x1234_5678);
    DmaMemory::write64(&mut memory, 8, 0x0102_0304_0506_0708);
    assert_eq!((word(0), word(1)), (0x1234_5678_cdef_ab00, 0x0102_0304_0506_0708));
    assert_eq!((Words::read8(&memory, 1), Words::read16(&memory, 2)), (0xab, 0xcdef));
    assert_eq!(Words::read32(&memory, 4), 0x1234_5678);
}

#[test]
fn each_bit_of_the_causes_means_its_own_and_all_others_nothing() {
    for bits in 0..8 {
        let causes = Causes::from_bits(bits | 0xffff_fff8);
        assert_eq!(causes.used_buffer, bits & 1 == 1, "{bits}");
        assert_eq!(causes.configuration, bits >> 1 & 1 == 1, "{bits}");
    }
}

#[test]
fn exactly_what_the_driver_makes_use_of_is_accepted() {
    for wiring in Wiring::ALL {
        let fake = Fake::new(wiring, 8);
        // A legacy device has no features above the first 32.
        let all = if wiring.is_legacy() { u64::from(u32::MAX) } else { u64::MAX };
        fake.borrow_mut().features = all;
        fake.borrow_mut().size_max = 4096;
        start(&fake).unwrap();
        // Segment sizes and numbers, read-only, flush, event index, version 1, barriers for devices.
        let wanted = 1 << 1 | 1 << 2 | 1 << 5 | 1 << 9 | 1 << 29 | 1 << 32 | 1 << 36;
        assert_eq!(fake.borrow().driver_features, wanted & all, "{wiring:?}");
    }
}

#[test]
fn with_message_signalled_interrupts_configuration_and_queue_have_each_a_vector() {
    for wiring in Wiring::ALL {
        let fake = Fake::new(wiring, 8);
        start(&fake).unwrap();
        let routed = fake.borrow().vectors.map(|vector| vector != 0xffff);
        assert_eq!(routed, [wiring == Wiring::PciMsix; 2], "{wiring:?}");
    }
}

#[test]
fn people_are_told_how_the_device_is_reached() {
    let names: Vec<_> =
        Wiring::ALL.map(|wiring| start(&Fake::new(wiring, 8)).unwrap().transport_name()).into();
    let expected = ["PCI with MSI-X", "PCI with INTx", "virtio-mmio", "virtio-mmio, legacy"];
    assert_eq!(names, expected);
}

#[test]
fn only_a_device_that_does_not_answer_is_silent() {
    assert!(DeviceError::ResetTimeout.is_silence());
    assert!(DeviceError::Timeout { age_ms: 1 }.is_silence());
    for error in [DeviceError::NoQueue, DeviceError::StatusGarbage { status: 7 }] {
        assert!(!error.is_silence(), "{error}");
        assert!(error.to_string().starts_with("the device "));
    }
}

#[test]
fn a_reset_may_take_its_time_and_no_longer() {
    for wiring in Wiring::ALL {
        // The fake clock goes on by a millisecond at each look; a second is allowed.
        for (looks, error) in [(1, None), (990, None), (1100, Some(DeviceError::ResetTimeout))] {
            let fake = Fake::new(wiring, 8);
            fake.borrow_mut().slow_reset.set(looks);
            assert_eq!(start(&fake).err(), error, "{looks} by {wiring:?}");
        }
    }
}
