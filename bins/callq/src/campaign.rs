//! `callq campaign`: lists of people from a file on this machine. It speaks to the database, as every
//! command does.

use std::fs::File;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use callq_domain::{
    AccountStore, CampaignId, CampaignStore, Country, Email, ImportId, ImportReport, ImportStore,
    ImportTarget, NewImport, StoreError, UserId,
};
use callq_lists::{FILE_LIMIT, List, OpenError};
use callq_persistence::PostgresStore;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::CampaignImport;
use crate::commands::BadUsage;
use crate::config::Config;
use crate::db::Db;

/// How many rows are named.
const NAMED: usize = 20;

pub(crate) async fn import(config: &Config, options: &CampaignImport) -> anyhow::Result<ExitCode> {
    let asked = Asked::of(options)?;
    let file = File::open(&options.file)
        .with_context(|| format!("{} cannot be opened", options.file.display()))?;
    let length = file.metadata()?.len();
    if length > FILE_LIMIT {
        bail!(
            "{} is larger than {} MiB; split it",
            options.file.display(),
            FILE_LIMIT / (1024 * 1024)
        );
    }
    let db = Db::borrow(config).await?;
    db.prepare().await?;
    let store = db.store(config)?;
    let imported = import_file(&store, asked, options, file, length).await;
    db.close().await?;
    let report = imported?;
    let has_failed = report.failed > 0;
    if options.json {
        say!("{}", callq_api::import_report_json(report));
    } else {
        for line in lines(&report) {
            say!("{line}");
        }
    }
    Ok(if has_failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// What the arguments say, as far as it can be judged without a database.
struct Asked {
    email: Email,
    campaign_id: Option<CampaignId>,
    country: Option<Country>,
}

impl Asked {
    fn of(options: &CampaignImport) -> Result<Self, BadUsage> {
        let bad = |argument: &str, fault: &dyn std::fmt::Display| {
            BadUsage::new(format!("{argument} {fault}"))
        };
        let id = options.campaign_id.as_deref().map(str::parse);
        let country = options.country.as_deref().map(str::parse);
        Ok(Self {
            email: options
                .email
                .parse()
                .map_err(|fault| bad("--email:", &fault))?,
            campaign_id: id
                .transpose()
                .map_err(|_| bad("--campaign-id", &"must be a campaign's id, a UUID"))?,
            country: country
                .transpose()
                .map_err(|fault| bad("--country", &fault))?,
        })
    }
}

async fn import_file(
    store: &PostgresStore,
    asked: Asked,
    options: &CampaignImport,
    file: File,
    length: u64,
) -> anyhow::Result<ImportReport> {
    let Some(user) = store.user_by_email(&asked.email).await? else {
        bail!("no user has the email {}", asked.email);
    };
    let (target, known) = target_of(store, user.id, &asked, options).await?;
    let import = NewImport {
        id: ImportId::new(),
        user_id: user.id,
        target,
        country: asked.country.or(known),
        partial: options.partial,
        dry_run: options.dry_run,
    };
    let name = options.file.display();
    let bar = progress(length);
    let rows = match List::open(bar.wrap_read(file), import.country) {
        Ok(rows) => rows,
        Err(OpenError::List(fault)) => bail!("{name}: {fault}"),
        Err(error @ OpenError::NotCsv(_)) => bail!("{name} {error}"),
    };
    let imported = store.import_list(import, Box::new(rows)).await;
    bar.finish_and_clear();
    imported.map_err(|error| match error {
        callq_domain::ImportError::List(fault) => anyhow::anyhow!("{name}: {fault}"),
        callq_domain::ImportError::Store(StoreError::NotFound) => {
            anyhow::anyhow!("the user has no such campaign or agent")
        }
        callq_domain::ImportError::Store(error) => error.into(),
    })
}

/// The campaign, and the country that is noted in it.
async fn target_of(
    store: &PostgresStore,
    user: UserId,
    asked: &Asked,
    options: &CampaignImport,
) -> anyhow::Result<(ImportTarget, Option<Country>)> {
    if let Some(id) = asked.campaign_id {
        let Some(campaign) = store.campaign(user, id).await? else {
            bail!("the user has no campaign {id}");
        };
        return Ok((ImportTarget::Existing(id), campaign.fields.country));
    }
    let json = options.campaign.as_deref().unwrap_or_default();
    let mut campaign = callq_api::list_campaign_of_json(json.as_bytes(), user)
        .map_err(|fault| BadUsage::new(format!("--campaign: {fault}")))?;
    campaign.fields.country = asked.country.or(campaign.fields.country);
    let country = campaign.fields.country;
    Ok((ImportTarget::New(Box::new(campaign)), country))
}

/// How much of the file was read, on a terminal.
fn progress(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{bar:30.cyan} {binary_bytes}/{binary_total_bytes} read  {elapsed}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .progress_chars("█░");
    let bar = ProgressBar::new(length).with_style(style);
    // Laying out the calls goes on when all is read.
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn lines(report: &ImportReport) -> Vec<String> {
    let mut lines = Vec::new();
    let skipped = report.skipped;
    let done = if report.dry_run {
        "would be imported"
    } else {
        "imported"
    };
    if report.refused {
        lines.push("nothing was imported: rows failed; --partial imports the others".to_owned());
    }
    if let Some(id) = report.campaign_id {
        lines.push(format!("campaign  {id}"));
    }
    lines.push(format!("rows      {}", report.total_rows));
    lines.push(format!("          {} {done}", report.imported));
    lines.push(format!(
        "          {} skipped: {} do-not-call, {} in the campaign already, {} twice in the file",
        skipped.total(),
        skipped.do_not_call,
        skipped.in_campaign,
        skipped.duplicate
    ));
    lines.push(format!("          {} failed", report.failed));
    let named = report.errors.iter().take(NAMED);
    lines.extend(named.map(|it| format!("row {}  {}: {}", it.row, it.field, it.error)));
    lines
}
