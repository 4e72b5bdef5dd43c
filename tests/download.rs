//! Fetching a model from a server that misbehaves in every way we could think of.
#![cfg(feature = "download")]
#![allow(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nullsum::model::architecture::Family;
use nullsum::registry::{
    DownloadProgress, DownloadStage, FetchError, FetchOptions, FileKind, ModelFiles, RegistryEntry,
    RemoteFile, Task, Timeouts, cached_files_in, entry_folder, fetch, fetch_config,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

#[path = "download/server.rs"]
mod server;
use server::{Fault, Reply, Request, Server};

const CONFIG: &[u8] = b"audio:\n  sample_rate: 44100\nmodel:\n  dim: 8\n";
const ETAG: &str = "\"one\"";

/// A checkpoint's bytes, none of them where another is.
fn weights() -> Vec<u8> {
    let mut bytes = b"PK\x03\x04".to_vec();
    bytes.extend((0..100_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()));
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn remote(url: String, bytes: &[u8]) -> RemoteFile {
    RemoteFile { url, sha256: Some(sha256(bytes)), size: Some(bytes.len() as u64), mirrors: Vec::new() }
}

/// An entry whose published facts are true.
fn entry(server: &Server) -> RegistryEntry {
    RegistryEntry {
        name: "test-model".into(),
        title: "Test".into(),
        author: "nobody".into(),
        architecture: Family::BsRoformer,
        tasks: vec![Task::Vocals],
        stems: vec!["vocals".into()],
        instruments: vec![],
        target: None,
        aliases: vec![],
        checkpoint: remote(format!("{}/m/model.ckpt", server.url), &weights()),
        config: remote(format!("{}/m/model.yaml", server.url), CONFIG),
        network: None,
        sdr: vec![],
        licence: None,
        code_licence: None,
        licence_note: None,
        source: server.url.clone(),
    }
}

/// The same, of which nobody published hash or size.
fn unpublished(server: &Server) -> RegistryEntry {
    let mut e = entry(server);
    for remote in [&mut e.checkpoint, &mut e.config] {
        (remote.sha256, remote.size) = (None, None);
    }
    e
}

/// Patient enough for a busy machine, and without second attempts.
fn options(dir: &TempDir) -> FetchOptions {
    let t = Duration::from_secs(20);
    FetchOptions {
        cache_dir: Some(dir.path().to_owned()),
        timeouts: Timeouts { connect: t, response: t, stall: t, lock: t },
        retries: 0,
        ..FetchOptions::default()
    }
}

fn impatient_options(dir: &TempDir) -> FetchOptions {
    let mut o = options(dir);
    o.timeouts.response = Duration::from_secs(2);
    o.timeouts.stall = Duration::from_secs(2);
    o
}

fn run_fetch(e: &RegistryEntry, o: &FetchOptions) -> Result<ModelFiles, FetchError> {
    fetch(e, o, &mut |_| ControlFlow::Continue(()))
}

/// A server that has the config, and for the checkpoint asks the closure with the number of the request.
fn serve(checkpoint: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |r| {
        if r.path.ends_with(".yaml") {
            Reply::file(r, CONFIG, "\"config\"")
        } else {
            checkpoint(count.fetch_add(1, Ordering::SeqCst), r)
        }
    })
}

fn good_server() -> Server {
    serve(|_, r| Reply::file(r, &weights(), ETAG))
}

fn part(dir: &TempDir) -> PathBuf {
    dir.path().join("test-model/model.ckpt.part")
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[track_caller]
fn assert_complete(files: &ModelFiles) {
    assert!(fs::read(&files.checkpoint).unwrap() == weights(), "the checkpoint differs");
    assert_eq!(fs::read(&files.config).unwrap(), CONFIG);
    let folder = files.checkpoint.parent().unwrap();
    let expected =
        [".lock", "model.ckpt", "model.ckpt.fetched.json", "model.yaml", "model.yaml.fetched.json"];
    assert_eq!(names(folder), expected);
}

/// No checkpoint, and of a part only `kept` bytes.
#[track_caller]
fn assert_kept(dir: &TempDir, kept: Option<usize>) {
    assert!(!dir.path().join("test-model/model.ckpt").exists(), "a half-written checkpoint");
    assert_eq!(fs::metadata(part(dir)).ok().map(|m| m.len() as usize), kept);
}

#[test]
fn both_files_are_downloaded_and_nothing_else_remains() {
    let (dir, server) = (TempDir::new().unwrap(), good_server());
    let mut seen: Vec<DownloadProgress> = vec![];
    let files = fetch(&entry(&server), &options(&dir), &mut |p| {
        seen.push(p);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_complete(&files);
    assert_eq!(cached_files_in(dir.path(), &entry(&server)), Some(files));

    let total = weights().len() as u64;
    let of = |stage| {
        seen.iter().filter(move |p| p.file == FileKind::Checkpoint && p.stage == stage).collect::<Vec<_>>()
    };
    for stage in [DownloadStage::Downloading, DownloadStage::Verifying] {
        let steps = of(stage);
        assert!(steps.is_sorted_by_key(|p| p.done_bytes), "{stage:?} went back");
        assert_eq!(steps.last().unwrap().done_bytes, total);
        assert!(steps.iter().all(|p| p.total_bytes == Some(total)));
    }
    assert_eq!(of(DownloadStage::Connecting).len(), 1);
    assert_eq!(seen[0].file, FileKind::Config);
}

#[test]
fn cached_files_need_no_request() {
    let (dir, server) = (TempDir::new().unwrap(), good_server());
    let e = entry(&server);
    let first = run_fetch(&e, &options(&dir)).unwrap();
    assert_eq!(server.requests().len(), 2);
    let offline = FetchOptions { offline: true, ..options(&dir) };
    assert_eq!(run_fetch(&e, &options(&dir)).unwrap(), first);
    assert_eq!(run_fetch(&e, &offline).unwrap(), first);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn offline_error_names_cache_folder() {
    let (dir, server) = (TempDir::new().unwrap(), good_server());
    let e = entry(&server);
    let error = run_fetch(&e, &FetchOptions { offline: true, ..options(&dir) }).unwrap_err();
    assert!(matches!(error, FetchError::Offline { .. }) && error.is_unreachable());
    let folder = entry_folder(dir.path(), &e);
    assert!(error.to_string().contains(&folder.display().to_string()), "{error}");
    assert!(server.requests().is_empty());
    // And doing so works.
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.ckpt"), weights()).unwrap();
    fs::write(folder.join("model.yaml"), CONFIG).unwrap();
    assert!(run_fetch(&e, &FetchOptions { offline: true, ..options(&dir) }).is_ok());
}

#[test]
fn truncated_body_is_reported_and_resumed() {
    let dir = TempDir::new().unwrap();
    let server = serve(|n, r| {
        Reply::file(r, &weights(), ETAG).faulty(if n == 0 { Fault::CutAfter(70_000) } else { Fault::None })
    });
    let total = weights().len() as u64;
    let error = run_fetch(&entry(&server), &options(&dir)).unwrap_err();
    assert!(
        matches!(error, FetchError::Truncated { got: 70_000, expected: Some(n), .. } if n == total),
        "{error:?}"
    );
    assert!(error.to_string().contains("70000 of 400004 bytes"), "{error}");
    assert_kept(&dir, Some(70_000));

    let mut starts = vec![];
    let files = fetch(&entry(&server), &options(&dir), &mut |p| {
        if p.stage == DownloadStage::Downloading {
            starts.push(p.done_bytes);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_complete(&files);
    assert_eq!(starts[0], 70_000);
    let last = server.requests().pop().unwrap();
    assert_eq!((last.range, last.if_range.as_deref()), (Some(70_000), Some(ETAG)));
    assert_eq!(server.requests_for(".yaml").len(), 1);
}

#[test]
fn broken_connection_is_resumed_within_one_call() {
    let dir = TempDir::new().unwrap();
    let server = serve(|n, r| {
        Reply::file(r, &weights(), ETAG).faulty(if n < 3 { Fault::CutAfter(50_000) } else { Fault::None })
    });
    let files = run_fetch(&entry(&server), &FetchOptions { retries: 3, ..options(&dir) }).unwrap();
    assert_complete(&files);
    let starts: Vec<_> = server.requests_for(".ckpt").iter().map(|r| r.range).collect();
    assert_eq!(starts, [None, Some(50_000), Some(100_000), Some(150_000)]);

    // Nothing came: no second attempt.
    let dir = TempDir::new().unwrap();
    let server = serve(|_, r| Reply::file(r, &weights(), ETAG).faulty(Fault::CutAfter(0)));
    assert!(matches!(
        run_fetch(&entry(&server), &FetchOptions { retries: 3, ..options(&dir) }),
        Err(FetchError::Truncated { got: 0, .. })
    ));
    assert_eq!(server.requests_for(".ckpt").len(), 1);
}

/// After a first reply that breaks off at 70 000 bytes, `second` decides; then the result must be whole.
fn after_a_broken_start(second: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Vec<Request> {
    let dir = TempDir::new().unwrap();
    let server = serve(move |n, r| match n {
        0 => Reply::file(r, &weights(), ETAG).faulty(Fault::CutAfter(70_000)),
        1 => second(r),
        _ => Reply::file(r, &weights(), ETAG),
    });
    run_fetch(&entry(&server), &options(&dir)).unwrap_err();
    assert_complete(&run_fetch(&entry(&server), &options(&dir)).unwrap());
    server.requests_for(".ckpt")
}

#[test]
fn a_server_that_ignores_ranges_starts_over() {
    let requests = after_a_broken_start(|_| Reply::ok(&weights()));
    assert_eq!(requests.len(), 2);
}

#[test]
fn a_file_that_changed_meanwhile_starts_over() {
    let requests = after_a_broken_start(|r| Reply::file(r, &weights(), "\"two\""));
    assert_eq!(requests.len(), 2);
    // A server that ignores If-Range still shows the new tag.
    let requests = after_a_broken_start(|r| {
        let blind = Request { if_range: None, ..r.clone() };
        Reply::file(&blind, &weights(), "\"two\"")
    });
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[2].range, None);
}

#[test]
fn shorter_new_file_replaces_longer_part() {
    let dir = TempDir::new().unwrap();
    let server = serve(|n, r| match n {
        0 => Reply::file(r, &weights(), ETAG).faulty(Fault::CutAfter(70_000)),
        _ => Reply::file(r, &weights()[..50_000], "\"two\""),
    });
    let e = unpublished(&server);
    assert!(matches!(run_fetch(&e, &options(&dir)), Err(FetchError::Truncated { got: 70_000, .. })));
    let files = run_fetch(&e, &options(&dir)).unwrap();
    assert!(fs::read(files.checkpoint).unwrap() == weights()[..50_000]);
}

#[test]
fn an_unsatisfiable_range_starts_over() {
    let requests = after_a_broken_start(|_| Reply::status(416).with("Content-Range", "bytes */10"));
    assert_eq!(requests.iter().map(|r| r.range).collect::<Vec<_>>(), [None, Some(70_000), None]);
}

#[test]
fn unrequested_range_starts_over() {
    for range in
        ["bytes 0-399999/400004", "bytes 70000-400003/400005", "nonsense", "bytes 70001-400003/400004"]
    {
        let requests = after_a_broken_start(move |_| {
            Reply { status: 206, ..Reply::ok(&weights()[70_000..]) }
                .with("Content-Range", range)
                .with("ETag", ETAG)
        });
        assert_eq!(requests.len(), 3, "{range}");
    }
}

#[test]
fn part_with_wrong_hash_is_retried_once() {
    let (dir, server) = (TempDir::new().unwrap(), good_server());
    let e = entry(&server);
    fs::create_dir_all(entry_folder(dir.path(), &e)).unwrap();
    fs::write(part(&dir), [7; 1000]).unwrap();
    let record = format!("{{\"url\": {:?}, \"etag\": {ETAG:?}}}", e.checkpoint.url);
    fs::write(part(&dir).with_extension("part.fetched.json"), record).unwrap();
    assert_complete(&run_fetch(&e, &options(&dir)).unwrap());
    let starts: Vec<_> = server.requests_for(".ckpt").iter().map(|r| r.range).collect();
    assert_eq!(starts, [Some(1000), None]);
}

#[test]
fn part_of_unknown_origin_is_not_resumed() {
    let (dir, server) = (TempDir::new().unwrap(), good_server());
    let e = entry(&server);
    fs::create_dir_all(entry_folder(dir.path(), &e)).unwrap();
    fs::write(part(&dir), &weights()[..1000]).unwrap();
    for record in [None, Some("{"), Some("{\"url\": \"https://elsewhere/model.ckpt\"}")] {
        if let Some(record) = record {
            fs::write(part(&dir).with_extension("part.fetched.json"), record).unwrap();
        }
        assert_complete(&run_fetch(&e, &options(&dir)).unwrap());
        assert_eq!(server.requests_for(".ckpt").pop().unwrap().range, None);
        fs::rename(dir.path().join("test-model/model.ckpt"), part(&dir)).unwrap();
    }
}

#[test]
fn a_wrong_hash_is_refused_and_nothing_is_kept() {
    let mut altered = weights();
    altered[200_000] ^= 1;
    let (found, expected) = (sha256(&altered), sha256(&weights()));
    let dir = TempDir::new().unwrap();
    let server = serve(move |_, r| Reply::file(r, &altered, ETAG));
    let error = run_fetch(&entry(&server), &options(&dir)).unwrap_err();
    assert!(matches!(error, FetchError::WrongHash { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&found) && text.contains(&expected) && text.contains(&server.url), "{text}");
    assert_kept(&dir, None);
    assert_eq!(server.requests_for(".ckpt").len(), 1);
}

#[test]
fn wrong_size_is_refused() {
    for (length, no_length) in [(399_999, false), (400_005, false), (400_005, true)] {
        let dir = TempDir::new().unwrap();
        let server = serve(move |_, _| {
            let mut body = weights();
            body.resize(length, 0);
            let reply = Reply::ok(&body);
            if no_length { reply.without_length() } else { reply }
        });
        let error = run_fetch(&entry(&server), &options(&dir)).unwrap_err();
        assert!(matches!(error, FetchError::WrongSize { expected: 400_004, .. }), "{length}: {error:?}");
        assert_kept(&dir, None);
    }
    // A shorter body without a length cannot be told from a broken connection.
    let dir = TempDir::new().unwrap();
    let server = serve(|_, _| Reply::ok(&weights()[..1000]).without_length());
    assert!(matches!(
        run_fetch(&entry(&server), &options(&dir)),
        Err(FetchError::Truncated { got: 1000, .. })
    ));
}

#[test]
fn endless_config_is_refused() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(|_| Reply::ok(&vec![b'#'; 5 << 20]).without_length());
    let error = run_fetch(&unpublished(&server), &options(&dir)).unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { .. }), "{error:?}");
    assert_eq!(names(&dir.path().join("test-model")), [".lock"]);
    let server = Server::start(|_| Reply::ok(&vec![b'#'; 5 << 20]));
    assert!(matches!(run_fetch(&unpublished(&server), &options(&dir)), Err(FetchError::TooLarge { .. })));
}

#[test]
fn http_errors_name_url_and_advice() {
    for (status, advice, network) in [
        (404, "no longer exists", false),
        (403, "refuses access", false),
        (429, "try again in a while", true),
        (500, "try again later", true),
        (503, "try again later", true),
        (204, "did not send", false),
        (206, "did not send", false),
    ] {
        let dir = TempDir::new().unwrap();
        let server = serve(move |_, _| Reply::status(status));
        let e = entry(&server);
        let error = run_fetch(&e, &options(&dir)).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, FetchError::Status { status: s, .. } if s == status), "{error:?}");
        assert!(text.contains(&e.checkpoint.url) && text.contains(advice), "{text}");
        assert_eq!(error.is_unreachable(), network, "{text}");
        assert_kept(&dir, None);
    }
}

#[test]
fn redirects_are_followed_when_resuming() {
    let dir = TempDir::new().unwrap();
    let cut = Mutex::new(true);
    let server = Server::start(move |r| match r.path.as_str() {
        "/m/model.ckpt" => Reply::status(302).with("Location", "/elsewhere/x?signature=1"),
        "/m/model.yaml" => Reply::status(301).with("Location", "/config"),
        "/config" => Reply::ok(CONFIG),
        _ => {
            let first = std::mem::take(&mut *cut.lock().unwrap());
            Reply::file(r, &weights(), ETAG).faulty(if first { Fault::CutAfter(70_000) } else { Fault::None })
        }
    });
    assert!(matches!(run_fetch(&entry(&server), &options(&dir)), Err(FetchError::Truncated { .. })));
    assert_complete(&run_fetch(&entry(&server), &options(&dir)).unwrap());
    let last = server.requests().pop().unwrap();
    assert_eq!((last.path.as_str(), last.range), ("/elsewhere/x?signature=1", Some(70_000)));
}

#[test]
fn endless_redirects_are_refused() {
    let dir = TempDir::new().unwrap();
    let server = serve(|n, _| Reply::status(302).with("Location", format!("/again/{n}")));
    let error = run_fetch(&entry(&server), &options(&dir)).unwrap_err();
    assert!(matches!(error, FetchError::TooManyRedirects { .. }), "{error:?}");
    assert!(server.requests().len() < 20);
}

#[test]
fn silent_server_times_out() {
    let dir = TempDir::new().unwrap();
    let server = serve(|_, _| Reply::default().faulty(Fault::Silence));
    let since = Instant::now();
    let error = run_fetch(&entry(&server), &impatient_options(&dir)).unwrap_err();
    assert!(matches!(error, FetchError::Timeout { .. }) && error.is_unreachable(), "{error:?}");
    assert!(error.to_string().contains("within 2 s"), "{error}");
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

#[test]
fn stalled_body_times_out_and_is_resumed() {
    let dir = TempDir::new().unwrap();
    let server = serve(|n, r| {
        Reply::file(r, &weights(), ETAG).faulty(if n == 0 { Fault::HangAfter(70_000) } else { Fault::None })
    });
    let since = Instant::now();
    let error = run_fetch(&entry(&server), &impatient_options(&dir)).unwrap_err();
    assert!(matches!(error, FetchError::Stalled { got: 70_000, .. }), "{error:?}");
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert_kept(&dir, Some(70_000));
    assert_complete(&run_fetch(&entry(&server), &options(&dir)).unwrap());
    assert_eq!(server.requests().pop().unwrap().range, Some(70_000));
}

#[test]
fn slow_steady_body_is_accepted() {
    let dir = TempDir::new().unwrap();
    // 20 pieces, 120 ms apart: longer in all than the 2 s that a pause may last.
    let server = serve(|_, r| {
        Reply::file(r, &weights(), ETAG).faulty(Fault::Trickle(20_001, Duration::from_millis(120)))
    });
    let since = Instant::now();
    assert_complete(&run_fetch(&entry(&server), &impatient_options(&dir)).unwrap());
    assert!(since.elapsed() > Duration::from_secs(2));
}

#[test]
fn cancelled_download_is_resumed() {
    let (dir, server) = (TempDir::new().unwrap(), good_server());
    let e = entry(&server);
    let error = fetch(&e, &options(&dir), &mut |p| {
        let stop =
            p.file == FileKind::Checkpoint && p.stage == DownloadStage::Downloading && p.done_bytes > 0;
        if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap_err();
    assert!(matches!(error, FetchError::Cancelled { .. }) && !error.is_unreachable(), "{error:?}");
    let kept = fs::metadata(part(&dir)).unwrap().len() as usize;
    assert!(kept > 0);
    assert_kept(&dir, Some(kept));

    // While hashing, too: then everything is there, and nothing needs to come again.
    let hashing = |p: DownloadProgress| p.file == FileKind::Checkpoint && p.stage == DownloadStage::Verifying;
    let error = fetch(&e, &options(&dir), &mut |p| {
        if hashing(p) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(error, Err(FetchError::Cancelled { .. })));
    assert_kept(&dir, Some(weights().len()));
    let before = server.requests().len();
    assert_complete(&run_fetch(&e, &options(&dir)).unwrap());
    assert_eq!(server.requests().len(), before);
}

#[test]
fn two_downloads_of_one_model_share_one_transfer() {
    let dir = TempDir::new().unwrap();
    let (second_waits, waiting) = mpsc::channel();
    let (first_asked, asked) = mpsc::channel();
    let (waiting, first_asked) = (Mutex::new(waiting), Mutex::new(first_asked));
    // The first one's checkpoint comes only when the second one is known to wait.
    let server = serve(move |_, r| {
        first_asked.lock().unwrap().send(()).unwrap();
        waiting.lock().unwrap().recv_timeout(Duration::from_secs(20)).unwrap();
        Reply::file(r, &weights(), ETAG)
    });
    let (e, o) = (entry(&server), options(&dir));
    thread::scope(|scope| {
        let first = scope.spawn(|| run_fetch(&e, &o));
        asked.recv_timeout(Duration::from_secs(20)).unwrap();
        let second = fetch(&e, &o, &mut |p| {
            if p.stage == DownloadStage::Waiting {
                let _ = second_waits.send(());
            }
            ControlFlow::Continue(())
        });
        assert_eq!(first.join().unwrap().unwrap(), second.unwrap());
    });
    assert_complete(&cached_files_in(dir.path(), &e).unwrap());
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn lock_timeout_is_reported() {
    let (dir, server) = (TempDir::new().unwrap(), good_server());
    let e = entry(&server);
    let folder = entry_folder(dir.path(), &e);
    fs::create_dir_all(&folder).unwrap();
    let lock = fs::File::create(folder.join(".lock")).unwrap();
    lock.lock().unwrap();
    let mut o = options(&dir);
    o.timeouts.lock = Duration::from_millis(120);
    let error = run_fetch(&e, &o).unwrap_err();
    assert!(matches!(error, FetchError::Busy { .. }), "{error:?}");
    // A waiting one can be cancelled.
    let error = fetch(&e, &options(&dir), &mut |_| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(error, FetchError::Cancelled { .. }), "{error:?}");
    assert!(server.requests().is_empty());
    drop(lock);
    assert!(run_fetch(&e, &o).is_ok());
}

#[test]
fn web_page_is_recognised() {
    let page = b"\n<!DOCTYPE html><title>Log in to the hotel</title>".as_slice();
    for (content_type, body) in
        [(true, page), (false, page), (false, b"\xef\xbb\xbf<HTML>"), (true, b"sign in")]
    {
        let dir = TempDir::new().unwrap();
        let server = Server::start(move |_| {
            let reply = Reply::ok(body);
            if content_type { reply.with("Content-Type", "text/html; charset=utf-8") } else { reply }
        });
        let error = run_fetch(&unpublished(&server), &options(&dir)).unwrap_err();
        assert!(matches!(error, FetchError::NotAModel { what: "a web page", .. }), "{error:?}");
        assert!(error.to_string().contains("log in with a browser"), "{error}");
        assert_eq!(names(&dir.path().join("test-model")), [".lock"]);
    }
}

#[test]
fn lfs_pointers_empty_and_compressed_bodies_are_refused() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n".as_slice();
    for (body, encoding) in [(pointer, None), (b"".as_slice(), None), (b"\x1f\x8b".as_slice(), Some("gzip"))]
    {
        let dir = TempDir::new().unwrap();
        let server = Server::start(move |_| match encoding {
            Some(encoding) => Reply::ok(body).with("Content-Encoding", encoding),
            None => Reply::ok(body),
        });
        let error = run_fetch(&unpublished(&server), &options(&dir)).unwrap_err();
        assert!(matches!(error, FetchError::NotAModel { .. }), "{error:?}");
    }
}

#[test]
fn download_record_replaces_missing_published_size() {
    let (dir, server) = (TempDir::new().unwrap(), good_server());
    let e = unpublished(&server);
    let files = run_fetch(&e, &options(&dir)).unwrap();
    assert_complete(&files);
    let record = entry_folder(dir.path(), &e).join("model.ckpt.fetched.json");
    assert!(fs::read_to_string(record).unwrap().contains(&sha256(&weights())));

    let mut damaged = weights();
    damaged[5] ^= 1;
    fs::write(&files.checkpoint, &damaged).unwrap();
    assert_eq!(cached_files_in(dir.path(), &e), Some(files.clone()), "sizes only");
    // A file that lost its end is not taken for a model, and comes again.
    fs::write(&files.checkpoint, &damaged[..100]).unwrap();
    assert_eq!(cached_files_in(dir.path(), &e), None);
    assert_complete(&run_fetch(&e, &options(&dir)).unwrap());
}

#[test]
fn part_without_validator_is_not_resumed() {
    let dir = TempDir::new().unwrap();
    let server = serve(|n, _| {
        Reply::ok(&weights()).faulty(if n == 0 { Fault::CutAfter(70_000) } else { Fault::None })
    });
    let e = unpublished(&server);
    assert!(matches!(run_fetch(&e, &options(&dir)), Err(FetchError::Truncated { got: 70_000, .. })));
    assert_complete(&run_fetch(&e, &options(&dir)).unwrap());
    assert_eq!(server.requests_for(".ckpt").pop().unwrap().range, None);
}

#[test]
fn refused_connection_counts_as_unreachable() {
    let dir = TempDir::new().unwrap();
    let server = good_server();
    let e = entry(&server);
    drop(server);
    let error = run_fetch(&e, &options(&dir)).unwrap_err();
    assert!(matches!(error, FetchError::Unreachable { .. }) && error.is_unreachable(), "{error:?}");
    assert!(error.to_string().contains(&e.config.url), "{error}");
}

#[test]
fn mirror_replaces_host() {
    let (dir, server) = (TempDir::new().unwrap(), good_server());
    let mut e = entry(&server);
    e.checkpoint.url = "https://host.invalid/a/model.ckpt".into();
    e.config.url = "https://host.invalid/a/model.yaml".into();
    let o = FetchOptions { base_url: Some(format!("{}/mirror/", server.url)), ..options(&dir) };
    assert_complete(&run_fetch(&e, &o).unwrap());
    let paths: Vec<_> = server.requests().into_iter().map(|r| r.path).collect();
    assert_eq!(paths, ["/mirror/a/model.yaml", "/mirror/a/model.ckpt"]);
}

#[test]
fn error_names_unwritable_cache() {
    let (dir, server) = (TempDir::new().unwrap(), good_server());
    let blocked = dir.path().join("a file");
    fs::write(&blocked, "").unwrap();
    let o = FetchOptions { cache_dir: Some(blocked.clone()), ..options(&dir) };
    let error = run_fetch(&entry(&server), &o).unwrap_err();
    assert!(matches!(error, FetchError::Cache { .. }), "{error:?}");
    assert!(error.to_string().contains(&blocked.display().to_string()), "{error}");

    // A folder where the checkpoint should go.
    let e = entry(&server);
    fs::create_dir_all(entry_folder(dir.path(), &e).join("model.ckpt")).unwrap();
    let error = run_fetch(&e, &options(&dir)).unwrap_err();
    assert!(matches!(error, FetchError::Cache { .. }), "{error:?}");
    assert!(error.to_string().contains("model.ckpt"), "{error}");
}

#[test]
fn concurrent_downloads_leave_one_complete_model() {
    let (dir, server) = (TempDir::new().unwrap(), Arc::new(good_server()));
    let (e, o) = (entry(&server), options(&dir));
    thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| run_fetch(&e, &o))).collect();
        for one in all {
            one.join().unwrap().unwrap();
        }
    });
    assert_complete(&cached_files_in(dir.path(), &e).unwrap());
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn mirrors_are_tried_in_order() {
    let dir = TempDir::new().unwrap();
    let gone = serve(|_, _| Reply::status(404));
    let altered = serve(|_, _| Reply::ok(b"PK\x03\x04 something else"));
    let good = good_server();
    let mut e = entry(&gone);
    // The file keeps the name that the first URL gives it.
    let path = |server: &Server| format!("{}/m/model.ckpt", server.url);
    e.config = remote(format!("{}/m/model.yaml", good.url), CONFIG);
    e.checkpoint.mirrors = vec![path(&altered), path(&good)];
    let files = run_fetch(&e, &options(&dir)).unwrap();
    assert_complete(&files);
    assert_eq!((gone.requests().len(), altered.requests().len()), (1, 1));
}

#[test]
fn error_of_the_first_url_is_reported_when_all_fail() {
    let dir = TempDir::new().unwrap();
    let (gone, broken) = (serve(|_, _| Reply::status(404)), serve(|_, _| Reply::status(500)));
    let good = good_server();
    let mut e = entry(&gone);
    e.config = remote(format!("{}/m/model.yaml", good.url), CONFIG);
    e.checkpoint.mirrors = vec![format!("{}/m/model.ckpt", broken.url)];
    let error = run_fetch(&e, &options(&dir)).unwrap_err();
    assert!(matches!(error, FetchError::Status { status: 404, .. }), "{error}");
}

#[test]
fn yaml_alone_is_downloaded_for_a_file_that_is_there() {
    let dir = TempDir::new().unwrap();
    let server = good_server();
    let e = entry(&server);
    let path = fetch_config(&e, &options(&dir), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(fs::read(&path).unwrap(), CONFIG);
    assert!(server.requests().iter().all(|request| request.path.ends_with(".yaml")));
    let offline = FetchOptions { offline: true, ..options(&dir) };
    assert_eq!(fetch_config(&e, &offline, &mut |_| ControlFlow::Continue(())).unwrap(), path);
}
