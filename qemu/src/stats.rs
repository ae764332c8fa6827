//! Samples to rows: `sample ID VALUE UNIT` lines, their order statistics, a table, JSON.

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

/// One measured value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What was measured; stable, scripts hang on it.
    pub id: String,
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: String,
}

impl Sample {
    /// A sample.
    pub fn new(id: &str, value: f64, unit: &str) -> Sample {
        Sample { id: id.into(), value, unit: unit.into() }
    }
}

/// The samples in a guest's output: the lines `sample ID VALUE UNIT`.
pub fn parse(text: &str) -> Vec<Sample> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Sample> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["sample", id, value, unit] = words[..] else {
        return None;
    };
    let value = value.parse::<f64>().ok().filter(|value| value.is_finite())?;
    Some(Sample::new(id, value, unit))
}

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was measured.
    pub id: String,
    /// On which machine.
    pub arch: String,
    /// The unit of what follows.
    pub unit: String,
    /// Samples.
    pub n: usize,
    /// The smallest.
    pub min: f64,
    /// The middle one; of an even number, the mean of the two.
    pub median: f64,
    /// The median of what is measured lies between these with a probability of 95%, whatever the
    /// distribution: two of the samples, by their rank (of fewer than six the outermost).
    pub interval: [f64; 2],
    /// 99 of 100 are no greater (nearest rank).
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

/// A row for each ID and unit, in the order in which they first appear.
pub fn rows(arch: &str, samples: &[Sample]) -> Vec<Row> {
    let mut groups: Vec<((&str, &str), Vec<f64>)> = Vec::new();
    let mut places = HashMap::new();
    for sample in samples {
        let key = (sample.id.as_str(), sample.unit.as_str());
        let place = *places.entry(key).or_insert(groups.len());
        if place == groups.len() {
            groups.push((key, Vec::new()));
        }
        groups[place].1.push(sample.value);
    }
    let row = |((id, unit), mut values): ((&str, &str), Vec<f64>)| {
        values.sort_by(f64::total_cmp);
        let n = values.len();
        Row {
            id: id.into(),
            arch: arch.into(),
            unit: unit.into(),
            n,
            min: values[0],
            median: median(&values),
            interval: interval(&values),
            p99: values[(n * 99).div_ceil(100) - 1],
            max: values[n - 1],
        }
    };
    groups.into_iter().map(row).collect()
}

/// The samples between which the median lies with a probability of 95%: the number of those below
/// it is binomial, here by its normal approximation. The values are sorted, and there is one.
fn interval(values: &[f64]) -> [f64; 2] {
    let n = values.len();
    let rank = (n as f64 / 2.0 - 0.98 * (n as f64).sqrt()).floor().max(1.0) as usize;
    [values[rank - 1], values[n - rank]]
}

/// The mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The middle one; of an even number, the mean of the two; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let n = values.len();
    if n == 0 { 0.0 } else { (values[(n - 1) / 2] + values[n / 2]) / 2.0 }
}

/// A number as short as it can be said to a thousandth.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// The rows as a table for people.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<40} {:<13} {:>5} {:>14} {:>14} {:>14} {:>14}  {}\n",
        "id", "unit", "n", "min", "median", "p99", "max", "median, 95%"
    );
    for row in rows {
        let [min, median, p99, max] = [row.min, row.median, row.p99, row.max].map(number);
        let [low, high] = row.interval.map(number);
        let _ = writeln!(
            text,
            "{:<40} {:<13} {:>5} {min:>14} {median:>14} {p99:>14} {max:>14}  {low} to {high}",
            row.id, row.unit, row.n
        );
    }
    text
}

/// The rows as a JSON array, one object a line. IDs and units are single words without quotes.
pub fn json(rows: &[Row]) -> String {
    let object = |row: &Row| {
        let [min, median, p99, max] = [row.min, row.median, row.p99, row.max].map(number);
        let [low, high] = row.interval.map(number);
        let plain = |text: &str| text.replace(['"', '\\'], "_");
        format!(
            "  {{\"id\": \"{}\", \"arch\": \"{}\", \"unit\": \"{}\", \"n\": {}, \"min\": {min}, \
             \"median\": {median}, \"median_low\": {low}, \"median_high\": {high}, \"p99\": {p99}, \
             \"max\": {max}}}",
            plain(&row.id),
            plain(&row.arch),
            plain(&row.unit),
            row.n
        )
    };
    format!("[\n{}\n]\n", rows.iter().map(object).collect::<Vec<_>>().join(",\n"))
}

/// Writes the rows as JSON.
///
/// # Errors
/// If the file cannot be written.
pub fn write_json(path: &Path, rows: &[Row]) -> Result<()> {
    std::fs::write(path, json(rows)).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_among_other_lines() {
        let text = "boot\r\nsample ipc.null 12.50 instructions\r\nsample bad x y\nsample a 1\n";
        assert_eq!(parse(text), [Sample::new("ipc.null", 12.5, "instructions")]);
    }

    #[test]
    fn rows_have_order_statistics() {
        let mut samples: Vec<Sample> =
            (1..=200).rev().map(|n| Sample::new("a", f64::from(n), "ns")).collect();
        samples.push(Sample::new("a", 7.0, "ms"));
        let rows = rows("x86_64", &samples);
        assert_eq!(rows.len(), 2);
        let a = &rows[0];
        assert_eq!((a.n, a.min, a.median, a.p99, a.max), (200, 1.0, 100.5, 198.0, 200.0));
        assert_eq!(a.interval, [86.0, 115.0], "as the tables of the binomial distribution say");
        let b = &rows[1];
        assert_eq!((b.n, b.min, b.median, b.p99, b.max), (1, 7.0, 7.0, 7.0, 7.0));
        assert_eq!(
            json(&rows[1..]),
            "[\n  {\"id\": \"a\", \"arch\": \"x86_64\", \"unit\": \"ms\", \"n\": 1, \"min\": 7, \
             \"median\": 7, \"median_low\": 7, \"median_high\": 7, \"p99\": 7, \"max\": 7}\n]\n"
        );
        assert!(table(&rows).contains("100.5"));
    }

    #[test]
    fn few_samples_have_the_interval_of_all() {
        let of = |n: u32| interval(&(1..=n).map(f64::from).collect::<Vec<_>>());
        assert_eq!(
            (of(1), of(2), of(5), of(50)),
            ([1.0, 1.0], [1.0, 2.0], [1.0, 5.0], [18.0, 33.0])
        );
    }
}
