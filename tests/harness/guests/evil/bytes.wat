;; The frame of hostile plugins of the bytes ABI: it accepts every order, but where an order has `"evil"` in it the piece
;; at @ORDER runs, and `$tail` may be changed: what stands behind the number of this order's outcome.
;;
;; It reads its question without a parser: an order begins behind `{"seq":`, and an innocent order has no `"evil"`.
(module
  @IMPORTS
  (memory (export "memory") 4)
  (data (i32.const 16) "{\"outcomes\":[")
  (data (i32.const 32) "{\"seq\":")
  (data (i32.const 64) ",\"verdict\":\"accept\"}")
  ;; @TAIL_LENGTH bytes.
  (data (i32.const 1024) @TAIL)
  (global $heap (mut i32) (i32.const 131072))
  (global $out (mut i32) (i32.const 16))
  (global $tail (mut i32) (i32.const 64))
  (global $tail_length (mut i32) (i32.const 20))
  (global $evils (mut i32) (i32.const 0))
  (global $orders (mut i32) (i32.const 0))
  ;; Where the answer begins; 65536 unless somebody lies.
  (global $start (mut i32) (i32.const 65536))
  ;; Added to the length of the answer.
  (global $surplus (mut i32) (i32.const 0))

  (func (export "sluice_alloc") (param $size i32) (result i32)
    (local $at i32)
    @ALLOC
    (local.set $at (global.get $heap))
    (global.set $heap (i32.add (global.get $heap) (local.get $size)))
    (if (i32.gt_u (global.get $heap) (i32.shl (memory.size) (i32.const 16)))
      (then (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.const 1)
              (i32.shr_u (i32.sub (global.get $heap) (i32.shl (memory.size) (i32.const 16))) (i32.const 16)))))
        (then unreachable))))
    (local.get $at))

  (func $deeper (param $depth i32) (result i32)
    (i32.add (local.get $depth) (call $deeper (i32.add (local.get $depth) (i32.const 1)))))

  ;; Counts upwards so often: a few nanoseconds each time.
  (func $work (param $times i32)
    (loop $next
      (local.set $times (i32.sub (local.get $times) (i32.const 1)))
      (br_if $next (local.get $times))))

  (func $put (param $at i32) (param $length i32)
    (memory.copy (global.get $out) (local.get $at) (local.get $length))
    (global.set $out (i32.add (global.get $out) (local.get $length))))

  ;; The outcome of the order before, if there is one, gets its end.
  (func $end_of_order
    (if (global.get $orders) (then
      (call $put (global.get $tail) (global.get $tail_length))
      (global.set $tail (i32.const 64))
      (global.set $tail_length (i32.const 20)))))

  @MORE

  (func $evil
    (local $i i32)
    (global.set $tail (i32.const 1024))
    (global.set $tail_length (i32.const @TAIL_LENGTH))
    (global.set $evils (i32.add (global.get $evils) (i32.const 1)))
    @ORDER)

  (func (export "sluice_process") (param $at i32) (param $length i32) (result i64)
    (local $end i32)
    (local.set $end (i32.sub (i32.add (local.get $at) (local.get $length)) (i32.const 8)))
    (global.set $out (i32.const 65536))
    (call $put (i32.const 16) (i32.const 13))
    (block $done
      (loop $next
        (br_if $done (i32.ge_s (local.get $at) (local.get $end)))
        ;; `{"seq":`
        (if (i64.eq (i64.and (i64.load align=1 (local.get $at)) (i64.const 0xffffffffffffff))
                    (i64.const 0x3a22716573227b))
          (then
            (if (global.get $orders) (then
              (call $end_of_order)
              (i32.store8 (global.get $out) (i32.const 44))
              (global.set $out (i32.add (global.get $out) (i32.const 1)))))
            (global.set $orders (i32.add (global.get $orders) (i32.const 1)))
            (call $put (i32.const 32) (i32.const 7))
            (local.set $at (i32.add (local.get $at) (i32.const 7)))
            ;; Its digits, up to the comma.
            (loop $digit
              (call $put (local.get $at) (i32.const 1))
              (local.set $at (i32.add (local.get $at) (i32.const 1)))
              (br_if $digit (i32.ne (i32.load8_u (local.get $at)) (i32.const 44))))))
        ;; `"evil"`
        (if (i64.eq (i64.and (i64.load align=1 (local.get $at)) (i64.const 0xffffffffffff))
                    (i64.const 0x226c69766522))
          (then (call $evil)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (call $end_of_order)
    (i32.store16 (global.get $out) (i32.const 0x7d5d))
    (global.set $out (i32.add (global.get $out) (i32.const 2)))
    (i64.or
      (i64.shl (i64.extend_i32_u (global.get $start)) (i64.const 32))
      (i64.extend_i32_u (i32.add (global.get $surplus) (i32.sub (global.get $out) (i32.const 65536))))))
  @START)
