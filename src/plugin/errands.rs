//! The framework's own thread, and a defect of it.
//!
//! Its VST3 wrapper sends a message to that thread for every parameter that a host automates. When an instance is dropped while such a message
//! is on its way, the thread ends, though other instances need it; and when the last of them is dropped, the framework misses its thread and
//! aborts the host. So an instance that is deactivated, after which the audio thread sends nothing more, waits until its messages were read.

use std::time::Duration;

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use nice_plug::prelude::{AsyncExecutor, Plugin};

/// How long the thread may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The thread lets go of the instance a moment after it has answered.
const MOMENT: Duration = Duration::from_millis(2);

/// A message that is answered when all before it were read.
pub struct Errand(Sender<()>);

impl Errand {
    /// Answers it.
    pub fn run(self) {
        let _ = self.0.send(());
    }
}

/// Waits until all messages of an instance were read.
pub type Flush = Box<dyn Fn() + Send>;

/// The way to the framework's thread.
pub fn flush_by<P: Plugin<BackgroundTask = Errand>>(executor: AsyncExecutor<P>) -> Flush {
    Box::new(move || {
        // The queue may be full of messages, and then leaves ours out.
        for _ in 0..100 {
            let (answer, answered) = bounded(1);
            executor.execute_background(Errand(answer));
            match answered.recv_timeout(PATIENCE) {
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(MOMENT),
                Ok(()) | Err(RecvTimeoutError::Timeout) => break,
            }
        }
        std::thread::sleep(MOMENT);
    })
}
