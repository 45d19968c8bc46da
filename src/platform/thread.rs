//! Calls that the kernel may hold up, run beside the event loop.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

/// Several times what a walk over `/proc` or a path lookup takes.
const STACK: usize = 128 * 1024;

/// Runs one blocking call at a time on a thread of its own, which ends with the call.
#[derive(Debug, Clone, Default)]
pub struct BlockingCall(Arc<Mutex<()>>);

impl BlockingCall {
    /// The result of `work`. `None` if it takes longer than `limit`, if an earlier call still hangs (so that threads do
    /// not pile up), or if no thread can be started.
    pub async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let running = Arc::clone(&self.0).try_lock_owned().ok()?;
        let (sender, result) = oneshot::channel();
        let call = move || {
            let result = work();
            drop(running);
            // The receiver is gone after `limit`.
            let _late = sender.send(result);
        };
        std::thread::Builder::new().name("blocking".to_owned()).stack_size(STACK).spawn(call).ok()?;
        timeout(limit, result).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_call_that_hangs_is_abandoned_and_keeps_the_next_one_out_until_it_returns() {
        let (calls, (release, held)) = (BlockingCall::default(), mpsc::channel::<()>());
        assert_eq!(calls.run(Duration::from_secs(20), || 1).await, Some(1));
        assert_eq!(calls.run(Duration::from_millis(20), move || held.recv().is_err()).await, None);
        assert_eq!(calls.run(Duration::from_secs(20), || 2).await, None);
        drop(release);
        while calls.run(Duration::from_secs(20), || 3).await.is_none() {
            tokio::task::yield_now().await;
        }
    }
}
