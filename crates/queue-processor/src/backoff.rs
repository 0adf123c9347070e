//! How long a call that was not placed waits before it is tried again.

use std::time::Duration;

/// The longest pause of our own choosing.
const LONGEST: Duration = Duration::from_secs(60);

/// The longest pause a provider may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// The shortest: a provider that says "again at once" would otherwise be asked without pause.
const SHORTEST_ASKED: Duration = Duration::from_millis(250);

/// The pause after attempt number `attempt` (from 1): what the provider asked for, or one second,
/// doubling with each attempt to a minute, less up to a quarter at random so that calls turned
/// away together do not come back together.
pub(crate) fn pause_after(attempt: u32, asked: Option<Duration>) -> Duration {
    if let Some(asked) = asked {
        return asked.clamp(SHORTEST_ASKED, LONGEST_ASKED);
    }
    let doublings = attempt.saturating_sub(1).min(10);
    let pause = Duration::from_secs(1 << doublings).min(LONGEST);
    pause.mul_f64(1.0 - 0.25 * rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_minute_and_keep_their_spread() {
        for (attempt, least, most) in [
            (1, 750, 1_000),
            (2, 1_500, 2_000),
            (7, 45_000, 60_000),
            (4_000, 45_000, 60_000),
        ] {
            let pause = pause_after(attempt, None).as_millis();
            assert!(
                (least..=most).contains(&pause),
                "attempt {attempt}: {pause} ms"
            );
        }
    }

    #[test]
    fn the_provider_is_believed_within_reason() {
        assert_eq!(pause_after(1, Some(Duration::ZERO)), SHORTEST_ASKED);
        assert_eq!(
            pause_after(1, Some(Duration::from_secs(7))),
            Duration::from_secs(7)
        );
        assert_eq!(
            pause_after(1, Some(Duration::from_secs(90_000))),
            LONGEST_ASKED
        );
    }
}
