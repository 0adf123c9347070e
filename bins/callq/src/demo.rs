//! `callq demo`: the product at work in under a minute. The server, its HTTP API and its database
//! are real; only the carrier is simulated, and everything is gone when it ends.

mod client;
mod invariants;
mod judge;
mod people;
mod screen;
mod story;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use callq_domain::{ConcurrencyLimit, ProviderName};
use log::LevelFilter;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Demo;
use crate::config::Config;
use crate::db::Db;
use crate::demo::judge::Finding;
use crate::demo::screen::{Screen, print_line};
use crate::serve::{Server, Stop};

/// Fewer than the users' own limits add up to, so that the system's is felt too.
const SYSTEM_LIMIT: u32 = 6;

/// What a shell expects of a program that was interrupted.
const INTERRUPTED: u8 = 130;

/// Plays the scenario, then counts from the database whether its promises were kept. Exit code 1
/// if one was not.
pub(crate) async fn demo(config: &Config, options: &Demo) -> anyhow::Result<ExitCode> {
    log::set_max_level(log::max_level().min(LevelFilter::Warn));
    let mut stop = Stop::listen()?;
    // A closed terminal: unlike a server's, this database has no next start to adopt it.
    let mut hangup = signal(SignalKind::hangup())?;
    let screen = Screen::open(options.plain);
    screen.title();
    let folder = tempfile::Builder::new()
        .prefix("callq-demo-")
        .tempdir()
        .context("TMPDIR: no temporary folder can be made for the demo's database")?;
    let config = demo_config(config, folder.path())?;
    let db = Db::own(&config).await?;
    let server = start(&config, &db).await?;
    let findings = tokio::select! {
        findings = play(&server, &screen) => Some(findings),
        () = stop.asked() => None,
        _ = hangup.recv() => None,
    };
    screen.close();
    // The simulated calls of a play cut short have nobody left to report to, and would say so.
    log::set_max_level(LevelFilter::Off);
    server.stop(config.shutdown_grace).await;
    db.close().await?;
    folder
        .close()
        .context("the demo's database cannot be removed")?;
    match findings {
        Some(findings) => Ok(verdict(&findings?)),
        None => {
            print_line("Stopped. The demo's database is gone.");
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

async fn start(config: &Config, db: &Db) -> anyhow::Result<Server> {
    db.prepare().await?;
    let listener = TcpListener::bind(config.listen).context("no port on 127.0.0.1 is free")?;
    Server::start(config, db, listener).await
}

/// Nothing of the operator's own settings but the pool's size: the scenario counts on its limits.
fn demo_config(config: &Config, folder: &Path) -> anyhow::Result<Config> {
    Ok(Config {
        database_url: None,
        data_dir: folder.join("data"),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        system_limit: ConcurrencyLimit::new(SYSTEM_LIMIT.into())?,
        // Never within the demo: whatever moves is moved by an event.
        sweep_interval: Duration::from_secs(3_600),
        call_provider: ProviderName::new("simulator")
            .ok_or_else(|| anyhow!("simulator is not a provider's name"))?,
        http_provider_url: None,
        http_provider_secret: None,
        public_url: None,
        rate_limit: None,
        shutdown_grace: Duration::from_secs(2),
        ..config.clone()
    })
}

async fn play(server: &Server, screen: &Screen) -> anyhow::Result<Vec<Finding>> {
    let cast = people::sign_up(&server.store, &server.address).await?;
    screen.introduce(&cast, SYSTEM_LIMIT);
    let seen = story::tell(&cast, &server.store, screen).await?;
    screen.settle();
    Ok(judge::judge(&server.store, &cast, SYSTEM_LIMIT, &seen).await?)
}

/// Prints what was found.
fn verdict(findings: &[Finding]) -> ExitCode {
    print_line("Counted from the database:\n");
    for Finding {
        held,
        promise,
        counted,
    } in findings
    {
        let mark = if *held { "✓" } else { "✗" };
        print_line(&format!("  {mark} {promise:<30} {counted}"));
    }
    let count = findings.len();
    let broken = findings.iter().filter(|finding| !finding.held).count();
    if broken > 0 {
        print_line(&format!(
            "\n{broken} of {count} promises were broken: a defect of callq."
        ));
        return ExitCode::FAILURE;
    }
    print_line(&format!(
        "\nAll {count} promises held. The demo's database is gone; `callq serve` keeps one."
    ));
    ExitCode::SUCCESS
}
