//! Just enough of PostgreSQL's protocol to ask a server whether it is ready and to run a statement
//! without a result.
//!
//! libpq would do it too, but would tie starting a server to a client library; `pg_isready` and
//! `createdb` are in a package of their own on some distributions.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest wait for one message. `CREATE DATABASE` on a slow disk is the slowest thing asked.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than anything a server says to us; more is not a PostgreSQL server.
const LONGEST_MESSAGE: usize = 1 << 20;
const PROTOCOL_3_0: u32 = 196_608;

/// Why a server could not be asked.
#[derive(Debug)]
pub(crate) enum WireError {
    /// No server listens, or it hung up.
    Io(io::Error),
    /// It answered with an error.
    Server { code: String, message: String },
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// An authenticated connection that waits for a statement.
#[derive(Debug)]
pub(crate) struct Session {
    stream: UnixStream,
}

impl Session {
    /// Connects over the Unix socket at `socket`. Success means the server takes statements.
    pub(crate) fn connect(socket: &Path, role: &str, database: &str) -> Result<Self, WireError> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut session = Self { stream };
        let mut body = PROTOCOL_3_0.to_be_bytes().to_vec();
        for text in [
            "user",
            role,
            "database",
            database,
            "application_name",
            "callq start",
        ] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        session.stream.write_all(&framed(&body))?;
        session.until_ready()?;
        Ok(session)
    }

    /// Runs `sql` and throws its rows away.
    pub(crate) fn execute(&mut self, sql: &str) -> Result<(), WireError> {
        let mut message = vec![b'Q'];
        let mut body = sql.as_bytes().to_vec();
        body.push(0);
        message.extend(framed(&body));
        self.stream.write_all(&message)?;
        self.until_ready()
    }

    /// Reads up to `ReadyForQuery`. An error while connecting ends the connection, one of a
    /// statement does not; both are the outcome.
    fn until_ready(&mut self) -> Result<(), WireError> {
        let mut outcome = Ok(());
        loop {
            match self.message() {
                Ok((b'Z', _)) => return outcome,
                Ok((b'E', body)) => outcome = Err(server_error(&body)),
                Ok((b'R', body)) if body.get(..4) != Some(&[0; 4]) => {
                    return Err(unexpected("the server wants a password").into());
                }
                Ok(_) => {}
                Err(error) => return outcome.and(Err(error.into())),
            }
        }
    }

    fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header)?;
        let [kind, length @ ..] = header;
        let length = u32::from_be_bytes(length) as usize;
        if !(4..=LONGEST_MESSAGE).contains(&length) {
            return Err(unexpected("the answer is not PostgreSQL's protocol"));
        }
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body)?;
        Ok((kind, body))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A goodbye keeps the server from logging a lost connection.
        let _ = self.stream.write_all(b"X\0\0\0\x04");
    }
}

/// `body` after its length, which counts itself.
fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut message = length.to_be_bytes().to_vec();
    message.extend_from_slice(body);
    message
}

fn server_error(body: &[u8]) -> WireError {
    let field = |wanted: u8| {
        body.split(|byte| *byte == 0)
            .find_map(|field| field.strip_prefix(&[wanted]))
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .unwrap_or_default()
    };
    WireError::Server {
        code: field(b'C'),
        message: field(b'M'),
    }
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    fn answer_once(answer: Vec<u8>) -> Result<Session, WireError> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
            stream.read_exact(&mut body).unwrap();
            stream.write_all(&answer).unwrap();
        });
        let session = Session::connect(&socket, "role", "database");
        server.join().unwrap();
        session
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![kind];
        message.extend(framed(body));
        message
    }

    #[test]
    fn a_server_that_is_still_starting_is_told_apart_by_its_code() {
        let body = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0";

        let error = answer_once(message(b'E', body)).unwrap_err();

        assert!(
            matches!(&error, WireError::Server { code, message }
                if code == "57P03" && message.ends_with("starting up")),
            "{error:?}"
        );
    }

    #[test]
    fn a_server_that_accepts_without_a_password_is_ready() {
        let mut answer = message(b'R', &[0; 4]);
        answer.extend(message(b'S', b"server_version\x0015\0"));
        answer.extend(message(b'Z', b"I"));

        assert!(answer_once(answer).is_ok());
    }

    #[test]
    fn a_demand_for_a_password_and_plain_nonsense_are_errors_not_waits() {
        for answer in [
            message(b'R', &[0, 0, 0, 10]),
            b"HTTP/1.1 400 Bad Request".to_vec(),
        ] {
            assert!(matches!(answer_once(answer), Err(WireError::Io(_))));
        }
    }
}
