//! Faults of the database, each under load: the door answers in bounded time and says so, readiness
//! says so too, everything accepted ends, nobody is dialled twice, and nobody has to do anything for
//! it to go on.

mod disk;
mod flood;
mod network;
mod pooler;
mod refusing;
mod stopping;
mod storm;
