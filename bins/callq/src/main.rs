//! The callq server and its command line: a wiring diagram and little else.

/// Prints a line. A reader that has gone away, such as `head`, is no reason to fail.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

mod call;
mod campaign;
mod cli;
mod commands;
mod config;
mod db;
mod demo;
mod gauges;
mod serve;
mod settings;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{Call, CampaignCommand, Cli, Command, ConfigCommand, Serve, Token, User};
use crate::config::Config;

/// Exit code for a configuration or command line that cannot be used.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    if let Err(error) = dotenvy::dotenv()
        && !error.not_found()
    {
        // The error of a bad line holds the line, and a line may hold a secret.
        match error {
            dotenvy::Error::LineParse(..) => {
                eprintln!("callq: .env has a line that is not NAME=value");
            }
            error => eprintln!("callq: .env cannot be read: {error}"),
        }
        return ExitCode::from(BAD_USAGE);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(BAD_USAGE),
            };
        }
    };
    if let Some(fault) = bad_log_filter() {
        eprintln!("callq: {fault}");
        return ExitCode::from(BAD_USAGE);
    }
    env_logger::Builder::from_env(
        env_logger::Env::default().default_filter_or("info,actix_server=warn"),
    )
    .init();
    let config = match Config::from_settings(&cli.settings) {
        Ok(config) => config,
        Err(faults) => {
            for fault in faults {
                eprintln!("callq: {fault}");
            }
            return ExitCode::from(BAD_USAGE);
        }
    };
    match run(
        cli.command.unwrap_or(Command::Serve(Serve::default())),
        &config,
    ) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("callq: {error:#}");
            if error.is::<commands::BadUsage>() {
                ExitCode::from(BAD_USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// What is wrong with `RUST_LOG`, if anything is.
fn bad_log_filter() -> Option<String> {
    let filter = std::env::var("RUST_LOG").ok()?;
    let judged = env_filter::Builder::new().try_parse(&filter).err()?;
    Some(format!(
        "RUST_LOG must be a log filter such as info or callq_api=debug: {judged}"
    ))
}

#[tokio::main]
async fn run(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(options) => serve::serve(config, &options).await,
        Command::Migrate(options) => commands::migrate(config, &options).await,
        Command::User(User::Create(options)) => commands::create_user(config, &options).await,
        Command::Token(Token::Create(options)) => commands::create_token(config, &options).await,
        Command::Token(Token::Revoke(options)) => commands::revoke_token(config, &options).await,
        Command::Call(Call::Show(options)) => call::show(config, &options).await,
        Command::Call(Call::List(options)) => call::list(config, &options).await,
        Command::Call(Call::Settle(options)) => call::settle(config, &options).await,
        Command::Campaign(CampaignCommand::Import(options)) => {
            campaign::import(config, &options).await
        }
        Command::Config(ConfigCommand::Check { json }) => commands::check_config(config, json),
        Command::Demo(options) => demo::demo(config, &options).await,
        Command::Audit(options) => commands::audit(config, &options).await,
    }
}
