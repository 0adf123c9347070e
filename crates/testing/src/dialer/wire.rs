//! As much of HTTP/1.1 as two programs that know each other need, over blocking sockets.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The longest line, and the longest body.
const MAX_LINE: u64 = 16 * 1024;
const MAX_BODY: u64 = 1024 * 1024;

/// How long callq may take to answer an event.
const PATIENCE: Duration = Duration::from_secs(30);

/// A message as it came: its first line, its headers in lower case, its body.
pub(super) struct Message {
    pub(super) first_line: String,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// Reads one message; `None` when the far side closed between messages.
    pub(super) fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let first_line = read_line(stream)?;
        if first_line.is_empty() {
            return Ok(None);
        }
        let mut message = Self {
            first_line,
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let line = read_line(stream)?;
            match line.split_once(':') {
                Some((name, value)) => {
                    let name = name.to_ascii_lowercase();
                    message.headers.push((name, value.trim().to_owned()));
                }
                None if line.is_empty() => break,
                None => return Err(io::Error::other("a header without a colon")),
            }
        }
        let length = message.content_length()?;
        stream.take(length).read_to_end(&mut message.body)?;
        if (message.body.len() as u64) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(message))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn content_length(&self) -> io::Result<u64> {
        if self.header("transfer-encoding").is_some() {
            return Err(io::Error::other("chunked bodies are not read here"));
        }
        let length = self.header("content-length").unwrap_or("0");
        match length.parse() {
            Ok(length) if length <= MAX_BODY => Ok(length),
            _ => Err(io::Error::other(format!("content-length {length}"))),
        }
    }
}

fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.take(MAX_LINE).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// Writes an answer in one piece.
pub(super) fn answer(
    stream: &mut TcpStream,
    status: u16,
    header: Option<(&str, &str)>,
    body: &str,
) -> io::Result<()> {
    let header = header.map(|(name, value)| format!("{name}: {value}\r\n"));
    let header = header.unwrap_or_default();
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} Fake\r\ncontent-type: application/json\r\n{header}content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes())
}

/// A client that keeps its connection to the last host it spoke to.
pub(super) struct Client {
    kept: Option<(String, BufReader<TcpStream>)>,
    patience: Duration,
}

impl Default for Client {
    fn default() -> Self {
        Self::patient(PATIENCE)
    }
}

impl Client {
    /// A client that waits no longer than this for a word of an answer.
    pub(super) fn patient(patience: Duration) -> Self {
        Self {
            kept: None,
            patience,
        }
    }

    /// Posts a JSON body to an `http://` address and returns the status of the answer. On a kept
    /// connection that turns out to be closed it tries once more on a fresh one.
    pub(super) fn post(
        &mut self,
        url: &str,
        headers: &[(&str, String)],
        body: &str,
    ) -> io::Result<u16> {
        let (host, path) = split(url)?;
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(body);
        if let Some((kept_host, stream)) = self.kept.take()
            && kept_host == host
            && let Ok(status) = self.exchange(host, stream, &request)
        {
            return Ok(status);
        }
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        self.exchange(host, BufReader::new(stream), &request)
    }

    fn exchange(
        &mut self,
        host: &str,
        mut stream: BufReader<TcpStream>,
        request: &str,
    ) -> io::Result<u16> {
        stream.get_mut().write_all(request.as_bytes())?;
        let answer = Message::read(&mut stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = answer.first_line.split(' ').nth(1);
        let status = status
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| io::Error::other("no status"))?;
        if answer.header("connection") != Some("close") {
            self.kept = Some((host.to_owned(), stream));
        }
        Ok(status)
    }
}

/// Host with port, and path, of an `http://` address.
fn split(url: &str) -> io::Result<(&str, &str)> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| io::Error::other(format!("{url} is not an http:// address")))?;
    let path_at = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(path_at);
    Ok((host, if path.is_empty() { "/" } else { path }))
}
