//! Whose a token is. Every request asks, so those that ask while a look-up is under way share the
//! next: under load one query answers a hundred. None is answered by a look-up that began before it
//! asked, so a revoked token stops at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use callq_domain::{Identity, StoreError, TokenHash};
use diesel::sql_types::{Array, Binary};
use diesel::{PgConnection, RunQueryDsl, sql_query};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::rows::user::IdentityRow;
use crate::{Database, Failure};

type Answer = Result<Option<Identity>, StoreError>;

/// The look-ups of one store.
#[derive(Default)]
pub(crate) struct TokenLookups(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    asked: Vec<(TokenHash, oneshot::Sender<Answer>)>,
    is_running: bool,
}

impl TokenLookups {
    /// Looks a token up. Whoever has to wait for the look-up of others and then for its own waits no
    /// longer than for one.
    pub(crate) async fn find(self: &Arc<Self>, database: &Database, hash: TokenHash) -> Answer {
        let asking = async {
            loop {
                // A look-up breaks off with the thread that runs it, as when a server stops. Whoever
                // waited for it asks again.
                if let Ok(answer) = self.ask(database, hash).await {
                    return answer;
                }
            }
        };
        timeout(Database::BRIEF, asking).await.unwrap_or_else(|_| {
            let cause = "the token could not be looked up in time";
            Err(StoreError::Unavailable(cause.into()))
        })
    }

    fn ask(self: &Arc<Self>, database: &Database, hash: TokenHash) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        let must_run = {
            let mut waiting = self.lock();
            waiting.asked.push((hash, reply));
            !std::mem::replace(&mut waiting.is_running, true)
        };
        if must_run {
            // In a task of its own: whoever asked first may go away, those behind it do not.
            let run = Run {
                lookups: Arc::clone(self),
                is_over: false,
            };
            tokio::spawn(run.answer_all(database.clone()));
        }
        answer
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Look-ups, one after another while someone waits. Should it break off, whoever waits is told, and
/// the next to ask begins anew.
struct Run {
    lookups: Arc<TokenLookups>,
    is_over: bool,
}

impl Run {
    async fn answer_all(mut self, database: Database) {
        loop {
            let asked = {
                let mut waiting = self.lookups.lock();
                if waiting.asked.is_empty() {
                    waiting.is_running = false;
                    self.is_over = true;
                    return;
                }
                std::mem::take(&mut waiting.asked)
            };
            let hashes: Vec<Vec<u8>> = asked.iter().map(|(hash, _)| hash.0.to_vec()).collect();
            let found = database
                .run_read_statement(move |conn| find_tokens(conn, &hashes))
                .await;
            for (hash, reply) in asked {
                let answer = match &found {
                    Ok(found) => Ok(found.get(&hash).copied()),
                    Err(error) => Err(error.clone()),
                };
                // Nobody may wait any more.
                let _ = reply.send(answer);
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.is_over {
            let mut waiting = self.lookups.lock();
            waiting.is_running = false;
            waiting.asked.clear();
        }
    }
}

fn find_tokens(
    conn: &mut PgConnection,
    hashes: &[Vec<u8>],
) -> Result<HashMap<TokenHash, Identity>, Failure> {
    let rows: Vec<IdentityRow> = sql_query("SELECT * FROM find_tokens($1)")
        .bind::<Array<Binary>, _>(hashes)
        .load(conn)?;
    rows.into_iter().map(IdentityRow::into_identity).collect()
}
