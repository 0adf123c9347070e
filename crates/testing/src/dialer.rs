//! A dialer that is none: a real HTTP server that speaks the dialer's side of the `http` provider,
//! does to each request what a test tells it to, and keeps a ledger by which callq is judged.
//!
//! It believes nothing callq says. It never joins two requests for one attempt into one, and its
//! ledger is written before an answer or an event is sent, so that what callq concludes from them
//! cannot come earlier than what the ledger holds. It runs on threads of its own: a test that blocks
//! its runtime does not stop it.

mod behaviour;
mod carrier;
mod courier;
mod ledger;
mod state;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use self::carrier::Carrier;

pub use self::behaviour::{Behaviour, Course, LookUps, Telling};
pub use self::ledger::{Deed, Ledger, LedgerEntry};
pub use self::state::Dial;

/// What a dialer is started with.
#[derive(Debug, Clone)]
pub struct DialerOptions {
    /// Where it listens. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// The secret shared with callq, in its `whsec_` form.
    pub secret: String,
    /// A file that each ledger entry is appended to as a line of JSON, at once.
    pub ledger_file: Option<PathBuf>,
    /// Servers that events are brought to in turn, such as `http://127.0.0.1:3001`, as a load
    /// balancer would. None: to the address that the placement named.
    pub servers: Vec<String>,
}

impl Default for DialerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            secret: "whsec_ZmFrZSBkaWFsZXIsIHRlc3Qgc2VjcmV0IG9ubHk=".into(),
            ledger_file: None,
            servers: Vec::new(),
        }
    }
}

/// A running fake dialer. Clones are handles on the same one; it stops with the last of them.
///
/// Its methods block, for a short while at most; those that wait say so. Inside an asynchronous
/// test, call these from `spawn_blocking` or a multi-threaded runtime.
///
/// ```
/// use callq_testing::{Behaviour, FakeDialer};
///
/// let dialer = FakeDialer::start();
/// dialer.next(Behaviour::Refuse(422));                  // the first call is refused,
/// dialer.behave(|dial| match dial.call_type.as_str() {  // and after that:
///     "campaign" => Behaviour::Busy { status: 429, retry_after: Some("1".into()) },
///     _ => Behaviour::Accept,
/// });
/// assert!(dialer.url().starts_with("http://127.0.0.1:"));
/// assert_eq!(dialer.ledger().max_overlap(), 0);
/// ```
#[derive(Clone)]
pub struct FakeDialer(Arc<Owner>);

