//! The model queue and PostgreSQL under the same random operations: every answer and every state
//! of the one is held against the other's, and what makes them part shrinks to a short script.

use std::cell::{Cell, RefCell};

use callq_domain::EngineStore;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tokio::runtime::Runtime;

use operations::{Op, Script};
use play::{Look, play};
use stage::Stage;

mod answers;
mod broken_stores;
pub(crate) mod database_clock;
mod drawing;
mod known_differences;
mod mutations;
mod operations;
mod play;
mod reference;
mod replays;
mod snapshot;
mod stage;

/// Scripts of each kind that are played by default, and with `CALLQ_LONG_TESTS=1`.
const SCRIPTS: u32 = 50;
const SCRIPTS_OF_A_LONG_TEST: u32 = 500;
/// After so many scripts the rows that they left dead are taken away.
const VACUUM_AFTER: u32 = 200;
/// How often a failing script is tried in a shorter form, before what is left of it is gone through
/// operation by operation.
const MAX_SHRINK_STEPS: u32 = 500;

/// A stage, and what it takes to play on it from a test that cannot wait.
struct Theatre {
    runtime: Runtime,
    stage: RefCell<Stage>,
    played: Cell<u32>,
}

impl Theatre {
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let stage = runtime.block_on(Stage::new());
        Self {
            runtime,
            stage: RefCell::new(stage),
            played: Cell::new(0),
        }
    }

    fn play(&self, script: &[Op], look: Look) -> Result<(), String> {
        let store = self.stage.borrow().store.clone();
        self.play_with(&store, script, look)
    }

    fn play_with(&self, engine: &dyn EngineStore, script: &[Op], look: Look) -> Result<(), String> {
        let stage = &mut *self.stage.borrow_mut();
        self.played.update(|played| played + 1);
        if self.played.get().is_multiple_of(VACUUM_AFTER) {
            stage.clock.vacuum();
        }
        let played = self.runtime.block_on(play(stage, engine, script, look));
        played.map_err(|difference| difference.to_string())
    }

    /// Leaves out every operation without which the two sides still part.
    fn shorten(&self, mut script: Vec<Op>) -> Vec<Op> {
        if self.play(&script, Look::AtAll).is_ok() {
            return script;
        }
        let mut nth = script.len();
        while nth > 0 {
            nth -= 1;
            let mut shorter = script.clone();
            shorter.remove(nth);
            if self.play(&shorter, Look::AtAll).is_err() {
                script = shorter;
            }
        }
        script
    }
}

/// Plays a script, and fails where the two sides part.
fn replay(script: &[Op]) {
    if let Err(difference) = Theatre::open().play(script, Look::AtAll) {
        panic!("{difference}");
    }
}

/// Draws scripts that are the same at every run; in a long test many, and others each time.
fn runner(max_shrink_iters: u32) -> TestRunner {
    let config = Config {
        cases: if crate::is_long() {
            SCRIPTS_OF_A_LONG_TEST
        } else {
            SCRIPTS
        },
        failure_persistence: None,
        max_shrink_iters,
        ..Config::default()
    };
    if crate::is_long() {
        return TestRunner::new(config);
    }
    let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, seed)
}

/// Plays scripts, and fails at the first over which the two sides part, with a short form of it.
fn play_scripts(scripts: impl Strategy<Value = Vec<Op>>) {
    let theatre = Theatre::open();
    let play = |script: Vec<Op>| {
        theatre
            .play(&script, Look::AtSome)
            .map_err(TestCaseError::fail)
    };
    let outcome = runner(MAX_SHRINK_STEPS).run(&scripts, play);
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(seen, script)) => {
            let script = theatre.shorten(script);
            let again = theatre.play(&script, Look::AtAll).err();
            let difference = again.unwrap_or_else(|| format!("{seen}\n(not when played again)"));
            panic!("{difference}\n\n{}", Script(&script));
        }
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn the_database_answers_as_the_model_does_whatever_is_asked_of_it() {
    play_scripts(drawing::any_script());
}

#[test]
fn the_database_believes_of_a_call_what_the_model_does_in_whatever_order_it_is_told() {
    play_scripts(drawing::told_script());
}

#[test]
fn the_database_gives_turns_as_the_model_does_when_slots_are_scarce() {
    play_scripts(drawing::busy_script());
}

#[test]
fn the_database_gives_campaigns_turns_as_the_model_does() {
    play_scripts(drawing::campaign_script());
}
