//! The audio thread's half under automation, bypass, panics and failures.

use super::*;
use crate::plugin::params::AutomationTiming;
use crate::plugin::view::RenderFailure;

impl Bench {
    /// Plays the constant 0.5 in blocks of these sizes, with `before` called before each. Returns the left channel.
    fn constant(&mut self, blocks: &[usize], mut before: impl FnMut(&NullsumParams, usize)) -> Vec<f32> {
        let mut output = Vec::new();
        for (number, size) in blocks.iter().enumerate() {
            before(&self.shared.0.params, number);
            let mut planes = [vec![0.5f32; *size], vec![0.5f32; *size]];
            let mut main = planes.each_mut().map(Vec::as_mut_slice);
            let mut transport = Transport::new(44_100.0);
            transport.playing = true;
            self.processor.process_block(&self.shared.0.params, &mut main, &mut [], &transport, None);
            output.extend_from_slice(&planes[0]);
        }
        output
    }

    fn latency(&self) -> usize {
        self.processor.latency() as usize
    }
}

fn set_normalized(param: &impl Param, value: f32) {
    // SAFETY: the parameter is alive.
    unsafe { param.as_ptr()._internal_set_normalized_value(value) };
}

/// Where a signal leaves the value that it has at `from`.
fn first_change(signal: &[f32], from: usize) -> Option<usize> {
    signal.iter().skip(from).position(|x| *x != signal[from]).map(|at| from + at)
}

#[test]
fn automation_is_exact_to_the_sample() {
    // The shims and wrappers split a block where a value changes.
    for cut in [1, 37, 255, 511] {
        let mut bench = Bench::new();
        let latency = bench.latency();
        let mut blocks = vec![512; 2 * latency / 512 + 8];
        let start: usize = blocks.len() / 2;
        blocks.splice(start..=start, [cut, 512 - cut]);
        let output = bench.constant(&blocks, |params, number| {
            if number == start + 1 {
                set_normalized(&params.output, 0.0);
            }
        });
        let drawn = start * 512 + cut;
        assert_eq!(first_change(&output, latency), Some(drawn + latency), "cut {cut}");
    }
}

#[test]
fn automation_can_apply_at_once() {
    let mut bench = Bench::new();
    bench.params.automation.set(AutomationTiming::AtOnce);
    let latency = bench.latency();
    let blocks = vec![512; 2 * latency / 512 + 8];
    let start = latency / 512 + 4;
    let output = bench.constant(&blocks, |params, number| {
        if number == start {
            set_normalized(&params.output, 0.0);
        }
    });
    assert_eq!(first_change(&output, latency), Some(start * 512));
}

#[test]
fn bypass_applies_at_once() {
    let mut bench = Bench::new();
    let latency = bench.latency();
    set_normalized(&bench.params.output, 0.0);
    let blocks = vec![512; 2 * latency / 512 + 16];
    let start = latency / 512 + 4;
    let output = bench.constant(&blocks, |params, number| {
        if number == start {
            set_normalized(&params.bypass, 1.0);
        }
    });
    assert!(output[..start * 512].iter().all(|x| *x == 0.0));
    // After the ramp of the output gain.
    assert!(output[start * 512 + 1_024..].iter().all(|x| *x == 0.5));
}

