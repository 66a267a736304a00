//! The engine through its public face, with guests written as WebAssembly text: no wasm toolchain is needed.

mod common;
mod determinism;
mod hostile;
mod limits;
mod model;
mod outputs;
mod real;
mod refused;
mod traced;
mod wasi;

/// A worker can be moved to its thread; everything else is shared by all of them.
const _: () = {
    const fn is_send<T: Send>() {}
    const fn is_shared<T: Send + Sync>() {}
    is_send::<transform::Worker>();
    is_shared::<transform::PluginHost>();
    is_shared::<transform::Plugin>();
    is_shared::<transform::Transform>();
    is_shared::<transform::Pipeline>();
};
