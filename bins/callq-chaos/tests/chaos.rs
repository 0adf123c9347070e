//! A short storm over the real binary, and both broken twins found out. `make chaos` has the long
//! one.

#![expect(clippy::expect_used, reason = "tests fail by panicking")]

use std::path::PathBuf;
use std::process::Command;

/// The program under test, with callq beside it: `cargo test --workspace` builds both.
fn chaos(arguments: &[&str]) -> String {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_callq-chaos"));
    assert!(
        program.with_file_name("callq").is_file(),
        "callq is not built: run `cargo build --bin callq`, or test the whole workspace"
    );
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    said.into_owned()
}

#[test]
fn every_promise_is_kept_through_a_short_storm() {
    let said = chaos(&[
        "--seconds=20",
        "--users=20",
        "--system-limit=12",
        "--server-kills=5",
        "--power-cuts=1",
        "--server-stops=1",
        "--pauses=2",
        "--database-kills=1",
    ]);

    assert!(said.contains("every promise was kept"), "{said}");
}

#[test]
fn a_callq_that_redials_what_a_dead_server_was_dialling_is_found_out() {
    let said = chaos(&["--twin=redial", "--seconds=30"]);

    assert!(said.contains("was found out"), "{said}");
}

#[test]
fn a_callq_that_frees_the_slots_of_a_dead_server_is_found_out() {
    let said = chaos(&["--twin=free-slot", "--seconds=30"]);

    assert!(said.contains("was found out"), "{said}");
}
