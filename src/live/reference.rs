//! The reference result of a stream, computed over a whole song at once. The live engine is tested against it.

use super::engine::{fade_in, mix};
use super::model::{WindowError, WindowSeparator};
use super::plan::{KeptContext, Plan};
use super::sinc::Sinc;
use crate::separator::MaskRule;

/// The live stems of a song, `[stems][channels][samples]` at the host's rate, aligned with it. `song`: `[channels][samples]` at the
/// host's rate. Silence precedes and follows the song, as around a region in a host.
///
/// # Errors
/// Those of the model.
pub fn offline_reference(
    plan: &Plan,
    model: &mut dyn WindowSeparator,
    rule: MaskRule,
    song: &[Vec<f32>],
) -> Result<Vec<Vec<Vec<f32>>>, WindowError> {
    if let Some(context) = plan.kept_context_of(&model.timing()) {
        return kept_context_reference(plan, context, model, rule, song);
    }
    let length = song.iter().map(Vec::len).min().unwrap_or(0);
    let (channels, group, stems) = (song.len(), model.channels().max(1), model.stems());
    let window = plan.input_window();
    let needed = plan.model_needed(length as u64) as i64;
    let windows = (plan.first_hop()..).find(|k| plan.final_model(*k) >= needed).unwrap_or(1);
    let end = plan.model_needed_for(windows) as usize;
    let input: Vec<Vec<f32>> = song.iter().map(|plane| to_model(plan, &plane[..length], end)).collect();

    let mut stem_samples = vec![vec![0f32; end]; stems * channels];
    let mut known = 0i64;
    for k in plan.first_hop()..=windows {
        let (from, until) = (plan.final_model(k - 1).max(0), plan.model_needed_for(k) as i64);
        let overlap = known > 0 && known >= from + plan.fade().0 as i64;
        for first in (0..channels).step_by(group) {
            let mut chunk = Vec::with_capacity(group * window);
            for m in 0..group {
                let plane = &input[(first + m).min(channels - 1)];
                chunk.extend(
                    (until - window as i64..until).map(|i| usize::try_from(i).map_or(0.0, |i| plane[i])),
                );
            }
            let mut out = vec![0.0; stems * group * window];
            if chunk.iter().any(|x| *x != 0.0) {
                model.separate_window(&chunk, rule, &mut out)?;
            }
            let alone = group == 2 && first + 1 == channels;
            for s in 0..stems {
                for m in 0..group.min(channels - first) {
                    let samples = &mut stem_samples[s * channels + first + m];
                    for position in from..until {
                        let i = (position - until) + window as i64;
                        let at = |m: usize| out[(s * group + m) * window + i as usize];
                        let new = if alone { 0.5 * (at(0) + at(1)) } else { at(m) };
                        let old = &mut samples[position as usize];
                        let into = (position - from) as usize;
                        let fading = overlap && into < plan.fade().len();
                        *old = if fading { mix(*old, new, fade_in(into, plan.fade().len())) } else { new };
                    }
                }
            }
        }
        known = until;
    }
    Ok((0..stems)
        .map(|s| (0..channels).map(|c| to_host(plan, &stem_samples[s * channels + c], length)).collect())
        .collect())
}

/// As [`offline_reference`], with kept context: an empty state at the start, and hops of one length.
fn kept_context_reference(
    plan: &Plan,
    context: KeptContext,
    model: &mut dyn WindowSeparator,
    rule: MaskRule,
    song: &[Vec<f32>],
) -> Result<Vec<Vec<Vec<f32>>>, WindowError> {
    let length = song.iter().map(Vec::len).min().unwrap_or(0);
    let (channels, group, stems) = (song.len(), model.channels().max(1), model.stems());
    let needed = plan.model_needed(length as u64) as i64;
    let hops = (1..).find(|k| plan.final_model(*k) >= needed).unwrap_or(1);
    let end = plan.model_needed_for(hops) as usize;
    let input: Vec<Vec<f32>> = song.iter().map(|plane| to_model(plan, &plane[..length], end)).collect();
    let mut stem_samples = vec![Vec::new(); stems * channels];
    for first in (0..channels).step_by(group) {
        let mut state = model.new_stream(&context.plan)?;
        for k in 1..=hops {
            let new = state.received_samples() as usize..plan.model_needed_for(k) as usize;
            let planes = (first..first + group).map(|channel| &input[channel.min(channels - 1)][new.clone()]);
            state.push(&planes.collect::<Vec<_>>().concat())?;
            model.separate_hop(&mut state, context.plan.hop_frames, rule, &())?;
            let output = state.output();
            for (s, m) in (0..stems).flat_map(|s| (0..group.min(channels - first)).map(move |m| (s, m))) {
                let own = output.final_samples(s, m);
                let line = &mut stem_samples[s * channels + first + m];
                if group == 2 && first + 1 == channels {
                    let both = own.iter().zip(output.final_samples(s, 1));
                    line.extend(both.map(|(left, right)| 0.5 * (left + right)));
                } else {
                    line.extend_from_slice(own);
                }
            }
        }
    }
    Ok((0..stems)
        .map(|s| (0..channels).map(|c| to_host(plan, &stem_samples[s * channels + c], length)).collect())
        .collect())
}

/// A song at the model's rate, `end` samples of it.
fn to_model(plan: &Plan, song: &[f32], end: usize) -> Vec<f32> {
    let (host, model) = plan.ratio();
    let mut out = vec![0.0; end];
    if host == model {
        out.iter_mut().zip(song).for_each(|(x, y)| *x = *y);
        return out;
    }
    let reach = Sinc::reach(host, model) as usize;
    let mut padded = vec![0.0; reach];
    padded.extend_from_slice(song);
    padded.resize(reach + (end * host as usize) / model as usize + reach + 2, 0.0);
    Sinc::new(host, model).resample(&padded, -(reach as i64), 0, &mut out);
    out
}

/// Stem samples at the host's rate, `length` of them.
fn to_host(plan: &Plan, samples: &[f32], length: usize) -> Vec<f32> {
    let (host, model) = plan.ratio();
    if host == model {
        return samples[..length].to_vec();
    }
    let reach = Sinc::reach(model, host) as usize;
    let mut padded = vec![0.0; reach];
    padded.extend_from_slice(samples);
    let mut out = vec![0.0; length];
    Sinc::new(model, host).resample(&padded, -(reach as i64), 0, &mut out);
    out
}
