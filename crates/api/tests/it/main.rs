//! The controllers as clients meet them: the real actix app over ports that live in memory.

#![expect(clippy::expect_used, reason = "what helps a test may fail it")]

mod accepting;
mod admin;
mod campaign_changes;
mod campaigns;
mod directory;
mod do_not_call;
mod edges;
mod fake;
mod fake_campaigns;
mod fake_engine;
mod fake_imports;
mod lists;
mod logging;
mod openapi;
mod operator_calls;
mod seeing;
mod webhooks;
mod world;
