//! The store against a real PostgreSQL: every port, user from user, and the migrations.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accounts;
mod batches;
mod bounds;
mod calls;
mod campaign_changes;
mod campaign_contacts;
mod campaigns;
mod directory;
mod do_not_call;
mod engine;
mod fairness;
mod faults;
mod hours;
mod imports;
mod lanes;
mod migrations;
mod model;
mod net;
mod numbers;
mod operator_calls;
mod operators;
mod ownership;
mod pacing;
mod pairs;
mod places;
mod plans;
mod queue;
mod races;
mod retries;
mod scene;
mod standby;
mod tallies;
mod witness;

/// Whether there is time to play thousands of scripts and fill queues with hundreds of thousands.
fn is_long() -> bool {
    std::env::var("CALLQ_LONG_TESTS").is_ok_and(|value| value == "1")
}
