//! The users, their tokens and their agents.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::client::{Client, World};
use crate::server::run;

/// A user who may ask for calls.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub id: Uuid,
    pub token: String,
    pub agent_id: Uuid,
}

#[derive(Deserialize)]
struct Created {
    id: Uuid,
    token: String,
}

/// Makes users a few at a time: each is a command of its own.
const AT_ONCE: usize = 4;

pub(crate) async fn make(
    program: &Path,
    url: &str,
    world: &Arc<World>,
    count: usize,
    limit: u32,
) -> anyhow::Result<Vec<User>> {
    let mut users = Vec::new();
    let mut making = JoinSet::new();
    for n in 0..count {
        if making.len() == AT_ONCE {
            users.push(made(making.join_next().await)?);
        }
        let (program, url, world) = (program.to_owned(), url.to_owned(), Arc::clone(world));
        making.spawn(async move {
            let email = format!("user{n}@chaos.invalid");
            let limit = limit.to_string();
            let arguments = [
                "user",
                "create",
                "--json",
                "--email",
                &email,
                "--concurrent-calls-limit",
                &limit,
            ];
            let created: Created = run(&program, &url, &arguments).await?;
            let mut user = User {
                id: created.id,
                token: created.token,
                agent_id: Uuid::nil(),
            };
            let mut client = Client::new(&world, &user, 0);
            let agent = json!({"name": "chaos", "provider": "http"});
            let agent = client
                .send(Method::POST, "/api/agents", None, Some(&agent))
                .await
                .context("no agent can be made")?;
            user.agent_id = agent.body["id"]
                .as_str()
                .and_then(|id| id.parse().ok())
                .with_context(|| format!("no agent was made: {agent:?}"))?;
            anyhow::Ok(user)
        });
    }
    while let Some(one) = making.join_next().await {
        users.push(one??);
    }
    Ok(users)
}

fn made(one: Option<Result<anyhow::Result<User>, tokio::task::JoinError>>) -> anyhow::Result<User> {
    one.context("nobody is being made")??
}
