;; Does with each record what one byte of its value says, at {at}:
;;   d drop   f fail (code 7)   r route to target 1   m keep twice   t trap   anything else: keep
  (func $entry (param $at i32) (param $source i32) (param $target i32) (param $address i32) (param $length i32)
    (i32.store (local.get $at) (local.get $source))
    (i32.store (i32.add (local.get $at) (i32.const 4)) (local.get $target))
    (i32.store (i32.add (local.get $at) (i32.const 8)) (local.get $address))
    (i32.store (i32.add (local.get $at) (i32.const 12)) (local.get $length)))

  (func (export "weir_process") (param $ptr i32) (param $len i32) (result i64)
    (local $count i32) (local $i i32) (local $body i32) (local $size i32) (local $verdict i32)
    (local $out i32) (local $kept i32) (local $failed i32)
    (local.set $count (call $begin (local.get $ptr)))
    (local.set $out (i32.const 1048584))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
        (local.set $size (call $varint))
        (local.set $body (global.get $p))
        (call $find)
        (local.set $verdict (i32.load8_u offset={at} (global.get $value)))
        (global.set $p (i32.add (local.get $body) (local.get $size)))
        (if (i32.eq (local.get $verdict) (i32.const 0x74)) (then unreachable))
        (if (i32.eq (local.get $verdict) (i32.const 0x66))
          (then
            (call $entry
              (i32.add (i32.const 2097152) (i32.mul (local.get $failed) (i32.const 16)))
              (local.get $i) (i32.const 7) (i32.const 1024) (i32.const 7))
            (local.set $failed (i32.add (local.get $failed) (i32.const 1)))))
        (if (i32.and (i32.ne (local.get $verdict) (i32.const 0x66)) (i32.ne (local.get $verdict) (i32.const 0x64)))
          (then
            (call $entry (local.get $out) (local.get $i)
              (i32.eq (local.get $verdict) (i32.const 0x72)) (local.get $body) (local.get $size))
            (local.set $out (i32.add (local.get $out) (i32.const 16)))
            (local.set $kept (i32.add (local.get $kept) (i32.const 1)))))
        (if (i32.eq (local.get $verdict) (i32.const 0x6d))
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
    (call $end (local.get $out)))
