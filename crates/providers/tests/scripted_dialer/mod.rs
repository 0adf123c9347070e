//! A far side that does exactly what a test tells it, down to the byte and the reset.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What is done with each request.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// Sends these bytes, then closes.
    Say(String),
    /// Sends these bytes, then neither more nor an end.
    SayAndHang(String),
    /// Reads the request, then says nothing.
    Mute,
    /// Reads the request, then closes in good order.
    Close,
    /// Reads the request, then resets the connection.
    Reset,
    /// Takes the connection and never reads.
    Deaf,
    /// Sends these bytes before anything was asked, then closes.
    Blurt(String),
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A server on a port of its own, gone when dropped.
pub(crate) struct ScriptedDialer {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl ScriptedDialer {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let requests = Arc::default();
        let seen = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(play(stream, script.clone(), Arc::clone(&seen)));
            }
        });
        Self {
            port,
            requests,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }
}

impl Drop for ScriptedDialer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn play(mut stream: TcpStream, script: Script, seen: Arc<Mutex<Vec<Request>>>) {
    match script {
        Script::Deaf => return std::future::pending().await,
        Script::Blurt(bytes) => {
            let _ = stream.write_all(bytes.as_bytes()).await;
            return;
        }
        _ => {}
    }
    let Some(request) = read_request(&mut stream).await else {
        return;
    };
    seen.lock().expect("no panic").push(request);
    match script {
        Script::Say(bytes) => {
            let _ = stream.write_all(bytes.as_bytes()).await;
        }
        Script::SayAndHang(bytes) => {
            let _ = stream.write_all(bytes.as_bytes()).await;
            std::future::pending().await
        }
        Script::Reset => stream.set_zero_linger().expect("a socket option"),
        Script::Close => {}
        Script::Mute => std::future::pending().await,
        Script::Deaf | Script::Blurt(_) => unreachable!("done without reading"),
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let request = Request {
                head: head.to_owned(),
                body: body.to_owned(),
            };
            let length = request.header("content-length").unwrap_or("0");
            if body.len() >= length.parse().expect("a length") {
                return Some(request);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
