//! The standalone app, on a virtual screen.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::stress::in_own_process;
use crate::virtual_screen::Screen;

/// Waits for `done`. Returns whether it became true in time.
fn becomes_true(mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > Duration::from_secs(60) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Kills the app when the test ends, even on failure.
struct App(Child);

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs Xvfb; scripts/test-hosts runs it"]
fn the_app_and_its_window_close_on_a_signal() {
    let Some(path) = option_env!("CARGO_BIN_EXE_nullsum") else {
        println!("built without `standalone`: there is no app to test");
        return;
    };
    in_own_process(|| {
        let screen = Screen::start();
        let cache = tempfile::tempdir().unwrap();
        for signal in [libc::SIGINT, libc::SIGTERM] {
            let mut command = Command::new(path);
            let mut app =
                App(command.args(["-b", "dummy"]).env("NULLSUM_CACHE", cache.path()).spawn().unwrap());
            let windows = || screen.whole().children().iter().filter(|(width, _)| *width > 400).count();
            assert!(becomes_true(|| windows() == 1), "no window");
            // SAFETY: a child that has not been waited for.
            unsafe { libc::kill(app.0.id().cast_signed(), signal) };
            let mut status = None;
            assert!(
                becomes_true(|| (status = app.0.try_wait().unwrap(), status.is_some()).1),
                "signal {signal}: it stays"
            );
            assert_eq!(status.and_then(|status| status.code()), Some(128 + signal));
            assert!(becomes_true(|| windows() == 0), "signal {signal}: the window stays");
        }
    });
}
