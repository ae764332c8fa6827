//! Deaths, as the shell's `crashes` prints them.

/// A death.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Died {
    /// Who.
    pub server: String,
    /// Why, and where `kill` had placed it.
    pub told: String,
    /// Requests received and not answered.
    pub in_flight: u64,
}

impl Died {
    /// Those in the text, in its order.
    pub fn all(text: &str) -> Vec<Died> {
        text.lines().filter_map(Died::of_line).collect()
    }

    /// How many of them are of `server`.
    pub fn count_of(text: &str, server: &str) -> usize {
        Died::all(text).iter().filter(|died| died.server == server).count()
    }

    /// `#NUMBER TIME SERVER (incarnation N): WHY; COUNT requests in flight`.
    fn of_line(line: &str) -> Option<Died> {
        let (head, rest) = line.split_once(" (incarnation ")?;
        let server = head.split_whitespace().last()?.to_owned();
        let (_, rest) = rest.split_once("): ")?;
        let (told, flight) = rest.rsplit_once("; ")?;
        let in_flight = flight.strip_suffix(" requests in flight")?.parse().ok()?;
        Some(Died { server, told: told.to_owned(), in_flight })
    }
}