#[test]
fn after_a_panic_the_output_is_the_delayed_input() {
    for after_input in [false, true] {
        let mut bench = Bench::new();
        let latency = bench.latency();
        for _ in 0..latency / 512 + 4 {
            assert!(bench.block());
        }
        bench.processor.panic_next = Some(after_input);
        let whole = bench.block();
        assert!(whole || after_input, "input that was not taken yet is not lost");
        for block in 0..2 * latency / 512 {
            assert!(bench.block(), "block {block} after the panic");
        }
        let start = Instant::now();
        while !matches!(&bench.view().model, ModelView::Unplanned(reason) if reason.contains("Internal error"))
        {
            assert!(start.elapsed() < LOAD_TIMEOUT, "{:?}", bench.view());
            bench.send(ControlCommand::Reconcile);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn changing_the_tier_while_playing_neither_clicks_nor_mutes() {
    let mut bench = Bench::new();
    bench.play_until_ready();
    let tone = |at: usize| 0.4 * (at as f32 * 0.03).sin();
    for tier in [TierChoice::High, TierChoice::Low] {
        // Past what was not played before the last change.
        for _ in 0..bench.latency() / 512 + 2 {
            bench.block();
        }
        let before = bench.latency();
        set(&bench.params.tier, tier);
        let (mut output, mut after) = (Vec::new(), 0);
        while after < 2 * bench.latency() / 512 + 20 {
            assert!(output.len() < 60 * 44_100, "{:?}", bench.view());
            let mut planes =
                [(); 2].map(|()| (bench.position..bench.position + 512).map(tone).collect::<Vec<_>>());
            bench.position += 512;
            let mut main = planes.each_mut().map(Vec::as_mut_slice);
            let mut transport = Transport::new(44_100.0);
            transport.playing = true;
            bench.processor.process_block(&bench.shared.0.params, &mut main, &mut [], &transport, None);
            output.extend_from_slice(&planes[0]);
            after += usize::from(bench.latency() != before);
            std::thread::sleep(Duration::from_millis(11));
        }
        // The tone, and the crossfade of 20 ms between two of its phases.
        let largest = 0.4 * 0.03 + 0.8 / 882.0 + 1e-4;
        let step = output.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
        assert!(step <= largest, "{tier:?}: a step of {step}");
        let is_loud = |window: &[f32]| window.iter().any(|x| x.abs() > 0.39);
        // The two phases may cancel for a moment.
        let quiet = output.chunks_exact(1024).filter(|window| !is_loud(window)).count();
        assert!(quiet <= 2, "{tier:?}: quiet for {quiet} times 23 ms");
    }
}

/// A model that always fails.
struct Failing;

impl crate::live::WindowSeparator for Failing {
    fn stems(&self) -> usize {
        4
    }

    fn channels(&self) -> usize {
        2
    }

    fn timing(&self) -> crate::live::ModelTiming {
        let [chunk, frame_hop, frame] = [65_536, 1024, 2048].map(crate::live::ModelSamples);
        crate::live::ModelTiming { rate: 44_100, chunk, frame_hop, frame, context: None }
    }

    fn separate_window(
        &mut self,
        _window: &[f32],
        _rule: crate::separator::MaskRule,
        _out: &mut [f32],
    ) -> Result<(), crate::live::WindowError> {
        Err(crate::live::WindowError("as a test asked".into()))
    }
}

#[test]
fn an_incomplete_render_is_reported() {
    let mut bench = Bench::new();
    bench.play_until_ready();
    set(&bench.params.render, RenderMode::Offline);
    bench.constant(&[512; 8], |_, _| {});
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(bench.view().render_failure, None, "a complete render");
    let failing = crate::live::SharedModel::new(Box::new(Failing)).with_stems_at(&[0, 1, 2, 3], 6);
    bench.stream_state.lock().stream.as_ref().unwrap().swap(Some(failing)).unwrap();
    bench.constant(&[512; 64], |_, _| {});
    let start = Instant::now();
    while bench.view().render_failure != Some(RenderFailure::Model) {
        assert!(start.elapsed() < LOAD_TIMEOUT, "{:?}", bench.view().render_failure);
        bench.constant(&[512; 4], |_, _| {});
        std::thread::sleep(Duration::from_millis(20));
    }
    bench.send(ControlCommand::DismissRenderFailure);
    set(&bench.params.render, RenderMode::Realtime);
}

#[test]
fn a_block_that_says_offline_waits_without_an_announced_activation() {
    let bench = Bench::new();
    set(&bench.params.render, RenderMode::Auto);
    let mut bench = bench;
    {
        let shared = bench.shared.0.clone();
        let _call = shared.host_call.begin(512, Some(true));
        bench.constant(&[512], |_, _| {});
    }
    assert!(bench.offline.load(Relaxed));
    assert!(bench.host_announces_offline());
    {
        let shared = bench.shared.0.clone();
        let _call = shared.host_call.begin(512, None);
        bench.constant(&[512], |_, _| {});
    }
    assert!(!bench.offline.load(Relaxed), "the next block is played");
}

#[test]
fn once_a_host_has_announced_its_speed_says_nothing() {
    for announced in [false, true] {
        let mut bench = Bench::new();
        bench.play_until_ready();
        set(&bench.params.render, RenderMode::Auto);
        bench.processor.reset();
        if announced {
            bench.note_offline_announced();
        }
        // As fast as possible: a render, by its speed.
        let found = (0..400).any(|_| {
            bench.constant(&[512], |_, _| {});
            bench.offline.load(Relaxed)
        });
        assert_eq!(found, !announced);
    }
}
