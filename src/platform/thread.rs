//! Calls that the kernel may hold up, run beside the event loop.

use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

/// The default of the standard library. It is mapped, and resident only as far as it is used: all checks of `doctor` run on
/// one thread, and in a debug build they overflow 512 KiB.
const STACK: usize = 2 * 1024 * 1024;

/// Runs one blocking call at a time on a thread of its own, which ends with the call.
#[derive(Debug, Clone, Default)]
pub struct BlockingCall(Arc<Mutex<()>>);

impl BlockingCall {
    /// The result of `work`.
    ///
    /// # Errors
    /// `TimedOut` if it takes longer than `limit`, or if an earlier call still hangs, so that threads do not pile up; EAGAIN if
    /// no thread can be started.
    pub async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let running = Arc::clone(&self.0).try_lock_owned().map_err(|_| late())?;
        let (sender, result) = oneshot::channel();
        let call = move || {
            let result = work();
            drop(running);
            // The receiver is gone after `limit`.
            let _late = sender.send(result);
        };
        std::thread::Builder::new().name("blocking".to_owned()).stack_size(STACK).spawn(call)?;
        timeout(limit, result).await.ok().and_then(Result::ok).ok_or_else(late)
    }
}

/// The result of `work`, on a thread of its own, for a caller without an event loop. `None` if it takes longer than `limit`; the
/// thread then ends with the call. Where no thread can be started it is run here, without a limit.
pub fn bounded<T: Send + 'static>(limit: Duration, work: impl Fn() -> T + Send + Sync + 'static) -> Option<T> {
    let work = Arc::new(work);
    let call = Arc::clone(&work);
    let (sender, result) = mpsc::channel();
    let call = move || {
        // The receiver is gone after `limit`.
        let _late = sender.send(call());
    };
    match std::thread::Builder::new().name("blocking".to_owned()).stack_size(STACK).spawn(call) {
        Ok(_detached) => result.recv_timeout(limit).ok(),
        Err(_) => Some(work()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_bounded_call_that_hangs_is_abandoned() {
        let (release, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        assert_eq!(bounded(Duration::from_secs(20), || 1), Some(1));
        assert_eq!(bounded(Duration::from_millis(20), move || held.lock().map(|held| held.recv().is_err()).ok()), None);
        drop(release);
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_abandoned_and_keeps_the_next_one_out_until_it_returns() {
        let (calls, (release, held)) = (BlockingCall::default(), mpsc::channel::<()>());
        assert_eq!(calls.run(Duration::from_secs(20), || 1).await.ok(), Some(1));
        assert_eq!(calls.run(Duration::from_millis(20), move || held.recv().is_err()).await.ok(), None);
        assert_eq!(calls.run(Duration::from_secs(20), || 2).await.ok(), None);
        drop(release);
        while calls.run(Duration::from_secs(20), || 3).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}
