//! Slots: places for programs that `run` starts from a disk, made of the table `[programs]`. To
//! everything behind this they are servers without a program, each with all that one may be given.

use super::check::Check;
use super::schema;
use anyhow::Result;
use skink_manifest::Restart;
use toml::Spanned;

/// The root server clears the shared memory of a slot's edges between two programs, page by page;
/// from here on it would consist of large frames.
const MAX_SHARED: u64 = 256 << 10;
/// Slots at most.
const MAX_COUNT: u8 = 8;

impl Check<'_> {
    /// Adds the slots of `[programs]` behind the servers.
    ///
    /// # Errors
    /// If there are too many, or one shares more than is cleared.
    pub fn add_slots(&self, file: &mut schema::File) -> Result<()> {
        let Some(programs) = file.programs.take() else {
            return Ok(());
        };
        let count = *programs.count.get_ref();
        if count > MAX_COUNT {
            return Err(self.at(&programs.count, format!("{count}: at most {MAX_COUNT} programs")));
        }
        for need in &programs.needs {
            let shared = need.get_ref().shared.as_ref();
            if let Some(shared) = shared.filter(|shared| shared.get_ref().0 > MAX_SHARED) {
                let most = MAX_SHARED >> 10;
                return Err(self.at(shared, format!("a program shares {most} KiB at most")));
            }
            if need.get_ref().may_complain {
                let message = "no program is believed when it complains of a server";
                return Err(self.at(need, message));
            }
            if need.get_ref().dma {
                return Err(self.at(need, "a program shares no memory with devices"));
            }
        }
        file.servers.extend((1..=count).map(|number| slot(&programs, number)));
        Ok(())
    }
}

fn slot(programs: &schema::Programs, number: u8) -> schema::Server {
    let span = programs.count.span();
    schema::Server {
        name: Spanned::new(span, format!("program-{number}")),
        binary: None,
        args: None,
        priority: programs.priority.clone(),
        budget_us: None,
        period_us: None,
        memory: programs.memory.clone(),
        stack: None,
        heap: None,
        extra_threads: None,
        replies: None,
        fpu: false,
        devices: Vec::new(),
        ports: Vec::new(),
        lines: Vec::new(),
        provides: Vec::new(),
        needs: programs.needs.clone(),
        dma: None,
        survivor: None,
        privileges: Vec::new(),
        restart: Restart::Temporary,
        group: None,
        intensity: None,
        intensity_period_ms: None,
        backoff_ms: None,
        backoff_max_ms: None,
        heartbeat_ms: None,
        is_slot: true,
    }
}
