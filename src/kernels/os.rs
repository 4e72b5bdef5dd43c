//! Thread priorities, and keeping the program's code in memory: what the standard library has no call for.

use std::sync::Once;

/// Priority of worker threads, relative to other programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Priority {
    /// Like any other thread: offline rendering and the command line.
    #[default]
    Normal,
    /// Below normal: live separation beside a host.
    Live,
    /// Live work that others pause for: it must get the processor at once, also from a thread of ours that has it.
    Urgent,
    /// Below live work: measurements and preparation.
    Background,
}

/// Sets the priority of the calling thread. It is a hint: a system that refuses leaves the priority as it is.
pub fn set_priority(priority: Priority) {
    imp::set_priority(priority);
}

/// Keeps the library or program that contains this code loaded until the process ends. Call it before a thread is left behind: a host may
/// unload a plugin's library, and the thread would then run freed code.
pub fn pin_library() {
    static PINNED: Once = Once::new();
    PINNED.call_once(imp::pin_library);
}

#[cfg(target_os = "linux")]
mod imp {
    use super::Priority;

    pub fn set_priority(priority: Priority) {
        // A higher nice value could not be undone without privileges, so both classes below normal use the batch policy.
        let policy = match priority {
            // A batch thread that wakes up waits until another one's time slice ends; a normal one need not.
            Priority::Normal | Priority::Urgent => libc::SCHED_OTHER,
            Priority::Live | Priority::Background => libc::SCHED_BATCH,
        };
        let param = libc::sched_param { sched_priority: 0 };
        // SAFETY: the call reads one `sched_param`; thread 0 is the calling thread.
        unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
    }

    pub fn pin_library() {
        super::pin_with_dlopen();
    }
}

#[cfg(target_os = "macos")]
mod imp {
    use super::Priority;

    pub fn set_priority(priority: Priority) {
        let class = match priority {
            Priority::Normal => libc::qos_class_t::QOS_CLASS_DEFAULT,
            Priority::Live | Priority::Urgent => libc::qos_class_t::QOS_CLASS_USER_INITIATED,
            Priority::Background => libc::qos_class_t::QOS_CLASS_UTILITY,
        };
        // SAFETY: the call changes the calling thread only and takes no pointers.
        unsafe { libc::pthread_set_qos_class_self_np(class, 0) };
    }

    pub fn pin_library() {
        super::pin_with_dlopen();
    }
}

#[cfg(windows)]
mod imp {
    use super::Priority;

    type Handle = *mut std::ffi::c_void;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetCurrentThread() -> Handle;
        fn SetThreadPriority(thread: Handle, priority: i32) -> i32;
        fn GetModuleHandleExW(flags: u32, address: *const u16, module: *mut Handle) -> i32;
    }

    const BELOW_NORMAL: i32 = -1;
    const LOWEST: i32 = -2;
    const FROM_ADDRESS: u32 = 4;
    const PIN: u32 = 1;

    pub fn set_priority(priority: Priority) {
        let level = match priority {
            Priority::Normal | Priority::Urgent => 0,
            Priority::Live => BELOW_NORMAL,
            Priority::Background => LOWEST,
        };
        // SAFETY: the pseudo handle of the calling thread is always valid.
        unsafe { SetThreadPriority(GetCurrentThread(), level) };
    }

    pub fn pin_library() {
        let mut module: Handle = std::ptr::null_mut();
        // SAFETY: the address lies in this module, as the flag says; the call writes one handle.
        unsafe {
            GetModuleHandleExW(FROM_ADDRESS | PIN, pin_library as *const () as *const u16, &raw mut module)
        };
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
mod imp {
    pub fn set_priority(_: super::Priority) {}

    pub fn pin_library() {}
}

/// Opens the file that contains this code once more and never closes it.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn pin_with_dlopen() {
    // SAFETY: all fields of `Dl_info` are pointers, for which zero is a valid value.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: the address lies in this program; the call writes one `Dl_info`.
    let found = unsafe { libc::dladdr(pin_library as *const () as *const _, &raw mut info) };
    if found != 0 && !info.dli_fname.is_null() {
        // SAFETY: `dladdr` gave a valid string. `RTLD_NOLOAD` runs no code of the library, which is loaded already.
        unsafe { libc::dlopen(info.dli_fname, libc::RTLD_NOLOAD | libc::RTLD_NODELETE | libc::RTLD_NOW) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn priority_can_be_lowered_and_raised_again() {
        std::thread::spawn(|| {
            // SAFETY: the call takes no pointers; thread 0 is the calling thread.
            let policy = || unsafe { libc::sched_getscheduler(0) };
            for (priority, expected) in [
                (Priority::Live, libc::SCHED_BATCH),
                (Priority::Urgent, libc::SCHED_OTHER),
                (Priority::Normal, libc::SCHED_OTHER),
                (Priority::Background, libc::SCHED_BATCH),
                (Priority::Normal, libc::SCHED_OTHER),
            ] {
                set_priority(priority);
                assert_eq!(policy(), expected, "{priority:?}");
            }
        })
        .join()
        .unwrap();
        pin_library();
    }
}
