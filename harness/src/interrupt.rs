//! The one switch that ends a run early: a signal, or the deadline of the whole run.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Set once, with a reason; everything that waits looks at it or is woken by it.
pub struct Interrupt {
    flag: AtomicBool,
    reason: OnceLock<String>,
    sender: watch::Sender<bool>,
}

impl Default for Interrupt {
    fn default() -> Self {
        Self { flag: AtomicBool::new(false), reason: OnceLock::new(), sender: watch::Sender::new(false) }
    }
}

impl Interrupt {
    /// Ends the run. Only the first reason counts.
    pub fn set(&self, reason: impl Into<String>) {
        let _ = self.reason.set(reason.into());
        self.flag.store(true, Ordering::SeqCst);
        self.sender.send_replace(true);
    }

    /// Why the run is to end, if it is.
    pub fn reason(&self) -> Option<&str> {
        self.flag().load(Ordering::SeqCst).then(|| self.reason.get().map_or("interrupted", String::as_str))
    }

    /// For code that only wants to know whether.
    pub fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// Turns true when the run is to end.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.sender.subscribe()
    }

    /// Ends when the run is to end.
    pub async fn wait(&self) {
        // The sender lives as long as `self`, so this cannot end otherwise.
        let _ = self.watch().wait_for(|set| *set).await;
    }
}

/// Says something to people on stderr. Nobody may be listening any more, which must not end anything.
pub fn tell(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}
