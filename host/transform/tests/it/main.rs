//! The engine through its public face, with guests written as WebAssembly text: no wasm toolchain is needed.

mod common;
mod determinism;
mod hostile;
mod model;
mod outputs;
mod refused;
mod traced;
