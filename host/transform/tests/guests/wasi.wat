;; What guests of other languages ask WASI for. Gives each record a new value of 24 bytes: the time it was told (u64),
;; and sixteen random bytes, eight at a time. Writes a line of text in two pieces to standard error on the way.
;; Records must be shorter than 64 bytes; at most 64 of them. The cursor is exported by address, as LLVM's linker does.
(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
  (memory (export "memory") 16)
  (global (export "weir_cursor") i32 (i32.const 64))
  (data (i32.const 128) "half a line, ")
  (data (i32.const 144) "the other half\n")
  ;; io vectors
  (data (i32.const 160) "\80\00\00\00\0d\00\00\00\90\00\00\00\0f\00\00\00")

  (func (export "weir_abi_version") (result i32) (i32.const 1))
  (func (export "weir_alloc") (param i32) (result i32) (i32.const 65536))

  ;; Whether the host refuses what it must.
  (func $is_denied (result i32)
    (i32.store (i32.const 200) (i32.const 77))
    (i32.and
      (i32.and
        (i32.eq (i32.const 76) (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
          (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 0)))
        (i32.eq (i32.const 21) (call $random (i32.const -4) (i32.const 8))))
      (i32.and
        (i32.eqz (call $environ (i32.const 200) (i32.const 204)))
        (i32.eqz (i32.load (i32.const 200))))))

  (func (export "weir_process") (param $ptr i32) (param $len i32) (result i64)
    (local $count i32) (local $index i32) (local $value i32)
    (if (i32.eqz (call $is_denied)) (then unreachable))
    (drop (call $write (i32.const 2) (i32.const 160) (i32.const 2) (i32.const 196)))
    (if (i32.ne (i32.load (i32.const 196)) (i32.const 28)) (then unreachable))
    (local.set $count (i32.load offset=4 (local.get $ptr)))
    ;; PATCH at 4096: header, a bitmap padded to 8 bytes at most, entries
    (i32.store (i32.const 4096) (i32.const 3))
    (i32.store (i32.const 4100) (local.get $count))
    (i64.store (i32.const 4104) (i64.const -1))
    (loop $record
      (i32.store (i32.const 64) (local.get $index))
      (local.set $value (i32.add (i32.const 8192) (i32.mul (local.get $index) (i32.const 24))))
      (drop (call $clock (i32.const 0) (i64.const 1) (local.get $value)))
      (drop (call $random (i32.add (local.get $value) (i32.const 8)) (i32.const 8)))
      (drop (call $random (i32.add (local.get $value) (i32.const 16)) (i32.const 8)))
      (i32.store
        (i32.add (call $entries (local.get $count)) (i32.shl (local.get $index) (i32.const 3)))
        (local.get $value))
      (i32.store offset=4
        (i32.add (call $entries (local.get $count)) (i32.shl (local.get $index) (i32.const 3)))
        (i32.const 24))
      (local.set $index (i32.add (local.get $index) (i32.const 1)))
      (br_if $record (i32.lt_u (local.get $index) (local.get $count))))
    (i64.or
      (i64.shl (i64.const 4096) (i64.const 32))
      (i64.extend_i32_u
        (i32.sub
          (i32.add (call $entries (local.get $count)) (i32.shl (local.get $count) (i32.const 3)))
          (i32.const 4096)))))

  ;; Where the entries begin: behind one or two words of bitmap.
  (func $entries (param $count i32) (result i32)
    (select (i32.const 4108) (i32.const 4112) (i32.le_u (local.get $count) (i32.const 32)))))
