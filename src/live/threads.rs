//! How many threads live separation uses.

/// Environment variable with the number of threads for live separation.
pub const THREADS_ENV: &str = "NULLSUM_THREADS";

/// Threads for live separation: `NULLSUM_THREADS` if it is a number above 0, else all logical processors but one, which is left to the host. At
/// least 1. On a machine of two processors that is one thread: a host that plays needs the other, and a hop of a few frames hardly gains from a second
/// thread.
pub fn default_threads() -> usize {
    default_threads_with_reason().0
}

/// As [`default_threads`], with the reason for the number, for a log or a menu.
pub fn default_threads_with_reason() -> (usize, &'static str) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    threads_for(std::env::var(THREADS_ENV).ok().as_deref(), processors)
}

fn threads_for(wanted: Option<&str>, processors: usize) -> (usize, &'static str) {
    match wanted.and_then(|text| text.trim().parse().ok()) {
        Some(threads @ 1..) => (threads, "NULLSUM_THREADS says so"),
        _ if processors <= 1 => (1, "this computer has one logical processor"),
        _ => (processors - 1, "one logical processor is left to the host"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_processor_is_left_to_the_host() {
        assert_eq!([1, 2, 8].map(|processors| threads_for(None, processors).0), [1, 1, 7]);
        assert_eq!(threads_for(Some(" 3 "), 8), (3, "NULLSUM_THREADS says so"));
        for nonsense in ["", "0", "-1", "many"] {
            let (threads, reason) = threads_for(Some(nonsense), 4);
            assert_eq!((threads, reason.contains("NULLSUM_THREADS")), (3, false), "{nonsense}");
        }
    }
}
