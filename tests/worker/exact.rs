//! A worker gives the bits that this process gives.

use std::time::{Duration, Instant};

use nullsum::live::{
    HostSamples, NoStems, Plan, Scheduler, SharedModel, StemPlanes, Stream, Tier, WindowSeparator, WindowSpec,
};
use nullsum::separator::{ContextPlan, MaskRule};

use crate::support::*;

#[test]
fn windows_have_the_bits_of_this_process() {
    let workers = Workers::new();
    let (mut remote, mut local) = (workers.load().unwrap(), local());
    assert_eq!(remote.stem_names(), WindowSeparator::stem_names(&local));
    assert_eq!(remote.timing(), WindowSeparator::timing(&local));
    assert!(remote.runs_on().starts_with("worker: cpu"), "{}", remote.runs_on());
    for (seed, samples, rule) in
        [(1, 5_000, MaskRule::Complete), (2, 44_100, MaskRule::Plain), (3, 200_000, MaskRule::Complete)]
    {
        let window = noise(seed, samples * 2);
        let length = window.len() * remote.stems();
        let (mut expected, mut found) = (vec![0.0; length], vec![0.0; length]);
        local.separate_window(&window, rule, &mut expected).unwrap();
        remote.separate_window(&window, rule, &mut found).unwrap();
        assert!(bits(&expected) == bits(&found), "{samples} samples");
    }
    let error = remote.separate_window(&[0.0; 7], MaskRule::Plain, &mut [0.0; 7]).unwrap_err();
    assert!(error.to_string().contains("channels of equal length"), "{error}");
    let short = remote.separate_window(&[0.5; 8], MaskRule::Plain, &mut vec![0.0; 8 * remote.stems()]);
    assert!(short.unwrap_err().to_string().contains("samples"), "too short for the transform");
}

#[test]
fn hops_have_the_bits_of_this_process() {
    let workers = Workers::new();
    let (mut remote, mut local) = (workers.load().unwrap(), local());
    let timing = remote.timing().context.unwrap();
    let plan =
        ContextPlan { hop_frames: 2, lookahead_frames: 2, context_frames: 24, ..ContextPlan::default() };
    let (mut there, mut here) = (remote.new_stream(&plan).unwrap(), local.new_stream(&plan).unwrap());
    for (hop, frames) in [3, 1, 2, 9, 1, 1, 70, 2].into_iter().enumerate() {
        let wanted = timing.samples_for(here.final_frames() + (frames + plan.lookahead_frames) as u64);
        let new = (wanted - here.received_samples()) as usize;
        // Silence in the middle, so that the context is emptied.
        let input = if hop == 6 { vec![0.0; new * 2] } else { noise(hop as u64 + 10, new * 2) };
        // The input may come in any pieces.
        for state in [&mut there, &mut here] {
            state.push(&input).unwrap();
            assert_eq!(state.ready_frames(), frames as u64);
        }
        local.separate_hop(&mut here, frames, MaskRule::Complete, &()).unwrap();
        remote.separate_hop(&mut there, frames, MaskRule::Complete, &()).unwrap();
        let (found, expected) = (there.output(), here.output());
        assert_eq!(found.first_sample(), expected.first_sample());
        assert_eq!(found.is_silent(), expected.is_silent(), "hop {hop}");
        for (stem, channel) in (0..remote.stems()).flat_map(|stem| [(stem, 0), (stem, 1)]) {
            let of = |output: nullsum::separator::HopOutput<'_>| {
                (bits(output.final_samples(stem, channel)), bits(output.provisional_samples(stem, channel)))
            };
            assert!(of(found) == of(expected), "hop {hop}, stem {stem}");
        }
        assert_eq!(there.final_frames(), here.final_frames());
    }
    let too_large = ContextPlan { memory_budget: 1, ..plan };
    assert!(remote.new_stream(&too_large).unwrap_err().to_string().contains("bytes"));
    let mut foreign = local.new_stream(&plan).unwrap();
    foreign.push(&[0.5; 40_000]).unwrap();
    assert!(remote.separate_hop(&mut foreign, 1, MaskRule::Plain, &()).is_err(), "a stream of this process");
}

