//! Each rule of the queue by example.

mod direct_first;
mod door;
mod fairness;
mod limits;
mod moving_on;
mod order;
mod recount;
mod slots;
