//! The engine through its public face, with guests written as WebAssembly text: no wasm toolchain is needed.

mod common;
mod outputs;
