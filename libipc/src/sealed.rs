//! Words of a survivor region that carry their own check: each is stored in one step, and a
//! successor believes it only if it was stored by somebody who sealed it for this place. Not
//! against malice: against bytes that nobody meant.

/// Bits of the check.
const CHECK_BITS: u32 = 16;
/// Largest value that can be sealed.
pub const MAX: u64 = u64::MAX >> CHECK_BITS;

/// 16 bits that depend on every bit of both: none can change alone, nor can any 16 in a row. Never 0
/// for the value 0, so that a cleared word is nobody's.
const fn check(place: u64, value: u64) -> u64 {
    let folded = value ^ value >> CHECK_BITS ^ value >> (2 * CHECK_BITS);
    let mixed = (place ^ 0x5b6e_2f0d_9c31_a847).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (folded ^ (mixed >> (u64::BITS - CHECK_BITS) | 1)) & ((1 << CHECK_BITS) - 1)
}

/// The word that stands for `value` (at most [`MAX`]; what is above is cut) at `place`.
#[inline]
pub const fn seal(place: u64, value: u64) -> u64 {
    let value = value & MAX;
    value << CHECK_BITS | check(place, value)
}

/// The value of a word; `None` if nobody sealed it for this place.
#[inline]
pub const fn open(place: u64, word: u64) -> Option<u64> {
    let value = word >> CHECK_BITS;
    if seal(place, value) == word { Some(value) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cleared_word_is_nobodys() {
        for place in 0..1000 {
            assert_eq!(open(place, 0), None);
        }
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_read_and_nothing_else(value in 0..=MAX, place in 0u64..4096) {
            let word = seal(place, value);
            prop_assert_eq!(open(place, word), Some(value));
            let unnoticed = (0..u64::BITS).filter(|bit| open(place, word ^ 1 << bit).is_some());
            prop_assert_eq!(unnoticed.count(), 0);
        }
    }

    #[test]
    fn of_random_words_and_moved_ones_one_in_many_thousands_passes() {
        let mut state = 1u64;
        let mut passed = 0;
        for place in 0..200_000u64 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            passed += u32::from(open(place, state).is_some());
            passed += u32::from(open(place, seal(place + 1, state)).is_some());
        }
        assert!(passed < 40, "{passed} of 400,000");
    }
}
