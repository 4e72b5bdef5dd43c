//! Watches the audio thread for system calls.
//!
//! Linux can pass every system call of a thread to a signal handler while a byte in memory is set (syscall user dispatch, Linux 5.11). [`during`]
//! sets that byte around the plugin's `process` only, so that the host's own work between blocks does not count. The handler records the call and
//! lets it proceed, so the plugin cannot notice. No privilege is needed.
//!
//! It sees waiting, contended locks, waking other threads, file access, memory from the system, and sleeping. It does not see uncontended locks (a
//! unit test of the plugin holds all of them instead) and clocks read through the vDSO, which are allowed. The first block of a thread is not
//! watched, because the dynamic linker then allocates the library's thread-locals.

/// A system call of the watched thread.
#[cfg(target_os = "linux")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number, as in `libc::SYS_*`.
    pub number: i64,
    /// Its first three arguments.
    pub arguments: [i64; 3],
    /// The calling functions, innermost first.
    pub trace: Vec<String>,
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use linux::{during, of};

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub use on_new_thread::*;

/// Other systems cannot watch a thread.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod on_new_thread {
    #[cfg(target_os = "linux")]
    pub fn of<T>(body: impl FnOnce() -> T) -> Option<(T, Vec<super::Call>)> {
        let _ = body;
        None
    }

    pub fn during<T>(body: impl FnOnce() -> T) -> T {
        body()
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux {
    use std::cell::Cell;
    use std::ffi::{CStr, c_int, c_void};
    use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU8, AtomicUsize, Ordering::SeqCst};
    use std::sync::{Mutex, PoisonError};

    use super::Call;

    const PR_SET_SYSCALL_USER_DISPATCH: c_int = 59;
    const ALLOW: u8 = 0;
    const BLOCK: u8 = 1;
    /// Calls that are kept; of each `process`, the first.
    const KEPT: usize = 64;
    const DEPTH: usize = 24;

    /// Whether the watched thread's calls go to the handler.
    static SELECTOR: AtomicU8 = AtomicU8::new(ALLOW);
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    static CALLS: [Note; KEPT] = [const { Note::new() }; KEPT];
    /// Only one thread is watched at a time.
    static BUSY: Mutex<()> = Mutex::new(());

    thread_local! {
        static WATCHED: Cell<Watched> = const { Cell::new(Watched::No) };
    }

    #[derive(Clone, Copy)]
    enum Watched {
        No,
        /// From its next block on.
        Soon,
        Now,
    }

    struct Note {
        number: AtomicI64,
        arguments: [AtomicI64; 3],
        trace: [AtomicPtr<c_void>; DEPTH],
    }

    impl Note {
        const fn new() -> Self {
            Self {
                number: AtomicI64::new(0),
                arguments: [const { AtomicI64::new(0) }; 3],
                trace: [const { AtomicPtr::new(std::ptr::null_mut()) }; DEPTH],
            }
        }
    }

    /// Runs `body` on this thread, which must not have been watched before, and returns the system calls made within [`during`]. `None` if the kernel
    /// does not support it.
    pub fn of<T>(body: impl FnOnce() -> T) -> Option<(T, Vec<Call>)> {
        let _one = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
        SELECTOR.store(ALLOW, SeqCst);
        COUNT.store(0, SeqCst);
        // Its first use allocates and loads a library.
        let mut frames = [std::ptr::null_mut(); DEPTH];
        // SAFETY: writes at most as many pointers as `frames` holds.
        unsafe { libc::backtrace(frames.as_mut_ptr(), DEPTH as c_int) };
        // SAFETY: a handler with the signature for SA_SIGINFO; it accesses atomics and its own frame only.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()), 0);
            let refused =
                libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, 1usize, 0usize, 0usize, SELECTOR.as_ptr() as usize);
            if refused != 0 {
                return None;
            }
        }
        WATCHED.set(Watched::Soon);
        let result = body();
        WATCHED.set(Watched::No);
        // SAFETY: switches the dispatch off for this thread.
        unsafe { libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, 0usize, 0usize, 0usize, 0usize) };
        let count = COUNT.load(SeqCst);
        if count > KEPT {
            println!("{count} system calls, of which the first {KEPT} are kept");
        }
        let calls = CALLS.iter().take(count).map(|note| Call {
            number: note.number.load(SeqCst),
            arguments: std::array::from_fn(|n| note.arguments[n].load(SeqCst)),
            trace: note
                .trace
                .iter()
                .map(|frame| name(frame.load(SeqCst)))
                .filter(|name| !name.is_empty())
                .collect(),
        });
        Some((result, calls.collect()))
    }

    /// Runs `body`, watched if this thread is.
    pub fn during<T>(body: impl FnOnce() -> T) -> T {
        match WATCHED.get() {
            Watched::No => return body(),
            Watched::Soon => {
                WATCHED.set(Watched::Now);
                return body();
            }
            Watched::Now => {}
        }
        SELECTOR.store(BLOCK, SeqCst);
        let result = body();
        SELECTOR.store(ALLOW, SeqCst);
        result
    }

    /// Records the call, then repeats it unwatched.
    extern "C" fn note(_signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        SELECTOR.store(ALLOW, SeqCst);
        // SAFETY: the kernel passes both; for SIGSYS the call's number follows the address of the instruction.
        let (number, context) =
            unsafe { (*info.cast::<u8>().add(24).cast::<c_int>(), &mut *context.cast::<libc::ucontext_t>()) };
        let registers = &mut context.uc_mcontext.gregs;
        if let Some(note) = CALLS.get(COUNT.fetch_add(1, SeqCst)) {
            note.number.store(i64::from(number), SeqCst);
            let arguments = [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX];
            for (kept, register) in note.arguments.iter().zip(arguments) {
                kept.store(registers[register as usize], SeqCst);
            }
            let mut frames = [std::ptr::null_mut(); DEPTH];
            // SAFETY: writes at most as many pointers as `frames` holds.
            let depth = unsafe { libc::backtrace(frames.as_mut_ptr(), DEPTH as c_int) };
            for (kept, frame) in note.trace.iter().zip(&frames[..depth.max(0) as usize]) {
                kept.store(*frame, SeqCst);
            }
        }
        registers[libc::REG_RAX as usize] = i64::from(number);
        // The instruction is two bytes long.
        registers[libc::REG_RIP as usize] -= 2;
    }

    /// The function at an address, if the dynamic linker knows it.
    fn name(address: *mut c_void) -> String {
        // SAFETY: fills the structure; its strings live as long as the libraries.
        unsafe {
            let mut info: libc::Dl_info = std::mem::zeroed();
            if address.is_null() || libc::dladdr(address, &mut info) == 0 {
                return String::new();
            }
            let text = |pointer: *const std::ffi::c_char| match pointer.is_null() {
                true => String::new(),
                false => CStr::from_ptr(pointer).to_string_lossy().into_owned(),
            };
            let library = text(info.dli_fname);
            let library = library.rsplit('/').next().unwrap_or_default().to_owned();
            match text(info.dli_sname) {
                symbol if symbol.is_empty() => {
                    format!("{library}+{:#x}", address as usize - info.dli_fbase as usize)
                }
                symbol => format!("{library}:{symbol}"),
            }
        }
    }
}
