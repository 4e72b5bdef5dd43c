//! Measures what keeping the context of a stream costs in quality: SDR to the true stems of a song, offline, with repeated windows and with
//! kept context, over all of it and second by second.
//!
//!     cargo run --release --example kept_context -- FOLDER START SECONDS [HOP,LOOKAHEAD,CONTEXT,MARGIN]...
//!
//! FOLDER holds one audio file a stem (drums, bass, other, vocals); their sum is the mixture. A plan is given in frames.

use std::ops::ControlFlow;
use std::path::Path;

use nullsum::audio::Planar;
use nullsum::demo::{Stereo, sdr};
use nullsum::model::config::Config;
use nullsum::model::precision::Precision;
use nullsum::offline::demix::{DemixOptions, demix};
use nullsum::offline::plan::ChunkPlan;
use nullsum::offline::reader::{FileReader, MemoryReader, SongReader};
use nullsum::separator::{ContextPlan, FrameTiming, Hop, MaskRule, Runtime, Separator};

type Failure = Box<dyn std::error::Error>;
type Stems = Vec<Stereo>;

const RATE: u32 = 44_100;
/// Mean square (−70 dB) below which a true stem counts as absent.
const ABSENT: f64 = 1e-7;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, start, seconds, plans @ ..] = arguments.as_slice() else {
        return Err("usage: kept_context FOLDER START SECONDS [HOP,LOOKAHEAD,CONTEXT,MARGIN]...".into());
    };
    let plans = plans.iter().map(|text| plan(text)).collect::<Result<Vec<_>, _>>()?;
    run(Path::new(folder), start.parse()?, seconds.parse()?, &plans)
}

/// Prints a row for offline separation and one for each plan.
fn run(folder: &Path, start: f64, seconds: f64, plans: &[ContextPlan]) -> Result<(), Failure> {
    let checkpoint = nullsum::embedded::checkpoint().ok_or("this build has no embedded model")?;
    let config = Config::from_yaml(checkpoint.config_yaml().unwrap_or_default(), "embedded")?;
    let runtime = Runtime { precision: Precision::F32, ..Runtime::default() };
    let mut separator = Separator::load(&checkpoint, &config, None, runtime)?;
    let names = separator.info().stem_names();
    let truth = names
        .iter()
        .map(|name| read(folder, name, start, seconds))
        .collect::<Result<Vec<Stereo>, Failure>>()?;
    let samples = truth.iter().flatten().map(Vec::len).min().unwrap_or(0);
    let mixture: Stereo =
        std::array::from_fn(|c| (0..samples).map(|i| truth.iter().map(|stem| stem[c][i]).sum()).collect());
    let truth: Stems = truth.into_iter().map(|stem| stem.map(|plane| plane[..samples].to_vec())).collect();

    let offline = separate_offline(&mut separator, &mixture)?;
    let song = folder.file_name().unwrap_or_default().to_string_lossy();
    println!("{song}: {:.1} s from {start} s on; {}", samples as f64 / f64::from(RATE), names.join(", "));
    println!("| way | cost | waits | SDR | mean to offline | worst second | last second |");
    println!("|---|---|---|---|---|---|---|");
    print_row("offline, overlap 2", 2.0, f64::NAN, &truth, &offline, &offline);
    for plan in plans {
        let stems = separate_live(&mut separator, &mixture, plan)?;
        let ContextPlan { hop_frames, lookahead_frames, context_frames, margin_frames, .. } = *plan;
        let name = if context_frames == 0 && margin_frames > 0 {
            format!(
                "repeated, H {hop_frames}, A {lookahead_frames}, W {}",
                hop_frames + lookahead_frames + margin_frames
            )
        } else {
            format!("kept, H {hop_frames}, A {lookahead_frames}, C {context_frames}, M {margin_frames}")
        };
        let cost = (hop_frames + lookahead_frames + margin_frames) as f64 / hop_frames as f64;
        let waits = plan.latency_samples(&FrameTiming::new(separator.info().architecture.stft));
        print_row(&name, cost, waits as f64 / f64::from(RATE), &truth, &stems, &offline);
    }
    Ok(())
}

fn plan(text: &str) -> Result<ContextPlan, Failure> {
    let parts = text.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let [hop_frames, lookahead_frames, context_frames, margin_frames] = parts[..] else {
        return Err(format!("{text}: expected HOP,LOOKAHEAD,CONTEXT,MARGIN in frames").into());
    };
    Ok(ContextPlan { hop_frames, lookahead_frames, context_frames, margin_frames, ..ContextPlan::default() })
}

