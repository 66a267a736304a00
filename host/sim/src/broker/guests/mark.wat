;; Gives each record a new value: the old one with an `R` at {at}.
  (func (export "weir_process") (param $ptr i32) (param $len i32) (result i64)
    (local $count i32) (local $i i32) (local $body i32) (local $size i32) (local $out i32) (local $bitmap i32)
    (local.set $count (call $begin (local.get $ptr)))
    (i32.store (i32.const 1048576) (i32.const 3))
    (i32.store (i32.const 1048580) (local.get $count))
    (local.set $bitmap
      (i32.mul (i32.div_u (i32.add (local.get $count) (i32.const 31)) (i32.const 32)) (i32.const 4)))
    (memory.fill (i32.const 1048584) (i32.const 0xff) (local.get $bitmap))
    (local.set $out (i32.add (i32.const 1048584) (local.get $bitmap)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
        (local.set $size (call $varint))
        (local.set $body (global.get $p))
        (call $find)
        (i32.store8 offset={at} (global.get $value) (i32.const 0x52))
        (i32.store (local.get $out) (global.get $value))
        (i32.store (i32.add (local.get $out) (i32.const 4)) (global.get $length))
        (local.set $out (i32.add (local.get $out) (i32.const 8)))
        (global.set $p (i32.add (local.get $body) (local.get $size)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (call $end (local.get $out)))
