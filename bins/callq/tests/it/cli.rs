//! The command line: settings judged, records printed, the private cluster found.

use std::process::Output;

use crate::harness::{Server, World, callq};

fn run(output: std::io::Result<Output>) -> (Option<i32>, String, String) {
    let output = output.expect("callq runs");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn a_bad_setting_is_one_line_on_stderr_and_exit_2() {
    for (name, value) in [
        ("PORT", "eighty"),
        ("SYSTEM_CONCURRENT_CALLS_LIMIT", "-1"),
        ("QUEUE_PROCESSOR_INTERVAL", "soon"),
        ("CALL_PROVIDER", "telegraph"),
        ("DATABASE_URL", "nonsense"),
        ("MAX_CALL_SECONDS", "0"),
    ] {
        for arguments in [&["serve"][..], &["config", "check"]] {
            let (code, _, stderr) = run(callq().env(name, value).args(arguments).output());
            assert_eq!(code, Some(2), "{name}={value} {arguments:?}: {stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
            assert!(stderr.contains(name), "{stderr}");
        }
    }
}

#[test]
fn config_check_prints_what_is_in_effect_with_secrets_masked_and_flags_winning() {
    let (code, stdout, _) = run(callq()
        .env("DATABASE_URL", "postgres://ada:s3cret@db.example.com/callq")
        .env(
            "HTTP_PROVIDER_SECRET",
            "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0",
        )
        .env("PORT", "4000")
        .args(["config", "check", "--port", "4001"])
        .output());

    assert_eq!(code, Some(0));
    assert!(
        stdout.contains("PORT=4001") && stdout.contains("********"),
        "{stdout}"
    );
    assert!(
        !stdout.contains("s3cret") && !stdout.contains("c2VjcmV0"),
        "{stdout}"
    );
}

#[test]
fn help_is_there_for_every_command() {
    for arguments in [
        &["--help"][..],
        &["serve", "--help"],
        &["migrate", "--help"],
        &["user", "create", "--help"],
        &["token", "create", "--help"],
        &["token", "revoke", "--help"],
        &["call", "show", "--help"],
        &["call", "list", "--help"],
        &["call", "settle", "--help"],
        &["config", "check", "--help"],
        &["demo", "--help"],
        &["audit", "--help"],
    ] {
        let (code, stdout, _) = run(callq().args(arguments).output());
        assert_eq!(code, Some(0), "{arguments:?}");
        assert!(stdout.contains("Usage"), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_made_and_revoked_and_a_taken_email_is_refused() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    let (code, stdout, _) = run(callq()
        .envs(&world.settings)
        .args([
            "token",
            "create",
            "--email",
            "ada@example.com",
            "--expires-in",
            "1h",
            "--json",
        ])
        .output());
    let record: serde_json::Value = serde_json::from_str(&stdout).expect("a record");
    assert_eq!(code, Some(0));
    let second = ada.with_token(record["token"].as_str().expect("a token"));
    assert_eq!(second.get("/api/settings/concurrency").await.status, 200);

    let id = record["id"].as_str().expect("an id");
    let revoke = || {
        run(callq()
            .envs(&world.settings)
            .args(["token", "revoke", id])
            .output())
    };
    assert_eq!(revoke().0, Some(0));
    assert_eq!(revoke().0, Some(1), "it was revoked before");
    // Another server has not seen the token: no cache stands between.
    let fresh = world.serve();
    assert_eq!(
        second
            .at(&fresh)
            .get("/api/settings/concurrency")
            .await
            .status,
        401
    );
    let (code, _, stderr) = run(callq()
        .envs(&world.settings)
        .args(["user", "create", "--email", "ada@example.com"])
        .output());
    assert_eq!(code, Some(1));
    assert!(stderr.contains("email"), "{stderr}");
}

#[test]
fn an_unmigrated_schema_is_refused_with_no_migrate_and_brought_up_without() {
    let database = callq_testing::TestDatabase::empty();
    let url = ("DATABASE_URL", database.url().to_owned());
    let command = |arguments: &[&str]| run(callq().envs([url.clone()]).args(arguments).output());

    let (code, _, stderr) = command(&["serve", "--no-migrate", "--port", "0"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("2026-11-"), "says which: {stderr}");
    let (_, pending, _) = command(&["migrate", "status"]);
    assert!(
        pending.contains("pending") && !pending.contains("applied"),
        "{pending}"
    );
    assert_eq!(command(&["migrate", "up"]).0, Some(0));
    let (_, applied, _) = command(&["migrate", "status"]);
    assert!(
        applied.contains("applied") && !applied.contains("pending"),
        "{applied}"
    );
    assert_eq!(command(&["migrate", "down"]).0, Some(0));
    let (_, after, _) = command(&["migrate", "status"]);
    assert!(after.contains("pending"), "{after}");
}

#[test]
fn commands_find_the_private_cluster_of_a_running_server_and_it_survives_kill_9() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data").display().to_string();
    let settings =
        std::collections::BTreeMap::from([("CALLQ_DATA_DIR", data_dir), ("PORT", "0".to_owned())]);
    let create = |email: &str| {
        run(callq()
            .envs(&settings)
            .args(["user", "create", "--json", "--email", email])
            .output())
    };

    assert_eq!(
        create("before@example.com").0,
        Some(0),
        "a cluster is made for the occasion"
    );
    let server = Server::start(&settings);
    assert_eq!(
        create("during@example.com").0,
        Some(0),
        "the running cluster is found"
    );
    server.kill();
    let server = Server::start(&settings);
    let (code, _, stderr) = create("during@example.com");
    assert_eq!(code, Some(1), "it is there already");
    assert!(stderr.contains("email"), "{stderr}");
    let (code, stdout, _) = run(callq().envs(&settings).arg("audit").output());
    assert_eq!(
        (code, stdout.trim()),
        (Some(0), "every counter equals its rows")
    );
    let (status, log) = server.terminate();
    assert!(status.success(), "{log}");
    let left = std::path::Path::new(&settings["CALLQ_DATA_DIR"]);
    assert!(left.exists());
}
