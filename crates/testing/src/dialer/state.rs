//! What a fake dialer knows: the dials it was asked for, and what the test told it to do.

use std::collections::{HashMap, VecDeque};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::behaviour::{Behaviour, Course, LookUps};
use super::ledger::{Deed, Ledger, LedgerEntry};
use super::wire::Message;

/// A placement that callq asked for.
#[derive(Debug, Clone)]
pub struct Dial {
    /// The call.
    pub call_id: Uuid,
    /// Which attempt at it.
    pub attempt: u32,
    /// Whose call it is.
    pub user_id: Uuid,
    /// `direct` or `campaign`.
    pub call_type: String,
    /// The number.
    pub to: String,
    /// Where events go.
    pub status_callback: String,
    /// The request's key.
    pub idempotency_key: Option<String>,
    /// The whole body.
    pub body: Value,
    /// When it arrived, by a clock that never goes back.
    pub at: Instant,
    /// When it arrived, by the time of day.
    pub wall: SystemTime,
    /// The call's name here, if it is or was up.
    pub execution_id: Option<String>,
    /// When it ended, if it did.
    pub ended: Option<Instant>,
    /// The last status that was sent, or `initiated`.
    pub status: String,
}

/// The fields of a placement that are looked at.
#[derive(Deserialize)]
struct Placement {
    call_id: Uuid,
    attempt: u32,
    user_id: Uuid,
    call_type: String,
    to: String,
    status_callback: String,
}

impl Dial {
    /// The dial that a request asks for, arrived now.
    pub(super) fn read(request: &Message) -> serde_json::Result<Self> {
        let body: Value = serde_json::from_slice(&request.body)?;
        let placement = Placement::deserialize(&body)?;
        Ok(Self {
            call_id: placement.call_id,
            attempt: placement.attempt,
            user_id: placement.user_id,
            call_type: placement.call_type,
            to: placement.to,
            status_callback: placement.status_callback,
            idempotency_key: request.header("idempotency-key").map(str::to_owned),
            body,
            at: Instant::now(),
            wall: SystemTime::now(),
            execution_id: None,
            ended: None,
            status: "initiated".into(),
        })
    }

    /// A ledger entry about it.
    pub(super) fn entry(&self, deed: Deed) -> LedgerEntry {
        LedgerEntry {
            call_id: Some(self.call_id),
            attempt: Some(self.attempt),
            user_id: Some(self.user_id),
            call_type: Some(self.call_type.clone()),
            to: Some(self.to.clone()),
            execution_id: self.execution_id.clone(),
            ..LedgerEntry::of(deed)
        }
    }
}

type Decision = dyn Fn(&Dial) -> Behaviour + Send + Sync;
type Direction = dyn Fn(&Dial) -> Option<Course> + Send + Sync;

pub(super) struct State {
    pub(super) ledger: Ledger,
    pub(super) dials: Vec<Dial>,
    pub(super) next: VecDeque<Behaviour>,
    pub(super) behaviour: Arc<Decision>,
    pub(super) look_ups: LookUps,
    pub(super) hang_up_status: Option<u16>,
    pub(super) course: Option<Arc<Direction>>,
    pub(super) executions: u64,
    pub(super) connections: HashMap<u64, TcpStream>,
    pub(super) stopped: bool,
}

impl State {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            dials: Vec::new(),
            next: VecDeque::new(),
            behaviour: Arc::new(|_| Behaviour::Accept),
            look_ups: LookUps::default(),
            hang_up_status: None,
            course: None,
            executions: 0,
            connections: HashMap::new(),
            stopped: false,
        }
    }

    /// The dial that this execution belongs to.
    pub(super) fn execution(&mut self, execution_id: &str) -> Option<&mut Dial> {
        let is_it = |dial: &&mut Dial| dial.execution_id.as_deref() == Some(execution_id);
        self.dials.iter_mut().rev().find(is_it)
    }

    /// The last execution of a call that is or was up.
    pub(super) fn up_last(&mut self, call_id: Uuid) -> Option<&mut Dial> {
        let is_it = |dial: &&mut Dial| dial.call_id == call_id && dial.execution_id.is_some();
        self.dials.iter_mut().rev().find(is_it)
    }
}
