//! `callq call`: what an operator needs for single calls. It speaks to the database, as every command
//! does, so it works while no server answers.

mod story;
#[cfg(test)]
mod story_tests;
mod words;

use std::process::ExitCode;

use anyhow::bail;
use callq_domain::{
    CallId, CallStatus, HandEffect, HandRefusal, HandSettlement, HeldCall, OperatorReason,
    OperatorStore, OperatorWord, Outcome,
};
use callq_persistence::PostgresStore;
use chrono::{DateTime, Utc};

use crate::call::words::{moment, short, span};
use crate::cli::{CallList, CallSettle, CallShow};
use crate::commands::BadUsage;
use crate::config::Config;
use crate::db::Db;

pub(crate) async fn show(config: &Config, options: &CallShow) -> anyhow::Result<ExitCode> {
    let id = id_of(&options.id)?;
    let (db, store) = open(config).await?;
    let found = store.call_story(id.as_uuid()).await;
    db.close().await?;
    let Some(story) = found? else {
        return no_call(id);
    };
    if options.json {
        say!("{}", callq_api::call_story_json(story));
    } else {
        for line in story::lines(&story, Utc::now()) {
            say!("{line}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn list(config: &Config, options: &CallList) -> anyhow::Result<ExitCode> {
    let status = options.parked.then_some(CallStatus::Unknown);
    let (db, store) = open(config).await?;
    let held = store.held_calls(status, options.limit).await;
    db.close().await?;
    let held = held?;
    if options.json {
        say!("{}", callq_api::held_calls_json(held));
        return Ok(ExitCode::SUCCESS);
    }
    let now = Utc::now();
    for call in &held.items {
        say!("{}", held_line(call, now));
    }
    let (shown, total) = (held.items.len() as u64, held.total);
    if total == 0 {
        say!(
            "no call {}",
            if options.parked {
                "is parked"
            } else {
                "holds a slot"
            }
        );
    } else if shown < total {
        say!("the first {shown} of {total}");
    }
    if options.parked && total > 0 {
        say!("callq call show ID tells the story of one, callq call settle ID ends it");
    }
    Ok(ExitCode::SUCCESS)
}

/// One call that holds a slot, on one line.
fn held_line(held: &HeldCall, now: DateTime<Utc>) -> String {
    let call = &held.call;
    let since = held.unknown_since.unwrap_or(call.reserved_at);
    let owner = if held.owner.is_alive { "alive" } else { "gone" };
    format!(
        "{}  {:<11}  since {} ({})  {}  {}  {}  attempt {}  server {} {owner}",
        call.id,
        call.status.as_str(),
        moment(since),
        span(now - since),
        held.user_email,
        call.phone_number.masked(),
        call.provider,
        call.attempts,
        short(held.owner.server),
    )
}

pub(crate) async fn settle(config: &Config, options: &CallSettle) -> anyhow::Result<ExitCode> {
    let id = id_of(&options.id)?;
    let settlement = settlement_of(options)?;
    let word = settlement.word;
    let (db, store) = open(config).await?;
    let settled = store.settle_by_hand(id.as_uuid(), settlement).await;
    let story = match settled {
        Ok(HandEffect::Ended | HandEffect::Returned) if options.json => {
            store.call_story(id.as_uuid()).await
        }
        _ => Ok(None),
    };
    db.close().await?;
    match settled? {
        HandEffect::UnknownCall => return no_call(id),
        HandEffect::Refused(needs @ HandRefusal::NeedsForce { .. }) => bail!("{needs}: --force"),
        HandEffect::Refused(refusal) => bail!("{refusal}"),
        HandEffect::Ended | HandEffect::Returned => {}
    }
    if let Some(story) = story? {
        say!("{}", callq_api::call_story_json(story));
        return Ok(ExitCode::SUCCESS);
    }
    match word {
        OperatorWord::Ended { outcome, .. } => say!("{id} ended as {}", outcome.as_str()),
        OperatorWord::NotPlaced => say!("{id} waits in its place in the queue again"),
    }
    say!("its slot is free; a running server gives it on at its next look");
    Ok(ExitCode::SUCCESS)
}

fn settlement_of(options: &CallSettle) -> Result<HandSettlement, BadUsage> {
    // Clap has seen to it that one of the two is given, and that it is an outcome.
    let outcome = options.outcome.as_deref().and_then(Outcome::from_name);
    let word = match outcome {
        Some(outcome) => OperatorWord::Ended {
            outcome,
            force: options.force,
        },
        None => OperatorWord::NotPlaced,
    };
    let reason = options.reason.as_deref().map(str::parse::<OperatorReason>);
    Ok(HandSettlement {
        word,
        reason: reason
            .transpose()
            .map_err(|fault| BadUsage::new(format!("--reason {fault}")))?,
        attempt: options.attempt,
    })
}

fn id_of(text: &str) -> Result<CallId, BadUsage> {
    text.parse().map_err(|_| {
        BadUsage::new(format!(
            "ID must be the id of a call or a queue item, a UUID, not {text:?}"
        ))
    })
}

fn no_call(id: CallId) -> anyhow::Result<ExitCode> {
    bail!("no call and no queue item has the id {id}")
}

async fn open(config: &Config) -> anyhow::Result<(Db, PostgresStore)> {
    let db = Db::borrow(config).await?;
    db.prepare().await?;
    let store = db.store(config)?;
    Ok((db, store))
}
