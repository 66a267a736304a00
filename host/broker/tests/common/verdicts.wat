;; A guest that does with each record what the first byte of its value says:
;;   d drop   f fail (code 7)   r route to target 1   m keep twice   t trap   l loop for ever   anything else: keep
(module
  (memory (export "memory") 256)
  (data (i32.const 1024) "no good")
  (global $p (mut i32) (i32.const 0))

  (func (export "weir_abi_version") (result i32) (i32.const 1))
  (func (export "weir_alloc") (param $len i32) (result i32) (i32.const 4194304))

  ;; Reads a zigzag varint at $p and steps over it.
  (func $varint (result i32)
    (local $value i32) (local $shift i32) (local $byte i32)
    (loop $next
      (local.set $byte (i32.load8_u (global.get $p)))
      (global.set $p (i32.add (global.get $p) (i32.const 1)))
      (local.set $value
        (i32.or (local.get $value)
          (i32.shl (i32.and (local.get $byte) (i32.const 127)) (local.get $shift))))
      (local.set $shift (i32.add (local.get $shift) (i32.const 7)))
      (br_if $next (i32.and (local.get $byte) (i32.const 128))))
    (i32.xor
      (i32.shr_u (local.get $value) (i32.const 1))
      (i32.sub (i32.const 0) (i32.and (local.get $value) (i32.const 1)))))

  ;; The first byte of the value of the record body at $p, 0 when there is none.
  (func $first (result i32)
    (local $length i32)
    (global.set $p (i32.add (global.get $p) (i32.const 1)))
    (drop (call $varint))
    (drop (call $varint))
    (local.set $length (call $varint))
    (if (i32.gt_s (local.get $length) (i32.const 0))
      (then (global.set $p (i32.add (global.get $p) (local.get $length)))))
    (if (result i32) (i32.gt_s (call $varint) (i32.const 0))
      (then (i32.load8_u (global.get $p)))
      (else (i32.const 0))))

  (func $entry (param $at i32) (param $source i32) (param $target i32) (param $address i32) (param $length i32)
    (i32.store (local.get $at) (local.get $source))
    (i32.store (i32.add (local.get $at) (i32.const 4)) (local.get $target))
    (i32.store (i32.add (local.get $at) (i32.const 8)) (local.get $address))
    (i32.store (i32.add (local.get $at) (i32.const 12)) (local.get $length)))

  (func (export "weir_process") (param $ptr i32) (param $len i32) (result i64)
    (local $count i32) (local $i i32) (local $body i32) (local $size i32) (local $first i32)
    (local $out i32) (local $kept i32) (local $failed i32)
    (local.set $count (i32.load (i32.add (local.get $ptr) (i32.const 4))))
    (global.set $p (i32.add (local.get $ptr) (i32.load (local.get $ptr))))
    (local.set $out (i32.const 1048584))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
        (local.set $size (call $varint))
        (local.set $body (global.get $p))
        (local.set $first (call $first))
        (global.set $p (i32.add (local.get $body) (local.get $size)))
        (if (i32.eq (local.get $first) (i32.const 0x74)) (then unreachable))
        (if (i32.eq (local.get $first) (i32.const 0x6c)) (then (loop $ever (br $ever))))
        (if (i32.eq (local.get $first) (i32.const 0x66))
          (then
            (call $entry
              (i32.add (i32.const 2097152) (i32.mul (local.get $failed) (i32.const 16)))
              (local.get $i) (i32.const 7) (i32.const 1024) (i32.const 7))
            (local.set $failed (i32.add (local.get $failed) (i32.const 1)))))
        (if (i32.and (i32.ne (local.get $first) (i32.const 0x66)) (i32.ne (local.get $first) (i32.const 0x64)))
          (then
            (call $entry (local.get $out) (local.get $i)
              (i32.eq (local.get $first) (i32.const 0x72)) (local.get $body) (local.get $size))
            (local.set $out (i32.add (local.get $out) (i32.const 16)))
            (local.set $kept (i32.add (local.get $kept) (i32.const 1)))))
        (if (i32.eq (local.get $first) (i32.const 0x6d))
          (then
            (call $entry (local.get $out) (local.get $i) (i32.const 0) (local.get $body) (local.get $size))
            (local.set $out (i32.add (local.get $out) (i32.const 16)))
            (local.set $kept (i32.add (local.get $kept) (i32.const 1)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (i32.store (i32.const 1048576) (i32.const 4))
    (i32.store (i32.const 1048580) (local.get $kept))
    (if (local.get $failed)
      (then
        (i32.store (local.get $out) (local.get $failed))
        (memory.copy (i32.add (local.get $out) (i32.const 4)) (i32.const 2097152)
          (i32.mul (local.get $failed) (i32.const 16)))
        (local.set $out (i32.add (local.get $out)
          (i32.add (i32.const 4) (i32.mul (local.get $failed) (i32.const 16)))))))
    (i64.or
      (i64.shl (i64.const 1048576) (i64.const 32))
      (i64.extend_i32_u (i32.sub (local.get $out) (i32.const 1048576))))))
