;; Preview 1 of WASI for core modules that are made components: an adapter that imports nothing but their memory.
;; The functions that answer `badf` whatever they are asked are added at its end.
(module
  (import "env" "memory" (memory 0))
  (global $now (mut i64) (i64.const 1000000000))
  (global $random (mut i64) (i64.const 0x9E3779B97F4A7C15))

  (func $tick (param $nanos i64) (result i64)
    (global.set $now (i64.add (global.get $now) (local.get $nanos)))
    (global.get $now))

  ;; No arguments and no environment: none of them, in no bytes.
  (func $none (param $count i32) (param $bytes i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $bytes) (i32.const 0))
    (i32.const 0))
  (func (export "args_sizes_get") (param i32 i32) (result i32) (call $none (local.get 0) (local.get 1)))
  (func (export "environ_sizes_get") (param i32 i32) (result i32) (call $none (local.get 0) (local.get 1)))
  (func (export "args_get") (param i32 i32) (result i32) (i32.const 0))
  (func (export "environ_get") (param i32 i32) (result i32) (i32.const 0))

  (func (export "clock_res_get") (param $id i32) (param $to i32) (result i32)
    (i64.store (local.get $to) (i64.const 1000000))
    (i32.const 0))
  (func (export "clock_time_get") (param $id i32) (param $precision i64) (param $to i32) (result i32)
    (i64.store (local.get $to) (call $tick (i64.const 1000000)))
    (i32.const 0))

  (func $next (result i64)
    (local $x i64)
    (local.set $x (global.get $random))
    (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
    (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
    (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 17))))
    (global.set $random (local.get $x))
    (local.get $x))
  (func (export "random_get") (param $to i32) (param $count i32) (result i32)
    (block $done (loop $more
      (br_if $done (i32.eqz (local.get $count)))
      (i64.store8 (local.get $to) (call $next))
      (local.set $to (i32.add (local.get $to) (i32.const 1)))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br $more)))
    (i32.const 0))

  ;; Output is taken and forgotten; there is nothing to write to but standard output and error.
  (func (export "fd_write") (param $fd i32) (param $parts i32) (param $count i32) (param $to i32) (result i32)
    (local $sum i32)
    (if (i32.gt_u (i32.sub (local.get $fd) (i32.const 1)) (i32.const 1)) (then (return (i32.const 8))))
    (block $done (loop $more
      (br_if $done (i32.eqz (local.get $count)))
      (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 (local.get $parts))))
      (local.set $parts (i32.add (local.get $parts) (i32.const 8)))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br $more)))
    (i32.store (local.get $to) (local.get $sum))
    (i32.const 0))

  ;; Waiting for a time lets it pass at once; waiting for anything else fails.
  (func $event (param $to i32) (param $in i32) (param $errno i32) (param $kind i32) (param $count i32) (result i32)
    (memory.fill (local.get $to) (i32.const 0) (i32.const 32))
    (i64.store (local.get $to) (i64.load (local.get $in)))
    (i32.store16 offset=8 (local.get $to) (local.get $errno))
    (i32.store8 offset=10 (local.get $to) (local.get $kind))
    (i32.store (local.get $count) (i32.const 1))
    (i32.const 0))
  (func (export "poll_oneoff") (param $in i32) (param $to i32) (param $n i32) (param $count i32) (result i32)
    (local $at i32) (local $left i32) (local $time i64)
    (if (i32.eqz (local.get $n)) (then (return (i32.const 28))))
    (local.set $at (local.get $in))
    (local.set $left (local.get $n))
    (block $done (loop $more
      (br_if $done (i32.eqz (local.get $left)))
      (if (i32.eqz (i32.load8_u offset=8 (local.get $at))) (then
        (local.set $time (i64.load offset=24 (local.get $at)))
        ;; An absolute time.
        (if (i32.and (i32.load16_u offset=40 (local.get $at)) (i32.const 1)) (then
          (local.set $time (i64.sub (local.get $time) (global.get $now)))
          (if (i64.lt_s (local.get $time) (i64.const 0)) (then (local.set $time (i64.const 0))))))
        (drop (call $tick (local.get $time)))
        (return (call $event (local.get $to) (local.get $at) (i32.const 0) (i32.const 0) (local.get $count)))))
      (local.set $at (i32.add (local.get $at) (i32.const 48)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br $more)))
    (call $event (local.get $to) (local.get $in) (i32.const 8) (i32.load8_u offset=8 (local.get $in)) (local.get $count)))

  (func (export "sched_yield") (result i32) (i32.const 0))
  (func (export "proc_exit") (param i32) unreachable)
  (func (export "proc_raise") (param i32) (result i32) unreachable)
  REFUSED)
