//! `tiers --arch`: predicts the cost of each tier for a network that is not on this computer.

use nullsum::live::{HostSamples, LiveForecast, ModelTiming, Plan};
use nullsum::live_cost;
use nullsum::model::architecture::Architecture;
use nullsum::registry;
use nullsum::separator::ModelSpec;
use serde_json::json;

use crate::args::TiersArgs;
use crate::exit::{CliResult, ExitStatus, Failure, OrFail};
use crate::interrupt;
use crate::printer::print_line;

/// Chunk of the default architecture in samples.
const DEFAULT_CHUNK: usize = 352_800;

/// Prints latency and predicted load of each tier for the default architecture, the embedded model, or one of `models`.
pub fn run(name: &str, args: &TiersArgs) -> CliResult {
    let speed = live_cost::speed(&interrupt::stop_requested).or_fail(ExitStatus::Failed)?;
    let (timing, forecast) = forecast(name, speed)?;
    for (tier, load) in &forecast.loads {
        let request = tier.request(&timing, args.rate, HostSamples(u64::from(args.block)));
        let latency_ms = Plan::new(request).or_fail(ExitStatus::Usage)?.latency_ms();
        if args.json {
            let row =
                json!({ "tier": tier.to_string(), "most_latency_ms": latency_ms, "predicted_load": load });
            print_line(&row.to_string());
        } else {
            print_line(&format!(
                "{:<10}at most {latency_ms:>5.0} ms   load about {:>6.1} %",
                tier.to_string(),
                100.0 * load
            ));
        }
    }
    if !args.json {
        print_line(&format!("\n{}", verdict(&forecast, speed)));
    }
    Ok(())
}

/// One sentence about a forecast.
pub fn verdict(forecast: &LiveForecast, speed: f64) -> String {
    let way = if forecast.keeps_context { "keeps its context" } else { "repeats whole windows" };
    let tier = match forecast.lowest_latency() {
        None => "it is too slow to play live; bounce instead".into(),
        Some(tier) => format!("it plays live from the tier {tier} on"),
    };
    format!(
        "This machine computes about {:.0} GFLOP/s in such networks. The model {way}; {tier}.",
        speed / 1e9
    )
}

fn forecast(name: &str, speed: f64) -> CliResult<(ModelTiming, LiveForecast)> {
    let spec = match name {
        "default" => {
            Some(ModelSpec::random("default architecture", Architecture::reference_default(), DEFAULT_CHUNK))
        }
        "embedded" => live_cost::embedded_spec(),
        _ => None,
    };
    if let Some(spec) = spec {
        return Ok((ModelTiming::of(&spec), live_cost::of_spec(&spec, speed)));
    }
    let entry = registry::find(name).or_fail(ExitStatus::Usage)?;
    let unknown = || {
        let text =
            format!("the sizes of the network of {:?} are not known; fetch it and use `inspect`", entry.name);
        Failure::new(ExitStatus::Usage, text)
    };
    let timing = live_cost::timing_of(entry).ok_or_else(unknown)?;
    let forecast = live_cost::of_entry(entry, speed).ok_or_else(unknown)?;
    Ok((timing, forecast))
}
