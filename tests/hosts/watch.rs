//! Watches the audio thread for system calls.
//!
//! Linux hands every system call of a thread that asked for it (syscall user dispatch, 5.11) to a signal handler while a byte in memory says
//! so. [`during`] sets that byte around a call of the plugin's `process` and nothing else, so that the host's own doings between blocks don't
//! count. The handler notes the call and lets it happen: the plugin does not notice that it is watched. No privilege is needed.
//!
//! What it sees: waiting, locks that are contended, waking others, files, memory from the system, sleeping. What it does not see: a lock that
//! happens to be free (a unit test of the plugin holds all of them instead), clocks read without the kernel's help (vDSO), which are allowed, and the
//! first block of a thread: there the dynamic linker gives the thread its copies of the library's thread-locals, and allocates.

/// A system call of the watched thread.
#[cfg(target_os = "linux")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number, as in `libc::SYS_*`.
    pub number: i64,
    /// Its first three arguments.
    pub arguments: [i64; 3],
    /// Who made it: functions, innermost first.
    pub trace: Vec<String>,
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use linux::{during, of};

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub use elsewhere::*;

/// Where there is no such thing, nothing is watched.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod elsewhere {
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
    /// Calls that are kept; of each `process` the first.
    const KEPT: usize = 64;
    const DEPTH: usize = 24;

    /// Whether the watched thread's calls go to the handler.
    static SELECTOR: AtomicU8 = AtomicU8::new(ALLOW);
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    static CALLS: [Note; KEPT] = [const { Note::new() }; KEPT];
    /// One thread is watched at a time.
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

    /// Runs `body` on this thread, which must not have been watched before, and tells the system calls within [`during`]. None where the
    /// kernel can't do it.
    pub fn of<T>(body: impl FnOnce() -> T) -> Option<(T, Vec<Call>)> {
        let _one = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
        SELECTOR.store(ALLOW, SeqCst);
        COUNT.store(0, SeqCst);
        // The first use of it allocates and loads a library.
        let mut frames = [std::ptr::null_mut(); DEPTH];
        // SAFETY: writes at most as many pointers as there is room for.
        unsafe { libc::backtrace(frames.as_mut_ptr(), DEPTH as c_int) };
        // SAFETY: a handler with the signature that SA_SIGINFO asks for; it touches atomics and its own frame.
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
        // SAFETY: switches it off for this thread.
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

    /// Runs `body`, watched where the thread is.
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

    /// Notes the call, then has it made again, unwatched.
    extern "C" fn note(_signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        SELECTOR.store(ALLOW, SeqCst);
        // SAFETY: the kernel hands over both; for SIGSYS the number of the call lies behind the address of the instruction.
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
            // SAFETY: writes at most as many pointers as there is room for.
            let depth = unsafe { libc::backtrace(frames.as_mut_ptr(), DEPTH as c_int) };
            for (kept, frame) in note.trace.iter().zip(&frames[..depth.max(0) as usize]) {
                kept.store(*frame, SeqCst);
            }
        }
        registers[libc::REG_RAX as usize] = i64::from(number);
        // The instruction is two bytes long.
        registers[libc::REG_RIP as usize] -= 2;
    }

    /// The function at an address, as far as the dynamic linker knows.
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
