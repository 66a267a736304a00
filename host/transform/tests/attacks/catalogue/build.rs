//! Hostile modules are put together here: a guest that would be fine, with one part replaced.

/// A guest as text. Input goes to address 65,536, decisions come from address 0; there are 16 pages.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    imports: String,
    memory: String,
    version: String,
    alloc: String,
    process: String,
    more: String,
}

/// The body of a `weir_process` that keeps every record.
pub(super) const KEEP: &str = "
    (i32.store (i32.const 0) (i32.const 0))
    (i32.store (i32.const 4) (i32.load offset=4 (local.get $ptr)))
    (i64.const 8)";

/// A loop without an end.
pub(super) const FOR_EVER: &str = "(loop $for_ever (br $for_ever)) unreachable";

impl Guest {
    pub(super) fn new() -> Guest {
        Guest {
            imports: String::new(),
            memory: "(memory (export \"memory\") 16)".to_owned(),
            version: "(i32.const 1)".to_owned(),
            alloc: "(i32.const 65536)".to_owned(),
            process: KEEP.to_owned(),
            more: String::new(),
        }
    }

    /// An import of WASI.
    pub(super) fn wasi(self, name: &str, signature: &str) -> Guest {
        self.import("wasi_snapshot_preview1", name, &format!("(func ${name} {signature})"))
    }

    pub(super) fn import(mut self, module: &str, name: &str, item: &str) -> Guest {
        self.imports.push_str(&format!("(import \"{module}\" \"{name}\" {item})"));
        self
    }

    pub(super) fn memory(mut self, memory: &str) -> Guest {
        self.memory = memory.to_owned();
        self
    }

    /// The body of `weir_abi_version`.
    pub(super) fn version(mut self, body: &str) -> Guest {
        self.version = body.to_owned();
        self
    }

    /// The body of `weir_alloc`.
    pub(super) fn alloc(mut self, body: &str) -> Guest {
        self.alloc = body.to_owned();
        self
    }

    /// The body of `weir_process`; it has locals `$a`, `$b` and `$c`.
    pub(super) fn process(mut self, body: &str) -> Guest {
        self.process = body.to_owned();
        self
    }

    /// `weir_process` returns these bytes, which lie at this address, for every batch.
    pub(super) fn answer_at(self, address: u32, output: &[u8]) -> Guest {
        let span = i64::from(address) << 32 | output.len() as i64;
        self.data(address, output).process(&format!("(i64.const {span})"))
    }

    pub(super) fn data(self, address: u32, bytes: &[u8]) -> Guest {
        let text: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        self.more(&format!("(data (i32.const {address}) \"{text}\")"))
    }

    /// Whatever else belongs in the module.
    pub(super) fn more(mut self, text: &str) -> Guest {
        self.more.push_str(text);
        self.more.push('\n');
        self
    }

    pub(super) fn build(&self) -> Vec<u8> {
        let Guest { imports, memory, version, alloc, process, more } = self;
        module(&format!(
            r#"(module {imports} {memory}
                (func (export "weir_abi_version") (result i32) {version})
                (func (export "weir_alloc") (param $len i32) (result i32) {alloc})
                (func (export "weir_process") (param $ptr i32) (param $len i32) (result i64)
                    (local $a i32) (local $b i32) (local $c i32)
                    {process})
                {more})"#
        ))
    }
}

/// Text as a module.
pub(super) fn module(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the text of an attack is WebAssembly, apart from what it attacks with")
}

/// A module whose only trait is this: refused before anything is asked of its exports.
pub(super) fn only(item: &str) -> Vec<u8> {
    module(&format!("(module {item})"))
}

/// The header of a module and these sections, which may say anything.
pub(super) fn sections(sections: &[(u8, &[u8])]) -> Vec<u8> {
    let mut wasm = b"\0asm\x01\0\0\0".to_vec();
    for (id, body) in sections {
        wasm.push(*id);
        leb(&mut wasm, body.len() as u64);
        wasm.extend_from_slice(body);
    }
    wasm
}

/// An unsigned number as WebAssembly writes it.
pub(super) fn leb(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
