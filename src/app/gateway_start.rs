//! When the gateway was started, for the metrics: a start time that moves reads as a restart.

use crate::core::Generation;

/// Two readings of both clocks differ by a millisecond. What is more is a wall clock that was set.
const SET_MIN_MS: u64 = 1000;

/// The time that was told first, while it holds.
#[derive(Default)]
pub(super) struct GatewayStart(Option<(Generation, i64)>);

impl GatewayStart {
    /// `read_ms`: as the clocks have it now, in milliseconds since 1970.
    pub(super) fn steady(&mut self, generation: Generation, read_ms: i64) -> i64 {
        let holds = |(of, told): &(Generation, i64)| *of == generation && told.abs_diff(read_ms) < SET_MIN_MS;
        self.0.filter(holds).unwrap_or_else(|| *self.0.insert((generation, read_ms))).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_until_the_wall_clock_is_set_or_another_gateway_is_started() {
        let mut start = GatewayStart::default();
        let told = [(1, 5000), (1, 5001), (1, 4999), (1, 9000), (1, 9001), (2, 9001)];
        assert_eq!(told.map(|(generation, ms)| start.steady(generation, ms)), [5000, 5000, 5000, 9000, 9000, 9001]);
    }
}
