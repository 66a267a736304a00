;; Keeps everything.
  (func (export "weir_process") (param $ptr i32) (param $len i32) (result i64)
    (i32.store (i32.const 1048576) (i32.const 0))
    (i32.store (i32.const 1048580) (call $begin (local.get $ptr)))
    (call $end (i32.const 1048584)))
