//! What callq is about, with no I/O: the types that cannot hold a wrong value, the states a queue
//! item and a call may pass through, the ports that the outside implements, and the rules of the
//! queue as a small pure model.
//!
//! # Using it from another service
//!
//! ```
//! use callq_domain::{CallStatus, Outcome, PhoneNumber};
//!
//! let number: PhoneNumber = "+1 415 555 2671".parse()?;
//! assert_eq!(number.as_str(), "+14155552671");
//! assert!(CallStatus::Ringing.may_become(CallStatus::Ended(Outcome::NoAnswer)));
//! assert!(!CallStatus::Ended(Outcome::NoAnswer).may_become(CallStatus::Ringing));
//! # Ok::<(), callq_domain::PhoneNumberError>(())
//! ```

mod admission;
mod call;
mod call_type;
mod campaign;
mod campaign_contacts;
mod directory;
mod do_not_call;
mod engine_store;
pub mod fairness;
mod hours;
mod id;
mod import;
mod limits;
pub mod model;
mod operator_calls;
mod phone;
mod provider;
mod queue_item;
mod retry;
mod stores;
mod user;
mod wait;

pub use admission::*;
pub use call::*;
pub use call_type::*;
pub use campaign::*;
pub use campaign_contacts::*;
pub use directory::*;
pub use do_not_call::*;
pub use engine_store::*;
pub use hours::*;
pub use id::*;
pub use import::*;
pub use limits::*;
pub use operator_calls::*;
pub use phone::*;
pub use provider::*;
pub use queue_item::*;
pub use retry::*;
pub use stores::*;
pub use user::*;
pub use wait::*;
