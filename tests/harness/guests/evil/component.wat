;; The frame of hostile plugins of the contract's interfaces: it accepts every order, but where an order begins with
;; `{"evil"` the piece at @ORDER runs first, with $event and $outcome at hand. An instance hands memory out upwards and
;; never takes it back.
;;
;; Layouts (canonical ABI of sluice:plugin@1):
;;   event, 56 bytes:   seq @0, attempt @36, body pointer @48, body length @52
;;   outcome, 28 bytes: seq @0, result @4 (0 ok, 1 fault), verdict @8 (0 accept, 1 enrich, 2 reject, 3 retry-later, 4 other),
;;                      its payload from @12 on; of a fault: code @8, detail @16, retryable @24
;;   patch-op, 20 bytes: kind @0 (0 set, 1 remove, 2 header), texts @4 and @12
;;   problem, 40 bytes:  code @0, title @8, detail @16 (option), pointer @28 (option)
(module
  @IMPORTS
  (memory (export "memory") 2)
  (data (i32.const 16) "/a")
  (data (i32.const 32) "{\"b\":1}")
  (data (i32.const 48) "not-\ff\fe-text")
  (data (i32.const 64) "word")
  (global $heap (mut i32) (i32.const 65536))
  ;; Evil orders that this instance has seen, and all orders.
  (global $evils (mut i32) (i32.const 0))
  (global $orders (mut i32) (i32.const 0))
  ;; How many outcomes more than orders are answered.
  (global $surplus (mut i32) (i32.const 0))
  ;; What is given back instead of a pointer to the outcomes, unless 0.
  (global $elsewhere (mut i32) (i32.const 0))

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
    @ALLOC
    (local.set $at (call $alloc (local.get $align) (local.get $size)))
    (memory.copy (local.get $at) (local.get $old) (local.get $old_size))
    (local.get $at))

  (func $deeper (param $depth i32) (result i32)
    (i32.add (local.get $depth) (call $deeper (i32.add (local.get $depth) (i32.const 1)))))

  ;; The outcome becomes an `enrich` with operations of one kind and two texts, each so many times.
  (func $enrich (param $outcome i32) (param $times i32) (param $kind i32)
    (param $a i32) (param $a_length i32) (param $b i32) (param $b_length i32)
    (local $at i32)
    (local.set $at (call $alloc (i32.const 4) (i32.mul (local.get $times) (i32.const 20))))
    (i32.store8 offset=8 (local.get $outcome) (i32.const 1))
    (i32.store offset=12 (local.get $outcome) (local.get $at))
    (i32.store offset=16 (local.get $outcome) (local.get $times))
    (loop $next
      (i32.store8 (local.get $at) (local.get $kind))
      (i32.store offset=4 (local.get $at) (local.get $a))
      (i32.store offset=8 (local.get $at) (local.get $a_length))
      (i32.store offset=12 (local.get $at) (local.get $b))
      (i32.store offset=16 (local.get $at) (local.get $b_length))
      (local.set $at (i32.add (local.get $at) (i32.const 20)))
      (local.set $times (i32.sub (local.get $times) (i32.const 1)))
      (br_if $next (local.get $times))))

  ;; The outcome becomes a `reject` with so many problems of the same code and title.
  (func $reject (param $outcome i32) (param $times i32) (param $text i32) (param $length i32)
    (local $at i32)
    (local.set $at (call $alloc (i32.const 4) (i32.mul (local.get $times) (i32.const 40))))
    (memory.fill (local.get $at) (i32.const 0) (i32.mul (local.get $times) (i32.const 40)))
    (i32.store8 offset=8 (local.get $outcome) (i32.const 2))
    (i32.store offset=12 (local.get $outcome) (local.get $at))
    (i32.store offset=16 (local.get $outcome) (local.get $times))
    (loop $next
      (i32.store (local.get $at) (local.get $text))
      (i32.store offset=4 (local.get $at) (local.get $length))
      (i32.store offset=8 (local.get $at) (local.get $text))
      (i32.store offset=12 (local.get $at) (local.get $length))
      (local.set $at (i32.add (local.get $at) (i32.const 40)))
      (local.set $times (i32.sub (local.get $times) (i32.const 1)))
      (br_if $next (local.get $times))))

  ;; Counts upwards so often: a few nanoseconds each time.
  (func $work (param $times i32)
    (loop $next
      (local.set $times (i32.sub (local.get $times) (i32.const 1)))
      (br_if $next (local.get $times))))

  @MORE

  (func $evil (param $event i32) (param $outcome i32)
    (local $i i32)
    @ORDER)

  ;; Twelve zero bytes: ok.
  (func (export "sluice:plugin/lifecycle@1.1.0#configure") (param i32 i32) (result i32)
    @CONFIGURE
    (i32.const 96))

  (func (export "sluice:plugin/processor@1.1.0#process") (param $event i32) (param $count i32) (result i32)
    (local $outcomes i32) (local $outcome i32) (local $left i32) (local $answer i32)
    ;; One more than needed, for who answers too much.
    (local.set $outcomes (call $alloc (i32.const 4) (i32.mul (i32.add (local.get $count) (i32.const 1)) (i32.const 28))))
    (memory.fill (local.get $outcomes) (i32.const 0) (i32.mul (i32.add (local.get $count) (i32.const 1)) (i32.const 28)))
    (local.set $outcome (local.get $outcomes))
    (local.set $left (local.get $count))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $left)))
        (global.set $orders (i32.add (global.get $orders) (i32.const 1)))
        (i32.store (local.get $outcome) (i32.load (local.get $event)))
        ;; `"evil"`, from the second byte on: four bytes suffice.
        (if (i32.eq (i32.load offset=2 align=1 (i32.load offset=48 (local.get $event))) (i32.const 0x6c697665))
          (then
            (global.set $evils (i32.add (global.get $evils) (i32.const 1)))
            (call $evil (local.get $event) (local.get $outcome))))
        (local.set $event (i32.add (local.get $event) (i32.const 56)))
        (local.set $outcome (i32.add (local.get $outcome) (i32.const 28)))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br $next)))
    (local.set $answer (call $alloc (i32.const 4) (i32.const 8)))
    (i32.store (local.get $answer)
      (select (global.get $elsewhere) (local.get $outcomes) (global.get $elsewhere)))
    (i32.store offset=4 (local.get $answer) (i32.add (local.get $count) (global.get $surplus)))
    (local.get $answer)))
