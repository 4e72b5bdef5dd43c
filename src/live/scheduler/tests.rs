//! The scheduler in virtual time, with real streams and simulated work.

use std::collections::HashMap;

use super::super::Client;
use super::super::client::NoStems;
use super::super::executor::{Running, lane_for};
use super::super::model::{WindowError, WindowSeparator};
use super::super::plan::{Deadline, HostSamples, ModelSamples, ModelTiming, Plan, PlanRequest, Tier};
use super::super::shared::Shared;
use super::super::status::State;
use super::super::work::Outcome;
use super::*;
use crate::kernels::LANES;
use crate::separator::MaskRule;

#[test]
fn the_earliest_deadline_is_served_first() {
    let now = Instant::now();
    let due = [None, Some(0.5), Some(-0.1), Some(0.2), None];
    let order = |due: &[Option<f64>]| -> Vec<usize> {
        let due = due.iter().map(|s| s.map(|s| deadline(now, s)));
        by_deadline(due).into_iter().map(|(_, index)| index).collect()
    };
    assert_eq!(order(&due), [2, 3, 1]);
    assert_eq!(order(&[None, None]), [0; 0]);
    assert_eq!(order(&[Some(0.1), Some(0.1)]), [0, 1]);
    assert_eq!(order(&[Some(f64::INFINITY), Some(1.0)]), [1, 0]);
}

/// Never run: its cost is simulated.
struct NeverRun;

impl WindowSeparator for NeverRun {
    fn stems(&self) -> usize {
        1
    }

    fn channels(&self) -> usize {
        1
    }

    fn timing(&self) -> ModelTiming {
        let some = ModelSamples(64);
        ModelTiming { rate: 44_100, chunk: ModelSamples(88_200), frame_hop: some, frame: some, context: None }
    }

    fn separate_window(&mut self, _: &[f32], _: MaskRule, _: &mut [f32]) -> Result<(), WindowError> {
        Ok(())
    }
}

/// Tasks of a simulated window, after each of which it can pause.
const TASKS: u32 = 200;

/// A job that runs, and what it still needs.
struct Simulated {
    running: Running,
    job: Job,
    cost: Duration,
    left: Duration,
}

impl Simulated {
    /// What the present task still needs.
    fn left_of_task(&self) -> Duration {
        let task = (self.cost / TASKS).as_nanos().max(1);
        Duration::from_nanos((self.left.as_nanos() % task) as u64)
    }
}

/// A single processor in virtual time. Jobs take the cost of their stream. Those of several lanes share the processor until a task of a lower
/// lane has ended, which then pauses.
#[derive(Default)]
struct Processor {
    now: Option<Instant>,
    costs: HashMap<u64, Duration>,
    lanes: [Option<Simulated>; LANES],
    finished: Vec<Finished>,
    /// Time spent in each stream's jobs.
    spent: HashMap<u64, Duration>,
}

impl Processor {
    fn lane_for(&self, urgency: Urgency, model: &SharedModel) -> Option<usize> {
        // The same rule as on the real one.
        lane_for(self.lanes.iter().map(|job| job.as_ref().map(|job| &job.running)), urgency, model)
    }

    fn start(&mut self, job: Job) {
        let cost = self.costs.get(&job.stream).copied().unwrap_or_default();
        let lane = self.lane_for(job.urgency, &job.work.model).expect("it was accepted");
        self.lanes[lane] = Some(Simulated { running: Running::new(&job), job, cost, left: cost });
    }

    /// For each lane that does not pause, the work up to its end or, below another one, up to its pause.
    fn steps(&self) -> [Option<Duration>; LANES] {
        let top = self.lanes.iter().rposition(Option::is_some);
        std::array::from_fn(|lane| {
            let job = self.lanes[lane].as_ref()?;
            if Some(lane) == top {
                return Some(job.left);
            }
            Some(job.left_of_task()).filter(|left| !left.is_zero())
        })
    }

    /// How many jobs share the processor.
    fn sharing(&self) -> u32 {
        self.steps().iter().flatten().count().max(1) as u32
    }

    /// When something happens next.
    fn next_event(&self) -> Option<Instant> {
        Some(self.now? + self.steps().into_iter().flatten().min()? * self.sharing())
    }

    fn advance(&mut self, to: Instant) {
        while let Some(event) = self.next_event().filter(|event| *event <= to) {
            self.spend(event);
            for lane in &mut self.lanes {
                if let Some(Simulated { job, cost, .. }) = lane.take_if(|job| job.left.is_zero()) {
                    let outcome = Outcome::Done { seconds: Some(cost.as_secs_f64()) };
                    self.finished.push(Finished { stream: job.stream, work: job.work, outcome });
                }
            }
        }
        self.spend(to);
    }

