//! Jobs of real threads: light ones beside heavy ones.

use std::sync::mpsc;

use super::*;
use crate::kernels::Pool;
use crate::live::model::{WindowError, WindowSeparator};
use crate::live::plan::{ModelSamples, ModelTiming};
use crate::live::work::{Group, Work};
use crate::separator::MaskRule;

/// Calls a function in each of its tasks.
struct Tasks<F> {
    pool: Pool,
    count: usize,
    task: F,
}

impl<F: Fn() + Send + Sync> WindowSeparator for Tasks<F> {
    fn stems(&self) -> usize {
        1
    }

    fn channels(&self) -> usize {
        1
    }

    fn timing(&self) -> ModelTiming {
        let some = ModelSamples(64);
        ModelTiming { rate: 44_100, chunk: some, frame_hop: some, frame: some, context: None }
    }

    fn separate_window(&mut self, _: &[f32], _: MaskRule, _: &mut [f32]) -> Result<(), WindowError> {
        self.pool.run(self.count, |_| (self.task)());
        Ok(())
    }

    fn pool(&self) -> Option<Pool> {
        Some(self.pool.clone())
    }
}

fn model(pool: &Pool, count: usize, task: impl Fn() + Send + Sync + 'static) -> SharedModel {
    SharedModel::new(Box::new(Tasks { pool: pool.clone(), count, task }))
}

fn job(stream: u64, model: &SharedModel, cost_ms: u64) -> Job {
    let group = Group { input: vec![1.0; 64], ..Group::default() };
    let work = Work {
        model: model.clone(),
        rule: MaskRule::Complete,
        groups: vec![group],
        cleaned: 0,
        frames: None,
    };
    let urgency =
        Urgency { due: Instant::now(), cost: Some(Duration::from_millis(cost_ms)), priority: Priority::Live };
    Job { stream, work, urgency, token: Arc::default() }
}

fn executor() -> (CpuExecutor, mpsc::Receiver<Finished>) {
    let (sender, results) = mpsc::channel();
    let send = Box::new(move |finished| drop(sender.send(finished)));
    (CpuExecutor::new(Arc::default(), send).unwrap(), results)
}

#[test]
fn a_light_job_runs_beside_a_task_of_a_heavy_one_which_then_pauses() {
    let pool = Pool::new(1).unwrap();
    // The first task of the heavy job ends only when the light job has begun. The light job ends only when it is told to.
    let (begun, is_begun) = mpsc::channel::<()>();
    let (end, is_to_end) = mpsc::channel::<()>();
    let tasks = Arc::new(AtomicU64::new(0));
    let heavy = {
        let (tasks, is_begun) = (tasks.clone(), Mutex::new(is_begun));
        model(&pool, 3, move || {
            if tasks.fetch_add(1, Relaxed) == 0 {
                is_begun.lock().recv().unwrap();
            }
        })
    };
    let is_to_end = Mutex::new(is_to_end);
    let light = model(&pool, 1, move || {
        begun.send(()).unwrap();
        is_to_end.lock().recv().unwrap();
    });
    let (mut executor, results) = executor();
    executor.start(job(1, &heavy, 1_000));
    while tasks.load(Relaxed) == 0 {
        std::thread::yield_now();
    }
    let urgent = job(2, &light, 1);
    assert!(!executor.accepts(Urgency { cost: Some(Duration::from_millis(900)), ..urgent.urgency }, &light));
    assert!(!executor.accepts(urgent.urgency, &heavy), "the model is in use");
    assert!(executor.accepts(urgent.urgency, &light));
    executor.start(urgent);
    // The heavy job's thread comes to the gate and stays there. It cannot be seen waiting, so give it time to go wrong.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(tasks.load(Relaxed), 1, "the heavy job did not pause");
    end.send(()).unwrap();
    let finished: Vec<_> =
        results.iter().take(2).map(|finished| (finished.stream, finished.outcome)).collect();
    let Outcome::Done { seconds: Some(light_seconds) } = finished[0].1 else { panic!("{finished:?}") };
    let Outcome::Done { seconds: Some(heavy_seconds) } = finished[1].1 else { panic!("{finished:?}") };
    assert_eq!((finished[0].0, finished[1].0, tasks.load(Relaxed)), (2, 1, 3));
    // The pause is not part of the heavy job's cost.
    assert!(heavy_seconds < light_seconds, "{heavy_seconds} {light_seconds}");
    assert!(executor.join(Instant::now() + Duration::from_secs(10)));
}

#[test]
fn a_light_job_that_fails_or_panics_lets_the_heavy_one_go_on() {
    let pool = Pool::new(2).unwrap();
    let (go, is_to_go) = mpsc::channel::<()>();
    let is_to_go = Mutex::new(is_to_go);
    let heavy = model(&pool, 1, move || is_to_go.lock().recv().unwrap());
    let light = model(&pool, 4, || panic!("a defect"));
    let (mut executor, results) = executor();
    executor.start(job(1, &heavy, 1_000));
    executor.start(job(2, &light, 1));
    let first = results.recv().unwrap();
    assert_eq!(first.stream, 2);
    assert!(matches!(first.outcome, Outcome::Panicked(_)), "{:?}", first.outcome);
    go.send(()).unwrap();
    assert!(matches!(results.recv().unwrap().outcome, Outcome::Done { .. }));
    assert!(executor.join(Instant::now() + Duration::from_secs(10)));
}

#[test]
fn light_jobs_one_after_the_other_stop_no_heavy_one_for_ever() {
    let pool = Pool::new(2).unwrap();
    let heavy = model(&pool, 200, || std::thread::sleep(Duration::from_micros(200)));
    let light = model(&pool, 8, || {});
    let (mut executor, results) = executor();
    executor.start(job(0, &heavy, 1_000));
    let (mut ended, mut next) = (false, 1);
    while !ended {
        let urgent = job(next, &light, 1);
        if executor.accepts(urgent.urgency, &light) {
            executor.start(urgent);
            next += 1;
        }
        ended = results.try_iter().any(|finished| finished.stream == 0);
    }
    assert!(next > 2, "no light job ran");
    assert!(executor.join(Instant::now() + Duration::from_secs(10)));
}

#[test]
fn lanes_are_given_by_weight_and_model() {
    let pool = Pool::new(1).unwrap();
    let [first, second, third, fourth] = [(); 4].map(|()| model(&pool, 1, || {}));
    let running = |model: &SharedModel, cost| Some(Running::new(&job(0, model, cost)));
    let urgency = |cost| job(1, &third, cost).urgency;
    let (heavy, light) = (running(&first, 1_000), running(&second, 50));
    let lane = |running: [&Option<Running>; 3], cost, model| {
        lane_for(running.map(Option::as_ref), urgency(cost), model)
    };
    let none = &None;
    assert_eq!(lane([none; 3], 5, &third), Some(0));
    assert_eq!(lane([&heavy, none, none], 5, &third), Some(1));
    assert_eq!(lane([&heavy, none, none], 800, &third), None);
    assert_eq!(lane([&heavy, none, none], 5, &first), None, "one window at a time");
    assert_eq!(lane([&heavy, &light, none], 5, &third), Some(2));
    assert_eq!(lane([&heavy, &light, none], 40, &third), None);
    assert_eq!(lane([&heavy, &light, none], 5, &first), None);
    assert_eq!(lane([none, &light, none], 5, &third), Some(2), "on lane 0 it would pause");
    assert_eq!(lane([none, &light, none], 800, &third), None, "it would pause at once");
    assert_eq!(lane([&heavy, &light, &running(&third, 5)], 1, &fourth), None, "there are three lanes");
}
