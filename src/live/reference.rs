//! The reference result of a stream, computed over a whole song at once. The live engine is tested against it.

use super::engine::{fade_in, mix};
use super::model::{WindowError, WindowSeparator};
use super::plan::Plan;
use super::sinc::Sinc;
use crate::separator::MaskRule;

/// The sliding-window stems of a song, `[stems][channels][samples]` at the host's rate, aligned with it. `song`: `[channels][samples]` at the
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
    let length = song.iter().map(Vec::len).min().unwrap_or(0);
    let (channels, group, stems) = (song.len(), model.channels().max(1), model.stems());
    let (window, hop) = (plan.window().len(), plan.hop().len());
    let windows = plan.model_needed(length as u64).div_ceil(hop as u64) + 1 + plan.first_hop();
    let end = windows as usize * hop;
    let input: Vec<Vec<f32>> = song.iter().map(|plane| to_model(plan, &plane[..length], end)).collect();

    let mut stem_samples = vec![vec![0f32; end]; stems * channels];
    let mut known = 0i64;
    for k in plan.first_hop()..=windows {
        let (from, until) = (plan.final_model(k - 1).max(0), (k as usize * hop) as i64);
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
