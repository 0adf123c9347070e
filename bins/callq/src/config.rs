//! Settings judged: a `Config` that exists is valid, and every fault names its variable.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use callq_domain::{ConcurrencyLimit, MAX_QUEUED_CALLS, ProviderName, QueueDefaults};
use callq_providers::WebhookSecret;

use crate::settings::Settings;

/// The longest that a call may wait by default, as by `expires_in`.
const YEAR_SECONDS: u64 = 31_536_000;

/// A valid configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub database_url: Option<String>,
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub system_limit: ConcurrencyLimit,
    pub default_user_limit: ConcurrencyLimit,
    pub queue_defaults: QueueDefaults,
    pub sweep_interval: Duration,
    pub call_provider: ProviderName,
    pub http_provider_url: Option<String>,
    pub http_provider_secret: Option<WebhookSecret>,
    pub public_url: Option<String>,
    pub provider_timeout: Duration,
    pub max_call: Duration,
    pub pool_size: u32,
    pub shutdown_grace: Duration,
    pub rate_limit: Option<NonZeroU32>,
}

/// One line for each value that is wrong, naming its variable and the fix.
pub(crate) type Faults = Vec<String>;

impl Config {
    /// Judges settings. Empty values count as unset.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, Faults> {
        let mut faults = Faults::new();
        let mut reader = Reader {
            faults: &mut faults,
        };
        let host = reader.host(&settings.host);
        let port = reader.value("PORT", &settings.port, 3001_u16, "a port from 0 to 65535");
        let config = Self {
            database_url: reader.database_url(&settings.database_url),
            data_dir: settings
                .data_dir
                .clone()
                .filter(|dir| !dir.as_os_str().is_empty())
                .unwrap_or_else(|| PathBuf::from("./data")),
            listen: SocketAddr::new(host, port),
            system_limit: reader.limit(
                "SYSTEM_CONCURRENT_CALLS_LIMIT",
                &settings.system_concurrent_calls_limit,
                10,
            ),
            default_user_limit: reader.limit(
                "DEFAULT_USER_CONCURRENT_CALLS_LIMIT",
                &settings.default_user_concurrent_calls_limit,
                2,
            ),
            queue_defaults: QueueDefaults {
                max_queued_direct_calls: Some(reader.between(
                    "DEFAULT_MAX_QUEUED_DIRECT_CALLS",
                    &settings.default_max_queued_direct_calls,
                    10_000,
                    0..=MAX_QUEUED_CALLS,
                    "calls",
                )),
                max_queued_campaign_calls: Some(reader.between(
                    "DEFAULT_MAX_QUEUED_CAMPAIGN_CALLS",
                    &settings.default_max_queued_campaign_calls,
                    2_000_000,
                    0..=MAX_QUEUED_CALLS,
                    "calls",
                )),
                direct_call_ttl: reader
                    .time_to_live("DIRECT_CALL_TTL_SECONDS", &settings.direct_call_ttl_seconds),
                campaign_call_ttl: reader.time_to_live(
                    "CAMPAIGN_CALL_TTL_SECONDS",
                    &settings.campaign_call_ttl_seconds,
                ),
            },
            sweep_interval: Duration::from_millis(reader.between(
                "QUEUE_PROCESSOR_INTERVAL",
                &settings.queue_processor_interval,
                10_000,
                100..=86_400_000,
                "milliseconds",
            )),
            call_provider: reader.provider(&settings.call_provider),
            http_provider_url: reader.url("HTTP_PROVIDER_URL", &settings.http_provider_url),
            http_provider_secret: reader.secret(&settings.http_provider_secret),
            public_url: reader.url("PUBLIC_URL", &settings.public_url),
            provider_timeout: Duration::from_millis(reader.between(
                "PROVIDER_TIMEOUT_MS",
                &settings.provider_timeout_ms,
                10_000,
                100..=300_000,
                "milliseconds",
            )),
            max_call: Duration::from_secs(reader.between(
                "MAX_CALL_SECONDS",
                &settings.max_call_seconds,
                7_200,
                1..=604_800,
                "seconds",
            )),
            pool_size: reader.between(
                "DATABASE_POOL_SIZE",
                &settings.database_pool_size,
                16,
                4..=1_000,
                "connections",
            ),
            shutdown_grace: Duration::from_secs(reader.between(
                "SHUTDOWN_GRACE_SECONDS",
                &settings.shutdown_grace_seconds,
                20,
                0..=3_600,
                "seconds",
            )),
            rate_limit: reader.rate_limit(&settings.api_rate_limit_per_second),
        };
        config.check_provider(&mut faults);
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(faults)
        }
    }

    fn check_provider(&self, faults: &mut Faults) {
        let uses_http = self.call_provider.as_str() == "http" || self.http_provider_url.is_some();
        if self.call_provider.as_str() == "http" && self.http_provider_url.is_none() {
            faults.push("HTTP_PROVIDER_URL must be set when CALL_PROVIDER is http".into());
        }
        if uses_http && self.http_provider_secret.is_none() {
            let fault = "HTTP_PROVIDER_SECRET must be set with the provider http, such as whsec_ and the output of `openssl rand -base64 32`";
            if !faults
                .iter()
                .any(|fault| fault.starts_with("HTTP_PROVIDER_SECRET"))
            {
                faults.push(fault.into());
            }
        }
    }

    /// Name and value of each setting in effect, secrets masked.
    pub(crate) fn describe(&self) -> Vec<(&'static str, String)> {
        let unset = || "(unset)".to_owned();
        let cap = |cap: Option<u32>| cap.map_or_else(unset, |cap| cap.to_string());
        let seconds =
            |ttl: Option<Duration>| ttl.map_or_else(unset, |ttl| ttl.as_secs().to_string());
        vec![
            (
                "DATABASE_URL",
                self.database_url
                    .as_deref()
                    .map_or_else(|| "(unset: private cluster)".to_owned(), mask_url),
            ),
            ("CALLQ_DATA_DIR", self.data_dir.display().to_string()),
            ("HOST", self.listen.ip().to_string()),
            ("PORT", self.listen.port().to_string()),
            (
                "SYSTEM_CONCURRENT_CALLS_LIMIT",
                self.system_limit.to_string(),
            ),
            (
                "DEFAULT_USER_CONCURRENT_CALLS_LIMIT",
                self.default_user_limit.to_string(),
            ),
            (
                "DEFAULT_MAX_QUEUED_DIRECT_CALLS",
                cap(self.queue_defaults.max_queued_direct_calls),
            ),
            (
                "DEFAULT_MAX_QUEUED_CAMPAIGN_CALLS",
                cap(self.queue_defaults.max_queued_campaign_calls),
            ),
            (
                "DIRECT_CALL_TTL_SECONDS",
                seconds(self.queue_defaults.direct_call_ttl),
            ),
            (
                "CAMPAIGN_CALL_TTL_SECONDS",
                seconds(self.queue_defaults.campaign_call_ttl),
            ),
            (
                "QUEUE_PROCESSOR_INTERVAL",
                self.sweep_interval.as_millis().to_string(),
            ),
            ("CALL_PROVIDER", self.call_provider.to_string()),
            (
                "HTTP_PROVIDER_URL",
                self.http_provider_url
                    .as_deref()
                    .map_or_else(unset, mask_url),
            ),
            (
                "HTTP_PROVIDER_SECRET",
                self.http_provider_secret
                    .as_ref()
                    .map_or_else(unset, |_| "********".to_owned()),
            ),
            (
                "PUBLIC_URL",
                self.public_url
                    .clone()
                    .unwrap_or_else(|| format!("http://{}", self.listen)),
            ),
            (
                "PROVIDER_TIMEOUT_MS",
                self.provider_timeout.as_millis().to_string(),
            ),
            ("MAX_CALL_SECONDS", self.max_call.as_secs().to_string()),
            ("DATABASE_POOL_SIZE", self.pool_size.to_string()),
            (
                "SHUTDOWN_GRACE_SECONDS",
                self.shutdown_grace.as_secs().to_string(),
            ),
            (
                "API_RATE_LIMIT_PER_SECOND",
                self.rate_limit
                    .map_or_else(unset, |limit| limit.to_string()),
            ),
        ]
    }
}

