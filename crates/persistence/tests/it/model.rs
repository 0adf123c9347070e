//! The model queue and PostgreSQL under the same random operations: every answer and every state
//! of the one is held against the other's, and what makes them part shrinks to a short script.

use std::cell::RefCell;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tokio::runtime::Runtime;

use operations::{Op, Script};
use play::play;
use stage::Stage;

mod answers;
mod database_clock;
mod drawing;
mod known_differences;
mod mutations;
mod operations;
mod play;
mod reference;
mod replays;
mod snapshot;
mod stage;

/// Scripts a test plays by default, and with `CALLQ_LONG_TESTS=1`.
const SCRIPTS: u32 = 75;
const SCRIPTS_OF_A_LONG_TEST: u32 = 5_000;
/// Operations of a script.
const OPERATIONS: usize = 80;

/// A stage, and what it takes to play on it from a test that cannot wait.
struct Theatre {
    runtime: Runtime,
    stage: RefCell<Stage>,
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
        }
    }

    fn play(&self, script: &[Op]) -> Result<(), String> {
        let stage = &mut *self.stage.borrow_mut();
        let engine = stage.store.clone();
        let played = self.runtime.block_on(play(stage, &engine, script));
        played.map_err(|difference| difference.to_string())
    }
}

/// Plays a script, and fails where the two sides part.
fn replay(script: &[Op]) {
    if let Err(difference) = Theatre::open().play(script) {
        panic!("{difference}");
    }
}

/// Plays scripts that are the same at every run; in a long test many, and others each time.
fn play_scripts(scripts: impl Strategy<Value = Vec<Op>>) {
    let config = Config {
        cases: if crate::is_long() {
            SCRIPTS_OF_A_LONG_TEST
        } else {
            SCRIPTS
        },
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let mut runner = if crate::is_long() {
        TestRunner::new(config)
    } else {
        let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        TestRunner::new_with_rng(config, seed)
    };
    let theatre = Theatre::open();
    let outcome = runner.run(&scripts, |script| {
        theatre.play(&script).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(seen, script)) => {
            let again = theatre.play(&script).err();
            let difference = again.unwrap_or_else(|| format!("{seen}\n(not when played again)"));
            panic!("{difference}\n\n{}", Script(&script));
        }
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn the_database_answers_as_the_model_does_whatever_is_asked_of_it() {
    play_scripts(drawing::any_script(OPERATIONS));
}

#[test]
fn the_database_gives_turns_as_the_model_does_when_slots_are_scarce() {
    play_scripts(drawing::busy_script(OPERATIONS));
}
