//! Rows of `tiers` as a table, or as JSON.

use nullsum::live::ModelTiming;
use serde_json::{Map, Value, json};

use super::Row;
use super::song::Material;
use crate::args::TiersArgs;
use crate::printer::print_line;

/// SDR of what a live stream is compared with: the offline stems, and the mixture itself. Empty without true stems.
pub type Bounds = [(&'static str, Vec<Option<f64>>); 2];

/// One object a line.
pub fn print_json(rows: &[Row], bounds: &Bounds, names: &[String]) {
    for row in rows {
        print_line(&described(row, names).to_string());
    }
    for (name, truth) in bounds.iter().filter(|(_, truth)| !truth.is_empty()) {
        print_line(&json!({ "tier": name, "true_sdr_db": by_stem(names, truth) }).to_string());
    }
}

/// The line above the table: model, device, host and song.
pub fn print_heading(args: &TiersArgs, model: &str, runs_on: &str, seconds: f64, timing: &ModelTiming) {
    let way = if timing.context.is_some() { "keeps its context" } else { "repeats whole windows" };
    print_line(&format!(
        "{model}, {runs_on}; {way}; {} Hz, blocks of {}; {seconds:.1} s of audio, live stems against offline ones",
        args.rate, args.block
    ));
}

/// The table, and below it the SDR to the true stems.
pub fn print_table(rows: &[Row], bounds: &Bounds, names: &[String], material: &Material) {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(9) + 1;
    print_line(&format!(
        "{:<width$}{:>10}{:>9}{:>8}{:>11}{:>8}   SDR to offline, dB",
        "tier", "latency", "window", "hop", "lookahead", "load"
    ));
    for row in rows {
        let rate = row.plan.model_rate();
        let values: Vec<Option<f64>> = row.to_offline.iter().copied().map(Some).collect();
        print_line(&format!(
            "{:<width$}{:>7.0} ms{:>7.2} s{:>6.3} s{:>9.3} s{:>6.1} %   {}",
            row.name,
            row.plan.latency_ms(),
            row.plan.window().seconds(rate),
            row.plan.hop().seconds(rate),
            row.plan.lookahead().seconds(rate),
            100.0 * row.load,
            listed(names, &values)
        ));
    }
    if material.has_truth() {
        print_line(&format!(
            "\n{:<width$}SDR to the true stems, dB (mixture: scaled, nothing separated)",
            ""
        ));
        let live = rows.iter().map(|row| (row.name.as_str(), &row.to_truth));
        for (name, truth) in live.chain(bounds.iter().map(|(name, truth)| (*name, truth))) {
            print_line(&format!("{name:<width$}{}", listed(names, truth)));
        }
    }
}

fn described(row: &Row, names: &[String]) -> Value {
    let (plan, rate) = (&row.plan, row.plan.model_rate());
    let to_offline: Vec<Option<f64>> = row.to_offline.iter().copied().map(Some).collect();
    let mut value = json!({
        "tier": row.name, "latency_samples": plan.latency().0, "latency_ms": plan.latency_ms(),
        "window_seconds": plan.window().seconds(rate), "hop_seconds": plan.hop().seconds(rate),
        "lookahead_seconds": plan.lookahead().seconds(rate), "load": row.load,
        "deadline_seconds": plan.deadline_seconds(), "hop_cost_seconds": row.seconds,
        "keeps_context": plan.context().is_some(), "sdr_to_offline_db": by_stem(names, &to_offline),
    });
    if !row.to_truth.is_empty() {
        value["true_sdr_db"] = by_stem(names, &row.to_truth);
    }
    value
}

fn by_stem(names: &[String], values: &[Option<f64>]) -> Value {
    Value::Object(
        names.iter().zip(values).map(|(name, sdr)| (name.clone(), json!(sdr))).collect::<Map<_, _>>(),
    )
}

fn listed(names: &[String], values: &[Option<f64>]) -> String {
    let one = |(name, sdr): (&String, &Option<f64>)| match sdr {
        Some(sdr) => format!("{name} {sdr:.1}"),
        None => format!("{name} –"),
    };
    names.iter().zip(values).map(one).collect::<Vec<_>>().join(", ")
}
