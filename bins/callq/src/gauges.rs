//! What this process shows of itself on `/metrics` beside what the API counts: how its proof of life
//! stands, whether its engine gets through, and its connections to the database.

use std::fmt;
use std::sync::Arc;

use callq_concurrency::Engine;
use callq_persistence::Database;
use callq_queue_processor::Lease;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Pools of connections by name.
pub(crate) type Pools = Vec<(&'static str, Database)>;

/// Read at each scrape; nothing is asked of the database for it.
pub(crate) struct Gauges {
    pub engine: Engine,
    pub lease: Arc<Lease>,
    pub pools: Pools,
}

impl Gauges {
    /// A registry that shows them.
    pub(crate) fn in_registry(self) -> Registry {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        registry
    }
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let ready = ConstGauge::new(i64::from(self.engine.ready().is_ok()));
        ready.encode(encoder.encode_descriptor(
            "callq_engine_ready",
            "1 while the engine admits calls and its settlements get through",
            None,
            MetricType::Gauge,
        )?)?;
        let left = ConstGauge::new(self.lease.left().as_secs_f64());
        left.encode(encoder.encode_descriptor(
            "callq_lease_seconds_left",
            "How long this server may still send calls to providers unless its lease is renewed",
            None,
            MetricType::Gauge,
        )?)?;
        let mut connections = encoder.encode_descriptor(
            "callq_database_connections",
            "Connections to the database now open, by pool and state",
            None,
            MetricType::Gauge,
        )?;
        for (pool, database) in &self.pools {
            let (open, idle) = database.connections();
            for (state, count) in [("idle", idle), ("used", open.saturating_sub(idle))] {
                let labels = [("pool", *pool), ("state", state)];
                ConstGauge::new(i64::from(count)).encode(connections.encode_family(&labels)?)?;
            }
        }
        let mut failures = encoder.encode_descriptor(
            "callq_database_failures",
            "Times the database could not be reached, refused work or did not answer in time, by pool",
            None,
            MetricType::Counter,
        )?;
        for (pool, database) in &self.pools {
            let labels = [("pool", *pool)];
            ConstCounter::new(database.failures()).encode(failures.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
