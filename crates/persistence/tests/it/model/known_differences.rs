//! Where the store of today answers otherwise than the model, and is let off. Each is kept small,
//! and has its script in [`super::replays`]; a store that keeps the rule passes as well.

/// Events in one batch that name a call which had no name yet differently: the furthest names it,
/// not the first.
pub(crate) const NAMES_A_CALL_BY_ITS_FURTHEST_EVENT: bool = true;

/// A newcomer that waits behind an earlier call of its user, while a later newcomer of its batch
/// takes the last slot, is told that the system is full: true by then, but not why it waits.
pub(crate) const GIVES_REASONS_AS_OF_THE_WHOLE_BATCH: bool = true;

/// A request under a key that an earlier one of its batch has, for the same body, while a third of
/// the batch has the key for another body, is told that the bodies differ.
pub(crate) const JUDGES_A_KEY_BY_ALL_OF_ITS_BATCH: bool = true;