    fn spend(&mut self, to: Instant) {
        let elapsed = self.now.map_or(Duration::ZERO, |now| to.saturating_duration_since(now));
        let (steps, share) = (self.steps(), elapsed / self.sharing());
        for (job, _) in self.lanes.iter_mut().zip(steps).filter(|(_, step)| step.is_some()) {
            if let Some(job) = job {
                job.left = job.left.saturating_sub(share);
                *self.spent.entry(job.job.stream).or_default() += share;
            }
        }
        self.now = Some(to);
    }
}

#[derive(Clone, Default)]
struct SimulatedExecutor(Arc<Mutex<Processor>>);

impl Executor for SimulatedExecutor {
    fn accepts(&self, urgency: Urgency, model: &SharedModel) -> bool {
        self.0.lock().lane_for(urgency, model).is_some()
    }

    fn start(&mut self, job: Job) {
        self.0.lock().start(job);
    }

    fn join(&mut self, _: Instant) -> bool {
        true
    }
}

fn plan(hop: u64, block: u64) -> Plan {
    Plan::new(PlanRequest {
        host_rate: 44_100,
        model_rate: 44_100,
        window: ModelSamples(4 * hop),
        hop: ModelSamples(hop),
        lookahead: ModelSamples(441),
        fade: ModelSamples(220),
        deadline: Deadline::WholeHop,
        max_block: HostSamples(block),
        context: None,
    })
    .unwrap()
}

/// A host in virtual time whose streams are all in one audio callback.
struct Simulation {
    runner: Runner,
    processor: SimulatedExecutor,
    clients: Vec<Client>,
    block: usize,
}

impl Simulation {
    /// Streams of so many samples a hop and so much time a window, each with a model of its own.
    fn new(block: usize, streams: &[(u64, Duration)], begun: Instant) -> Self {
        let processor = SimulatedExecutor::default();
        let mut runner = Runner::new(Box::new(processor.clone()), Arc::default());
        processor.0.lock().now = Some(begun);
        let clients = streams
            .iter()
            .zip(0..)
            .map(|((hop, cost), id)| {
                let plan = plan(*hop, block as u64);
                let shared = Arc::new(Shared::new(&plan, 1, 1));
                let mut engine = Engine::new(plan.clone(), shared.clone());
                engine.swap(Some(SharedModel::new(Box::new(NeverRun)))).unwrap();
                runner.apply(Message::Add(id, Box::new(engine)), begun);
                processor.0.lock().costs.insert(id, *cost);
                Client::new(&plan, shared, None)
            })
            .collect();
        Self { runner, processor, clients, block }
    }

    /// Plays for `seconds` from `begun` on. Returns the number of turns of the scheduler.
    fn play(&mut self, begun: Instant, seconds: f64) -> u32 {
        let period = Duration::from_secs_f64(self.block as f64 / 44_100.0);
        let (mut now, mut callback, mut turns) = (begun, begun, 0);
        let end = begun + Duration::from_secs_f64(seconds);
        while now < end {
            self.processor.0.lock().advance(now);
            let finished = std::mem::take(&mut self.processor.0.lock().finished);
            for finished in finished {
                self.runner.apply(Message::Finished(finished), now);
            }
            if now >= callback {
                for client in &mut self.clients {
                    client.process(&mut [&mut vec![0.5; self.block][..]], &mut NoStems);
                }
                callback += period;
            }
            turns += 1;
            let wake = self.runner.turn(now);
            let event = self.processor.0.lock().next_event();
            now = [Some(callback), wake, event]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(callback)
                .max(now + Duration::from_micros(20));
        }
        turns
    }
}

fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below.max(1)
    }
}

#[test]
fn light_streams_are_never_late_beside_one_that_is_far_too_slow() {
    let begun = Instant::now();
    for seed in 0..1_000 {
        let mut dice = dice(seed + 1);
        let block = [64, 128, 256, 441, 512][dice(5) as usize];
        let hops = [882 + dice(2_000), 882 + dice(4_000)];
        // Together at most 45 % of the worker, in any split.
        let first = 0.05 + 0.35 * dice(1_000) as f64 / 1e3;
        let costs = [first, 0.45 - first].map(|load| load * (1.0 - 0.2 * dice(1_000) as f64 / 1e3));
        let seconds = |samples: u64| samples as f64 / 44_100.0;
        let light = [0, 1].map(|i| (hops[i], Duration::from_secs_f64(costs[i] * seconds(hops[i]))));
        let heavy_hop = 882 + dice(8_000);
        let heavy = (heavy_hop, Duration::from_secs_f64((2.0 + dice(10) as f64) * seconds(heavy_hop)));
        let streams = [light[0], heavy, light[1]];
        let mut simulation = Simulation::new(block, &streams, begun);
        // A first hop of unknown cost interrupts nothing.
        simulation.play(begun, 0.5);
        let late: Vec<_> = simulation.clients.iter().map(|client| client.status().late_windows()).collect();
        simulation.play(begun + Duration::from_millis(500), 3.0);
        for (i, client) in simulation.clients.iter().enumerate() {
            let status = client.status();
            if i == 1 {
                // Suspended, or still in its first window.
                assert_ne!(status.state(), State::Running, "seed {seed}");
            } else {
                assert_eq!(
                    (status.state(), status.late_windows()),
                    (State::Running, late[i]),
                    "seed {seed}, stream {i}: {streams:?}"
                );
            }
        }
    }
}