/// Stops the dialer when the last handle goes.
struct Owner(Arc<Carrier>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl FakeDialer {
    /// A dialer on a port of its own that accepts every call.
    ///
    /// # Panics
    /// If it cannot listen.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test that cannot start must fail")]
    pub fn start() -> Self {
        Self::start_with(DialerOptions::default()).expect("a free port to listen on")
    }

    /// A dialer with these options.
    ///
    /// # Errors
    /// When it cannot listen or write its ledger, or the secret is not base64.
    pub fn start_with(options: DialerOptions) -> io::Result<Self> {
        Carrier::start(options).map(|carrier| Self(Arc::new(Owner(carrier))))
    }

    fn carrier(&self) -> &Arc<Carrier> {
        &self.0.0
    }

    /// The base address callq is given, as `HTTP_PROVIDER_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.carrier().address)
    }

    /// The secret callq is given, as `HTTP_PROVIDER_SECRET`.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.carrier().secret
    }

    /// What is done with placements from now on. The function may block, which holds up its own
    /// request only.
    pub fn behave(&self, behaviour: impl Fn(&Dial) -> Behaviour + Send + Sync + 'static) {
        self.carrier().lock().behaviour = Arc::new(behaviour);
    }

    /// What is done with the next placement, ahead of [`FakeDialer::behave`]. Several calls line up.
    pub fn next(&self, behaviour: Behaviour) {
        self.carrier().lock().next.push_back(behaviour);
    }

    /// Look-ups are answered with this status and no body; `None` goes back to the truth.
    pub fn answer_look_ups_with(&self, status: Option<u16>) {
        self.do_with_look_ups(status.map_or(LookUps::Truth, LookUps::Status));
    }

    /// What is done with look-ups from now on.
    pub fn do_with_look_ups(&self, what: LookUps) {
        self.carrier().lock().look_ups = what;
    }

    /// Hang-ups are answered with this status and do nothing; `None` goes back to ending calls.
    pub fn answer_hang_ups_with(&self, status: Option<u16>) {
        self.carrier().lock().hang_up_status = status;
    }

    /// Calls accepted from now on end by themselves as `completed` after this time. Their event is
    /// sent until callq takes it.
    pub fn auto_end_after(&self, duration: Duration) {
        self.go_on_by(move |_| Some(Course::completed_after(duration)));
    }

    /// How calls accepted from now on go on by themselves, if they do. Asked while the dialer is
    /// locked: it must not call back.
    pub fn go_on_by(&self, course: impl Fn(&Dial) -> Option<Course> + Send + Sync + 'static) {
        self.carrier().lock().course = Some(Arc::new(course));
    }

    /// The placements asked for, in order of arrival, as far as it was decided what to do with them.
    #[must_use]
    pub fn dials(&self) -> Vec<Dial> {
        self.carrier().lock().dials.clone()
    }

    /// How many placements were asked for, by call and attempt. Anything above 1 is a defect of
    /// callq, whatever was answered.
    #[must_use]
    pub fn dials_per_attempt(&self) -> BTreeMap<(Uuid, u32), usize> {
        self.ledger().dials_per_attempt()
    }

    /// A copy of the ledger.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.carrier().lock().ledger.clone()
    }

    /// Waits until `n` placements were asked for, and returns all there are.
    ///
    /// # Panics
    /// When there are not as many in time.
    #[must_use]
    pub fn wait_for_dials(&self, n: usize, timeout: Duration) -> Vec<Dial> {
        let state = self
            .carrier()
            .wait_until(timeout, |state| state.dials.len() >= n);
        let dials = state.dials.clone();
        drop(state);
        let seen = dials.len();
        assert!(seen >= n, "{seen} of {n} dials came within {timeout:?}");
        dials
    }

    /// Waits until the ledger looks as `is_so` wants it, and returns it.
    ///
    /// # Panics
    /// When it does not in time, with the ledger.
    pub fn wait_until(&self, timeout: Duration, is_so: impl Fn(&Ledger) -> bool) -> Ledger {
        let state = self
            .carrier()
            .wait_until(timeout, |state| is_so(&state.ledger));
        let ledger = state.ledger.clone();
        drop(state);
        assert!(is_so(&ledger), "not within {timeout:?}: {ledger:#?}");
        ledger
    }

    /// Sends a signed event about a call that is or was up, once, and returns the HTTP status it was
    /// answered with. A status that ends the call ends it here first.
    ///
    /// # Errors
    /// When callq cannot be reached or does not answer.
    ///
    /// # Panics
    /// When no such call was ever up here.
    pub fn send_event(&self, call_id: impl Into<Uuid>, status: &str) -> io::Result<u16> {
        let event_id = format!("evt-{}", Uuid::now_v7());
        self.send_event_as(&event_id, call_id, status)
    }

    /// As [`FakeDialer::send_event`], with an event id of the test's choice, to send one twice.
    ///
    /// # Errors
    /// As above.
    ///
    /// # Panics
    /// As above.
    pub fn send_event_as(
        &self,
        event_id: &str,
        call_id: impl Into<Uuid>,
        status: &str,
    ) -> io::Result<u16> {
        let call_id = call_id.into();
        let event = self.carrier().event(event_id, call_id, status);
        let Some(event) = event else {
            panic!("call {call_id} was never up at this dialer");
        };
        self.carrier().deliver(&event)
    }

    /// Ends a call as `completed`: [`FakeDialer::send_event`] with that status.
    ///
    /// # Errors
    /// As [`FakeDialer::send_event`].
    ///
    /// # Panics
    /// As [`FakeDialer::send_event`].
    pub fn end(&self, call_id: impl Into<Uuid>) -> io::Result<u16> {
        self.send_event(call_id, "completed")
    }
}
