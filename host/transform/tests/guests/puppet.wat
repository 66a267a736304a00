;; Says what it is told. Its configuration is a JSON string of hexadecimal digits: the length of the output of every
;; batch (u32), that output, and more bytes that it may point to. The output lies at 131072.
(module
  (memory (export "memory") 16)
  (global $length (mut i32) (i32.const 0))

  (func (export "weir_abi_version") (result i32) (i32.const 1))
  (func (export "weir_alloc") (param i32) (result i32) (i32.const 262144))

  (func $nibble (param $digit i32) (result i32)
    (if (result i32) (i32.lt_u (local.get $digit) (i32.const 58))
      (then (i32.sub (local.get $digit) (i32.const 48)))
      (else (i32.sub (local.get $digit) (i32.const 87)))))

  (func $digit (param $ptr i32) (param $index i32) (result i32)
    (call $nibble (i32.load8_u (i32.add (i32.add (local.get $ptr) (i32.const 1)) (local.get $index)))))

  (func (export "weir_init") (param $ptr i32) (param $len i32) (result i32)
    (local $at i32)
    (global.set $length (i32.shr_u (i32.sub (local.get $len) (i32.const 2)) (i32.const 1)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (global.get $length)))
        (i32.store8
          (i32.add (i32.const 131068) (local.get $at))
          (i32.or
            (i32.shl (call $digit (local.get $ptr) (i32.shl (local.get $at) (i32.const 1))) (i32.const 4))
            (call $digit (local.get $ptr) (i32.add (i32.shl (local.get $at) (i32.const 1)) (i32.const 1)))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (i32.const 0))

  (func (export "weir_process") (param i32 i32) (result i64)
    (i64.or (i64.shl (i64.const 131072) (i64.const 32)) (i64.load32_u (i32.const 131068)))))
