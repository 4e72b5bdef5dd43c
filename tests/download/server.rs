//! A web server of the tests' own: one request a connection, on 127.0.0.1, with the faults of real ones. All its
//! threads end when it is dropped.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What was asked.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub path: String,
    /// `N` of `Range: bytes=N-`.
    pub range: Option<usize>,
    pub if_range: Option<String>,
}

/// How a reply goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub enum Fault {
    #[default]
    None,
    /// Nothing, not even headers.
    Silence,
    /// The connection closes after so many bytes of the body.
    CutAfter(usize),
    /// Nothing comes any more after so many bytes of the body.
    HangAfter(usize),
    /// So many bytes at a time, with a pause after each.
    Trickle(usize, Duration),
}

#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub fault: Fault,
    /// Leaves `Content-Length` out: the body ends with the connection.
    pub no_length: bool,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn ok(body: &[u8]) -> Self {
        Self { status: 200, body: body.to_vec(), ..Self::default() }
    }

    /// What a server that knows ranges makes of the request, for a file with this tag.
    pub fn file(request: &Request, body: &[u8], etag: &str) -> Self {
        let tag = ("ETag", etag.to_owned());
        match request.range {
            Some(start) if request.if_range.as_deref().is_none_or(|t| t == etag) => {
                if start >= body.len() {
                    return Self::status(416).with("Content-Range", format!("bytes */{}", body.len()));
                }
                let range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
                let headers = vec![tag, ("Content-Range", range)];
                Self { status: 206, headers, body: body[start..].to_vec(), ..Self::default() }
            }
            _ => Self { headers: vec![tag], ..Self::ok(body) },
        }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn faulty(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    pub fn without_length(mut self) -> Self {
        self.no_length = true;
        self
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    requests: Mutex<Vec<Request>>,
    stopping: AtomicBool,
    stopped: (Mutex<bool>, Condvar),
}

pub struct Server {
    pub url: String,
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            requests: Mutex::default(),
            stopping: AtomicBool::new(false),
            stopped: Default::default(),
        });
        let accepting = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                thread::scope(|scope| {
                    for stream in listener.incoming() {
                        if shared.stopping.load(Ordering::SeqCst) {
                            break;
                        }
                        // A client that goes away is what some tests are about.
                        let shared = &shared;
                        scope.spawn(move || stream.map(|s| serve(s, shared)));
                    }
                });
            }
        });
        Self { url: format!("http://{address}"), address, shared, accepting: Some(accepting) }
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The requests for paths that end so.
    pub fn requests_for(&self, end: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|r| r.path.ends_with(end)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        *self.shared.stopped.0.lock().unwrap() = true;
        self.shared.stopped.1.notify_all();
        // Wakes the accept call.
        let _ = TcpStream::connect(self.address);
        let ended = self.accepting.take().unwrap().join();
        if !thread::panicking() {
            ended.unwrap();
        }
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_nodelay(true)?;
    let mut request = Request::default();
    let mut reader = BufReader::new(stream.try_clone()?);
    for number in 0.. {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if number == 0 {
            request.path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        } else if let Some((name, value)) = line.trim_end().split_once(": ") {
            match name.to_ascii_lowercase().as_str() {
                "range" => {
                    request.range =
                        value.strip_prefix("bytes=").and_then(|v| v.strip_suffix('-')?.parse().ok())
                }
                "if-range" => request.if_range = Some(value.to_owned()),
                _ => {}
            }
        }
    }
    shared.requests.lock().unwrap().push(request.clone());
    let reply = (shared.handler)(&request);
    let hang = || {
        let stopped = shared.stopped.0.lock().unwrap();
        drop(shared.stopped.1.wait_while(stopped, |stopped| !*stopped).unwrap());
    };
    if matches!(reply.fault, Fault::Silence) {
        hang();
        return Ok(());
    }
    let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", reply.status);
    if !reply.no_length {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    match reply.fault {
        Fault::CutAfter(n) => stream.write_all(&reply.body[..n])?,
        Fault::HangAfter(n) => {
            stream.write_all(&reply.body[..n])?;
            hang();
        }
        Fault::Trickle(n, pause) => {
            for piece in reply.body.chunks(n) {
                stream.write_all(piece)?;
                thread::sleep(pause);
            }
        }
        _ => stream.write_all(&reply.body)?,
    }
    stream.shutdown(Shutdown::Write)
}
