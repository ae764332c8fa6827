//! ACPI, as much as finds PCI's configuration space: RSDP → XSDT or RSDT → MCFG.
//!
//! Firmware is data of unknown quality: every table's length is bounded and its checksum
//! verified before a field is used. Sources: ACPI 6.5 §5.2.5 (RSDP), §5.2.7 (RSDT), §5.2.8
//! (XSDT); PCI Firmware 3.2 §4.1.2 (MCFG).
//!
//! Not here: physical memory itself (behind [`PhysicalMemory`]), any other table.

use core::fmt;

use crate::pci::Ecam;

/// Bytes of one table at most.
pub const MAX_TABLE: usize = 4096;
/// Tables looked at, at most.
const MAX_TABLES: usize = 64;
const HEADER: usize = 36;

/// Physical memory that firmware wrote.
pub trait PhysicalMemory {
    /// Fills `into` from `paddr`; `false` if that cannot be read.
    fn read(&mut self, paddr: u64, into: &mut [u8]) -> bool;
}

/// Why there is no [`Ecam`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiError {
    /// The boot loader gave no root pointer.
    NoRootPointer,
    /// This address cannot be read.
    Unreadable(u64),
    /// No such table where one is named, or its length makes no sense.
    Malformed(&'static str),
    /// Its sum is not 0.
    Checksum(&'static str),
    /// There is no such table.
    Missing(&'static str),
    /// PCI's configuration space begins with this bus, not with 0.
    FirstBus(u8),
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcpiError::NoRootPointer => write!(f, "the boot loader gave no ACPI root pointer"),
            AcpiError::Unreadable(at) => write!(f, "ACPI table at {at:#x} cannot be read"),
            AcpiError::Malformed(name) => write!(f, "ACPI table {name} is malformed"),
            AcpiError::Checksum(name) => write!(f, "ACPI table {name} has a wrong checksum"),
            AcpiError::Missing(name) => write!(f, "there is no ACPI table {name}"),
            AcpiError::FirstBus(bus) => {
                write!(f, "ACPI's configuration space begins with bus {bus}, not 0: not used")
            }
        }
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

/// Reads and checks the table at `paddr`; returns its bytes.
fn table<'a>(
    memory: &mut impl PhysicalMemory,
    paddr: u64,
    name: &'static str,
    buffer: &'a mut [u8; MAX_TABLE],
) -> Result<&'a [u8], AcpiError> {
    if !memory.read(paddr, &mut buffer[..HEADER]) {
        return Err(AcpiError::Unreadable(paddr));
    }
    let length = word(buffer, 4) as usize;
    if &buffer[..4] != name.as_bytes() || !(HEADER..=MAX_TABLE).contains(&length) {
        return Err(AcpiError::Malformed(name));
    }
    if !memory.read(paddr, &mut buffer[..length]) {
        return Err(AcpiError::Unreadable(paddr));
    }
    if sum(&buffer[..length]) != 0 {
        return Err(AcpiError::Checksum(name));
    }
    Ok(&buffer[..length])
}

/// Finds the first segment's configuration space, from the physical address of the RSDP.
///
/// # Errors
/// [`AcpiError`]: what is wrong with the firmware's tables.
pub fn find_ecam(memory: &mut impl PhysicalMemory, rsdp: u64) -> Result<Ecam, AcpiError> {
    const RSDP: &str = "RSDP";
    if rsdp == 0 {
        return Err(AcpiError::NoRootPointer);
    }
    let mut root = [0; HEADER];
    if !memory.read(rsdp, &mut root) {
        return Err(AcpiError::Unreadable(rsdp));
    }
    if &root[..8] != b"RSD PTR " {
        return Err(AcpiError::Malformed(RSDP));
    }
    let extended = root[15] >= 2;
    if sum(&root[..20]) != 0 || extended && sum(&root) != 0 {
        return Err(AcpiError::Checksum(RSDP));
    }
    let xsdt = if extended { long(&root, 24) } else { 0 };
    let (list, name, each) = match xsdt {
        0 => (u64::from(word(&root, 16)), "RSDT", 4),
        at => (at, "XSDT", 8),
    };
    let mut buffer = [0; MAX_TABLE];
    let entries = table(memory, list, name, &mut buffer)?;
    let mut addresses = [0u64; MAX_TABLES];
    let mut count = 0;
    for (entry, place) in entries[HEADER..].chunks_exact(each).zip(&mut addresses) {
        *place = if each == 8 { long(entry, 0) } else { u64::from(word(entry, 0)) };
        count += 1;
    }
    for paddr in &addresses[..count] {
        let mut signature = [0; 4];
        if memory.read(*paddr, &mut signature) && &signature == b"MCFG" {
            return mcfg(table(memory, *paddr, "MCFG", &mut buffer)?);
        }
    }
    Err(AcpiError::Missing("MCFG"))
}

