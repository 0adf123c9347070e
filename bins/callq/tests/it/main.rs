//! The whole system: the real binary, a real PostgreSQL, a dialer with a ledger of its own.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod cli;
mod database_faults;
mod demo;
mod door;
mod faults;
mod harness;
mod lists;
mod order;
mod parked;
mod provider_faults;
mod restart;
