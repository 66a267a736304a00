//! The client against real brokers, over real UDP.

mod common;
mod full_disk;
mod network;
mod produce_consume;
mod reconnect;
mod refusals;
