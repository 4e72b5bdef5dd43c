//! When workers start and end, and what they leave behind.

use std::process::Command;
use std::time::Duration;

use nullsum::live::{SharedModel, WindowSeparator};
use nullsum::separator::{ContextPlan, MaskRule};

use crate::support::*;

/// Tells a test run as a child which folder to use.
const FOLDER: &str = "NULLSUM_TEST_WORKER_FOLDER";

#[test]
fn concurrent_starts_end_in_one_worker_which_ends_with_its_last_client() {
    let workers = Workers::new();
    let clients: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| workers.load().unwrap())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    wait_until("the losers end", || workers.processes().len() == 1);
    let process = workers.processes()[0];
    // It is no child of this process: nobody waits for it.
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
    assert_ne!(parent, std::process::id().to_string());
    drop(clients);
    wait_until("the worker ends", || workers.processes().is_empty());
    assert!(!workers.folder().join("worker-cpu.sock").exists());
    // The next client starts another one.
    workers.load().unwrap();
}

#[test]
fn a_worker_has_no_files_of_the_process_that_started_it() {
    use std::os::fd::AsRawFd;
    let file = tempfile::NamedTempFile::new().unwrap();
    let copy = file.reopen().unwrap();
    // SAFETY: the descriptor is open; the call changes its flags only.
    unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_SETFD, 0) };
    let workers = Workers::new();
    let _model = workers.load().unwrap();
    let process = workers.processes()[0];
    let links = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    let open: Vec<_> = links.filter_map(|link| std::fs::read_link(link.path()).ok()).collect();
    assert!(!open.iter().any(|target| target == file.path()), "{open:?}");
    let cwd = std::fs::read_link(format!("/proc/{process}/cwd")).unwrap();
    assert_eq!(cwd, std::path::Path::new("/"));
}

fn cycles(count: usize) {
    let workers = Workers::new();
    // Keeps the worker alive.
    let keeper = workers.load().unwrap();
    let process = workers.processes()[0].to_string();
    let cycle = |seed: u64| {
        let mut model = workers.load().unwrap();
        let mut state = model.new_stream(&ContextPlan::default()).unwrap();
        state.push(&noise(seed, 20_000)).unwrap();
        model.separate_hop(&mut state, 1, MaskRule::Plain, &()).unwrap();
        if seed.is_multiple_of(16) {
            // Memory that grows is replaced.
            let window = noise(seed, 60_000);
            let mut out = vec![0.0; window.len() * model.stems()];
            model.separate_window(&window, MaskRule::Plain, &mut out).unwrap();
        }
    };
    (0..4).for_each(cycle);
    let settled = || {
        let of = |process: &str| (open_files(process), shared_mappings(process));
        // The worker closes what a client has left when it notices.
        let (mut last, mut same) = (of(&process), 0);
        while same < 20 {
            std::thread::sleep(Duration::from_millis(10));
            let now = of(&process);
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        last
    };
    let before = settled();
    (0..count as u64).for_each(cycle);
    let after = settled();
    assert_eq!(before, after, "descriptors and mappings of the worker");
    drop(keeper);
}

#[test]
fn clients_that_come_and_go_leave_nothing_in_the_worker() {
    cycles(60);
}

#[test]
#[ignore = "takes minutes"]
fn a_thousand_clients_leave_nothing_in_the_worker() {
    cycles(1_000);
}

#[test]
fn streams_that_are_dropped_end_in_the_worker() {
    let workers = Workers::new();
    let mut model = workers.load().unwrap();
    // More than a connection may have at a time.
    for seed in 0..nullsum::worker::protocol::MAX_STREAMS as u64 + 50 {
        let mut state =
            model.new_stream(&ContextPlan { context_frames: 1, ..ContextPlan::default() }).unwrap();
        if seed.is_multiple_of(200) {
            state.push(&noise(seed, 20_000)).unwrap();
            model.separate_hop(&mut state, 1, MaskRule::Plain, &()).unwrap();
        }
    }
}

/// Runs as a child of the next test: four instances in one process.
#[test]
#[ignore = "a part of processes_share_one_worker"]
fn child_with_four_instances() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let model = nullsum::worker::RemoteModel::load(
        launcher_in(folder.as_ref()),
        "cpu",
        request(),
        Default::default(),
        &mut go_on(),
    );
    let model = SharedModel::new(Box::new(model.unwrap()));
    let plan = ContextPlan::default();
    let mut sums = Vec::new();
    for instance in 0..4 {
        let mut state = model.new_stream(&plan).unwrap();
        for _ in 0..5 {
            state.push(&noise(77, 8_192)).unwrap();
            let ready = state.ready_frames() as usize;
            if ready > 0 {
                model.separate_hop(&mut state, ready, MaskRule::Complete, &()).unwrap();
                let sum: u64 =
                    bits(state.output().final_samples(instance % 2, 0)).iter().map(|x| u64::from(*x)).sum();
                sums.push(sum);
            }
        }
    }
    println!("sums {sums:?}");
}

#[test]
fn processes_share_one_worker() {
    let workers = Workers::new();
    let keeper = workers.load().unwrap();
    let child = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["lifecycle::child_with_four_instances", "--exact", "--ignored", "--nocapture"]);
        command.env(FOLDER, workers.folder()).stdout(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| child()).collect();
    let outputs: Vec<String> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().find(|line| line.contains("sums [")).unwrap().to_owned()
        })
        .collect();
    assert!(outputs.iter().all(|output| *output == outputs[0]), "{outputs:?}");
    assert_eq!(workers.processes().len(), 1);
    drop(keeper);
}

/// Runs as a child of the next test: in a process that may have no more memory.
#[test]
#[ignore = "a part of a_lack_of_shared_memory_is_an_error"]
fn child_without_memory() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let launcher = launcher_in(folder.as_ref());
    let mut model =
        nullsum::worker::RemoteModel::load(launcher, "cpu", request(), Default::default(), &mut go_on())
            .unwrap();
    let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
    // SAFETY: the calls change this process only, and read one struct.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
    let small = noise(1, 10_000);
    let large = noise(2, 400_000);
    let stems = model.stems();
    let mut run = |window: &[f32]| {
        let mut out = vec![0.0; window.len() * stems];
        model.separate_window(window, MaskRule::Plain, &mut out)
    };
    run(&small).unwrap();
    let error = run(&large).unwrap_err().to_string();
    assert!(error.contains("no memory can be shared"), "{error}");
    run(&small).unwrap();
    println!("refused");
}

#[test]
fn a_lack_of_shared_memory_is_an_error() {
    let workers = Workers::new();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["lifecycle::child_without_memory", "--exact", "--ignored", "--nocapture"]);
    let output = command.env(FOLDER, workers.folder()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("refused"));
}
