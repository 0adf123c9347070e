//! Closed load: each connection sends its next request when it has the answer to the last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::http::Connection;
use crate::latency::Latencies;

/// What a load found.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Answers a second, in the time that was measured.
    pub rate: f64,
    pub latencies: Latencies,
    /// Answers by status, those before the measured time included.
    pub statuses: BTreeMap<u16, u64>,
}

impl Load {
    pub(crate) fn answers(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or(0)
    }
}

/// Sends `requests` in turn over `connections` for `time`, after a tenth of it to warm up.
pub(crate) async fn load(
    address: &str,
    connections: usize,
    time: Duration,
    requests: Arc<Vec<Vec<u8>>>,
) -> anyhow::Result<Load> {
    let barrier = Arc::new(Barrier::new(connections));
    let mut clients = JoinSet::new();
    for first in 0..connections {
        let connection = Connection::open(address).await?;
        let client = Client {
            connection,
            requests: Arc::clone(&requests),
            nth: first,
            stride: connections,
        };
        let barrier = Arc::clone(&barrier);
        clients.spawn(async move {
            barrier.wait().await;
            client.run(time / 10, time).await
        });
    }
    let mut sum = Load::default();
    while let Some(ended) = clients.join_next().await {
        let part = ended??;
        sum.rate += part.rate;
        sum.latencies.absorb(&part.latencies);
        for (status, count) in part.statuses {
            *sum.statuses.entry(status).or_default() += count;
        }
    }
    Ok(sum)
}

struct Client {
    connection: Connection,
    requests: Arc<Vec<Vec<u8>>>,
    nth: usize,
    stride: usize,
}

impl Client {
    async fn run(mut self, warm_up: Duration, time: Duration) -> anyhow::Result<Load> {
        let mut load = Load::default();
        let began = Instant::now();
        let mut answers = 0_u32;
        loop {
            let sent = Instant::now();
            if sent - began > warm_up + time {
                break;
            }
            let request = &self.requests[self.nth % self.requests.len()];
            self.nth += self.stride;
            let answer = self.connection.exchange(request).await?;
            let status = answer.status().context("an answer without a status")?;
            *load.statuses.entry(status).or_default() += 1;
            if sent - began > warm_up {
                load.latencies.record(sent.elapsed());
                answers += 1;
            }
        }
        load.rate = f64::from(answers) / (began.elapsed() - warm_up).as_secs_f64();
        Ok(load)
    }
}
