//! A request body that is handed over at the last moment, and only while its fence is open.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use callq_domain::Fence;
use http_body::{Body, Frame, SizeHint};

/// The client asks for the body once it has a connection, and writes nothing before it has it: the
/// header goes out together with the body's first bytes. A dialer that got a header and no body got
/// no request.
pub(super) struct FencedBody {
    bytes: Option<Bytes>,
    fence: Fence,
    withheld: Withheld,
}

/// Whether a body was not handed over, for whoever sent the request.
#[derive(Clone, Default)]
pub(super) struct Withheld(Arc<AtomicBool>);

impl Withheld {
    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why a body was not handed over.
#[derive(Debug)]
pub(super) struct FenceClosed;

impl fmt::Display for FenceClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server's lease was over before the request left")
    }
}

impl std::error::Error for FenceClosed {}

impl FencedBody {
    pub(super) fn new(body: String, fence: Fence) -> (Self, Withheld) {
        let withheld = Withheld::default();
        let body = Self {
            bytes: Some(body.into()),
            fence,
            withheld: withheld.clone(),
        };
        (body, withheld)
    }
}

impl Body for FencedBody {
    type Data = Bytes;
    type Error = FenceClosed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, FenceClosed>>> {
        let Some(bytes) = self.bytes.take() else {
            return Poll::Ready(None);
        };
        if self.fence.is_open() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        self.withheld.0.store(true, Ordering::Release);
        Poll::Ready(Some(Err(FenceClosed)))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    /// Exact, so that the request has a length rather than chunks.
    fn size_hint(&self) -> SizeHint {
        let length = self.bytes.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact(length as u64)
    }
}
