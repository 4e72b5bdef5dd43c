//! Client and engine together, with work that takes a simulated time.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::super::client::{NoStems, StemPlanes};
use super::super::model::{WindowError, WindowSeparator};
use super::super::plan::{Deadline, HostSamples, ModelSamples, ModelTiming, PlanRequest, Tier};
use super::super::{Client, Stream};
use super::*;
use crate::separator::MaskRule;

/// Stems that differ as much as possible from window to window: all of the input, and none of it.
struct Alternating(bool);

impl WindowSeparator for Alternating {
    fn stems(&self) -> usize {
        1
    }

    fn channels(&self) -> usize {
        1
    }

    fn timing(&self) -> ModelTiming {
        embedded()
    }

    fn separate_window(&mut self, window: &[f32], _: MaskRule, out: &mut [f32]) -> Result<(), WindowError> {
        self.0 = !self.0;
        out.fill(0.0);
        if self.0 {
            out.copy_from_slice(window);
        }
        Ok(())
    }
}

fn embedded() -> ModelTiming {
    let [chunk, frame_hop, frame] = [65_536, 1024, 2048].map(ModelSamples);
    ModelTiming { rate: 44_100, chunk, frame_hop, frame, context: None }
}

/// A worker that takes its time, in samples of the host.
struct SlowWorker {
    engine: Engine,
    running: Option<(Work, Outcome, u64)>,
}

impl SlowWorker {
    /// Works until position `now`; a window that begins takes `cost`. Begins nothing while `asleep`.
    fn work(&mut self, now: u64, cost: u64, asleep: bool) {
        loop {
            match self.running.take() {
                Some((work, outcome, done)) if done <= now => {
                    self.engine.finish(work, outcome);
                }
                Some(running) => {
                    self.running = Some(running);
                    return;
                }
                None if asleep => return,
                None => match self.engine.begin() {
                    Begun::Step(Step::Idle) => return,
                    Begun::Step(_) => {}
                    Begun::Work(mut work) => {
                        let outcome = work.run(&(), || ());
                        self.running = Some((work, outcome, now + cost));
                    }
                },
            }
        }
    }
}

/// The only stem of constant input through `plan`, once around `late` samples and with windows of `cost` samples.
fn stem_of(plan: &Plan, block: usize, late: u64, cost: u64, seconds: f64) -> (Vec<f32>, u64) {
    let (mut client, engine) = Stream::manual(plan, 1, 1);
    client.set_carrier(None);
    let mut worker = SlowWorker { engine, running: None };
    worker.engine.swap(Some(SharedModel::new(Box::new(Alternating(false))))).unwrap();
    let total = (seconds * f64::from(plan.host_rate())) as u64;
    // Long after all is in order.
    let begins = plan.latency().0 + 3 * plan.parts().hop.0;
    let (mut fed, mut stem) = (0, Vec::new());
    while fed < total {
        let (mut main, mut bus) = (vec![0.5f32; block], vec![0.0f32; block]);
        client.process(&mut [&mut main[..]], &mut StemPlanes { planes: &mut [&mut bus[..]], channels: 1 });
        assert!(main.iter().all(|x| *x == 0.5 || *x == 0.0));
        stem.extend(bus);
        fed += block as u64;
        worker.work(fed, cost, (begins..begins + late).contains(&fed));
    }
    (stem, client.status().late_windows())
}

fn largest_step(stem: &[f32]) -> f32 {
    stem.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max)
}

