//! The content of the file that measurements read: each word says where it is, so that whoever reads
//! a piece of it can tell whether that is right. The host tool makes the file, the shell checks it.

/// The upper half of every word.
const MARK: u64 = 0x536b_696e_0000_0000;

/// The word with this index: the eight bytes at `8 * index`, little-endian.
pub const fn word(index: u64) -> u64 {
    MARK | (index & 0xffff_ffff)
}

/// Fills `bytes` with what the file holds at `position`, a multiple of 8.
pub fn fill(position: u64, bytes: &mut [u8]) {
    for (index, eight) in (position / 8..).zip(bytes.chunks_mut(8)) {
        eight.copy_from_slice(&word(index).to_le_bytes()[..eight.len()]);
    }
}

/// Where `bytes`, read at `position` (a multiple of 8), first differ from what the file holds there.
pub fn first_wrong(position: u64, bytes: &[u8]) -> Option<u64> {
    for (index, eight) in (position / 8..).zip(bytes.chunks(8)) {
        let right = word(index).to_le_bytes();
        if let Some(place) = eight.iter().zip(right).position(|(byte, right)| *byte != right) {
            return Some(8 * index + place as u64);
        }
    }
    None
}

/// Whether these are bytes of such a file, from wherever.
pub fn is_part(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|eight| u64::from_le_bytes(*eight) & !0xffff_ffff == MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_byte_and_each_misplaced_piece_is_told() {
        let mut bytes = [0; 100];
        fill(4096, &mut bytes);
        assert!(is_part(&bytes) && !is_part(&[0; 100]) && !is_part(&[]));
        assert_eq!(first_wrong(4096, &bytes), None);
        for place in 0..bytes.len() {
            bytes[place] ^= 0x10;
            assert_eq!(first_wrong(4096, &bytes), Some(4096 + place as u64));
            bytes[place] ^= 0x10;
        }
        assert_eq!(first_wrong(8192, &bytes), Some(8193), "of another place");
        assert_eq!(first_wrong(0, &[0; 8]), Some(4));
    }
}
