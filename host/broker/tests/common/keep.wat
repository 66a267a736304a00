;; A guest that keeps everything. It takes a configuration, and refuses one that is longer than `{}`.
(module
  (memory (export "memory") 128)
  (func (export "weir_abi_version") (result i32) (i32.const 1))
  (func (export "weir_alloc") (param $len i32) (result i32) (i32.const 1024))
  (func (export "weir_init") (param $ptr i32) (param $len i32) (result i32)
    (i32.gt_u (local.get $len) (i32.const 2)))
  (func (export "weir_process") (param $ptr i32) (param $len i32) (result i64)
    (i32.store (i32.const 8) (i32.const 0))
    (i32.store (i32.const 12) (i32.load (i32.add (local.get $ptr) (i32.const 4))))
    (i64.or (i64.shl (i64.const 8) (i64.const 32)) (i64.const 8))))