fn mcfg(table: &[u8]) -> Result<Ecam, AcpiError> {
    const ENTRIES: usize = 44;
    let entry = table.get(ENTRIES..ENTRIES + 16).ok_or(AcpiError::Malformed("MCFG"))?;
    let (base, first_bus, last_bus) = (long(entry, 0), entry[10], entry[11]);
    let aligned = base.is_multiple_of(1 << 20) && base != 0 && base < 1 << 46;
    if !aligned || first_bus > last_bus {
        return Err(AcpiError::Malformed("MCFG"));
    }
    if first_bus != 0 {
        return Err(AcpiError::FirstBus(first_bus));
    }
    Ok(Ecam { base, last_bus })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// Tables from physical address `BASE`.
    struct Ram(Vec<u8>);
    const BASE: u64 = 0x7fe_0000;

    impl PhysicalMemory for Ram {
        fn read(&mut self, paddr: u64, into: &mut [u8]) -> bool {
            let Some(at) = paddr.checked_sub(BASE) else {
                return false;
            };
            let bytes = usize::try_from(at).ok().and_then(|at| self.0.get(at..)?.get(..into.len()));
            bytes.map(|bytes| into.copy_from_slice(bytes)).is_some()
        }
    }

    fn fix(bytes: &mut [u8], at: usize) {
        bytes[at] = 0;
        bytes[at] = 0u8.wrapping_sub(sum(bytes));
    }

    fn put_table(ram: &mut [u8], at: usize, name: &[u8; 4], body: &[u8]) {
        let length = HEADER + body.len();
        ram[at..at + 4].copy_from_slice(name);
        ram[at + 4..at + 8].copy_from_slice(&(length as u32).to_le_bytes());
        ram[at + HEADER..at + length].copy_from_slice(body);
        fix(&mut ram[at..at + length], 9);
    }

    fn firmware(version: u8) -> Ram {
        let mut ram = vec![0; 0x3000];
        ram[..8].copy_from_slice(b"RSD PTR ");
        ram[15] = version;
        ram[16..20].copy_from_slice(&(BASE as u32 + 0x100).to_le_bytes());
        ram[20..24].copy_from_slice(&36u32.to_le_bytes());
        ram[24..32].copy_from_slice(&(BASE + 0x200).to_le_bytes());
        fix(&mut ram[..20], 8);
        fix(&mut ram[..36], 32);
        let [apic, mcfg] = [BASE + 0x400, BASE + 0x1000];
        let short: Vec<u8> = [apic, mcfg].iter().flat_map(|a| (*a as u32).to_le_bytes()).collect();
        let wide: Vec<u8> = [apic, mcfg].iter().flat_map(|a| a.to_le_bytes()).collect();
        put_table(&mut ram, 0x100, b"RSDT", &short);
        put_table(&mut ram, 0x200, b"XSDT", &wide);
        put_table(&mut ram, 0x400, b"APIC", &[0; 8]);
        let mut body = vec![0; 24];
        body[8..16].copy_from_slice(&0xb000_0000u64.to_le_bytes());
        body[19] = 255;
        put_table(&mut ram, 0x1000, b"MCFG", &body);
        Ram(ram)
    }

    #[test]
    fn both_kinds_of_root_table_lead_to_the_configuration_space() {
        for version in [0, 2] {
            let ecam = find_ecam(&mut firmware(version), BASE).unwrap();
            assert_eq!(ecam, Ecam { base: 0xb000_0000, last_bus: 255 });
            assert_eq!(ecam.page(0x1f << 3 | 2), 0xb00f_a000);
        }
    }

    #[test]
    fn configuration_space_that_does_not_begin_with_bus_0_is_refused() {
        let with_first_bus = |bus: u8| {
            let mut ram = firmware(2);
            let entry = 0x1000 + 44;
            ram.0[entry + 10] = bus;
            fix(&mut ram.0[0x1000..0x1000 + HEADER + 24], 9);
            find_ecam(&mut ram, BASE)
        };
        assert_eq!(with_first_bus(0), find_ecam(&mut firmware(2), BASE));
        for bus in [1, 0x40, 255] {
            assert_eq!(with_first_bus(bus), Err(AcpiError::FirstBus(bus)));
        }
    }

    #[test]
    fn damage_anywhere_is_an_error_or_changes_nothing_that_matters() {
        let good = find_ecam(&mut firmware(2), BASE);
        for at in (0..0x500).chain(0x1000..0x1100) {
            for change in [1, 0xff] {
                let mut ram = firmware(2);
                ram.0[at] ^= change;
                let found = find_ecam(&mut ram, BASE);
                assert!(found.is_err() || found == good, "byte {at:#x}");
            }
        }
    }

    #[test]
    fn errors_name_the_table() {
        assert_eq!(find_ecam(&mut firmware(2), 0), Err(AcpiError::NoRootPointer));
        assert_eq!(find_ecam(&mut firmware(2), 16), Err(AcpiError::Unreadable(16)));
        let mut ram = firmware(2);
        ram.0[0x1000] = b'X';
        assert_eq!(find_ecam(&mut ram, BASE), Err(AcpiError::Missing("MCFG")));
        let mut ram = firmware(2);
        ram.0[0x1030] ^= 1;
        assert_eq!(find_ecam(&mut ram, BASE), Err(AcpiError::Checksum("MCFG")));
        let mut ram = firmware(2);
        ram.0[0x204..0x208].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(find_ecam(&mut ram, BASE), Err(AcpiError::Malformed("XSDT")));
    }
}
