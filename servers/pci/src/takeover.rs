//! What an instance of the server knows of the functions: from the one before it, or because it may
//! look itself.

use crate::config::ConfigSpace;
use crate::survivor::{Kept, Survivor};
use crate::walk;
use crate::windows::Windows;
use alloc::vec::Vec;
use skink_protocols::pci::Function;

/// The functions: those kept by an earlier instance, or found now. `incarnation` counts from 1.
///
/// Devices are touched only while no driver can be at work: where that is not sure, no function is
/// known.
pub fn functions(
    config: &mut impl ConfigSpace,
    survivor: Survivor,
    incarnation: u32,
    windows: Windows,
) -> Vec<Function> {
    survivor.recover(config);
    let why = match survivor.functions() {
        Kept::Functions(functions) => {
            log::debug!("{} functions, known from before", functions.len());
            return functions;
        }
        Kept::Spoiled => "what an earlier instance kept of them fails its check",
        Kept::NoRoom => "there was no room to keep them; raise `survivor`",
        Kept::Nothing if incarnation > 1 && !survivor.exists() => "no survivor region",
        Kept::Nothing => return enumerate(config, survivor, windows),
    };
    log::warn!("functions are not enumerated again, drivers may be at work: {why}");
    Vec::new()
}

fn enumerate(config: &mut impl ConfigSpace, survivor: Survivor, windows: Windows) -> Vec<Function> {
    let functions = walk::enumerate(config, &survivor, windows);
    log::info!("{} functions on buses {:?}", functions.len(), config.buses());
    if !survivor.keep(&functions) {
        log::warn!("no room to keep them: a restart will know of none; raise `survivor`");
    }
    functions
}
