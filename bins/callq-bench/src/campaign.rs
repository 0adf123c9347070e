//! A great campaign beside direct calls: its list is imported over HTTP, it is started, paused,
//! resumed and cancelled, while other users' direct calls come evenly and every slot is taken. Its
//! statistics are asked for all the while and must add up each time.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use callq_domain::{CallId, OperatorStore};
use callq_persistence::{Database, PostgresStore};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::cli::Cli;
use crate::cluster::Cluster;
use crate::dialer::{Dialer, SECRET, Waits};
use crate::http::{Connection, request, request_with};
use crate::judge::judge;
use crate::latency::{Latencies, Percentiles};
use crate::numbering;
use crate::pace::Pace;
use crate::report::{Figure, Report};
use crate::seed::{Backlog, Order, provider_name, seed};
use crate::server::Server;
use crate::witness::{Limits, Witness};

const DATABASE: &str = "bench_campaign";
const LIMITS: Limits = Limits {
    user: 100,
    system: 100,
};

/// User 0 has the campaign; the others ask for direct calls, in turn.
const USERS: u32 = 11;

/// Direct calls a second.
const DIRECT_RATE: f64 = 20.0;

/// Calls that end in a second, and so slots that become free.
const END_RATE: f64 = 300.0;

/// Between two looks at the statistics.
const LOOKS: Duration = Duration::from_millis(50);

/// What is asked of a campaign, in this order; the import comes before.
const DEEDS: [&str; 4] = ["start", "pause", "resume", "cancel"];

/// What one run found.
struct Run {
    import: f64,
    /// Milliseconds of each of [`DEEDS`].
    deeds: [f64; 4],
    /// From asking for a direct call to its reaching the dialer.
    direct: Percentiles,
    statistics: Percentiles,
    looks: u64,
}

#[derive(Deserialize)]
struct Imported {
    campaign_id: Uuid,
    imported: u32,
}

/// What the statistics say.
#[derive(Debug, Default, Deserialize)]
struct Statistics {
    total: u64,
    pending: u64,
    queued: u64,
    processing: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
    expired: u64,
}

impl Statistics {
    fn sum(&self) -> u64 {
        self.pending
            + self.queued
            + self.processing
            + self.completed
            + self.failed
            + self.cancelled
            + self.expired
    }
}

pub(crate) async fn measure(
    cli: &Cli,
    cluster: &Cluster,
    report: &mut Report,
) -> anyhow::Result<()> {
    let contacts = cli.pick(100_000, 20_000);
    let mut runs = Vec::new();
    for _ in 0..cli.runs() {
        let run = run(cli, cluster, report, contacts).await?;
        say!(
            "  campaign of {contacts}: imported in {:.1} s, {DEEDS:?} in {:.0?} ms; direct calls p99 {:.1} ms, {} looks",
            run.import,
            run.deeds,
            run.direct.p99,
            run.looks
        );
        runs.push(run);
    }
    let imports: Vec<f64> = runs.iter().map(|it| it.import).collect();
    let words = format!("campaign of {contacts}, its list imported");
    let import = Figure::plain("campaign.import", &words, "s", &imports);
    report.add(if cli.quick {
        import
    } else {
        import.at_most(10.0)
    });
    for (nth, deed) in DEEDS.into_iter().enumerate() {
        let times: Vec<f64> = runs.iter().map(|it| it.deeds[nth]).collect();
        let figure = Figure::milliseconds(&format!("campaign.{deed}"), deed, &times);
        report.add(figure.detail());
    }
    let direct: Vec<Percentiles> = runs.iter().map(|it| it.direct).collect();
    let words = "direct calls beside it, from asking to dialling";
    let [p50, p95, p99] = Figure::latency("campaign.direct", words, &direct);
    report.add_all([p50, p95, p99.at_most(50.0)]);
    let statistics: Vec<Percentiles> = runs.iter().map(|it| it.statistics).collect();
    report.add_all(Figure::latency(
        "campaign.statistics",
        "its statistics",
        &statistics,
    ));
    cluster.drop_database(DATABASE)
}