fn read(folder: &Path, name: &str, start: f64, seconds: f64) -> Result<Stereo, Failure> {
    let files = std::fs::read_dir(folder)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let found =
        files.into_iter().find(|path| path.file_stem().is_some_and(|stem| stem.eq_ignore_ascii_case(name)));
    let path = found.ok_or_else(|| format!("{}: no file is named {name}", folder.display()))?;
    let mut reader = FileReader::open(&path, RATE)?;
    let (first, count) = ((start * f64::from(RATE)) as usize, (seconds * f64::from(RATE)) as usize);
    let mut song = Planar::new(reader.channels());
    while song.samples() < first + count && reader.read(first + count - song.samples(), &mut song)? > 0 {}
    song.drop_front(first);
    let planes = song.into_planes();
    let right = planes.get(1).or(planes.first()).cloned().unwrap_or_default();
    Ok([planes.into_iter().next().unwrap_or_default(), right])
}

fn separate_offline(separator: &mut Separator, mixture: &Stereo) -> Result<Stems, Failure> {
    let info = separator.info().clone();
    let song = Planar::from_equal(mixture.clone().into());
    let options = DemixOptions {
        plan: ChunkPlan::new(info.chunk, 2.0),
        batch: 1,
        rule: MaskRule::Complete,
        tta: false,
        standardise: None,
    };
    let mut stems = vec![Stereo::default(); info.stems.len()];
    demix(
        separator,
        &mut MemoryReader::new(&song),
        &options,
        &mut |block| {
            for (stem, planes) in stems.iter_mut().zip(block.planes().chunks(2)) {
                stem.iter_mut().zip(planes).for_each(|(stem, plane)| stem.extend_from_slice(plane));
            }
            Ok(())
        },
        &mut |_| ControlFlow::Continue(()),
    )?;
    Ok(stems)
}

fn separate_live(separator: &mut Separator, mixture: &Stereo, plan: &ContextPlan) -> Result<Stems, Failure> {
    let mut stems = vec![Stereo::default(); separator.info().stem_names().len()];
    let mut state = separator.new_stream(plan)?;
    state.push(&mixture.concat())?;
    while !state.is_finished() {
        let ready = state.ready_frames() as usize;
        if ready < plan.hop_frames {
            // The end of the stream is one hop of all that is left.
            state.finish();
        }
        let frames = if ready < plan.hop_frames { state.ready_frames() as usize } else { plan.hop_frames };
        if frames == 0 {
            break;
        }
        separator.separate_hops(&mut [Hop { state: &mut state, frames, rule: MaskRule::Complete }], &())?;
        for (s, stem) in stems.iter_mut().enumerate() {
            for (c, plane) in stem.iter_mut().enumerate() {
                plane.extend_from_slice(state.output().final_samples(s, c));
            }
        }
    }
    Ok(stems)
}

/// Samples `from..to` of both channels.
fn cut(stem: &Stereo, from: usize, to: usize) -> Stereo {
    stem.each_ref().map(|plane| plane[from..to].to_vec())
}

fn power(stem: &Stereo) -> f64 {
    let count = stem.iter().map(Vec::len).sum::<usize>().max(1);
    stem.iter().flatten().map(|x| f64::from(*x).powi(2)).sum::<f64>() / count as f64
}

fn print_row(name: &str, cost: f64, waits: f64, truth: &Stems, stems: &Stems, offline: &Stems) {
    let samples = truth[0][0].len();
    let present: Vec<usize> = (0..truth.len()).filter(|i| power(&truth[*i]) > ABSENT).collect();
    let all: Vec<(f64, f64)> =
        present.iter().map(|&i| (sdr(&truth[i], &stems[i]), sdr(&truth[i], &offline[i]))).collect();
    let sdrs: Vec<String> = (0..truth.len())
        .map(|i| present.iter().position(|p| *p == i).map_or("-".into(), |at| format!("{:.2}", all[at].0)))
        .collect();
    let mean = all.iter().map(|(live, offline)| live - offline).sum::<f64>() / all.len().max(1) as f64;
    // Each second against the offline one, of stems that are heard in it.
    let second = RATE as usize;
    let difference = |i: usize, from: usize| {
        let to = (from + second).min(samples);
        let truth = cut(&truth[i], from, to);
        (power(&truth) > 1e-5)
            .then(|| sdr(&truth, &cut(&stems[i], from, to)) - sdr(&truth, &cut(&offline[i], from, to)))
    };
    let starts = || (0..samples.saturating_sub(second / 2)).step_by(second);
    let worst = present
        .iter()
        .flat_map(|&i| starts().filter_map(move |from| Some((difference(i, from)?, from / second))))
        .fold((f64::INFINITY, 0), |worst, one| if one.0 < worst.0 { one } else { worst });
    let last: Vec<f64> =
        present.iter().filter_map(|&i| difference(i, samples.saturating_sub(second))).collect();
    let last = last.iter().sum::<f64>() / last.len().max(1) as f64;
    let waits = if waits.is_nan() { "-".into() } else { format!("{:.0} ms", 1e3 * waits) };
    println!(
        "| {name} | {cost:.1} × | {waits} | {} | {mean:+.2} | {:+.2} at {} s | {last:+.2} |",
        sdrs.join(", "),
        worst.0,
        worst.1
    );
}
