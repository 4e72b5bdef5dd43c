//! What the other side of a worker's socket may send: any bytes, in any pieces, read as requests and as replies.
#![no_main]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nullsum::worker::channel::Channel;
use nullsum::worker::protocol::{Reply, Request};

/// Reads all messages of one type, until the channel is closed.
macro_rules! read_all {
    ($message:ty, $bytes:expr) => {
        let (Ok((mut sender, receiver)), bytes) = (UnixStream::pair(), $bytes) else { return };
        let Ok(mut channel) = Channel::new(receiver.into()) else { return };
        // More would wait for the reader.
        let bytes = &bytes[..bytes.len().min(64 << 10)];
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let _ = sender.write_all(first);
        let mut is_open = channel.receive::<$message>(Duration::ZERO).is_ok();
        let _ = sender.write_all(second);
        drop(sender);
        while is_open {
            is_open = channel.receive::<$message>(Duration::ZERO).is_ok();
        }
    };
}

fuzz_target!(|bytes: &[u8]| {
    read_all!(Request, bytes);
    read_all!(Reply, bytes);
    // With a length that fits, so that the text is reached.
    let mut framed = (bytes.len() as u32).to_le_bytes().to_vec();
    framed.extend_from_slice(bytes);
    read_all!(Request, &framed);
    read_all!(Reply, &framed);
});
