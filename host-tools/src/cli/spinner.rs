//! A sign of life for work that nobody can count.

use indicatif::{ProgressBar, ProgressDrawTarget};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

/// Nothing shorter than this gets a spinner.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it moves.
const TICK: Duration = Duration::from_millis(120);

/// Spins on a terminal's stderr, once the work has taken two seconds, until it is dropped.
#[derive(Debug)]
pub(crate) struct Spinner {
    bar: ProgressBar,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Spinner {
    pub fn new(what: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_message(what.to_string());
        let (done, finished) = channel();
        let thread = spawn({
            let bar = bar.clone();
            move || {
                if finished.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                    // Draws nothing where stderr is not a terminal.
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    bar.enable_steady_tick(TICK);
                }
            }
        });
        Self {
            bar,
            thread: Some((done, thread)),
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.thread.take() {
            drop(done);
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}
