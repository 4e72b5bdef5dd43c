//! Compares hops and windows in this process with the same in a worker on the same processor, by turns in one run.
//!
//! ```text
//! cargo run --release --example worker_cost -- PROGRAM [ROUNDS]
//! ```
//!
//! `PROGRAM`: the path of `nullsum-worker`.

#[cfg(unix)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    unix::main()
}

#[cfg(not(unix))]
fn main() {
    eprintln!("worker processes are not available on this system");
}

#[cfg(unix)]
mod unix {
    use std::error::Error;
    use std::ops::ControlFlow;
    use std::time::Instant;

    use nullsum::live::{HostSamples, Tier, WindowSeparator};
    use nullsum::separator::{MaskRule, Runtime, Separator, StreamState};
    use nullsum::worker::protocol::LoadRequest;
    use nullsum::worker::{Launcher, RemoteModel, RestartPolicy};
    use nullsum::{DeviceChoice, embedded};

    type Failure = Box<dyn Error>;

    pub fn main() -> Result<(), Failure> {
        let mut arguments = std::env::args().skip(1);
        let program = arguments.next().ok_or("expected the path of nullsum-worker")?;
        let rounds: usize = arguments.next().map_or(Ok(400), |rounds| rounds.parse())?;
        let folder = tempfile_folder()?;
        let launcher = Launcher::new(std::fs::canonicalize(program)?, Some(folder.clone()));
        let request =
            LoadRequest { checkpoint: None, sha256: embedded::sha256().into(), config: None, threads: 1 };
        let mut go_on = || ControlFlow::Continue(());
        let started = Instant::now();
        let mut remote = RemoteModel::load(launcher, "cpu", request, RestartPolicy::default(), &mut go_on)?;
        println!("start to ready: {:.3} s", started.elapsed().as_secs_f64());
        let mut local = local()?;
        println!("in process: {}\nworker:     {}", WindowSeparator::runs_on(&local), remote.runs_on());
        println!(
            "| job | in process, median ms | worker, median ms | added, median ms | added, p99 ms | ratio |"
        );
        println!("|---|---|---|---|---|---|");
        for tier in [Tier::Live, Tier::Low, Tier::Balanced, Tier::High] {
            hops(tier, rounds, &mut local, &mut remote)?;
        }
        for seconds in [0.5, 2.0, 4.0] {
            windows(seconds, (rounds / 20).max(5), &mut local, &mut remote)?;
        }
        drop(remote);
        std::fs::remove_dir_all(folder)?;
        Ok(())
    }

    fn tempfile_folder() -> Result<std::path::PathBuf, Failure> {
        let folder = std::env::temp_dir().join(format!("nullsum-cost-{}", std::process::id()));
        Ok(folder)
    }

    fn local() -> Result<Separator, Failure> {
        let checkpoint = embedded::checkpoint().ok_or("this build has no built-in model")?;
        let config = nullsum::registry::load_config(&checkpoint, None, None, &mut |_| None)?;
        let runtime =
            Runtime { device: DeviceChoice::Cpu, threads: 1, auto_may_use_int8: true, ..Runtime::default() };
        Ok(Separator::load(&checkpoint, &config, None, runtime)?)
    }

    /// Times usual hops of a tier with a full context.
    fn hops(
        tier: Tier,
        rounds: usize,
        local: &mut Separator,
        remote: &mut RemoteModel,
    ) -> Result<(), Failure> {
        let timing = WindowSeparator::timing(local);
        let request = tier.request(&timing, timing.rate, HostSamples(512));
        let context = request.context.ok_or("the model keeps no context")?;
        let mut states =
            (WindowSeparator::new_stream(local, &context.plan)?, remote.new_stream(&context.plan)?);
        let (frames, ahead) = (context.plan.hop_frames, context.plan.lookahead_frames);
        let fill = context.plan.context_frames / frames + 2;
        let mut times = Times::default();
        for round in 0..rounds + fill {
            push(
                &mut states,
                context.timing.samples_for((round * frames + frames + ahead) as u64),
                round as u64,
            )?;
            let (here, there) = (&mut states.0, &mut states.1);
            let seconds = by_turns(
                round,
                || WindowSeparator::separate_hop(local, here, frames, MaskRule::Complete, &()),
                || remote.separate_hop(there, frames, MaskRule::Complete, &()),
            )?;
            if round >= fill {
                times.add(seconds);
            }
        }
        times.print(&format!("hop of {tier:?}, {frames} frames"));
        Ok(())
    }

    fn push(states: &mut (StreamState, StreamState), wanted: u64, seed: u64) -> Result<(), Failure> {
        let new = wanted.saturating_sub(states.0.received_samples()) as usize;
        let input = nullsum::dsp::Random::new(seed + 1).noise(new * 2, 0.5);
        states.0.push(&input)?;
        states.1.push(&input)?;
        Ok(())
    }

    fn windows(
        seconds: f64,
        rounds: usize,
        local: &mut Separator,
        remote: &mut RemoteModel,
    ) -> Result<(), Failure> {
        let window = nullsum::dsp::Random::new(1).noise((seconds * 44_100.0) as usize * 2, 0.5);
        let mut stems = (vec![0.0; window.len() * remote.stems()], vec![0.0; window.len() * remote.stems()]);
        let mut times = Times::default();
        for round in 0..=rounds {
            let (here, there) = (&mut stems.0, &mut stems.1);
            let seconds = by_turns(
                round,
                || WindowSeparator::separate_window(local, &window, MaskRule::Complete, here),
                || remote.separate_window(&window, MaskRule::Complete, there),
            )?;
            if round > 0 {
                times.add(seconds);
            }
        }
        times.print(&format!("window of {seconds} s"));
        Ok(())
    }

    /// Seconds of both, whichever goes first.
    fn by_turns<E>(
        round: usize,
        here: impl FnOnce() -> Result<(), E>,
        there: impl FnOnce() -> Result<(), E>,
    ) -> Result<(f64, f64), E> {
        let time = |run: &mut dyn FnMut() -> Result<(), E>| {
            let started = Instant::now();
            run().map(|()| started.elapsed().as_secs_f64())
        };
        let (mut here, mut there) = (Some(here), Some(there));
        let mut run_here = || here.take().map_or(Ok(()), |run| run());
        let mut run_there = || there.take().map_or(Ok(()), |run| run());
        if round.is_multiple_of(2) {
            let first = time(&mut run_here)?;
            Ok((first, time(&mut run_there)?))
        } else {
            let first = time(&mut run_there)?;
            Ok((time(&mut run_here)?, first))
        }
    }

    #[derive(Default)]
    struct Times {
        here: Vec<f64>,
        there: Vec<f64>,
    }

    impl Times {
        fn add(&mut self, (here, there): (f64, f64)) {
            self.here.push(here);
            self.there.push(there);
        }

        fn print(mut self, job: &str) {
            self.here.sort_by(f64::total_cmp);
            self.there.sort_by(f64::total_cmp);
            let at = |sorted: &[f64], share: f64| {
                let index = (share * sorted.len() as f64) as usize;
                sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
            };
            let (here, there) = (at(&self.here, 0.5), at(&self.there, 0.5));
            let slow = at(&self.there, 0.99) - at(&self.here, 0.99);
            println!(
                "| {job} | {:.2} | {:.2} | {:+.2} | {:+.2} | {:.3} |",
                1e3 * here,
                1e3 * there,
                1e3 * (there - here),
                1e3 * slow,
                there / here
            );
        }
    }
}
