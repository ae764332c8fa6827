//! Deaths for measurements: ordered, and found again by the numbers of their orders.

use alloc::format;

use skink_protocols::control::{CrashRecord, KillSpec, OrderRecord};

use crate::context::{Context, Failure};

/// Has a server killed; the number of the order.
pub fn kill(context: &Context<'_>, server: &str, spec: KillSpec) -> Result<u64, Failure> {
    Ok(context.sessions.control.kill(server, spec)?)
}

/// What has come of an order.
pub fn order(context: &Context<'_>, number: u64) -> Result<OrderRecord, Failure> {
    let order = context.sessions.control.order(number)?;
    order.ok_or_else(|| Failure::new(format!("order {number} is forgotten")))
}

/// The crash record of the death by an order: what it was to kill must have died.
pub fn death(context: &Context<'_>, number: u64) -> Result<CrashRecord, Failure> {
    for index in 0.. {
        match context.sessions.control.crash(index)? {
            Some(record) if record.order == Some(number) => return Ok(record),
            Some(_) => {}
            None => break,
        }
    }
    let order = order(context, number)?;
    Err(Failure::new(format!(
        "no crash record of order {number}: {} was to die, its moment came {} times, it died {} times",
        order.server, order.reached, order.died
    )))
}
