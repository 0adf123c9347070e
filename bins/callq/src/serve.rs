//! `callq serve`: everything wired together, started in order and stopped in order.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use anyhow::{Context, bail};
use callq_api::{Api, Metrics, Ports};
use callq_concurrency::{Engine, EngineOptions};
use callq_domain::{CallProvider, OperatorStore, OwnershipStore, Providers, ServerId};
use callq_persistence::{PostgresStore, migrations};
use callq_providers::{HttpProvider, HttpProviderConfig, Simulator};
use callq_queue_processor::{Processor, ProcessorOptions, spawn_auditor};
use log::{error, info, warn};
use socket2::SockRef;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::cli::Serve;
use crate::config::Config;
use crate::db::Db;
use crate::gauges::Gauges;

pub(crate) async fn serve(config: &Config, options: &Serve) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let listener = TcpListener::bind(config.listen)
        .with_context(|| format!("HOST and PORT: {} cannot be listened on; is another callq running? PORT=0 picks a free port", config.listen))?;
    // Clients that knock together are not sent away to knock again seconds later.
    SockRef::from(&listener).listen(KNOCKING)?;
    let db = Db::own(config).await?;
    db.keep_alive();
    migrate(&db, options).await?;
    let mut server = Server::start(config, &db, listener).await?;
    announce(config, &server.address);
    let failed = tokio::select! {
        () = stop.asked() => None,
        what = server.failed() => Some(what),
    };
    match failed {
        None => info!("stopping: nothing new is admitted, placements in flight may finish"),
        // What is left of it cannot do its work, and must not look as if it could.
        Some(what) => error!("stopping: {what} ended by a defect; to be started again"),
    }
    tokio::select! {
        () = server.stop(config.shutdown_grace) => {}
        () = stop.asked() => warn!("asked to stop twice: stopping at once"),
    }
    db.close().await?;
    match failed {
        None => Ok(ExitCode::SUCCESS),
        Some(what) => bail!("{what} ended by a defect"),
    }
}

async fn migrate(db: &Db, options: &Serve) -> anyhow::Result<()> {
    let (url, check_only, alone) = (db.url().to_owned(), options.no_migrate, db.is_owned());
    tokio::task::spawn_blocking(move || {
        if check_only {
            return migrations::check_current(&url);
        }
        let applied = if alone {
            migrations::up_alone(&url)?
        } else {
            migrations::up(&url)?
        };
        for applied in applied {
            info!(migration = applied.as_str(); "migration applied");
        }
        Ok(())
    })
    .await?
    .with_context(|| format!("the schema of {} is not ready", db.describe()))
}

/// How long answers under way may take to leave once nothing is being placed any more. What is
/// open after that is idle: a client that keeps its connection need not be waited for.
const LAST_ANSWERS_SECONDS: u64 = 1;

/// Connections that may wait to be taken.
const KNOCKING: i32 = 1024;

/// Long enough for the processor to start.
const FIRST_LEASE: Duration = Duration::from_secs(10);

/// Between two recounts of every counter. One takes about half a second with a million calls waiting.
const AUDIT_PAUSE: Duration = Duration::from_secs(60);

/// A running server.
pub(crate) struct Server {
    pub address: String,
    engine: Engine,
    processor: Processor,
    auditor: JoinHandle<()>,
    http: actix_web::dev::ServerHandle,
    listening: JoinHandle<std::io::Result<()>>,
    pub store: PostgresStore,
}