/// Reads values one by one, noting each fault and going on with a default.
struct Reader<'a> {
    faults: &'a mut Faults,
}

impl Reader<'_> {
    fn value<T: FromStr>(
        &mut self,
        name: &str,
        text: &Option<String>,
        default: T,
        wanted: &str,
    ) -> T {
        let Some(text) = given(text) else {
            return default;
        };
        text.parse().unwrap_or_else(|_| {
            self.fault(name, text, format_args!("must be {wanted}"));
            default
        })
    }

    fn host(&mut self, text: &Option<String>) -> IpAddr {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        match given(text) {
            Some("localhost") => loopback,
            _ => self.value(
                "HOST",
                text,
                loopback,
                "an IP address such as 127.0.0.1 or 0.0.0.0",
            ),
        }
    }

    fn between<T>(
        &mut self,
        name: &str,
        text: &Option<String>,
        default: T,
        range: std::ops::RangeInclusive<T>,
        unit: &str,
    ) -> T
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let wanted = format!(
            "a whole number of {unit} from {} to {}",
            range.start(),
            range.end()
        );
        let value = self.value(name, text, default, &wanted);
        if range.contains(&value) {
            return value;
        }
        self.fault(
            name,
            given(text).unwrap_or_default(),
            format_args!("must be {wanted}"),
        );
        default
    }

    fn limit(&mut self, name: &str, text: &Option<String>, default: i64) -> ConcurrencyLimit {
        let number = self.between(
            name,
            text,
            default,
            1..=i64::from(ConcurrencyLimit::MAX),
            "calls",
        );
        match ConcurrencyLimit::new(number) {
            Ok(limit) => limit,
            Err(_) => unreachable!("the range above is the limit's own"),
        }
    }

    fn provider(&mut self, text: &Option<String>) -> ProviderName {
        let text = given(text).unwrap_or("simulator");
        match ProviderName::new(text) {
            Some(name) if ["simulator", "http"].contains(&text) => name,
            _ => {
                self.fault(
                    "CALL_PROVIDER",
                    text,
                    format_args!("must be simulator or http"),
                );
                match ProviderName::new("simulator") {
                    Some(name) => name,
                    None => unreachable!("a constant name"),
                }
            }
        }
    }

    fn url(&mut self, name: &str, text: &Option<String>) -> Option<String> {
        let text = given(text)?;
        let rest = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"));
        match rest {
            Some(rest)
                if !rest.is_empty()
                    && !rest.starts_with('/')
                    && !rest.contains(char::is_whitespace) =>
            {
                Some(text.trim_end_matches('/').to_owned())
            }
            _ => {
                self.faults.push(format!(
                    "{name} must be an address such as https://dialer.example.com"
                ));
                None
            }
        }
    }

    fn database_url(&mut self, text: &Option<String>) -> Option<String> {
        let text = given(text)?;
        let is_uri = text.starts_with("postgres://") || text.starts_with("postgresql://");
        if !is_uri && !text.contains('=') {
            // The value may hold a password: it is not repeated.
            self.faults.push("DATABASE_URL must be a PostgreSQL address such as postgres://user:password@host/database".into());
        }
        Some(text.to_owned())
    }

    fn secret(&mut self, text: &Option<String>) -> Option<WebhookSecret> {
        match given(text)?.parse() {
            Ok(secret) => Some(secret),
            Err(error) => {
                self.faults.push(format!("HTTP_PROVIDER_SECRET {error}"));
                None
            }
        }
    }

    fn rate_limit(&mut self, text: &Option<String>) -> Option<NonZeroU32> {
        given(text)?;
        let limit = self.between(
            "API_RATE_LIMIT_PER_SECOND",
            text,
            1_u32,
            1..=1_000_000,
            "requests",
        );
        NonZeroU32::new(limit)
    }

    fn time_to_live(&mut self, name: &str, text: &Option<String>) -> Option<Duration> {
        given(text)?;
        let seconds = self.between(name, text, 1_u64, 1..=YEAR_SECONDS, "seconds");
        Some(Duration::from_secs(seconds))
    }

    fn fault(&mut self, name: &str, text: &str, wanted: std::fmt::Arguments<'_>) {
        self.faults.push(format!("{name} {wanted}, not {text:?}"));
    }
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref()
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

