;; The plugin of `guests.rs`: looks for `"mark":"` in each order and does what the letter behind it says.
;;
;; Layouts (canonical ABI of sluice:plugin@1.0.0):
;;   event, 56 bytes:   seq @0, attempt @36, body pointer @48, body length @52
;;   outcome, 28 bytes: seq @0, result @4 (0 ok), verdict @8 (0 accept, 3 retry-later), after-ms @12, reason @16 and @20
(module
  (memory (export "memory") 2)
  (data (i32.const 64) "asked again later")
  (global $heap (mut i32) (i32.const 1024))

  (func $alloc (param $align i32) (param $size i32) (result i32)
    (local $at i32) (local $end i32)
    (local.set $at (i32.and
      (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
    (local.set $end (i32.add (local.get $at) (local.get $size)))
    (if (i32.gt_u (local.get $end) (i32.shl (memory.size) (i32.const 16)))
      (then (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.const 1)
              (i32.shr_u (i32.sub (local.get $end) (i32.shl (memory.size) (i32.const 16))) (i32.const 16)))))
        (then unreachable))))
    (global.set $heap (local.get $end))
    (local.get $at))

  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (call $alloc (local.get $align) (local.get $size)))
    (if (local.get $old_size) (then (memory.copy (local.get $at) (local.get $old)
      (select (local.get $old_size) (local.get $size) (i32.lt_u (local.get $old_size) (local.get $size))))))
    (local.get $at))

  ;; Twelve zero bytes: ok.
  (func (export "sluice:plugin/lifecycle@1.0.0#configure") (param i32 i32) (result i32)
    (i32.const 16))

  ;; The letter behind `"mark":"`, or 0.
  (func $mark (param $at i32) (param $length i32) (result i32)
    (local $end i32)
    (local.set $end (i32.sub (i32.add (local.get $at) (local.get $length)) (i32.const 8)))
    (loop $next
      (if (i32.ge_s (local.get $at) (local.get $end)) (then (return (i32.const 0))))
      (if (i64.eq (i64.load align=1 (local.get $at)) (i64.const 0x223a226b72616d22))
        (then (return (i32.load8_u offset=8 (local.get $at)))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))
    (unreachable))

  (func $deeper (param $depth i32) (result i32)
    (i32.add (local.get $depth) (call $deeper (i32.add (local.get $depth) (i32.const 1)))))

  (func (export "sluice:plugin/processor@1.0.0#process") (param $events i32) (param $count i32) (result i32)
    (local $outcomes i32) (local $out i32) (local $mark i32) (local $left i32) (local $answer i32)
    (local.set $outcomes (call $alloc (i32.const 4) (i32.mul (local.get $count) (i32.const 28))))
    (memory.fill (local.get $outcomes) (i32.const 0) (i32.mul (local.get $count) (i32.const 28)))
    (local.set $out (local.get $outcomes))
    (local.set $left (local.get $count))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $left)))
        (i32.store (local.get $out) (i32.load (local.get $events)))
        (local.set $mark (call $mark (i32.load offset=48 (local.get $events)) (i32.load offset=52 (local.get $events))))
        (if (i32.eq (local.get $mark) (i32.const 116)) ;; t
          (then unreachable))
        (if (i32.eq (local.get $mark) (i32.const 108)) ;; l
          (then (loop $forever (br $forever))))
        (if (i32.eq (local.get $mark) (i32.const 109)) ;; m
          (then (loop $more
            (br_if $more (i32.ne (i32.const -1) (memory.grow (i32.const 16))))
            (unreachable))))
        (if (i32.eq (local.get $mark) (i32.const 115)) ;; s
          (then (drop (call $deeper (i32.const 0)))))
        (if (i32.eq (local.get $mark) (i32.const 103)) ;; g
          (then (i32.store (local.get $out) (i32.const 0x7fffffff))))
        (if (i32.or
              (i32.and (i32.eq (local.get $mark) (i32.const 114)) ;; r
                       (i32.lt_u (i32.load offset=36 (local.get $events)) (i32.const 3)))
              (i32.eq (local.get $mark) (i32.const 119))) ;; w
          (then
            (i32.store8 offset=8 (local.get $out) (i32.const 3))
            (i32.store offset=12 (local.get $out) (i32.const 50))
            (i32.store offset=16 (local.get $out) (i32.const 64))
            (i32.store offset=20 (local.get $out) (i32.const 17))))
        (local.set $events (i32.add (local.get $events) (i32.const 56)))
        (local.set $out (i32.add (local.get $out) (i32.const 28)))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br $next)))
    (local.set $answer (call $alloc (i32.const 4) (i32.const 8)))
    (i32.store (local.get $answer) (local.get $outcomes))
    (i32.store offset=4 (local.get $answer) (local.get $count))
    (local.get $answer)))
