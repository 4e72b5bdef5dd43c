//! Says in one line which tests this build leaves out. `scripts/test` leaves out none.

fn main() {
    // nextest asks for a list of tests first.
    let lists = std::env::args().any(|argument| argument == "--list");
    if !lists && !cfg!(feature = "standalone") {
        println!(
            "left out: tests of the plugin, the editor and the app, which need a C compiler and on Linux the headers of ALSA and \
             JACK; `scripts/test` runs them, as does `cargo test --features standalone,assert_process_allocs`"
        );
    }
}