impl Server {
    /// Starts engine, providers, processor and HTTP on a database whose schema is ready.
    pub(crate) async fn start(
        config: &Config,
        db: &Db,
        listener: TcpListener,
    ) -> anyhow::Result<Self> {
        let address = format!("http://{}", listener.local_addr()?);
        let (store, pools) = db.server_store(config)?;
        if let Some(language) = store.foreign_messages().await? {
            warn!(
                "the database's messages are in {language}: some of its faults will be answered as 500 rather than 503; as its superuser, ALTER ROLE … SET lc_messages = 'C'"
            );
        }
        store.initialize_system_limit(config.system_limit).await?;
        store.adopt_queue_defaults(config.queue_defaults).await?;
        let shared = Arc::new(store.clone());
        let server_id = ServerId::new();
        // Nothing may start in the name of a server without one; the processor renews it at once.
        shared.renew_lease(server_id, FIRST_LEASE).await?;
        let engine_options = EngineOptions {
            sweep_interval: config.sweep_interval,
            ..EngineOptions::default()
        };
        let (engine, reservations) = Engine::spawn(shared.clone(), server_id, engine_options);
        let providers = providers(
            config,
            &engine,
            config.public_url.as_deref().unwrap_or(&address),
        )?;
        let processor = Processor::start(
            engine.clone(),
            reservations,
            shared.clone(),
            shared.clone(),
            providers.clone(),
            server_id,
            ProcessorOptions {
                provider_timeout: config.provider_timeout,
                max_call: config.max_call,
                sweep_interval: config.sweep_interval,
                alone: db.is_owned(),
            },
        )
        .await?;
        let gauges = Gauges {
            engine: engine.clone(),
            lease: processor.lease(),
            pools,
        };
        let metrics = Metrics::in_registry(gauges.in_registry());
        let auditor = {
            let (audits, told) = (shared.clone(), metrics.audits());
            let recount = move || {
                let audits = audits.clone();
                async move { audits.audit().await }
            };
            spawn_auditor(AUDIT_PAUSE, recount, move |report| {
                told.tell(report.differences.len(), report.took);
            })
        };
        let api = Api::new(Ports {
            accounts: shared.clone(),
            directory: shared.clone(),
            do_not_call: shared.clone(),
            campaigns: shared.clone(),
            campaign_contacts: shared.clone(),
            imports: shared.clone(),
            queue: shared.clone(),
            calls: shared.clone(),
            operators: shared,
            door: Arc::new(engine.clone()),
            providers,
        })
        .with_metrics(metrics)
        .with_rate_limit(config.rate_limit);
        let api = web::Data::new(api);
        let http = HttpServer::new(move || App::new().configure(callq_api::configure(api.clone())))
            .listen(listener)?
            .disable_signals()
            .shutdown_timeout(LAST_ANSWERS_SECONDS)
            .run();
        let handle = http.handle();
        let listening = tokio::spawn(http);
        info!(server_id:% = server_id, address = address.as_str(), database = db.describe().as_str(); "serving");
        Ok(Self {
            address,
            engine,
            processor,
            auditor,
            http: handle,
            listening,
            store,
        })
    }

    /// Waits until a part ends without which the server is none, and names it. What may be started
    /// again without harm (lease, sweep, reconciler, auditor) starts itself again instead.
    pub(crate) async fn failed(&mut self) -> &'static str {
        tokio::select! {
            () = self.engine.failed() => "the engine",
            () = self.processor.failed() => "the dispatcher",
            _ = &mut self.listening => "the HTTP server",
        }
    }

    /// Stops in order: admissions and reservations, placements in flight, HTTP.
    pub(crate) async fn stop(self, grace: std::time::Duration) {
        self.auditor.abort();
        self.engine.stop_admitting();
        self.processor.shutdown(grace).await;
        self.http.stop(true).await;
    }
}

fn providers(config: &Config, engine: &Engine, public_url: &str) -> anyhow::Result<Providers> {
    let mut providers: Vec<Arc<dyn CallProvider>> = vec![Arc::new(Simulator::new(
        Arc::new(engine.clone()),
        config.http_provider_secret.clone(),
    ))];
    if let (Some(base_url), Some(secret)) =
        (&config.http_provider_url, &config.http_provider_secret)
    {
        if config.public_url.is_none() && config.listen.ip().is_unspecified() {
            warn!(
                "PUBLIC_URL is not set: the dialer is told to report to {public_url}, which it may not reach"
            );
        }
        let http = HttpProvider::new(HttpProviderConfig {
            base_url: base_url.clone(),
            secret: secret.clone(),
            callback_url: format!("{public_url}/api/webhooks/http"),
            timeout: config.provider_timeout,
        });
        providers.push(Arc::new(
            http.context("HTTP_PROVIDER_URL or PUBLIC_URL cannot be used")?,
        ));
    }
    Ok(Providers::new(providers))
}

/// Says where the server is and what to try next.
fn announce(config: &Config, address: &str) {
    let program = std::env::args().next().unwrap_or_else(|| "callq".into());
    let data = match config.database_url {
        Some(_) => "the database of DATABASE_URL".to_owned(),
        None => config.data_dir.display().to_string(),
    };
    say!(
        "\ncallq is serving on {address}\n\n\
         Try, in another terminal of this folder:\n\n  \
         # a user and its token\n  \
         {program} user create --email you@example.com\n\n  \
         # the product at work, in half a minute\n  \
         {program} demo\n\n  \
         # whether all is well\n  \
         curl {address}/readyz\n\n\
         The README makes a first call with curl. Data is kept in {data}. Stop with Ctrl-C.\n"
    );
}

/// SIGTERM and SIGINT.
pub(crate) struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
