;; What the guests of the simulation share: the ABI's simple parts, and a walk over the records of an input.
;;
;; Memory: 1024 texts | 1 MiB output | 2 MiB failures | 4 MiB input
  (memory (export "memory") 128)
  (data (i32.const 1024) "no good")
  (global $p (mut i32) (i32.const 0))
  (global $value (mut i32) (i32.const 0))
  (global $length (mut i32) (i32.const 0))

  (func (export "weir_abi_version") (result i32) (i32.const 1))
  (func (export "weir_alloc") (param $len i32) (result i32) (i32.const 4194304))

  ;; Reads a zigzag varint at $p and steps over it.
  (func $varint (result i32)
    (local $read i32) (local $shift i32) (local $byte i32)
    (loop $next
      (local.set $byte (i32.load8_u (global.get $p)))
      (global.set $p (i32.add (global.get $p) (i32.const 1)))
      (local.set $read
        (i32.or (local.get $read)
          (i32.shl (i32.and (local.get $byte) (i32.const 127)) (local.get $shift))))
      (local.set $shift (i32.add (local.get $shift) (i32.const 7)))
      (br_if $next (i32.and (local.get $byte) (i32.const 128))))
    (i32.xor
      (i32.shr_u (local.get $read) (i32.const 1))
      (i32.sub (i32.const 0) (i32.and (local.get $read) (i32.const 1)))))

  ;; Puts $p at the first record of an input; returns how many there are.
  (func $begin (param $ptr i32) (result i32)
    (global.set $p (i32.add (local.get $ptr) (i32.load (local.get $ptr))))
    (i32.load (i32.add (local.get $ptr) (i32.const 4))))

  ;; Finds the value of the record body at $p: $value and $length.
  (func $find
    (local $key i32)
    (global.set $p (i32.add (global.get $p) (i32.const 1)))
    (drop (call $varint))
    (drop (call $varint))
    (local.set $key (call $varint))
    (if (i32.gt_s (local.get $key) (i32.const 0))
      (then (global.set $p (i32.add (global.get $p) (local.get $key)))))
    (global.set $length (call $varint))
    (global.set $value (global.get $p)))

  ;; The output from 1 MiB up to here.
  (func $end (param $out i32) (result i64)
    (i64.or
      (i64.shl (i64.const 1048576) (i64.const 32))
      (i64.extend_i32_u (i32.sub (local.get $out) (i32.const 1048576)))))
