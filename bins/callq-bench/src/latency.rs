//! Latencies in few bytes: a histogram whose buckets grow with the value, each less than 1.6 % wide,
//! so that ten minutes of thousands a second weigh no more than one second of them.

use std::time::Duration;

use serde::Serialize;

/// Buckets for each doubling.
const FINE: u64 = 64;

/// Durations, counted by size.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    longest: u64,
}

/// The usual figures, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub count: u64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Latencies {
    pub(crate) fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket_of(micros);
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.longest = self.longest.max(micros);
    }

    /// Adds what another has counted.
    pub(crate) fn absorb(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        Percentiles {
            count: self.count,
            p50: self.at(0.50),
            p95: self.at(0.95),
            p99: self.at(0.99),
            max: milliseconds(self.longest),
        }
    }

    /// The value below or at which this share of all lies, by nearest rank.
    fn at(&self, share: f64) -> f64 {
        let rank = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return milliseconds(upper_edge(bucket).min(self.longest));
            }
        }
        0.0
    }
}

fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1e3
}

fn bucket_of(micros: u64) -> usize {
    if micros < FINE {
        return micros as usize;
    }
    let doubling = u64::from(micros.ilog2() - FINE.ilog2());
    (FINE + doubling * FINE + (micros >> doubling) - FINE) as usize
}

/// The largest value of a bucket.
fn upper_edge(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < FINE {
        return bucket;
    }
    let doubling = (bucket - FINE) / FINE;
    let step = (bucket - FINE) % FINE + FINE;
    ((step + 1) << doubling) - 1
}

/// The middle of an odd number of values, the mean of the two in the middle of an even one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_within_a_bucket_of_the_true_ones() {
        let mut latencies = Latencies::default();
        for micros in 1..=10_000 {
            latencies.record(Duration::from_micros(micros));
        }

        let found = latencies.percentiles();

        for (found, true_one) in [(found.p50, 5.0), (found.p95, 9.5), (found.p99, 9.9)] {
            assert!(
                (found - true_one).abs() / true_one < 0.016,
                "{found} for {true_one}"
            );
        }
        assert_eq!((found.count, found.max), (10_000, 10.0));
    }

    #[test]
    fn every_value_lies_in_the_bucket_that_holds_it() {
        for micros in (0..100_000).chain([u64::from(u32::MAX)]) {
            let bucket = bucket_of(micros);
            assert!(micros <= upper_edge(bucket), "{micros}");
            assert!(bucket == 0 || micros > upper_edge(bucket - 1), "{micros}");
        }
    }

    #[test]
    fn absorbing_is_as_if_all_had_been_recorded_in_one() {
        let (mut one, mut other) = (Latencies::default(), Latencies::default());
        one.record(Duration::from_millis(1));
        other.record(Duration::from_millis(9));

        one.absorb(&other);

        assert_eq!(one.percentiles().count, 2);
        assert_eq!(one.percentiles().max, 9.0);
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
