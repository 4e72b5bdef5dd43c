//! Workers that cannot be used: of another version, with nonsense for replies, or with a model that does not load.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nullsum::live::WindowSeparator;
use nullsum::separator::{ContextPlan, MaskRule};
use nullsum::worker::channel::Channel;
use nullsum::worker::endpoint::Endpoint;
use nullsum::worker::protocol::{self, HopResult, LoadRequest, PathBytes, RemoteSpec, Reply, Request};
use nullsum::worker::{Launcher, RemoteModel, WorkerError};

use crate::support::*;

/// A worker in this process that answers as `answer` says, until the answer is none.
fn fake(
    workers: &Workers,
    mut answer: impl FnMut(&Request) -> Option<Vec<Reply>> + Send + 'static,
) -> Launcher {
    let endpoint = Endpoint::in_folder(&workers.folder(), "cpu").unwrap();
    let lock = endpoint.lock().unwrap().unwrap();
    let listener: UnixListener = lock.listen().unwrap();
    std::thread::spawn(move || {
        let _lock = lock;
        while let Ok((stream, _)) = listener.accept() {
            let mut channel = Channel::new(stream.into()).unwrap();
            while let Ok(Some(request)) = channel.receive::<Request>(Duration::from_secs(30)) {
                let Some(replies) = answer(&request) else { break };
                if replies.iter().any(|reply| channel.send(reply, None).is_err()) {
                    break;
                }
            }
        }
    });
    // It is found running, so that no program is needed.
    Launcher::new("/nonexistent/nullsum-worker".into(), Some(workers.folder()))
}

fn welcome(version: u32) -> Reply {
    Reply::Welcome { version, program: "9.9.9".into(), device: "cpu".into() }
}

fn load(launcher: Launcher) -> Result<RemoteModel, WorkerError> {
    RemoteModel::load(launcher, "cpu", request(), Default::default(), &mut go_on())
}

#[test]
fn a_worker_of_another_version_is_named() {
    for reply in [
        welcome(protocol::VERSION + 1),
        Reply::Refused { version: protocol::VERSION + 1, program: "9.9.9".into(), reason: "no".into() },
    ] {
        let workers = Workers::new();
        let launcher = fake(&workers, move |_| Some(vec![reply.clone()]));
        let error = load(launcher).err().unwrap();
        assert!(matches!(error, WorkerError::Version { .. }), "{error}");
        assert!(error.to_string().contains("9.9.9") && error.to_string().contains("same version"), "{error}");
    }
}

#[test]
fn a_client_of_another_version_is_refused() {
    let workers = Workers::new();
    let _keeper = workers.load().unwrap();
    let endpoint = Endpoint::in_folder(&workers.folder(), "cpu").unwrap();
    for (magic, version) in [(protocol::MAGIC, protocol::VERSION + 1), ("something", protocol::VERSION)] {
        let mut channel = Channel::new(endpoint.connect().unwrap()).unwrap();
        let hello = Request::Hello { magic: magic.into(), version, program: "0.0.1".into() };
        channel.send(&hello, None).unwrap();
        let reply = channel.receive::<Reply>(LONG).unwrap().unwrap();
        assert!(matches!(reply, Reply::Refused { version, .. } if version == protocol::VERSION), "{reply:?}");
        assert!(channel.receive::<Reply>(LONG).is_err(), "the connection is closed");
    }
}

fn spec() -> RemoteSpec {
    RemoteSpec {
        stems: vec!["a".into(), "b".into()],
        channels: 2,
        rate: 44_100,
        chunk: 88_200,
        frame_hop: 512,
        frame: 2_048,
        context_window: Some(2_048),
        runs_on: "fake".into(),
    }
}

/// Replies as a worker would, but `wrong` to jobs.
fn lying(workers: &Workers, wrong: Reply) -> Launcher {
    fake(workers, move |request| {
        Some(match request {
            Request::Hello { .. } => vec![welcome(protocol::VERSION)],
            Request::Attach { .. } => vec![Reply::Attached],
            Request::Load(_) => vec![Reply::Loaded(spec())],
            Request::Open { .. } => vec![Reply::Opened],
            Request::Close { .. } => vec![],
            Request::Window(_) | Request::Hop(_) => vec![wrong.clone()],
        })
    })
}