async fn run(
    cli: &Cli,
    cluster: &Cluster,
    report: &mut Report,
    contacts: u32,
) -> anyhow::Result<Run> {
    let database = cluster.database(DATABASE)?;
    let run_for = cli.pick(Duration::from_secs(15), Duration::from_secs(4));
    let backlog = Backlog {
        users: USERS,
        waiting: 0,
        limits: LIMITS,
        order: Order::Clustered,
        // Numbers for more direct calls than will be asked for, and behind them those of the list.
        spare_contacts: cli.pick(10_000, 5_000) + contacts,
    };
    let witness = seed(&database, backlog).await?;
    let operator = PostgresStore::new(Database::new(&database.url, 2)?, provider_name()?);
    operator.set_dispatch_paused(false).await?;
    let mut dialer = Dialer::listen(Arc::clone(&witness)).await?;
    let settings = [
        ("CALL_PROVIDER", "http".to_owned()),
        ("HTTP_PROVIDER_URL", format!("http://{}", dialer.address)),
        ("HTTP_PROVIDER_SECRET", SECRET.to_owned()),
    ];
    let server = Server::start(&database, &settings).await?;
    dialer.report_to(&server.address)?;

    let owner = Owner {
        token: server.token_of("user0@bench.invalid").await?,
        server: &server,
    };
    let first = backlog.spare_contacts - contacts;
    let list = first..backlog.spare_contacts;
    for contact in list.clone() {
        witness.expect_meanwhile(contact);
    }
    let asking = Asking::new(&server, dialer.waits(), Arc::clone(&witness), first).await?;
    let mut looking = Looking {
        token: owner.token.clone(),
        address: server.address.clone(),
        contacts: contacts.into(),
        latencies: Latencies::default(),
    };
    let campaign = tokio::sync::watch::Sender::new(None);
    let mut up = VecDeque::new();
    let script = async {
        let began = Instant::now();
        let imported = owner.import(list).await?;
        let import = began.elapsed().as_secs_f64();
        ensure!(imported.imported == contacts, "not all were imported");
        campaign.send_replace(Some(imported.campaign_id));
        let mut deeds = [0.0; 4];
        for (nth, deed) in DEEDS.into_iter().enumerate() {
            let began = Instant::now();
            owner.ask(imported.campaign_id, deed).await?;
            deeds[nth] = began.elapsed().as_secs_f64() * 1e3;
            tokio::time::sleep(if deed == "pause" {
                run_for / 3
            } else {
                run_for
            })
            .await;
        }
        anyhow::Ok((import, deeds, imported.campaign_id))
    };
    let (import, deeds, id) = tokio::select! {
        done = script => done?,
        ended = asking.run() => bail!("direct calls: {:?}", ended.err()),
        ended = looking.run(campaign.subscribe()) => bail!("statistics: {:?}", ended.err()),
        ended = end_evenly(&mut dialer, &mut up) => bail!("the dialer: {:?}", ended.err()),
        violation = witness.violated() => bail!("not correct: {violation}"),
    };
    let direct = dialer.waits().take().percentiles();
    dialer.end_all(up).await?;
    let mut connection = server.connect().await?;
    let last = looking.look(&mut connection, id).await?;
    server.stop().await?;
    // Who was not called was cancelled.
    let verdict = judge(&database, &operator, &witness, last.cancelled).await?;
    report.judge("campaign", &verdict)?;
    Ok(Run {
        import,
        deeds,
        direct,
        statistics: looking.latencies.percentiles(),
        looks: looking.latencies.percentiles().count,
    })
}

/// The user with the campaign. What it asks lies so far apart that a connection would be closed.
struct Owner<'a> {
    token: String,
    server: &'a Server,
}

impl Owner<'_> {
    async fn import(&self, list: std::ops::Range<u32>) -> anyhow::Result<Imported> {
        const EDGE: &str = "callq-bench-edge";
        let campaign = json!({
            "name": "bench", "agent_id": numbering::agent(0).as_uuid(), "next_action": "none",
            "first_call_time": "00:00", "last_call_time": "00:00", "start_date": "2020-01-01",
        });
        let mut body = format!(
            "--{EDGE}\r\ncontent-disposition: form-data; name=\"campaign\"\r\n\r\n{campaign}\r\n\
             --{EDGE}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"list.csv\"\r\n\
             content-type: text/csv\r\n\r\nphone_number,name,order\r\n"
        );
        for contact in list {
            let phone = numbering::real_phone(contact);
            write!(body, "{phone},Person {contact},{contact}\r\n")?;
        }
        write!(body, "--{EDGE}--\r\n")?;
        let headers = [
            ("authorization", format!("Bearer {}", self.token)),
            (
                "content-type",
                format!("multipart/form-data; boundary={EDGE}"),
            ),
            ("content-length", body.len().to_string()),
        ];
        let mut request = request_with("POST", "/api/campaigns/upload-csv", &headers, "");
        request.extend_from_slice(body.as_bytes());
        self.server.connect().await?.json(&request).await
    }

    async fn ask(&self, campaign: Uuid, deed: &str) -> anyhow::Result<()> {
        let path = format!("/api/campaigns/{campaign}/{deed}");
        let asked = request("POST", &path, &self.token, "");
        let mut connection = self.server.connect().await?;
        let answer = connection.exchange(&asked).await?;
        ensure!(
            answer.status() == Some(200),
            "{deed}: {}",
            answer.first_line()
        );
        Ok(())
    }
}