#[test]
fn no_lateness_and_no_cost_makes_a_step_larger_than_two_fades() {
    let mut any_late = 0;
    for tier in Tier::ALL {
        for (rate, block) in [(44_100, 37), (48_000, 256)] {
            let plan = Plan::new(tier.request(&embedded(), rate, HostSamples(block as u64))).unwrap();
            let (hop, lookahead) = (plan.parts().hop.0, plan.parts().lookahead.0);
            // From one sample late to beyond the provisional stems, and windows from free to slower than real time.
            for late in [0, 1, 64, hop / 8, hop / 2, hop - 40, hop + 100, hop + lookahead, 5 * hop / 2] {
                for cost in [0, 32, 500, hop / 4, 3 * hop / 4, hop + hop / 8] {
                    let late = late + plan.parts().deadline.0 + plan.parts().block.0 - cost.min(hop);
                    let seconds = (plan.latency().0 + 12 * hop + late) as f64 / f64::from(rate);
                    let (stem, late_hops) = stem_of(&plan, block, late, cost, seconds);
                    any_late += late_hops;
                    // The client fades over so many samples, the engine between windows too.
                    let fade = plan.fade().0.min(hop).min(lookahead) as f32;
                    // After the resampler's response to the input's own beginning.
                    let step = largest_step(&stem[plan.latency().len() + 400..]);
                    assert!(
                        step < 0.5 * 2.2 / fade,
                        "{tier} {rate}: late {late}, cost {cost}: {step}, fade {fade}"
                    );
                }
            }
        }
    }
    assert!(any_late > 100, "{any_late}");
}

fn short_plan() -> Plan {
    Plan::new(PlanRequest {
        host_rate: 44_100,
        model_rate: 44_100,
        window: ModelSamples(8_192),
        hop: ModelSamples(1_024),
        lookahead: ModelSamples(1_024),
        fade: ModelSamples(512),
        deadline: Deadline::WholeHop,
        max_block: HostSamples(256),
        context: None,
    })
    .unwrap()
}

fn feed(client: &mut Client, engine: &mut Engine, value: f32, samples: usize) {
    for _ in 0..samples / 256 {
        client.process(&mut [&mut [value; 256][..]], &mut NoStems);
        engine.run_until_idle();
    }
}

#[test]
fn silence_costs_nothing_and_is_not_averaged() {
    let (mut client, mut engine) = Stream::manual(&short_plan(), 1, 1);
    engine.swap(Some(SharedModel::new(Box::new(Alternating(false))))).unwrap();
    feed(&mut client, &mut engine, 0.0, 20_480);
    assert_eq!((engine.cost.count(), client.status().cost_percentile()), (0, None));
    feed(&mut client, &mut engine, 0.5, 20_480);
    let (count, average) = (engine.cost.count(), engine.cost.average());
    assert!(count > 10 && average.is_some());
    feed(&mut client, &mut engine, 0.0, 81_920);
    let silent_windows = 81_920 / 1_024 - 8;
    assert!(engine.cost.count() < count + 20 && client.status().windows() > count as u64 + silent_windows);
}

#[test]
fn a_suspended_stream_runs_only_probes_and_publishes_nothing() {
    let (mut client, mut engine) = Stream::manual(&short_plan(), 1, 1);
    client.set_carrier(None);
    engine.swap(Some(SharedModel::new(Box::new(Alternating(false))))).unwrap();
    feed(&mut client, &mut engine, 0.5, 20_480);
    engine.set_suspended(true);
    assert_eq!(client.status().state(), State::TooSlow);
    let (windows, until) = (client.status().windows(), engine.available.until);
    feed(&mut client, &mut engine, 0.5, 20_480);
    assert_eq!(client.status().windows(), windows);
    engine.request_probe();
    feed(&mut client, &mut engine, 0.5, 20_480);
    assert_eq!((client.status().windows(), engine.available.until), (windows + 1, until));
    let mut bus = [1.0; 256];
    client.process(&mut [&mut [0.5; 256][..]], &mut StemPlanes { planes: &mut [&mut bus[..]], channels: 1 });
    assert_eq!(bus, [0.0; 256]);
    engine.set_suspended(false);
    feed(&mut client, &mut engine, 0.5, 20_480);
    assert_eq!(client.status().state(), State::Running);
    assert!(engine.available.until > until);
}

/// Fails while it is told to.
struct Unreliable(Arc<AtomicBool>);

