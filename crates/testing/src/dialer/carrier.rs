//! The dialer's inside: its connections, and what it does with each request.

use std::io::{self, BufReader};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, SockRef, Socket, Type};
use standardwebhooks::{
    HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook,
};
use uuid::Uuid;

use super::DialerOptions;
use super::behaviour::{Behaviour, Course, LookUps, Telling};
use super::courier::{self, Courier, Errand, Event};
use super::ledger::{Deed, Ledger, LedgerEntry};
use super::state::{Dial, State};
use super::wire::{self, Client, Message};

/// Connections that may wait to be taken, for tests that knock with hundreds at once.
const BACKLOG: i32 = 1024;

/// What is no JSON.
const GARBAGE: &str = "<html>it works!</html>";

pub(super) struct Carrier {
    pub(super) address: SocketAddr,
    pub(super) secret: String,
    pub(super) courier: Arc<Courier>,
    servers: Vec<String>,
    turn: AtomicUsize,
    webhook: Webhook,
    state: Mutex<State>,
    changed: Condvar,
}

/// What becomes of a connection after a request.
enum After {
    Keep,
    Reset,
    /// Held open, and nothing more said.
    Hold,
}

impl Carrier {
    pub(super) fn start(options: DialerOptions) -> io::Result<Arc<Self>> {
        let webhook = Webhook::new(&options.secret).map_err(io::Error::other)?;
        let socket = Socket::new(Domain::for_address(options.listen), Type::STREAM, None)?;
        // A dialer that is started again gets its port back at once.
        socket.set_reuse_address(true)?;
        socket.bind(&options.listen.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        let state = State::new(Ledger::open(options.ledger_file.as_deref())?);
        let carrier = Arc::new(Self {
            address: listener.local_addr()?,
            secret: options.secret,
            courier: Arc::default(),
            servers: options.servers,
            turn: AtomicUsize::new(0),
            webhook,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        courier::start(&carrier)?;
        let door = Arc::clone(&carrier);
        thread::Builder::new()
            .name("fake-dialer".into())
            .spawn(move || door.listen(&listener))?;
        Ok(carrier)
    }

    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        for connection in state.connections.values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        self.changed.notify_all();
        self.courier.close();
        // The door waits in `accept`; this wakes it.
        let _ = TcpStream::connect(self.address);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state once it is as `is_so` wants it, or when the time is up.
    pub(super) fn wait_until(
        &self,
        timeout: Duration,
        is_so: impl Fn(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |state| !is_so(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn record(&self, entry: LedgerEntry) {
        self.lock().ledger.add(entry);
        self.changed.notify_all();
    }

    fn listen(self: Arc<Self>, listener: &TcpListener) {
        for (number, stream) in (0..).zip(listener.incoming()) {
            let Ok(stream) = stream else { continue };
            let Ok(handle) = stream.try_clone() else {
                continue;
            };
            let mut state = self.lock();
            if state.stopped {
                return;
            }
            state.connections.insert(number, handle);
            drop(state);
            let carrier = Arc::clone(&self);
            let spawned = thread::Builder::new()
                .stack_size(512 * 1024)
                .spawn(move || {
                    // A connection that breaks is callq's business to notice.
                    let _ = carrier.converse(stream, number);
                    carrier.lock().connections.remove(&number);
                });
            if spawned.is_err() {
                self.lock().connections.remove(&number);
            }
        }
    }

    fn converse(&self, stream: TcpStream, number: u64) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        while let Some(request) = Message::read(&mut stream)? {
            match self.respond(&request, stream.get_mut())? {
                After::Keep => {}
                After::Reset => {
                    SockRef::from(stream.get_ref()).set_linger(Some(Duration::ZERO))?;
                    // The reset is sent when the last handle on the socket closes.
                    self.lock().connections.remove(&number);
                    return Ok(());
                }
                // Until callq hangs up or the dialer stops.
                After::Hold => while Message::read(&mut stream)?.is_some() {},
            }
        }
        Ok(())
    }

    fn respond(&self, request: &Message, stream: &mut TcpStream) -> io::Result<After> {
        if let Err(why) = self.verify(request) {
            let mut entry = LedgerEntry::of(Deed::Unauthentic);
            entry.detail = why;
            self.record(entry);
            wire::answer(stream, 401, None, r#"{"error": "bad signature"}"#)?;
            return Ok(After::Keep);
        }
        let mut words = request.first_line.split(' ');
        let (method, path) = (words.next(), words.next().unwrap_or_default());
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (method, &segments[..]) {
            (Some("POST"), ["calls"]) => return self.place(request, stream),
            (Some("GET"), ["calls", call_id]) => return self.look_up(call_id, stream),
            (Some("POST"), ["calls", execution_id, "hangup"]) => {
                self.hang_up(execution_id, stream)?;
            }
            _ => self.refuse_malformed(stream, request.first_line.clone())?,
        }
        Ok(After::Keep)
    }

    fn verify(&self, request: &Message) -> Result<(), String> {
        let mut headers = http::HeaderMap::new();
        for name in [
            HEADER_WEBHOOK_ID,
            HEADER_WEBHOOK_TIMESTAMP,
            HEADER_WEBHOOK_SIGNATURE,
        ] {
            let value = request.header(name).and_then(|value| value.parse().ok());
            headers.insert(name, value.ok_or_else(|| format!("no {name}"))?);
        }
        let verdict = self.webhook.verify(&request.body, &headers);
        verdict.map_err(|error| error.to_string())
    }

    fn refuse_malformed(&self, stream: &mut TcpStream, why: String) -> io::Result<()> {
        let mut entry = LedgerEntry::of(Deed::Malformed);
        entry.detail = why;
        self.record(entry);
        wire::answer(stream, 400, None, r#"{"error": "against the contract"}"#)
    }

    fn place(&self, request: &Message, stream: &mut TcpStream) -> io::Result<After> {
        let mut dial = match Dial::read(request) {
            Ok(dial) => dial,
            Err(error) => {
                self.refuse_malformed(stream, error.to_string())?;
                return Ok(After::Keep);
            }
        };
        self.record(dial.entry(Deed::Dial));
        let behaviour = self.decide(&dial);
        let execution_id = self.carry_out(&mut dial, &behaviour);
        self.answer(&dial, &behaviour, &execution_id, stream)
    }

    /// What the test wants done. Asked without the lock: the answer may take its time.
    fn decide(&self, dial: &Dial) -> Behaviour {
        let mut state = self.lock();
        if let Some(next) = state.next.pop_front() {
            return next;
        }
        let behaviour = Arc::clone(&state.behaviour);
        drop(state);
        behaviour(dial)
    }

    /// Puts the call up, if it is to be, and lets those see it who wait for dials.
    fn carry_out(&self, dial: &mut Dial, behaviour: &Behaviour) -> String {
        let mut state = self.lock();
        let mut execution_id = String::new();
        if behaviour.dials() {
            state.executions += 1;
            execution_id = format!("exec-{}", state.executions);
            dial.execution_id = Some(execution_id.clone());
            let entry = dial.entry(Deed::Start);
            state.ledger.add(entry);
            if let Some(course) = state.course.as_ref().and_then(|course| course(dial)) {
                self.embark(&execution_id, course);
            }
        }
        state.dials.push(dial.clone());
        drop(state);
        self.changed.notify_all();
        execution_id
    }

    /// Lays out what becomes of a call.
    fn embark(&self, execution_id: &str, course: Course) {
        for (after, status) in course.on_the_way {
            let errand = Errand::Report {
                execution_id: execution_id.to_owned(),
                status,
            };
            self.courier.add(after, errand);
        }
        let errand = Errand::End {
            execution_id: execution_id.to_owned(),
            status: course.outcome,
            telling: course.telling,
        };
        self.courier.add(course.ends_after, errand);
    }

    fn answer(
        &self,
        dial: &Dial,
        behaviour: &Behaviour,
        execution_id: &str,
        stream: &mut TcpStream,
    ) -> io::Result<After> {
        let accepted = json!({ "execution_id": execution_id }).to_string();
        let (status, retry_after, body) = match behaviour {
            Behaviour::Accept | Behaviour::AcceptTwice => (201, None, accepted.as_str()),
            Behaviour::SlowAccept(time) => {
                drop(self.wait_until(*time, |state| state.stopped));
                (201, None, accepted.as_str())
            }
            Behaviour::EventFirst { status } => {
                if let Some(event) = self.end_execution(execution_id, status) {
                    // Delivered or not is in the ledger; the answer follows all the same.
                    let _ = self.deliver(&event);
                }
                (201, None, accepted.as_str())
            }
            Behaviour::AcceptThenFail(status) => (
                *status,
                None,
                r#"{"error": "broken after dialling, says the test"}"#,
            ),
            Behaviour::Refuse(status) => (*status, None, r#"{"error": "refused by the test"}"#),
            Behaviour::Busy {
                status,
                retry_after,
            } => (
                *status,
                retry_after.as_deref(),
                r#"{"error": "no room, says the test"}"#,
            ),
            Behaviour::Garbage => (200, None, GARBAGE),
            Behaviour::Mute | Behaviour::AcceptThenMute => return Ok(After::Hold),
            Behaviour::Reset | Behaviour::AcceptThenReset => return Ok(After::Reset),
        };
        let mut entry = dial.entry(Deed::Answer);
        entry.detail = status.to_string();
        self.record(entry);
        let retry_after = retry_after.map(|value| ("retry-after", value));
        wire::answer(stream, status, retry_after, body)?;
        if *behaviour == Behaviour::AcceptTwice {
            wire::answer(stream, status, retry_after, body)?;
        }
        Ok(After::Keep)
    }

    fn look_up(&self, call_id: &str, stream: &mut TcpStream) -> io::Result<After> {
        let Ok(call_id) = call_id.parse() else {
            self.refuse_malformed(stream, format!("look-up of {call_id}"))?;
            return Ok(After::Keep);
        };
        let mut state = self.lock();
        let told_to = state.look_ups;
        let found = state.up_last(call_id).map(|dial| {
            json!({ "execution_id": dial.execution_id, "status": dial.status }).to_string()
        });
        let mut entry = LedgerEntry::of(Deed::LookUp);
        entry.call_id = Some(call_id);
        entry.detail = found.clone().unwrap_or_else(|| "never up".into());
        state.ledger.add(entry);
        drop(state);
        self.changed.notify_all();
        match (told_to, found) {
            (LookUps::Mute, _) => return Ok(After::Hold),
            (LookUps::Status(status), _) => wire::answer(stream, status, None, "")?,
            (LookUps::Garbage, _) => wire::answer(stream, 200, None, GARBAGE)?,
            (LookUps::Truth, Some(body)) => wire::answer(stream, 200, None, &body)?,
            (LookUps::Truth, None) => {
                wire::answer(stream, 404, None, r#"{"error": "no such call"}"#)?;
            }
        }
        Ok(After::Keep)
    }

    fn hang_up(&self, execution_id: &str, stream: &mut TcpStream) -> io::Result<()> {
        let mut state = self.lock();
        let forced = state.hang_up_status;
        let dial = state.execution(execution_id).cloned();
        let entry = dial.as_ref().map(|dial| dial.entry(Deed::HangUp));
        state
            .ledger
            .add(entry.unwrap_or_else(|| LedgerEntry::of(Deed::HangUp)));
        drop(state);
        self.changed.notify_all();
        if let Some(status) = forced {
            return wire::answer(stream, status, None, r#"{"error": "says the test"}"#);
        }
        let up = dial.filter(|dial| dial.ended.is_none());
        let Some(up) = up else {
            return wire::answer(stream, 404, None, r#"{"error": "no such call up"}"#);
        };
        let status = match up.status.as_str() {
            "in-progress" => "completed",
            _ => "cancelled",
        };
        let errand = Errand::End {
            execution_id: execution_id.to_owned(),
            status,
            telling: Telling::Once,
        };
        self.courier.add(Duration::ZERO, errand);
        wire::answer(stream, 202, None, "{}")
    }

    /// The event that ends a call, which is over from now on; `None` if it was over before.
    pub(super) fn end_execution(&self, execution_id: &str, status: &str) -> Option<Event> {
        let mut state = self.lock();
        let dial = state.execution(execution_id)?;
        if dial.ended.is_some() {
            return None;
        }
        let call_id = dial.call_id;
        drop(state);
        self.event(&format!("evt-{execution_id}-{status}"), call_id, status)
    }

    /// An event about a call that is still up, on its way.
    pub(super) fn report_execution(&self, execution_id: &str, status: &str) -> Option<Event> {
        let mut state = self.lock();
        let dial = state.execution(execution_id)?;
        if dial.ended.is_some() {
            return None;
        }
        let call_id = dial.call_id;
        drop(state);
        self.event(&format!("evt-{execution_id}-{status}"), call_id, status)
    }

    /// An event about the call's last execution. One that ends it ends it here first.
    pub(super) fn event(&self, event_id: &str, call_id: Uuid, status: &str) -> Option<Event> {
        let mut state = self.lock();
        let dial = state.up_last(call_id)?;
        let going_on = matches!(status, "initiated" | "ringing" | "in-progress");
        let mut end = None;
        if dial.ended.is_none() {
            status.clone_into(&mut dial.status);
            if !going_on {
                dial.ended = Some(Instant::now());
                end = Some(LedgerEntry {
                    detail: status.to_owned(),
                    ..dial.entry(Deed::End)
                });
            }
        }
        let event = Event {
            id: event_id.to_owned(),
            call_id,
            execution_id: dial.execution_id.clone()?,
            status: status.to_owned(),
            callback: dial.status_callback.clone(),
        };
        if let Some(end) = end {
            state.ledger.add(end);
        }
        drop(state);
        self.changed.notify_all();
        Some(event)
    }

    /// Where an event is brought this time.
    fn address_of(&self, event: &Event) -> String {
        if self.servers.is_empty() {
            return event.callback.clone();
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let server = &self.servers[turn % self.servers.len()];
        let path = event.callback.splitn(4, '/').nth(3).unwrap_or_default();
        format!("{server}/{path}")
    }

    /// Brings an event to callq, once.
    pub(super) fn deliver(&self, event: &Event) -> io::Result<u16> {
        self.deliver_with(&mut Client::default(), event)
    }

    pub(super) fn deliver_with(&self, client: &mut Client, event: &Event) -> io::Result<u16> {
        let body = event.body();
        let now = chrono::Utc::now().timestamp();
        let signature = self.webhook.sign(&event.id, now, body.as_bytes());
        let headers = [
            (HEADER_WEBHOOK_ID, event.id.clone()),
            (HEADER_WEBHOOK_TIMESTAMP, now.to_string()),
            (
                HEADER_WEBHOOK_SIGNATURE,
                signature.map_err(io::Error::other)?,
            ),
        ];
        let answer = client.post(&self.address_of(event), &headers, &body);
        let mut entry = LedgerEntry::of(Deed::Event);
        entry.call_id = Some(event.call_id);
        entry.execution_id = Some(event.execution_id.clone());
        entry.detail = match &answer {
            Ok(code) => format!("{} answered {code}", event.status),
            Err(error) => format!("{} not delivered: {error}", event.status),
        };
        self.record(entry);
        answer
    }
}
