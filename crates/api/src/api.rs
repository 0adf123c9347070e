//! Everything the controllers share: the ports they talk to and what they keep between requests.

use std::num::NonZeroU32;
use std::sync::Arc;

use callq_domain::{
    AccountStore, CallStore, CampaignContactStore, CampaignStore, DirectoryStore, DoNotCallStore,
    ImportStore, OperatorStore, Providers, QueueStore,
};
use callq_lists::FILE_LIMIT;
use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;

use crate::auth::TokenCache;
use crate::door::Door;
use crate::metrics::Metrics;
use crate::openapi::Description;
use crate::rate::RequestRate;

/// The ports behind the controllers.
#[derive(Clone)]
pub struct Ports {
    /// Users and tokens.
    pub accounts: Arc<dyn AccountStore>,
    /// Agents and contacts.
    pub directory: Arc<dyn DirectoryStore>,
    /// Do-not-call lists.
    pub do_not_call: Arc<dyn DoNotCallStore>,
    /// Campaigns.
    pub campaigns: Arc<dyn CampaignStore>,
    /// Their contacts.
    pub campaign_contacts: Arc<dyn CampaignContactStore>,
    /// Lists of people.
    pub imports: Arc<dyn ImportStore>,
    /// The queue as its owner sees it.
    pub queue: Arc<dyn QueueStore>,
    /// Call records.
    pub calls: Arc<dyn CallStore>,
    /// What operators see and change.
    pub operators: Arc<dyn OperatorStore>,
    /// The engine.
    pub door: Arc<dyn Door>,
    /// Carriers: to hang up, and to read their events.
    pub providers: Providers,
}

/// Tells the time. Tests have their own.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// What the controllers share. One for the whole server, whatever its number of threads.
pub struct Api {
    pub(crate) ports: Ports,
    pub(crate) clock: Clock,
    pub(crate) tokens: TokenCache,
    pub(crate) rate: Option<RequestRate>,
    pub(crate) metrics: Metrics,
    pub(crate) description: Description,
    pub(crate) uploads: Semaphore,
    pub(crate) list_limit: u64,
}

/// Lists that are imported at once. Each takes room on disk for its file, and a connection to the
/// database for as long as it takes.
const UPLOADS: usize = 2;

impl Api {
    /// An API over these ports, with the system's clock, no request rate limit and metrics of
    /// its own.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self {
            ports,
            clock: Arc::new(Utc::now),
            tokens: TokenCache::default(),
            rate: None,
            metrics: Metrics::default(),
            description: Description::new(),
            uploads: Semaphore::new(UPLOADS),
            list_limit: FILE_LIMIT,
        }
    }

    /// With at most so many requests a second for each user, and as many at once.
    #[must_use]
    pub fn with_rate_limit(mut self, per_second: Option<NonZeroU32>) -> Self {
        self.rate = per_second.map(RequestRate::new);
        self
    }

    /// With lists of at most so many bytes.
    #[must_use]
    pub fn with_list_limit(mut self, bytes: u64) -> Self {
        self.list_limit = bytes;
        self
    }

    /// With these metrics, so that the rest of the process can show its own beside them.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// With another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }
}