#[test]
fn replies_that_make_no_sense_are_errors() {
    let done = |result: HopResult| Reply::Done(result);
    let fits = HopResult { final_frames: 1, received: 20_000, ran: true, ..HopResult::default() };
    for wrong in [
        Reply::Attached,
        welcome(1),
        done(HopResult { final_len: 5, ..fits }),
        done(HopResult { final_len: usize::MAX, ..fits }),
        done(HopResult { final_len: usize::MAX / 2, provisional_len: usize::MAX, ..fits }),
        done(HopResult { final_frames: u64::MAX, ..fits }),
        done(HopResult { received: 3, ..fits }),
        Reply::Failed { reason: "x\u{1b}[31m".repeat(3_000), out_of_memory: true },
        Reply::Cancelled { received: 1, final_frames: 9 },
    ] {
        let workers = Workers::new();
        let mut model = load(lying(&workers, wrong.clone())).unwrap();
        let mut state = model.new_stream(&ContextPlan::default()).unwrap();
        state.push(&noise(1, 40_000)).unwrap();
        let error = model.separate_hop(&mut state, 1, MaskRule::Plain, &()).unwrap_err().to_string();
        assert!(error.chars().count() <= 4_000 && !error.contains('\u{1b}'), "{wrong:?}: {error}");
    }
    for wrong in [Reply::Opened, Reply::Loaded(RemoteSpec { channels: 0, ..spec() }), welcome(7)] {
        let workers = Workers::new();
        let launcher = fake(&workers, move |request| {
            Some(match request {
                Request::Hello { .. } => vec![welcome(protocol::VERSION)],
                Request::Attach { .. } => vec![Reply::Attached],
                _ => vec![wrong.clone()],
            })
        });
        assert!(matches!(load(launcher), Err(WorkerError::Protocol(_))));
    }
}

#[test]
fn a_new_client_of_a_hung_worker_ends_it_and_starts_another() {
    let workers = Workers::new();
    let _keeper = workers.load().unwrap();
    let before = workers.processes();
    before.iter().for_each(|process| signal(*process, libc::SIGSTOP));
    let started = Instant::now();
    let mut model = workers.load().unwrap();
    let window = noise(1, 10_000);
    model.separate_window(&window, MaskRule::Plain, &mut vec![0.0; window.len() * model.stems()]).unwrap();
    assert!(started.elapsed() < LONG && workers.processes() != before);
}

#[test]
fn a_model_that_does_not_load_is_reported_as_in_this_process() {
    let workers = Workers::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.ckpt");
    std::fs::write(&path, "not a checkpoint").unwrap();
    let load = |checkpoint: &std::path::Path| {
        let request = LoadRequest { checkpoint: Some(PathBytes::new(checkpoint)), ..request() };
        RemoteModel::load(workers.launcher(), "cpu", request, Default::default(), &mut go_on())
    };
    let error = load(&path).err().unwrap();
    assert!(
        matches!(error, WorkerError::InvalidModel { .. }) && error.to_string().contains("broken.ckpt"),
        "{error}"
    );
    assert!(load(&folder.path().join("missing.ckpt")).is_err());
    // The worker goes on.
    workers.load().unwrap();
}

#[test]
fn a_device_that_is_not_there_is_reported() {
    let workers = Workers::new();
    let error = RemoteModel::load(workers.launcher(), "cuda:0", request(), Default::default(), &mut go_on())
        .err()
        .unwrap();
    assert!(matches!(error, WorkerError::Device(_)) && error.to_string().contains("cuda"), "{error}");
    let error = RemoteModel::load(workers.launcher(), "toaster", request(), Default::default(), &mut go_on())
        .err()
        .unwrap();
    assert!(error.to_string().contains("toaster"), "{error}");
    let devices = workers.launcher().devices().unwrap();
    assert_eq!((devices[0].name.as_str(), devices[0].works), ("cpu", true));
}
