//! Fake models, small plans, and a host that feeds blocks.

use nullsum::live::plan::Deadline;
use nullsum::live::{
    Client, Engine, HostSamples, ModelSamples, ModelTiming, Plan, PlanRequest, SharedModel, StemPlanes,
    WindowError, WindowSeparator,
};
use nullsum::separator::MaskRule;

pub const MODEL_RATE: u32 = 44_100;

/// 10 ms of lookahead and hops of 20 ms: short, so that tests are fast.
pub fn plan(host_rate: u32, max_block: u64) -> Plan {
    Plan::new(PlanRequest {
        host_rate,
        model_rate: MODEL_RATE,
        window: ModelSamples(2_205),
        hop: ModelSamples(882),
        lookahead: ModelSamples(441),
        fade: ModelSamples(220),
        deadline: Deadline::WholeHop,
        max_block: HostSamples(max_block),
        context: None,
    })
    .unwrap()
}

type Rule = Box<dyn FnMut(&[f32], &mut [f32]) -> Result<(), WindowError> + Send>;

/// A model made of a closure from window to stems, both flat.
pub struct Fake {
    stems: usize,
    channels: usize,
    rule: Rule,
}

impl Fake {
    pub fn new(
        stems: usize,
        channels: usize,
        rule: impl FnMut(&[f32], &mut [f32]) -> Result<(), WindowError> + Send + 'static,
    ) -> Self {
        Self { stems, channels, rule: Box::new(rule) }
    }

    pub fn shared(self) -> SharedModel {
        SharedModel::new(Box::new(self))
    }
}

impl WindowSeparator for Fake {
    fn stems(&self) -> usize {
        self.stems
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn timing(&self) -> ModelTiming {
        ModelTiming {
            rate: MODEL_RATE,
            chunk: ModelSamples(88_200),
            frame_hop: ModelSamples(441),
            frame: ModelSamples(2_048),
            context: None,
        }
    }

    fn separate_window(&mut self, window: &[f32], _: MaskRule, out: &mut [f32]) -> Result<(), WindowError> {
        (self.rule)(window, out)
    }
}

/// Stem n is the window times weight n.
pub fn fixed_split(weights: &'static [f32], channels: usize) -> Fake {
    Fake::new(weights.len(), channels, move |window, out| {
        for (stem, w) in out.chunks_exact_mut(window.len()).zip(weights) {
            stem.iter_mut().zip(window).for_each(|(y, x)| *y = w * x);
        }
        Ok(())
    })
}

/// Stems that depend on the level of the whole window, so that two windows never agree.
pub fn level_dependent(stems: usize, channels: usize) -> Fake {
    Fake::new(stems, channels, move |window, out| {
        let level = window.iter().map(|x| x.abs()).sum::<f32>() / window.len() as f32;
        for (n, stem) in out.chunks_exact_mut(window.len()).enumerate() {
            stem.iter_mut().zip(window).for_each(|(y, x)| *y = x * (level + 0.3 * n as f32) - 0.1 * x * x);
        }
        Ok(())
    })
}

/// Deterministic noise within ±`peak`.
pub fn noise(seed: u32, samples: usize, peak: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    (0..samples)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            peak * (state as f32 / u32::MAX as f32 * 2.0 - 1.0)
        })
        .collect()
}

/// The same noise on the grid of 2⁻²³.
pub fn noise_24(seed: u32, samples: usize, peak: f32) -> Vec<f32> {
    let step = (1u32 << 23) as f32;
    noise(seed, samples, peak).into_iter().map(|x| (x * step).round() / step).collect()
}

/// Random block sizes up to `most`.
pub fn random_blocks(seed: u32, most: usize) -> impl FnMut() -> usize {
    let sizes = noise(seed, 997, 1.0);
    let mut next = 0;
    move || {
        next += 1;
        // Small ones are as likely as large ones.
        let x = 0.5 * (sizes[next % sizes.len()] + 1.0);
        ((most as f32).powf(x) as usize).clamp(1, most)
    }
}

/// Output: main [channels][samples], stems [stems][channels][samples].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Out {
    pub main: Vec<Vec<f32>>,
    pub stems: Vec<Vec<Vec<f32>>>,
}

/// A host: calls `process` with blocks of main and stem planes, and collects the output.
pub fn feed(
    input: &[Vec<f32>],
    stems: usize,
    block: &mut dyn FnMut() -> usize,
    process: &mut dyn FnMut(&mut [&mut [f32]], &mut StemPlanes),
) -> Out {
    let (channels, total) = (input.len(), input[0].len());
    let mut out = Out { main: vec![Vec::new(); channels], stems: vec![vec![Vec::new(); channels]; stems] };
    let mut at = 0;
    while at < total {
        let n = block().min(total - at);
        let mut main: Vec<Vec<f32>> = input.iter().map(|plane| plane[at..at + n].to_vec()).collect();
        let mut buses = vec![vec![f32::NAN; n]; stems * channels];
        let mut views: Vec<&mut [f32]> = buses.iter_mut().map(Vec::as_mut_slice).collect();
        process(
            &mut main.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(),
            &mut StemPlanes { planes: &mut views, channels },
        );
        for (to, from) in out.main.iter_mut().zip(&main) {
            to.extend_from_slice(from);
        }
        for (to, from) in out.stems.iter_mut().flatten().zip(&buses) {
            to.extend_from_slice(from);
        }
        at += n;
    }
    out
}

/// A host with a worker that is always on time.
pub fn feed_on_time(
    client: &mut Client,
    engine: &mut Engine,
    input: &[Vec<f32>],
    stems: usize,
    block: &mut dyn FnMut() -> usize,
) -> Out {
    feed(input, stems, block, &mut |main, buses| {
        client.process(main, buses);
        engine.run_until_idle();
    })
}

/// `signal` delayed, cut to its original length.
pub fn delayed(signal: &[f32], by: u64) -> Vec<f32> {
    let by = (by as usize).min(signal.len());
    [&vec![0.0; by][..], &signal[..signal.len() - by]].concat()
}

pub fn bits(signal: &[f32]) -> Vec<u32> {
    signal.iter().map(|x| x.to_bits()).collect()
}

/// `signal` followed by enough silence to flush the stream.
pub fn with_tail(signal: &[f32], latency: u64) -> Vec<f32> {
    [signal, &vec![0.0; latency as usize]].concat()
}

/// A model of many layers that each take a while, and between which it can be cancelled.
pub struct Cancellable {
    pub layers: usize,
    pub layer: std::time::Duration,
}

impl Cancellable {
    pub fn shared(self) -> SharedModel {
        SharedModel::new(Box::new(self))
    }
}

impl WindowSeparator for Cancellable {
    fn stems(&self) -> usize {
        1
    }

    fn channels(&self) -> usize {
        1
    }

    fn timing(&self) -> ModelTiming {
        Fake::new(1, 1, |_, _| Ok(())).timing()
    }

    fn separate_window(&mut self, _: &[f32], _: MaskRule, _: &mut [f32]) -> Result<(), WindowError> {
        Ok(())
    }

    fn separate_controlled(
        &mut self,
        _: &[f32],
        _: MaskRule,
        _: &mut [f32],
        control: &dyn nullsum::kernels::JobControl,
    ) -> Result<(), WindowError> {
        for _ in 0..self.layers {
            if control.checkpoint().is_break() {
                return Err(WindowError("cancelled".into()));
            }
            std::thread::sleep(self.layer);
        }
        Ok(())
    }
}
