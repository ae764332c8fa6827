//! Dates and times as FAT keeps them: local time without zone, 1980 to 2107, two-second steps.
//!
//! The caller brings the time; this library has no clock.

/// A point in time. Fields outside FAT's range are clamped when they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DateTime {
    /// 1980 to 2107.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

impl DateTime {
    /// The start of FAT's calendar.
    pub const EPOCH: DateTime =
        DateTime { year: 1980, month: 1, day: 1, hour: 0, minute: 0, second: 0 };

    /// From seconds since 1970-01-01 00:00:00.
    pub fn from_unix_seconds(seconds: u64) -> Self {
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        // Days since 0000-03-01, so that the leap day is the last of a year.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        DateTime {
            year: year.min(2107) as u16,
            month: month as u8,
            day: day as u8,
            hour: (rest / 3600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
        }
    }

    pub(crate) fn date_word(self) -> u16 {
        let year = self.year.clamp(1980, 2107) - 1980;
        year << 9 | u16::from(self.month.clamp(1, 12)) << 5 | u16::from(self.day.clamp(1, 31))
    }

    pub(crate) fn time_word(self) -> u16 {
        u16::from(self.hour.min(23)) << 11
            | u16::from(self.minute.min(59)) << 5
            | u16::from(self.second.min(59) / 2)
    }

    pub(crate) fn from_words(date: u16, time: u16) -> Self {
        DateTime {
            year: 1980 + (date >> 9),
            month: (date >> 5 & 15) as u8,
            day: (date & 31) as u8,
            hour: (time >> 11) as u8,
            minute: (time >> 5 & 63) as u8,
            second: (time & 31) as u8 * 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_seconds_become_calendar_days() {
        let at = |s| {
            let t = DateTime::from_unix_seconds(s);
            (t.year, t.month, t.day, t.hour, t.minute, t.second)
        };
        assert_eq!(at(0), (1970, 1, 1, 0, 0, 0));
        assert_eq!(at(951_782_399), (2000, 2, 28, 23, 59, 59));
        assert_eq!(at(951_782_400), (2000, 2, 29, 0, 0, 0));
        assert_eq!(at(1_795_224_426), (2026, 11, 21, 1, 27, 6));
    }

    #[test]
    fn words_round_trip_to_two_seconds() {
        let t = DateTime { year: 2026, month: 11, day: 21, hour: 23, minute: 59, second: 58 };
        assert_eq!(DateTime::from_words(t.date_word(), t.time_word()), t);
        let early = DateTime { year: 1970, ..t };
        assert_eq!(DateTime::from_words(early.date_word(), 0).year, 1980);
    }
}
