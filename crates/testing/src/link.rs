//! A way to a PostgreSQL that can be made slow, held up and cut: a network's faults, on one machine.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// A socket that passes everything on to a PostgreSQL's, both ways, as it is told to.
pub struct Link {
    url: String,
    shared: Arc<Shared>,
    // Its end is the socket's.
    _directory: TempDir,
}

struct Shared {
    far: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    delay: Duration,
    is_held: bool,
    /// Connections with smaller numbers are held up for ever.
    frozen_below: u64,
    made: u64,
    is_over: bool,
    connections: Vec<UnixStream>,
}

impl Link {
    /// A link to the PostgreSQL whose URL names its socket's folder, as an
    /// [`OwnCluster`](crate::OwnCluster)'s does.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test that cannot start must fail")]
    pub fn to(url: &str) -> Self {
        let (start, rest) = url.split_once("host=").expect("a host in the URL");
        let (host, rest) = rest.split_once('&').expect("more after the host");
        let directory = tempfile::Builder::new()
            .prefix("callq-link-")
            .tempdir()
            .expect("a folder for the socket");
        let name = ".s.PGSQL.5432";
        let listener = UnixListener::bind(directory.path().join(name)).expect("a socket");
        let shared = Arc::new(Shared {
            far: PathBuf::from(decoded(host)).join(name),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let near = directory.path().display();
        let door = Arc::clone(&shared);
        thread::spawn(move || door.listen(&listener));
        Self {
            url: format!("{start}host={near}&{rest}"),
            shared,
            _directory: directory,
        }
    }

    /// The URL by which the database is reached over this link.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on everything takes this much longer, each way.
    pub fn delay(&self, delay: Duration) {
        self.shared.lock().delay = delay;
    }

    /// Nothing passes from now on, and nobody is told: connections are taken and stay open, as with a
    /// host that is frozen.
    pub fn hold(&self) {
        self.shared.lock().is_held = true;
    }

    /// Nothing passes from now on over the connections there are, while others that are made do: as
    /// if one of several pooling servers were frozen.
    pub fn freeze_present(&self) {
        let mut state = self.shared.lock();
        state.frozen_below = state.made;
    }

    /// What was held up passes, in order, and everything after it.
    pub fn release(&self) {
        self.shared.lock().is_held = false;
        self.shared.changed.notify_all();
    }

    /// Ends all connections there are.
    pub fn cut(&self) {
        for connection in self.shared.lock().connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.release();
        self.cut();
        // The door waits in `accept`; this wakes it.
        let folder = self._directory.path();
        let _ = UnixStream::connect(folder.join(".s.PGSQL.5432"));
        let _ = fs::remove_file(folder.join(".s.PGSQL.5432"));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(self: Arc<Self>, listener: &UnixListener) {
        for near in listener.incoming() {
            if self.lock().is_over {
                return;
            }
            // A server that is not there refuses; so does this.
            let Ok(near) = near else { continue };
            let _ = Arc::clone(&self).join(near);
        }
    }

    fn join(self: Arc<Self>, near: UnixStream) -> io::Result<()> {
        let far = UnixStream::connect(&self.far)?;
        let mut state = self.lock();
        let number = state.made;
        state.made += 1;
        state.connections.push(near.try_clone()?);
        state.connections.push(far.try_clone()?);
        drop(state);
        for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
            let shared = Arc::clone(&self);
            thread::spawn(move || shared.pass(number, from, to));
        }
        Ok(())
    }

    fn pass(&self, number: u64, mut from: UnixStream, mut to: UnixStream) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let state = self
                .changed
                .wait_while(self.lock(), |state| {
                    !state.is_over && (state.is_held || number < state.frozen_below)
                })
                .unwrap_or_else(PoisonError::into_inner);
            let delay = state.delay;
            drop(state);
            thread::sleep(delay);
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}

/// The text behind percent signs.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