impl WindowSeparator for Unreliable {
    fn stems(&self) -> usize {
        1
    }

    fn channels(&self) -> usize {
        1
    }

    fn timing(&self) -> ModelTiming {
        embedded()
    }

    fn separate_window(&mut self, _: &[f32], _: MaskRule, _: &mut [f32]) -> Result<(), WindowError> {
        if self.0.load(Relaxed) { Err(WindowError("out of memory".into())) } else { Ok(()) }
    }
}

#[test]
fn a_failed_probe_of_a_suspended_stream_is_forgotten_with_the_next_one() {
    let (mut client, mut engine) = Stream::manual(&short_plan(), 1, 1);
    let fails = Arc::new(AtomicBool::new(true));
    engine.swap(Some(SharedModel::new(Box::new(Unreliable(fails.clone()))))).unwrap();
    engine.set_suspended(true);
    engine.request_probe();
    feed(&mut client, &mut engine, 0.5, 20_480);
    let seen = |client: &Client| (client.status().state(), client.status().message());
    assert_eq!(seen(&client), (State::Failing, Some("out of memory".into())));
    fails.store(false, Relaxed);
    engine.request_probe();
    feed(&mut client, &mut engine, 0.5, 20_480);
    assert_eq!(seen(&client), (State::TooSlow, None));
}

#[test]
fn rings_are_allocated_for_the_stems_of_the_model_only() {
    let (_client, mut engine) = Stream::manual(&short_plan(), 12, 2);
    let allocated = |engine: &Engine| (0..24).filter(|c| engine.shared.is_allocated(*c)).collect::<Vec<_>>();
    assert!(allocated(&engine).is_empty());
    let model = SharedModel::new(Box::new(Alternating(false)));
    engine.swap(Some(model.with_stems_at(&[3], 12))).unwrap();
    assert_eq!(allocated(&engine), [6, 7]);
    // The stems of a model that has gone fade out on their rings.
    engine.swap(Some(model.with_stems_at(&[5], 12))).unwrap();
    assert_eq!(allocated(&engine), [6, 7, 10, 11]);
}

#[test]
fn a_new_client_carries_the_input_of_the_old_one_over() {
    let short = short_plan();
    let long = Plan::new(PlanRequest { lookahead: ModelSamples(3_072), ..*short.request() }).unwrap();
    for (from, to) in [(&short, &long), (&long, &short)] {
        let (mut old, _) = Stream::manual(from, 1, 1);
        let (mut new, mut engine) = Stream::manual(to, 1, 1);
        new.set_carrier(None);
        engine.swap(Some(SharedModel::new(Box::new(Alternating(false))))).unwrap();
        engine.run_until_idle();
        let sample = |i: usize| ((i * 7_919) % 1_000) as f32 / 1_000.0 + 0.001;
        let mut fed = 0;
        let mut block = |client: &mut Client| {
            let mut main: Vec<f32> = (fed..fed + 256).map(sample).collect();
            let mut bus = vec![0.0; 256];
            client
                .process(&mut [&mut main[..]], &mut StemPlanes { planes: &mut [&mut bus[..]], channels: 1 });
            fed += 256;
            (main, bus, fed)
        };
        for _ in 0..60 {
            block(&mut old);
        }
        new.carry_over(&old);
        let mut any_stem = false;
        for _ in 0..60 {
            engine.run_until_idle();
            let (main, bus, fed) = block(&mut new);
            let expected: Vec<f32> = (fed - 256..fed).map(|i| sample(i - to.latency().len())).collect();
            assert_eq!(main, expected);
            any_stem |= bus.iter().any(|x| *x != 0.0);
        }
        assert!(any_stem);
        // Only a client that has played nothing takes it over.
        let origin = new.latency();
        new.carry_over(&old);
        let (main, _, fed) = block(&mut new);
        assert_eq!(main[0], sample(fed - 256 - origin.len()));
    }
}
