//! A local socket that carries messages, and file descriptors beside them.
//!
//! A message is a length of four bytes, little-endian, and so many bytes of JSON. Memory for a message grows with the bytes that arrive, not
//! with the length that was announced. Nothing waits for the other side without a limit.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest message in bytes. A configuration is part of one.
pub const MAX_MESSAGE: usize = 1 << 20;
/// Longest time to hand a message to the system. The other side then has not read for so long.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// Bytes that are read at a time.
const READ_BYTES: usize = 16 << 10;
/// File descriptors that may come with one read. Only the first is kept.
const MAX_DESCRIPTORS: usize = 4;

/// Why nothing was received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side has closed the connection.
    #[error("the other side has closed the connection")]
    Closed,
    /// The bytes are not a message.
    #[error("the other side sent {0}")]
    Malformed(String),
    /// The system reports an error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One end of a connection.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    /// Bytes that were received and not yet taken.
    received: Vec<u8>,
    /// The last file descriptor that was received and not yet taken.
    descriptor: Option<OwnedFd>,
}

impl Channel {
    /// Takes over a connected socket.
    ///
    /// # Errors
    /// Those of changing the socket's flags.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&socket)?;
        rustix::fs::fcntl_setfl(&socket, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self { socket, received: Vec::new(), descriptor: None })
    }

    /// Sends a message, with a file descriptor beside it if there is one.
    ///
    /// # Errors
    /// [`ChannelError`]. The connection is of no use afterwards.
    pub fn send(
        &self,
        message: &impl Serialize,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), ChannelError> {
        let mut frame = vec![0; 4];
        serde_json::to_writer(&mut frame, message).map_err(io::Error::from)?;
        let length = frame.len() - 4;
        if length > MAX_MESSAGE {
            let text = format!("a message of {length} bytes: expected at most {MAX_MESSAGE}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text).into());
        }
        frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
        self.send_bytes(&frame, descriptor)
    }

    fn send_bytes(&self, mut bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<(), ChannelError> {
        let until = Instant::now() + SEND_LIMIT;
        let mut descriptors: &[BorrowedFd<'_>] = descriptor.as_slice();
        while !bytes.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, send_flags()) {
                Ok(count) => {
                    bytes = bytes.get(count..).unwrap_or(&[]);
                    descriptors = &[];
                }
                Err(Errno::AGAIN) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() || !self.wait_for(PollFlags::OUT, left)? {
                        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => return Err(ChannelError::Closed),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(())
    }

    /// The next message, if it arrives within `wait`.
    ///
    /// # Errors
    /// [`ChannelError`]. The connection is of no use afterwards.
    pub fn receive<T: DeserializeOwned>(&mut self, wait: Duration) -> Result<Option<T>, ChannelError> {
        let until = Instant::now() + wait;
        loop {
            if let Some(message) = self.next_message()? {
                return Ok(Some(message));
            }
            if self.read()? {
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.wait_for(PollFlags::IN, left)? {
                return Ok(None);
            }
        }
    }

    /// The file descriptor that came with the last messages.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// Whether the other side has closed the connection. Messages that it sent before may still be there.
    pub fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, hang_up())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(0) | Err(_) => false,
            Ok(_) => fds[0].revents().intersects(hang_up() | PollFlags::HUP | PollFlags::ERR),
        }
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes one message out of the received bytes.
    fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ChannelError> {
        let Some((head, rest)) = self.received.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > MAX_MESSAGE {
            return Err(ChannelError::Malformed(format!(
                "a message of {length} bytes: expected at most {MAX_MESSAGE}"
            )));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(body)
            .map_err(|error| ChannelError::Malformed(format!("a message that cannot be read: {error}")))?;
        self.received.drain(..4 + length);
        Ok(Some(message))
    }

    /// Reads what is there. False if nothing is.
    fn read(&mut self) -> Result<bool, ChannelError> {
        let mut bytes = [0; READ_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let count = match recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            receive_flags(),
        ) {
            Ok(message) => message.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(Errno::CONNRESET) => return Err(ChannelError::Closed),
            Err(error) => return Err(io::Error::from(error).into()),
        };
        // Descriptors that nobody asked for are closed here.
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
                && let Some(first) = descriptors.next()
            {
                self.descriptor = Some(close_on_exec(first)?);
            }
        }
        if count == 0 {
            return Err(ChannelError::Closed);
        }
        self.received.extend_from_slice(&bytes[..count]);
        Ok(true)
    }

    /// Waits until the socket is ready. False if it is not in time.
    fn wait_for(&self, flags: PollFlags, wait: Duration) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.socket, flags)];
        let wait =
            Timespec { tv_sec: wait.as_secs().min(3_600) as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        match poll(&mut fds, Some(&wait)) {
            Ok(count) => Ok(count > 0),
            // The caller looks again.
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(target_os = "linux")]
fn hang_up() -> PollFlags {
    PollFlags::RDHUP
}

#[cfg(not(target_os = "linux"))]
fn hang_up() -> PollFlags {
    PollFlags::HUP
}

/// A connection that was closed is an error and not a signal.
#[cfg(not(target_vendor = "apple"))]
fn send_flags() -> SendFlags {
    SendFlags::NOSIGNAL
}

/// Rust programs and hosts ignore SIGPIPE on macOS, which has no such flag; [`super::endpoint`] sets the option of the socket.
#[cfg(target_vendor = "apple")]
fn send_flags() -> SendFlags {
    SendFlags::empty()
}

#[cfg(not(target_vendor = "apple"))]
fn receive_flags() -> RecvFlags {
    RecvFlags::CMSG_CLOEXEC
}

#[cfg(target_vendor = "apple")]
fn receive_flags() -> RecvFlags {
    RecvFlags::empty()
}

fn close_on_exec(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)?;
    Ok(descriptor)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;

    use super::super::protocol::{Reply, Request};
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    fn pair() -> (UnixStream, Channel) {
        let (a, b) = UnixStream::pair().unwrap();
        (a, Channel::new(b.into()).unwrap())
    }

    #[test]
    fn messages_arrive_in_order_with_their_descriptor() {
        let (a, mut b) = pair();
        let a = Channel::new(a.into()).unwrap();
        let file = tempfile::tempfile().unwrap();
        a.send(&Request::Attach { bytes: 7 }, Some(file.as_fd())).unwrap();
        a.send(&Request::Close { stream: 3 }, None).unwrap();
        assert_eq!(b.receive(SHORT).unwrap(), Some(Request::Attach { bytes: 7 }));
        assert!(b.take_descriptor().is_some());
        assert_eq!(b.receive(SHORT).unwrap(), Some(Request::Close { stream: 3 }));
        assert!(b.take_descriptor().is_none() && !b.is_closed());
        assert_eq!(b.receive::<Request>(SHORT).unwrap(), None);
        drop(a);
        assert!(b.is_closed());
        assert!(matches!(b.receive::<Request>(SHORT), Err(ChannelError::Closed)));
    }

    #[test]
    fn a_message_may_come_in_any_pieces() {
        let (mut a, mut b) = pair();
        let body = serde_json::to_vec(&Reply::Attached).unwrap();
        let mut frame = (body.len() as u32).to_le_bytes().to_vec();
        frame.extend(&body);
        for byte in &frame[..frame.len() - 1] {
            a.write_all(&[*byte]).unwrap();
            assert_eq!(b.receive::<Reply>(Duration::ZERO).unwrap(), None);
        }
        a.write_all(&frame[frame.len() - 1..]).unwrap();
        assert_eq!(b.receive(SHORT).unwrap(), Some(Reply::Attached));
    }

    #[test]
    fn a_long_message_needs_a_reader_and_fails_without_one() {
        let (a, mut b) = pair();
        let a = Channel::new(a.into()).unwrap();
        let long = Reply::DeviceFailed { reason: "x".repeat(MAX_MESSAGE - 100) };
        let sender = std::thread::spawn({
            let long = long.clone();
            move || a.send(&long, None).map(|()| a)
        });
        assert_eq!(b.receive(Duration::from_secs(10)).unwrap(), Some(long));
        let a = sender.join().unwrap().unwrap();
        let too_long = Reply::DeviceFailed { reason: "x".repeat(MAX_MESSAGE) };
        assert!(a.send(&too_long, None).is_err());
    }

    #[test]
    fn announced_lengths_take_no_memory_and_wrong_ones_are_errors() {
        let (mut a, mut b) = pair();
        a.write_all(&(MAX_MESSAGE as u32).to_le_bytes()).unwrap();
        assert_eq!(b.receive::<Request>(SHORT).unwrap(), None);
        assert!(b.received.capacity() < 64 << 10);
        let (mut a, mut b) = pair();
        a.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(matches!(b.receive::<Request>(SHORT), Err(ChannelError::Malformed(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_end_in_a_message_an_error_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300), frame in any::<bool>()) {
            let (mut a, mut b) = pair();
            if frame {
                a.write_all(&(bytes.len() as u32).to_le_bytes()).unwrap();
            }
            a.write_all(&bytes).unwrap();
            drop(a);
            for _ in 0..400 {
                if b.receive::<Request>(Duration::ZERO).is_err() {
                    return Ok(());
                }
            }
            prop_assert!(false, "the end was never seen");
        }
    }
}
