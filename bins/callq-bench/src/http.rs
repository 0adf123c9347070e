//! As much of HTTP/1.1 as a load client and a dialer need: messages with a length, on connections
//! that are kept. A real client would take as much of the two cores as the server it measures.

use std::io;

use anyhow::{Context, bail, ensure};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Far more than anything here sends.
const LONGEST_HEAD: usize = 64 * 1024;

/// A request or an answer, read whole.
#[derive(Debug, Default)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    head: usize,
    end: usize,
}

impl Message {
    /// The first line.
    pub(crate) fn first_line(&self) -> &str {
        let line = self.bytes[..self.head].split(|it| *it == b'\r').next();
        std::str::from_utf8(line.unwrap_or_default()).unwrap_or_default()
    }

    /// The status, of an answer.
    pub(crate) fn status(&self) -> Option<u16> {
        self.first_line().split(' ').nth(1)?.parse().ok()
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[self.head..self.end]
    }

    /// Forgets the message, and keeps what came behind it.
    fn next(&mut self) {
        self.bytes.drain(..self.end);
        (self.head, self.end) = (0, 0);
    }

    /// Whether all of it is there.
    fn is_whole(&mut self) -> anyhow::Result<bool> {
        if self.head == 0 {
            let Some(end) = self.bytes.windows(4).position(|it| it == b"\r\n\r\n") else {
                ensure!(self.bytes.len() < LONGEST_HEAD, "a head without an end");
                return Ok(false);
            };
            self.head = end + 4;
            let head = std::str::from_utf8(&self.bytes[..end]).context("a head that is no text")?;
            self.end = self.head + length_in(head).unwrap_or(0);
        }
        Ok(self.bytes.len() >= self.end)
    }
}

fn length_in(head: &str) -> Option<usize> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    })
}

/// A kept connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    message: Message,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("no connection to {address}"))?;
        Ok(Self::over(stream)?)
    }

    pub(crate) fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            message: Message::default(),
        })
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next message; none at the end of the connection.
    pub(crate) async fn read(&mut self) -> anyhow::Result<Option<&Message>> {
        self.message.next();
        while !self.message.is_whole()? {
            let count = self.stream.read_buf(&mut self.message.bytes).await?;
            if count == 0 {
                ensure!(self.message.bytes.is_empty(), "a message broken off");
                return Ok(None);
            }
        }
        Ok(Some(&self.message))
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<&Message> {
        self.write(request).await?;
        self.read().await?.context("the connection was closed")
    }

    /// Sends a request and reads the JSON of its answer, which must be of 200 to 299.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self, request: &[u8]) -> anyhow::Result<T> {
        let answer = self.exchange(request).await?;
        if !matches!(answer.status(), Some(200..300)) {
            bail!(
                "{}: {}",
                answer.first_line(),
                String::from_utf8_lossy(answer.body())
            );
        }
        Ok(serde_json::from_slice(answer.body())?)
    }
}

/// A request, ready to be sent any number of times.
pub(crate) fn request(method: &str, path: &str, token: &str, body: &str) -> Vec<u8> {
    let headers = [("authorization", format!("Bearer {token}"))];
    request_with(method, path, &headers, body)
}

/// As [`request`], with headers of one's own.
pub(crate) fn request_with(
    method: &str,
    path: &str,
    headers: &[(&str, String)],
    body: &str,
) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: callq\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!(
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        ));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

/// An answer with a JSON body.
pub(crate) fn answer(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn a_message_is_whole_when_its_body_is_there() {
        let mut message = Message {
            bytes: b"HTTP/1.1 202 Accepted\r\nContent-Length: 4\r\n\r\nab".to_vec(),
            ..Message::default()
        };
        assert!(!message.is_whole().unwrap());

        message.bytes.extend_from_slice(b"cdHTTP");

        assert!(message.is_whole().unwrap());
        assert_eq!(message.status(), Some(202));
        assert_eq!(message.body(), b"abcd");
        message.next();
        assert_eq!(message.bytes, b"HTTP");
    }

    #[tokio::test]
    async fn messages_follow_each_other_on_one_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let mut peer = Connection::over(listener.accept().await.unwrap().0).unwrap();
            let mut seen = Vec::new();
            while let Some(message) = peer.read().await.unwrap() {
                seen.push((message.first_line().to_owned(), message.body().to_vec()));
                peer.write(&answer("200 OK", "{\"n\":1}")).await.unwrap();
            }
            seen
        });

        let mut connection = Connection::open(&address).await.unwrap();
        for body in ["{}", ""] {
            let request = request("POST", "/x", "t", body);
            let answered: serde_json::Value = connection.json(&request).await.unwrap();
            assert_eq!(answered["n"], 1);
        }
        drop(connection);

        let seen = server.await.unwrap();
        assert_eq!(seen[0], ("POST /x HTTP/1.1".to_owned(), b"{}".to_vec()));
        assert!(seen[1].1.is_empty());
    }
}
