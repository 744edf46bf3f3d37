//! Whether a failed attempt is followed by another, and when.

use crate::error::{Cause, Failure, TaskError};
use crate::task::record::Ref;
use std::sync::Arc;
use std::time::Duration;

/// Longest time between two attempts.
const BACK_OFF_MAX: Duration = Duration::from_secs(3600);

/// How long to wait before the attempt after number `attempt` (from 1), which ended with `failure`; `None` if there is
/// to be none.
pub(crate) fn delay(task: Ref, attempt: u32, failure: &Arc<Failure>) -> Option<Duration> {
    let limits = &task.extra()?.limits;
    if attempt > limits.retries || matches!(failure.cause, Cause::Cancelled | Cause::Upstream(_)) {
        return None;
    }
    if let Some(is_worth) = limits.retry_if
        && !is_worth(&TaskError::of(Arc::clone(failure)))
    {
        return None;
    }
    Some(back_off(limits.back_off, attempt))
}

/// Twice as long before each attempt.
fn back_off(first: Duration, attempt: u32) -> Duration {
    let doubled = first.checked_mul(1u32.checked_shl(attempt - 1).unwrap_or(u32::MAX));
    doubled.unwrap_or(BACK_OFF_MAX).min(BACK_OFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_its_bound() {
        let first = Duration::from_millis(100);
        assert_eq!(back_off(first, 1), first);
        assert_eq!(back_off(first, 4), 8 * first);
        assert_eq!(back_off(first, 40), BACK_OFF_MAX);
        assert_eq!(back_off(Duration::ZERO, 40), Duration::ZERO);
    }
}
