//! Clients that send nonsense: the worker goes on, and serves the others.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nullsum::live::WindowSeparator;
use nullsum::separator::MaskRule;
use nullsum::worker::channel::Channel;
use nullsum::worker::endpoint::Endpoint;
use nullsum::worker::memory::SharedMemory;
use nullsum::worker::protocol::{self, HopJob, Reply, Request, StreamPlan, WindowJob, WireRule, WireUrgency};
use proptest::prelude::*;

use crate::support::*;

struct RawClient {
    channel: Channel,
    memory: SharedMemory,
}

impl RawClient {
    fn new(workers: &Workers) -> Self {
        let endpoint = Endpoint::in_folder(&workers.folder(), "cpu").unwrap();
        let channel = Channel::new(endpoint.connect().unwrap()).unwrap();
        let mut client = Self { channel, memory: SharedMemory::create(1 << 16).unwrap() };
        let hello = Request::Hello {
            magic: protocol::MAGIC.into(),
            version: protocol::VERSION,
            program: "test".into(),
        };
        assert!(matches!(client.ask(&hello), Reply::Welcome { .. }));
        client
    }

    fn ask(&mut self, request: &Request) -> Reply {
        self.channel.send(request, None).unwrap();
        self.channel.receive(LONG).unwrap().expect("no reply")
    }

    fn attach(&mut self) {
        let bytes = self.memory.bytes();
        self.channel.send(&Request::Attach { bytes }, Some(self.memory.descriptor())).unwrap();
        assert_eq!(self.channel.receive::<Reply>(LONG).unwrap(), Some(Reply::Attached));
    }

    fn refuses(&mut self, request: &Request) -> String {
        match self.ask(request) {
            Reply::Failed { reason, .. } => reason,
            other => panic!("{request:?}: {other:?}"),
        }
    }
}

const WINDOW: WindowJob = WindowJob {
    job: 1,
    samples: 5_000,
    input: 0,
    output: 10_000,
    rule: WireRule::Plain,
    urgency: WireUrgency { due_us: 0, background: false },
};

const HOP: HopJob = HopJob {
    job: 2,
    stream: 1,
    samples: 8_192,
    input: 0,
    finished: false,
    forget: false,
    frames: 1,
    output: 20_000,
    stride: 4_096,
    rule: WireRule::Complete,
    urgency: WireUrgency { due_us: i64::MIN, background: true },
};

const PLAN: StreamPlan = StreamPlan {
    hop_frames: 1,
    lookahead_frames: 1,
    context_frames: 4,
    margin_frames: 0,
    memory_budget: usize::MAX,
};

#[test]
fn requests_out_of_order_or_out_of_bounds_are_refused() {
    let workers = Workers::new();
    let _keeper = workers.load().unwrap();
    let mut client = RawClient::new(&workers);
    for request in [Request::Window(WINDOW), Request::Hop(HOP), Request::Open { stream: 1, plan: PLAN }] {
        assert!(client.refuses(&request).contains("no model"));
    }
    assert!(client.refuses(&Request::Attach { bytes: 4_096 }).contains("no memory came"));
    assert!(matches!(client.ask(&Request::Load(request())), Reply::Loaded(_)));
    assert!(client.refuses(&Request::Window(WINDOW)).contains("no memory"));
    client.attach();
    assert!(matches!(client.ask(&Request::Window(WINDOW)), Reply::Done(_)));
    let far = [usize::MAX, usize::MAX / 2, 1 << 40, client.memory.capacity()];
    for at in far {
        for job in [
            WindowJob { input: at, ..WINDOW },
            WindowJob { output: at, ..WINDOW },
            WindowJob { samples: at, ..WINDOW },
        ] {
            client.refuses(&Request::Window(job));
        }
    }
    client.refuses(&Request::Window(WindowJob { samples: 0, ..WINDOW }));
    client.refuses(&Request::Window(WindowJob { samples: 3, ..WINDOW }));
    assert!(client.refuses(&Request::Hop(HOP)).contains("no such stream"));
    for plan in [
        StreamPlan { hop_frames: 0, ..PLAN },
        StreamPlan { context_frames: usize::MAX, ..PLAN },
        StreamPlan { lookahead_frames: usize::MAX, ..PLAN },
        StreamPlan { memory_budget: 0, ..PLAN },
    ] {
        client.refuses(&Request::Open { stream: 1, plan });
    }
    assert_eq!(client.ask(&Request::Open { stream: 1, plan: PLAN }), Reply::Opened);
    client.refuses(&Request::Open { stream: 1, plan: PLAN });
    for at in far {
        for job in [
            HopJob { input: at, ..HOP },
            HopJob { output: at, ..HOP },
            HopJob { samples: at, ..HOP },
            HopJob { stride: at, ..HOP },
        ] {
            client.refuses(&Request::Hop(job));
        }
    }
    client.refuses(&Request::Hop(HopJob { frames: usize::MAX, ..HOP }));
    client.refuses(&Request::Hop(HopJob { frames: 0, ..HOP }));
    client.refuses(&Request::Hop(HopJob { stride: 1, ..HOP }));
    assert!(matches!(client.ask(&Request::Hop(HOP)), Reply::Done(_)));
}

