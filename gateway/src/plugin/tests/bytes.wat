;; A plugin of the bytes ABI by hand. It answers with the text at 64, to the check of its configuration with the one at 8.
;; Of the words in capitals one runs before each answer, another has room for imports.
(module
  TOP
  (memory (export "memory") 4)
  (data (i32.const 8) "{\"outcomes\":[]}")
  (data (i32.const 64) "ANSWER")
  (global $heap (mut i32) (i32.const 65536))
  (func (export "sluice_alloc") (param $n i32) (result i32)
    (global.get $heap)
    (global.set $heap (i32.add (global.get $heap) (local.get $n))))
  (func $deep (param i32) (result i32)
    (i32.add (i32.const 1) (call $deep (i32.add (local.get 0) (i32.const 1)))))
  ;; The length of the text at 64, which ends with a zero.
  (func $length (result i32)
    (local $i i32)
    (loop $more
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $more (i32.load8_u offset=64 (local.get $i))))
    (local.get $i))
  ;; Whether the question has no events: it ends with `[]}`.
  (func $check (param $p i32) (param $n i32) (result i32)
    (i32.eq (i32.load16_u (i32.sub (i32.add (local.get $p) (local.get $n)) (i32.const 3))) (i32.const 0x5d5b)))
  (func (export "sluice_process") (param $p i32) (param $n i32) (result i64)
    (if (call $check (local.get $p) (local.get $n)) (then (return (i64.const 0x80000000f))))
    EVIL
    (i64.or (i64.const 0x4000000000) (i64.extend_i32_u (call $length)))))