/// The address with its password, if it has one, replaced.
pub(crate) fn mask_url(url: &str) -> String {
    if let Some((scheme, rest)) = url.split_once("://")
        && let Some((credentials, host)) = rest.split_once('@')
    {
        let user = credentials.split(':').next().unwrap_or_default();
        return format!("{scheme}://{user}:********@{}", mask_parameters(host));
    }
    mask_parameters(url)
}

/// `password=…` in a query or a keyword string, replaced.
fn mask_parameters(text: &str) -> String {
    let Some(start) = text.find("password=") else {
        return text.to_owned();
    };
    let value = start + "password=".len();
    let end = text[value..]
        .find(['&', ' '])
        .map_or(text.len(), |length| value + length);
    format!("{}********{}", &text[..value], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(change: impl FnOnce(&mut Settings)) -> Faults {
        let mut settings = Settings::default();
        change(&mut settings);
        Config::from_settings(&settings).err().unwrap_or_default()
    }

    #[test]
    fn nothing_set_is_a_valid_configuration() {
        let config = Config::from_settings(&Settings::default()).expect("defaults are valid");
        assert_eq!(config.listen.to_string(), "127.0.0.1:3001");
        assert_eq!(config.system_limit.get(), 10);
        assert_eq!(config.call_provider.as_str(), "simulator");
        let defaults = QueueDefaults {
            max_queued_direct_calls: Some(10_000),
            max_queued_campaign_calls: Some(2_000_000),
            direct_call_ttl: None,
            campaign_call_ttl: None,
        };
        assert_eq!(config.queue_defaults, defaults);
    }

    #[test]
    fn every_bad_value_is_one_line_that_names_its_variable() {
        let faults = faults_of(|s| {
            s.port = Some("70000".into());
            s.queue_processor_interval = Some("soon".into());
            s.system_concurrent_calls_limit = Some("0".into());
            s.default_max_queued_direct_calls = Some("-1".into());
            s.campaign_call_ttl_seconds = Some("0".into());
            s.call_provider = Some("telegraph".into());
            s.public_url = Some("callq.example.com".into());
        });
        let names: Vec<_> = faults
            .iter()
            .filter_map(|fault| fault.split(' ').next())
            .collect();
        assert_eq!(
            names,
            [
                "PORT",
                "SYSTEM_CONCURRENT_CALLS_LIMIT",
                "DEFAULT_MAX_QUEUED_DIRECT_CALLS",
                "CAMPAIGN_CALL_TTL_SECONDS",
                "QUEUE_PROCESSOR_INTERVAL",
                "CALL_PROVIDER",
                "PUBLIC_URL"
            ]
        );
        assert!(faults.iter().all(|fault| !fault.contains('\n')));
    }

    #[test]
    fn an_empty_value_counts_as_unset() {
        assert_eq!(
            faults_of(|s| s.database_url = Some("  ".into())),
            Faults::new()
        );
    }

    #[test]
    fn the_http_provider_needs_its_address_and_secret() {
        let faults = faults_of(|s| s.call_provider = Some("http".into()));
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(
            faults[0].starts_with("HTTP_PROVIDER_URL")
                && faults[1].starts_with("HTTP_PROVIDER_SECRET")
        );
    }

    #[test]
    fn passwords_are_masked_wherever_they_stand() {
        assert_eq!(
            mask_url("postgres://ada:s3cret@db/callq"),
            "postgres://ada:********@db/callq"
        );
        assert_eq!(
            mask_url("host=db password=s3cret user=ada"),
            "host=db password=******** user=ada"
        );
        assert_eq!(
            mask_url("postgres://db/callq?user=ada&password=s3cret&x=1"),
            "postgres://db/callq?user=ada&password=********&x=1"
        );
    }
}
