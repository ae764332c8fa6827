//! `orders`: what became of each death that somebody ordered, by `kill`, `restart` or `stop`.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use skink_protocols::control::OrderRecord;

use super::misused;
use crate::context::{Context, Outcome};
use crate::format as look;

/// How `orders` is called.
pub const USAGE: &str = "orders [AFTER]";

/// Those with a number above AFTER that are remembered.
pub fn orders(context: &mut Context<'_>, words: &[String]) -> Outcome {
    let after = match words {
        [] => 0,
        [after] => look::number(after).ok_or_else(|| misused("orders"))?,
        _ => return Err(misused("orders")),
    };
    let header = ["NUMBER", "SERVER", "ORDER", "TIMES", "REACHED", "DIED", "MISSED", "WITHDRAWN"];
    let mut rows = Vec::from([header.map(String::from).to_vec()]);
    let count = context.sessions.control.order_count()?;
    let mut number = count;
    while number > after
        && let Some(record) = context.sessions.control.order(number)?
    {
        rows.insert(1, row(&record));
        number -= 1;
    }
    context.out.write(look::table(&rows, &[0, 3, 4, 5, 6]).as_bytes());
    Ok(())
}

fn row(record: &OrderRecord) -> Vec<String> {
    let times = match record.times {
        0 => "endless".to_string(),
        times => times.to_string(),
    };
    let withdrawn = record.withdrawn.as_ref().map_or("-".to_string(), ToString::to_string);
    Vec::from([
        record.number.to_string(),
        record.server.to_string(),
        record.ordered.name().to_string(),
        times,
        record.reached.to_string(),
        record.died.to_string(),
        record.missed.to_string(),
        withdrawn,
    ])
}
