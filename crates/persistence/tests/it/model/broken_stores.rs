//! Stores that break one rule each: the scripts would be worth nothing if these went by unseen.

use async_trait::async_trait;
use callq_domain::{
    ConcurrencyLimit, EndingEffect, EngineStore, OperatorStore, ProgressBatch, ProgressOutcome,
    ServerId, SlotBatch, SlotOutcome, StoreError,
};
use callq_persistence::PostgresStore;
use proptest::strategy::Strategy;
use proptest::test_runner::{TestCaseError, TestError};

use super::operations::Op;
use super::play::Look;
use super::{Theatre, drawing, runner};

/// The rule that a store breaks.
#[derive(Debug, Clone, Copy)]
enum Breach {
    SwapsTwoTurns,
    ForgetsAnEnding,
    StartsOneTooMany,
    LetsTheLastAtTheDoorGoFirst,
    EndsWhateverAttempt,
    HoldsNoLane,
}

struct Broken {
    store: PostgresStore,
    breach: Breach,
}

#[async_trait]
impl EngineStore for Broken {
    async fn settle(&self, server: ServerId, batch: &SlotBatch) -> Result<SlotOutcome, StoreError> {
        let mut batch = batch.clone();
        match self.breach {
            Breach::ForgetsAnEnding if !batch.endings.is_empty() => {
                batch.endings.pop();
                let mut outcome = self.store.settle(server, &batch).await?;
                outcome.endings.push(EndingEffect::Ended);
                return Ok(outcome);
            }
            Breach::StartsOneTooMany => {
                let limit = self.store.system_state().await?.slots.limit;
                self.set_limit(limit + 1).await?;
                let outcome = self.store.settle(server, &batch).await;
                self.set_limit(limit).await?;
                return outcome;
            }
            Breach::LetsTheLastAtTheDoorGoFirst => batch.admissions.reverse(),
            Breach::EndsWhateverAttempt => {
                batch
                    .endings
                    .iter_mut()
                    .for_each(|ending| ending.attempt = None);
            }
            Breach::HoldsNoLane => {
                let returns = batch.returns.iter_mut();
                returns.for_each(|back| back.delay = std::time::Duration::ZERO);
            }
            Breach::ForgetsAnEnding | Breach::SwapsTwoTurns => {}
        }
        let mut outcome = self.store.settle(server, &batch).await?;
        match self.breach {
            Breach::LetsTheLastAtTheDoorGoFirst => outcome.admissions.reverse(),
            Breach::SwapsTwoTurns if outcome.reserved.len() > 1 => outcome.reserved.swap(0, 1),
            _ => {}
        }
        Ok(outcome)
    }

    async fn record_progress(
        &self,
        server: ServerId,
        batch: &ProgressBatch,
    ) -> Result<ProgressOutcome, StoreError> {
        self.store.record_progress(server, batch).await
    }
}

impl Broken {
    async fn set_limit(&self, slots: u32) -> Result<(), StoreError> {
        let limit = ConcurrencyLimit::new(slots.into()).unwrap();
        self.store.set_system_limit(limit).await.map(drop)
    }
}

/// Plays the scripts that the real store passes, and fails if this one does too.
fn is_caught(breach: Breach, scripts: impl Strategy<Value = Vec<Op>>) {
    let theatre = Theatre::open();
    let broken = Broken {
        store: theatre.stage.borrow().store.clone(),
        breach,
    };
    let play = |script: Vec<Op>| {
        theatre
            .play_with(&broken, &script, Look::AtSome)
            .map_err(TestCaseError::fail)
    };
    let outcome = runner(0).run(&scripts, play);
    assert!(
        matches!(outcome, Err(TestError::Fail(..))),
        "{breach:?} went by unseen"
    );
}

#[test]
fn a_store_that_swaps_two_turns_is_caught() {
    is_caught(Breach::SwapsTwoTurns, drawing::busy_script());
}

#[test]
fn a_store_that_forgets_an_ending_is_caught() {
    is_caught(Breach::ForgetsAnEnding, drawing::busy_script());
}

#[test]
fn a_store_that_starts_one_call_too_many_is_caught() {
    is_caught(Breach::StartsOneTooMany, drawing::busy_script());
}

#[test]
fn a_store_that_lets_the_last_at_the_door_go_first_is_caught() {
    is_caught(Breach::LetsTheLastAtTheDoorGoFirst, drawing::busy_script());
}

#[test]
fn a_store_that_ends_calls_for_attempts_long_over_is_caught() {
    is_caught(Breach::EndsWhateverAttempt, drawing::told_script());
}

#[test]
fn a_store_that_tries_again_at_once_is_caught() {
    is_caught(Breach::HoldsNoLane, drawing::busy_script());
}
