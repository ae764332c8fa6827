//! How often an instance has lied: a way that never did proves nothing, and a test can see that.

/// The number of lies so far.
#[derive(Default)]
pub struct Tally(u64);

impl Tally {
    /// One more lie. The log tells the first, and then each time that the number has doubled.
    pub fn lie(&mut self) {
        self.0 += 1;
        if self.0.is_power_of_two() {
            log::info!("lied {} times", self.0);
        }
    }
}