/// Those who ask for direct calls.
struct Asking {
    callers: Vec<(String, Uuid)>,
    connection: Connection,
    waits: Arc<Waits>,
    witness: Arc<Witness>,
    /// Numbers of direct calls lie below this.
    contacts: u32,
}

impl Asking {
    async fn new(
        server: &Server,
        waits: Arc<Waits>,
        witness: Arc<Witness>,
        contacts: u32,
    ) -> anyhow::Result<Self> {
        let mut callers = Vec::new();
        for user in 1..USERS {
            let email = format!("user{user}@bench.invalid");
            let token = server.token_of(&email).await?;
            callers.push((token, numbering::agent(user).as_uuid()));
        }
        Ok(Self {
            callers,
            connection: server.connect().await?,
            waits,
            witness,
            contacts,
        })
    }

    /// Asks evenly, for ever.
    async fn run(mut self) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        let mut pace = Pace::new(DIRECT_RATE);
        for contact in 0..self.contacts {
            while !pace.is_due() {
                ticks.tick().await;
            }
            pace.count();
            let (token, agent) = &self.callers[contact as usize % self.callers.len()];
            let body = json!({"agentId": agent, "phoneNumber": numbering::real_phone(contact)});
            let asked = request("POST", "/api/calls/initiate", token, &body.to_string());
            self.witness.expect_meanwhile(contact);
            self.waits.asked(contact);
            let answer = self.connection.exchange(&asked).await?;
            ensure!(
                matches!(answer.status(), Some(200 | 202)),
                "{}: {}",
                answer.first_line(),
                String::from_utf8_lossy(answer.body())
            );
        }
        bail!("no numbers are left")
    }
}

/// Who looks at the statistics.
struct Looking {
    token: String,
    address: String,
    contacts: u64,
    latencies: Latencies,
}

impl Looking {
    async fn run(
        &mut self,
        mut campaign: tokio::sync::watch::Receiver<Option<Uuid>>,
    ) -> anyhow::Result<()> {
        let id = campaign.wait_for(Option::is_some).await?.context("no id")?;
        let mut connection = Connection::open(&self.address).await?;
        loop {
            self.look(&mut connection, id).await?;
            tokio::time::sleep(LOOKS).await;
        }
    }

    /// # Errors
    /// If they do not add up.
    async fn look(&mut self, connection: &mut Connection, id: Uuid) -> anyhow::Result<Statistics> {
        let path = format!("/api/campaigns/{id}/statistics");
        let asked = Instant::now();
        let request = request("GET", &path, &self.token, "");
        let found: Statistics = connection.json(&request).await?;
        self.latencies.record(asked.elapsed());
        ensure!(
            found.sum() == self.contacts && found.total == self.contacts,
            "not correct: {} contacts are {found:?}",
            self.contacts
        );
        Ok(found)
    }
}

/// Ends the call that is up longest, so many times a second, for ever.
async fn end_evenly(dialer: &mut Dialer, up: &mut VecDeque<CallId>) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let mut pace = Pace::new(END_RATE);
    loop {
        tokio::select! {
            call = dialer.next_call() => up.push_back(call?),
            _ = ticks.tick() => while pace.is_due() {
                // Calls are not there to be ended all at once later.
                pace.count();
                if let Some(call) = up.pop_front() {
                    dialer.end(call);
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_add_up_over_every_status() {
        let found: Statistics = serde_json::from_value(json!({
            "total": 28, "pending": 1, "queued": 2, "processing": 3, "completed": 4, "failed": 5,
            "cancelled": 6, "expired": 7,
        }))
        .unwrap();
        assert_eq!(found.sum(), found.total);
    }
}