#[test]
fn a_stream_that_is_too_slow_costs_little_and_runs_again_when_it_can() {
    let begun = Instant::now();
    let mut simulation = Simulation::new(256, &[(4_410, Duration::from_millis(400))], begun);
    simulation.play(begun, 30.0);
    let status = || simulation.clients[0].status();
    assert_eq!(status().state(), State::TooSlow);
    let spent = simulation.processor.0.lock().spent[&0];
    assert!(spent < Duration::from_secs(6), "{spent:?} of 30 s");
    let late = status().late_windows();
    simulation.processor.0.lock().costs.insert(0, Duration::from_millis(20));
    simulation.play(begun + Duration::from_secs(30), 10.0);
    let status = simulation.clients[0].status();
    assert_eq!(status.state(), State::Running);
    assert!(status.windows() > 50 && status.late_windows() <= late + 2);
}

#[test]
fn of_streams_that_are_too_much_together_the_youngest_is_suspended() {
    let begun = Instant::now();
    let stream = (4_410, Duration::from_millis(33));
    let mut simulation = Simulation::new(256, &[stream; 3], begun);
    simulation.play(begun, 5.0);
    let states: Vec<_> = simulation.clients.iter().map(|client| client.status().state()).collect();
    assert_eq!(states, [State::Running, State::Running, State::TooSlow]);
    let loads: Vec<f64> = simulation.runner.loads.lock().iter().map(|(_, load)| *load).collect();
    assert!((loads.iter().sum::<f64>() - 0.66).abs() < 0.02, "{loads:?}");
    // The budget is free again when one of them goes.
    simulation.runner.apply(Message::Remove(0), begun + Duration::from_secs(5));
    simulation.clients.remove(0);
    simulation.play(begun + Duration::from_secs(5), 8.0);
    assert!(simulation.clients.iter().all(|client| client.status().state() == State::Running));
}

#[test]
fn a_playing_stream_needs_a_few_turns_a_hop() {
    let begun = Instant::now();
    let mut simulation = Simulation::new(512, &[(4_096, Duration::from_millis(5))], begun);
    let turns = simulation.play(begun, 20.0);
    // The simulation itself adds one for each of 1723 callbacks and 215 ends of a job; once it was one a millisecond.
    assert!(turns < 1_723 + 215 + 215 * 5, "{turns}");
}

#[test]
fn a_reset_cancels_the_window_that_runs() {
    let begun = Instant::now();
    let mut simulation = Simulation::new(256, &[(4_410, Duration::from_secs(5))], begun);
    simulation.play(begun, 1.0);
    let token = simulation.runner.streams[0].running.clone().unwrap();
    assert!(!token.is_cancelled());
    simulation.clients[0].reset();
    simulation.play(begun + Duration::from_secs(1), 0.1);
    assert!(token.is_cancelled());
}

#[test]
fn an_expected_load_counts_instead_of_the_observed_one() {
    let scheduler = Scheduler::new().unwrap();
    let [chunk, frame_hop, frame] = [65_536, 1024, 2048].map(ModelSamples);
    let model = ModelTiming { rate: 44_100, chunk, frame_hop, frame, context: None };
    let plan = Plan::new(Tier::Low.request(&model, 48_000, HostSamples(512))).unwrap();
    let open = || crate::live::Stream::open(&plan, 4, 2, &scheduler).1;
    let (first, second) = (open(), open());
    assert_eq!(scheduler.load_of_others(None), 0.0);
    *scheduler.0.loads.lock() = vec![(first.id(), 0.5), (second.id(), 0.2)];
    assert!((scheduler.load_of_others(Some(&first)) - 0.2).abs() < 1e-9);
    second.set_expected_load(0.3);
    assert!((scheduler.load_of_others(Some(&first)) - 0.3).abs() < 1e-9);
    assert!((scheduler.load_of_others(None) - 0.8).abs() < 1e-9);
    second.set_expected_load(f64::NAN);
    assert!((scheduler.load_of_others(Some(&first)) - 0.2).abs() < 1e-9, "no number");
    first.set_expected_load(0.4);
    scheduler.0.loads.lock().clear();
    assert_eq!(scheduler.load_of_others(Some(&second)), 0.4);
    drop(first);
    assert_eq!(scheduler.load_of_others(Some(&second)), 0.0, "it has gone");
}
