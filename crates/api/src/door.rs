//! What the controllers need of the engine, as a trait, so that they can be tested without one.

use async_trait::async_trait;
use callq_concurrency::{Engine, EngineError, Initiated};
use callq_domain::{EventSink, KeptAnswer, NewDirectCall};

/// The engine as the controllers see it. [`Engine`] is the one implementation outside tests.
#[async_trait]
pub trait Door: EventSink {
    /// Admits a direct call and, if it starts, waits for its placement.
    ///
    /// # Errors
    /// [`EngineError`]: nothing was accepted.
    async fn initiate(&self, call: NewDirectCall) -> Result<Initiated, EngineError>;

    /// Keeps an answer for repeats of its request; durable on return.
    ///
    /// # Errors
    /// [`EngineError`]: a repeat will be answered from the item's state instead.
    async fn keep_answer(&self, answer: KeptAnswer) -> Result<(), EngineError>;

    /// Says that something may have become ready by another way than the engine's own.
    fn wake(&self);

    /// Whether a call could be admitted now, as far as is known without asking the database.
    ///
    /// # Errors
    /// [`EngineError`]: what stands in the way.
    fn ready(&self) -> Result<(), EngineError>;
}

#[async_trait]
impl Door for Engine {
    async fn initiate(&self, call: NewDirectCall) -> Result<Initiated, EngineError> {
        Self::initiate(self, call).await
    }

    async fn keep_answer(&self, answer: KeptAnswer) -> Result<(), EngineError> {
        Self::keep_answer(self, answer).await
    }

    fn wake(&self) {
        Self::wake(self);
    }

    fn ready(&self) -> Result<(), EngineError> {
        Self::ready(self)
    }
}