#[test]
fn memory_that_could_shrink_is_refused() {
    let workers = Workers::new();
    let _keeper = workers.load().unwrap();
    let mut client = RawClient::new(&workers);
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    client.channel.send(&Request::Attach { bytes: 1 << 20 }, Some(file.as_fd())).unwrap();
    let reply = client.channel.receive::<Reply>(LONG).unwrap().unwrap();
    assert!(matches!(&reply, Reply::Failed { reason, .. } if reason.contains("sealed")), "{reply:?}");
    let bytes = client.memory.bytes() + 1;
    client.channel.send(&Request::Attach { bytes }, Some(client.memory.descriptor())).unwrap();
    assert!(matches!(client.channel.receive::<Reply>(LONG).unwrap(), Some(Reply::Failed { .. })));
    client.attach();
}

fn any_request() -> impl Strategy<Value = Request> {
    let number = prop_oneof![Just(0usize), Just(1), 2..70_000usize, Just(usize::MAX), any::<usize>()];
    let numbers = prop::array::uniform5(number);
    let rule = prop_oneof![Just(WireRule::Plain), Just(WireRule::Complete)];
    let urgency =
        (any::<i64>(), any::<bool>()).prop_map(|(due_us, background)| WireUrgency { due_us, background });
    let window = (any::<u32>(), numbers.clone(), rule.clone(), urgency.clone()).prop_map(
        |(job, [samples, input, output, ..], rule, urgency)| {
            // Long windows only take time.
            let samples = if samples > 6_000 { usize::MAX } else { samples };
            Request::Window(WindowJob { job, samples, input, output, rule, urgency })
        },
    );
    let hop = (any::<u32>(), 0..4u64, numbers.clone(), any::<[bool; 2]>(), rule, urgency).prop_map(
        |(job, stream, [samples, input, frames, output, stride], [finished, forget], rule, urgency)| {
            let (samples, frames) = (samples % 20_000, frames.min(8));
            Request::Hop(HopJob {
                job,
                stream,
                samples,
                input,
                finished,
                forget,
                frames,
                output,
                stride,
                rule,
                urgency,
            })
        },
    );
    let open = (0..4u64, numbers).prop_map(|(stream, [a, b, c, d, e])| Request::Open {
        stream,
        plan: StreamPlan {
            hop_frames: a,
            lookahead_frames: b,
            context_frames: c % 3_000,
            margin_frames: d,
            memory_budget: e,
        },
    });
    prop_oneof![window, hop, open, Just(Request::Open { stream: 1, plan: PLAN })]
}

#[test]
fn any_requests_and_any_bytes_leave_the_worker_as_it_was() {
    let workers = Workers::new();
    let mut good = workers.load().unwrap();
    let process = workers.processes();
    let window = noise(1, 10_000);
    let run = |good: &mut nullsum::worker::RemoteModel| {
        let mut out = vec![0.0; window.len() * good.stems()];
        good.separate_window(&window, MaskRule::Complete, &mut out).unwrap();
        bits(&out)
    };
    let expected = run(&mut good);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&prop::collection::vec(any_request(), 1..12), |requests| {
            let mut client = RawClient::new(&workers);
            assert!(matches!(client.ask(&Request::Load(request())), Reply::Loaded(_)));
            client.attach();
            for request in &requests {
                client.ask(request);
            }
            Ok(())
        })
        .unwrap();
    runner
        .run(&(prop::collection::vec(any::<u8>(), 0..200), any::<bool>()), |(bytes, with_length)| {
            let endpoint = Endpoint::in_folder(&workers.folder(), "cpu").unwrap();
            let mut stream = UnixStream::from(endpoint.connect().unwrap());
            if with_length {
                let _ = stream.write_all(&(bytes.len() as u32).to_le_bytes());
            }
            let _ = stream.write_all(&bytes);
            Ok(())
        })
        .unwrap();
    assert!(run(&mut good) == expected);
    assert_eq!(workers.processes(), process, "the same process");
}

#[test]
fn a_client_that_goes_in_the_middle_of_a_job_does_not_keep_the_device() {
    let workers = Workers::new();
    let mut good = workers.load().unwrap();
    let mut client = RawClient::new(&workers);
    client.memory = SharedMemory::create(40_000_000).unwrap();
    assert!(matches!(client.ask(&Request::Load(request())), Reply::Loaded(_)));
    client.attach();
    let samples = 2_000_000;
    let noise = noise(1, 2 * samples);
    assert!(client.memory.write(0, &noise));
    let job = WindowJob { samples, output: 2 * samples, ..WINDOW };
    client.channel.send(&Request::Window(job), None).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    drop(client);
    let window = &noise[..10_000];
    let started = std::time::Instant::now();
    good.separate_window(window, MaskRule::Plain, &mut vec![0.0; window.len() * good.stems()]).unwrap();
    println!("the next job ran {:.2} s after the client went", started.elapsed().as_secs_f64());
}
