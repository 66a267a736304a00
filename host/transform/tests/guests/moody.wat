;; Keeps every record, unless one has a byte that sets it off:
;;   X unreachable   Z division by zero   L endless loop   R endless recursion   M memory without end
;;   W a write far outside   N the batch failed, with a reason   E proc_exit   F output that is no output
;; Records must be shorter than 64 bytes. $CURSOR is replaced: by the export of weir_cursor, or by nothing.
(module
  (import "weir" "log" (func $log (param i32 i32 i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 16)
  (global $cursor $CURSOR (mut i32) (i32.const -1))
  (data (i32.const 16) "no luck")

  (func (export "weir_abi_version") (result i32) (i32.const 1))
  (func (export "weir_alloc") (param i32) (result i32) (i32.const 65536))

  (func $recurse (param i32) (result i32)
    (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (local.get 0)))

  (func $set_off (param $byte i32) (result i32)
    (if (i32.eq (local.get $byte) (i32.const 88)) (then unreachable))
    (if (i32.eq (local.get $byte) (i32.const 90))
      (then (drop (i32.div_u (i32.const 1) (i32.sub (local.get $byte) (i32.const 90))))))
    (if (i32.eq (local.get $byte) (i32.const 76)) (then (loop $forever (br $forever))))
    (if (i32.eq (local.get $byte) (i32.const 82)) (then (drop (call $recurse (i32.const 0)))))
    (if (i32.eq (local.get $byte) (i32.const 77))
      (then
        (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        unreachable))
    (if (i32.eq (local.get $byte) (i32.const 87)) (then (i32.store (i32.const -8) (i32.const 1))))
    (if (i32.eq (local.get $byte) (i32.const 69)) (then (call $proc_exit (i32.const 3))))
    (if (i32.eq (local.get $byte) (i32.const 78))
      (then
        (call $log (i32.const 1) (i32.const 16) (i32.const 7))
        (return (i32.const 1))))
    (if (i32.eq (local.get $byte) (i32.const 70)) (then (return (i32.const 2))))
    (i32.const 0))

  (func (export "weir_process") (param $ptr i32) (param $len i32) (result i64)
    (local $count i32) (local $index i32) (local $at i32) (local $end i32) (local $mood i32)
    (local.set $count (i32.load offset=4 (local.get $ptr)))
    (local.set $at (i32.add (local.get $ptr) (i32.load (local.get $ptr))))
    (block $done
      (loop $record
        (br_if $done (i32.ge_u (local.get $index) (local.get $count)))
        (global.set $cursor (local.get $index))
        (local.set $end
          (i32.add (i32.add (local.get $at) (i32.const 1)) (i32.shr_u (i32.load8_u (local.get $at)) (i32.const 1))))
        (loop $byte
          (local.set $mood (call $set_off (i32.load8_u (local.get $at))))
          (if (i32.eq (local.get $mood) (i32.const 1)) (then (return (i64.const -1))))
          (if (i32.eq (local.get $mood) (i32.const 2)) (then (return (i64.const 99))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br_if $byte (i32.lt_u (local.get $at) (local.get $end))))
        (local.set $index (i32.add (local.get $index) (i32.const 1)))
        (br $record)))
    ;; KEEP_ALL
    (i32.store (i32.const 0) (i32.const 0))
    (i32.store (i32.const 4) (local.get $count))
    (i64.const 8)))
