//! The commands that look at or change one thing and end.

use std::fmt::{self, Display, Formatter};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use callq_api::mint_token;
use callq_domain::{
    AccountStore, ConcurrencyLimit, Email, NewToken, NewUser, OperatorStore, Role, StoreError,
    TokenId, UserId,
};
use callq_persistence::migrations;
use serde_json::json;

use crate::cli::{Audit, Direction, Migrate, TokenCreate, TokenRevoke, UserCreate};
use crate::config::Config;
use crate::db::Db;

/// An argument that cannot be used: exit code 2, like every other fault of the command line.
#[derive(Debug)]
pub(crate) struct BadUsage(String);

impl BadUsage {
    pub(crate) fn new(fault: String) -> Self {
        Self(fault)
    }

    fn of<E: Display>(argument: &str) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("{argument}: {error:#}"))
    }
}

impl Display for BadUsage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUsage {}

pub(crate) async fn migrate(config: &Config, options: &Migrate) -> anyhow::Result<ExitCode> {
    let db = Db::borrow(config).await?;
    let (url, direction) = (db.url().to_owned(), options.direction);
    let lines: Vec<(String, &str)> = tokio::task::spawn_blocking(move || {
        let named = |names: Vec<String>, what| names.into_iter().map(|name| (name, what)).collect();
        match direction {
            Direction::Up => migrations::up(&url).map(|names| named(names, "applied")),
            Direction::Down => migrations::down(&url).map(|name| named(vec![name], "reverted")),
            Direction::Status => migrations::status(&url).map(|all| {
                all.into_iter()
                    .map(|one| (one.name, if one.applied { "applied" } else { "pending" }))
                    .collect()
            }),
        }
    })
    .await??;
    if options.json {
        let records: Vec<_> = lines
            .iter()
            .map(|(name, state)| json!({"migration": name, "state": state}))
            .collect();
        say!("{}", json!(records));
    } else if lines.is_empty() {
        say!("nothing to do");
    } else {
        for (name, state) in lines {
            say!("{state:<9} {name}");
        }
    }
    db.close().await?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn create_user(config: &Config, options: &UserCreate) -> anyhow::Result<ExitCode> {
    let email: Email = options.email.parse().map_err(BadUsage::of("--email"))?;
    let limit = match &options.concurrent_calls_limit {
        Some(text) => text
            .parse::<ConcurrencyLimit>()
            .map_err(BadUsage::of("--concurrent-calls-limit"))?,
        None => config.default_user_limit,
    };
    let Some(role) = Role::from_name(&options.role) else {
        return Err(BadUsage("--role must be user or admin".into()).into());
    };
    if options.credits.is_some_and(|credits| credits < 0) {
        return Err(BadUsage("--credits must be 0 or more".into()).into());
    }
    if !callq_api::is_time_zone(&options.time_zone) {
        return Err(
            BadUsage("--time-zone must be an IANA name such as Europe/Paris".into()).into(),
        );
    }
    let db = Db::borrow(config).await?;
    db.prepare().await?;
    let (secret, hash) = mint_token();
    let id = UserId::new();
    let user = NewUser {
        id,
        email,
        role,
        concurrent_calls_limit: limit,
        time_zone: options.time_zone.clone(),
        credits: options.credits,
    };
    let token = NewToken {
        id: TokenId::new(),
        user_id: id,
        hash,
        expires_at: None,
    };
    let token_id = token.id;
    let user = db.store(config)?.create_user(user, token).await?;
    if options.json {
        say!(
            "{}",
            json!({"id": user.id.as_uuid(), "email": user.email.as_str(), "role": user.role.as_str(),
                "concurrent_calls_limit": user.concurrent_calls_limit.get(), "token": secret,
                "token_id": token_id.as_uuid()})
        );
    } else {
        say!(
            "id     {}\nemail  {}\nrole   {}\nlimit  {} calls at once\ntoken  {secret}\n",
            user.id,
            user.email,
            user.role.as_str(),
            user.concurrent_calls_limit
        );
        say!("The token is shown only this once. Send it as: Authorization: Bearer {secret}");
    }
    db.close().await?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn create_token(
    config: &Config,
    options: &TokenCreate,
) -> anyhow::Result<ExitCode> {
    let email: Email = options.email.parse().map_err(BadUsage::of("--email"))?;
    let expires_in = options
        .expires_in
        .as_deref()
        .map(parse_duration)
        .transpose()
        .map_err(BadUsage::of("--expires-in"))?;
    let db = Db::borrow(config).await?;
    db.prepare().await?;
    let store = db.store(config)?;
    let Some(user) = store.user_by_email(&email).await? else {
        db.close().await?;
        bail!("no user has the email {email}");
    };
    let (secret, hash) = mint_token();
    let token = NewToken {
        id: TokenId::new(),
        user_id: user.id,
        hash,
        expires_at: expires_in.map(|length| chrono::Utc::now() + length),
    };
    let (id, expires_at) = (token.id, token.expires_at);
    store.create_token(token).await?;
    if options.json {
        say!(
            "{}",
            json!({"id": id.as_uuid(), "email": email.as_str(), "token": secret, "expires_at": expires_at})
        );
    } else {
        let until = expires_at.map_or_else(
            || "until revoked".to_owned(),
            |at| format!("until {}", at.to_rfc3339()),
        );
        say!(
            "id     {id}\nemail  {email}\ntoken  {secret}\ngood   {until}\n\nThe token is shown only this once."
        );
    }
    db.close().await?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn revoke_token(
    config: &Config,
    options: &TokenRevoke,
) -> anyhow::Result<ExitCode> {
    let id: TokenId = options
        .id
        .parse()
        .map_err(BadUsage::of("ID must be a token's id, a UUID"))?;
    let db = Db::borrow(config).await?;
    db.prepare().await?;
    let revoked = db.store(config)?.revoke_token(id).await;
    db.close().await?;
    match revoked {
        Ok(()) if options.json => say!("{}", json!({"id": id.as_uuid(), "revoked": true})),
        Ok(()) => say!("revoked {id}"),
        Err(StoreError::NotFound) => bail!("no token in force has the id {id}"),
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn check_config(config: &Config, as_json: bool) -> anyhow::Result<ExitCode> {
    let settings = config.describe();
    if as_json {
        let record: serde_json::Map<_, _> = settings
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        say!("{}", json!(record));
    } else {
        for (name, value) in settings {
            say!("{name}={value}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn audit(config: &Config, options: &Audit) -> anyhow::Result<ExitCode> {
    let db = Db::borrow(config).await?;
    db.prepare().await?;
    let differences = db.store(config)?.audit().await?;
    db.close().await?;
    if options.json {
        let records: Vec<_> = differences
            .iter()
            .map(|d| json!({"counter": d.counter, "subject": d.subject, "kept": d.kept, "counted": d.counted}))
            .collect();
        say!("{}", json!(records));
    } else if differences.is_empty() {
        say!("every counter equals its rows");
    } else {
        for d in &differences {
            say!(
                "{} {}: kept {}, counted {}",
                d.counter,
                d.subject,
                d.kept,
                d.counted
            );
        }
    }
    Ok(if differences.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A length such as `90d` or `1h 30m`, at least a second and at most a hundred years.
fn parse_duration(text: &str) -> anyhow::Result<Duration> {
    let length = humantime::parse_duration(text)
        .with_context(|| format!("must be a length such as 90d, 12h or 30m, not {text:?}"))?;
    if !(1..=3_153_600_000).contains(&length.as_secs()) {
        bail!("must be between a second and a hundred years");
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_a_number_and_a_unit_and_bounds() {
        assert_eq!(
            parse_duration("90d").expect("valid"),
            Duration::from_secs(90 * 86_400)
        );
        assert_eq!(
            parse_duration("45s").expect("valid"),
            Duration::from_secs(45)
        );
        for text in ["", "90", "d", "1fortnight", "0s", "-1d", "500y"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }
}