#[test]
fn a_cancelled_hop_can_be_repeated() {
    let workers = Workers::new();
    let mut remote = workers.load().unwrap();
    let plan = ContextPlan::default();
    let mut state = remote.new_stream(&plan).unwrap();
    state.push(&noise(1, 400_000)).unwrap();
    let frames = state.ready_frames() as usize;
    let error = remote.separate_hop(&mut state, frames, MaskRule::Complete, &cancels_after(1)).unwrap_err();
    assert!(error.to_string().contains("cancelled"), "{error}");
    let ready = state.ready_frames() as usize;
    assert!(ready > 0);
    remote.separate_hop(&mut state, ready, MaskRule::Complete, &()).unwrap();
    assert_eq!(state.ready_frames(), 0);
}

/// Plays a song with gains, waiting for all stems.
fn render(model: SharedModel, plan: &Plan, song: &[Vec<f32>]) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let (stems, scheduler) = (model.stems(), Scheduler::new().unwrap());
    let (mut client, stream) = Stream::open(plan, stems, 2, &scheduler);
    stream.swap(Some(model)).unwrap();
    client.set_gain(0, 0, 0.25);
    client.set_gain(1, 1, 1.5);
    let mut main = song.to_vec();
    let mut planes = vec![vec![0.0; song[0].len()]; stems * 2];
    for at in (0..song[0].len()).step_by(512) {
        let range = at..(at + 512).min(song[0].len());
        let mut views: Vec<&mut [f32]> = planes.iter_mut().map(|plane| &mut plane[range.clone()]).collect();
        let mut block: Vec<&mut [f32]> = main.iter_mut().map(|plane| &mut plane[range.clone()]).collect();
        client
            .process_blocking(&mut block, &mut StemPlanes { planes: &mut views, channels: 2 }, LONG)
            .unwrap();
    }
    (main, planes)
}

#[test]
fn a_render_through_the_worker_equals_one_in_this_process() {
    let workers = Workers::new();
    let song = vec![noise(5, 120_000), noise(6, 120_000)];
    for tier in [Tier::Live, Tier::Balanced] {
        let here = SharedModel::new(Box::new(local()));
        let (there, _) = workers.shared(Default::default());
        assert_eq!(there.remote_device(), Some("cpu"));
        let plan = Plan::new(tier.request(&here.timing(), 44_100, HostSamples(512))).unwrap();
        let (expected, found) = (render(here, &plan, &song), render(there, &plan, &song));
        assert!(expected.0.iter().zip(&found.0).all(|(a, b)| bits(a) == bits(b)), "{tier:?}: main");
        assert!(expected.1.iter().zip(&found.1).all(|(a, b)| bits(a) == bits(b)), "{tier:?}: stems");
        assert!(expected.1[0].iter().any(|x| *x != 0.0));
    }
}

#[test]
fn repeated_windows_through_the_worker_equal_those_in_this_process() {
    let workers = Workers::new();
    let song = vec![noise(7, 60_000), noise(8, 60_000)];
    let here = SharedModel::new(Box::new(local()));
    let (there, _) = workers.shared(Default::default());
    let window = WindowSpec { window: 0.4, hop: 0.1, lookahead: 0.05 }.clamped();
    let mut request = window.request(&here.timing(), 48_000, HostSamples(512));
    request.context = None;
    let plan = Plan::new(request).unwrap();
    let (expected, found) = (render(here, &plan, &song), render(there, &plan, &song));
    assert!(expected.0.iter().zip(&found.0).all(|(a, b)| bits(a) == bits(b)));
}

#[test]
fn unity_is_the_delayed_input() {
    let workers = Workers::new();
    let (model, _) = workers.shared(Default::default());
    let plan = Plan::new(Tier::Live.request(&model.timing(), 48_000, HostSamples(256))).unwrap();
    let scheduler = Scheduler::new().unwrap();
    let (mut client, stream) = Stream::open(&plan, model.stems(), 2, &scheduler);
    stream.swap(Some(model)).unwrap();
    let song = [noise(9, 48_000), noise(10, 48_000)];
    let mut main = song.to_vec();
    let started = Instant::now();
    for at in (0..48_000).step_by(256) {
        let mut block: Vec<&mut [f32]> =
            main.iter_mut().map(|plane| &mut plane[at..(at + 256).min(48_000)]).collect();
        client.process(&mut block, &mut NoStems);
        let due = started + Duration::from_secs_f64(at as f64 / 48_000.0);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    wait_until("a window has run", || client.status().windows() > 0);
    let latency = plan.latency().0 as usize;
    for (out, sent) in main.iter().zip(&song) {
        assert!(bits(&out[latency..]) == bits(&sent[..48_000 - latency]));
    }
}
