//! The server through its public face: a real broker in a temporary directory, and a client that speaks bare frames.

mod admin;
mod fetch;
mod gate;
mod lifecycle;
mod produce;
mod raw;
mod subscription;
