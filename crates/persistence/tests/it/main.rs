//! The store against a real PostgreSQL: every port, user from user, and the migrations.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accounts;
mod batches;
mod calls;
mod campaigns;
mod directory;
mod engine;
mod lanes;
mod migrations;
mod operators;
mod ownership;
mod queue;
mod races;
mod scene;
