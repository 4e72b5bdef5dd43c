//! Playing through a worker that ends or hangs: the dry signal goes on, and the stems return.

use std::time::{Duration, Instant};

use nullsum::live::{Client, HostSamples, NoStems, Plan, Scheduler, State, Stream, Tier};
use nullsum::worker::{RemoteState, RestartPolicy, Supervisor};

use crate::support::*;

const BLOCK: usize = 256;
const RATE: u32 = 48_000;

/// A host that plays in real time and compares every sample with the input.
struct Player {
    client: Client,
    stream: Stream,
    plan: Plan,
    input: Vec<f32>,
    at: usize,
    started: Instant,
}

impl Player {
    fn new(model: nullsum::live::SharedModel, scheduler: &Scheduler) -> Self {
        let plan = Plan::new(Tier::High.request(&model.timing(), RATE, HostSamples(BLOCK as u64))).unwrap();
        let (client, stream) = Stream::open(&plan, model.stems(), 2, scheduler);
        stream.swap(Some(model)).unwrap();
        // Longer than the latency, and of a length that the latency does not divide.
        Self { client, stream, plan, input: noise(3, 96_001), at: 0, started: Instant::now() }
    }

    fn sample(&self, at: usize) -> f32 {
        self.input[at % self.input.len()]
    }

    /// Plays for so long, and checks that at unity gain the output is the delayed input.
    fn play(&mut self, seconds: f64) {
        let until = self.at + (seconds * f64::from(RATE)) as usize;
        let latency = self.plan.latency().0 as usize;
        while self.at < until {
            let sent: Vec<f32> = (self.at..self.at + BLOCK).map(|at| self.sample(at)).collect();
            let mut block = [sent.clone(), sent];
            let [left, right] = &mut block;
            self.client.process(&mut [left, right], &mut NoStems);
            for (channel, out) in block.iter().enumerate() {
                for (i, x) in out.iter().enumerate() {
                    let expected = (self.at + i).checked_sub(latency).map_or(0.0, |at| self.sample(at));
                    assert_eq!(
                        x.to_bits(),
                        expected.to_bits(),
                        "sample {} of channel {channel}",
                        self.at + i
                    );
                }
            }
            self.at += BLOCK;
            let due = self.started + Duration::from_secs_f64(self.at as f64 / f64::from(RATE));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }

    /// Plays until stems come again. Returns how long that took.
    fn play_until_running(&mut self, what: &str) -> Duration {
        let (started, windows) = (Instant::now(), self.stream.status().windows());
        while self.stream.status().state() != State::Running || self.stream.status().windows() <= windows {
            let status = self.stream.status();
            assert!(started.elapsed() < LONG, "{what}: {:?}, {:?}", status.state(), status.message());
            self.play(0.02);
        }
        started.elapsed()
    }
}

fn kill_during_playback(times: usize) {
    let workers = Workers::new();
    let policy = RestartPolicy { crashes: usize::MAX, ..RestartPolicy::default() };
    let (model, supervisor) = workers.shared(policy);
    let scheduler = Scheduler::new().unwrap();
    let mut player = Player::new(model, &scheduler);
    player.play_until_running("at the beginning");
    let mut slowest = Duration::ZERO;
    for time in 0..times {
        // At every phase of a hop.
        player.play(0.1 + 0.0013 * (time % 37) as f64);
        assert!(workers.kill() > 0, "no worker to kill");
        slowest = slowest.max(player.play_until_running(&format!("after kill {time}")));
        assert_eq!(supervisor.state(), RemoteState::Running);
    }
    println!("{times} kills; the stems returned after {:.2} s at the latest", slowest.as_secs_f64());
}

#[test]
fn a_worker_that_is_killed_costs_no_sample_and_the_stems_return() {
    kill_during_playback(3);
}

#[test]
#[ignore = "takes two minutes"]
fn a_worker_that_is_killed_a_hundred_times_costs_no_sample() {
    kill_during_playback(100);
}

#[test]
fn a_worker_that_hangs_is_ended_and_started_again() {
    let workers = Workers::new();
    let policy = RestartPolicy { crashes: 10, ..RestartPolicy::default() };
    let (model, supervisor) = workers.shared(policy);
    let scheduler = Scheduler::new().unwrap();
    let mut player = Player::new(model, &scheduler);
    player.play_until_running("at the beginning");
    let before = workers.processes();
    before.iter().for_each(|process| signal(*process, libc::SIGSTOP));
    let started = Instant::now();
    while workers.processes() == before {
        assert!(started.elapsed() < LONG, "it still hangs");
        player.play(0.05);
    }
    player.play_until_running("after the hang");
    assert_eq!(supervisor.state(), RemoteState::Running);
}

/// Plays until the supervisor has given up.
fn play_until_given_up(player: &mut Player, workers: &Workers, supervisor: &Supervisor) -> String {
    let started = Instant::now();
    loop {
        if let RemoteState::GivenUp(reason) = supervisor.state() {
            return reason;
        }
        assert!(started.elapsed() < LONG, "{:?}", supervisor.state());
        workers.kill();
        player.play(0.05);
    }
}

#[test]
fn three_crashes_in_a_minute_stop_the_restarts() {
    let workers = Workers::new();
    let (model, supervisor) = workers.shared(RestartPolicy::default());
    let scheduler = Scheduler::new().unwrap();
    let mut player = Player::new(model, &scheduler);
    player.play_until_running("at the beginning");
    let reason = play_until_given_up(&mut player, &workers, &supervisor);
    assert!(reason.contains("3 times"), "{reason}");
    // The delayed input goes on, and no worker is started any more.
    player.play(0.5);
    assert!(workers.processes().is_empty());
    assert_eq!(player.stream.status().state(), State::Failing);
    let message = player.stream.status().message().unwrap();
    assert!(message.contains("worker of cpu has stopped"), "{message}");
}

#[test]
fn models_change_places_while_they_play() {
    let workers = Workers::new();
    let (remote, _) = workers.shared(Default::default());
    let local = nullsum::live::SharedModel::new(Box::new(local()));
    let scheduler = Scheduler::new().unwrap();
    let mut player = Player::new(remote.clone(), &scheduler);
    player.play_until_running("at the beginning");
    for turn in 0..12 {
        let model = match turn % 3 {
            0 => Some(local.clone()),
            1 => Some(remote.clone()),
            _ => None,
        };
        player.stream.swap(model).unwrap();
        player.play(0.07);
    }
    player.stream.swap(Some(remote)).unwrap();
    player.play_until_running("after the last change");
}
