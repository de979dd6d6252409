;; Refuses orders of more than 10,000 bytes.
;;
;; A whole plugin without any toolchain: the gateway takes this text as it is. It speaks the bytes ABI: the gateway asks
;; for room (sluice_alloc), puts a document there and hands it over (sluice_process), and gets a document back.
;;
;;   {"abi":1,"config":{…},"events":[{"seq":0,"id":"…", … ,"order":{…}},…]}
;;   {"outcomes":[{"seq":0,"verdict":"accept"},…]}
;;
;; The members of the question always come in this sequence and without white space between them; a configuration and an
;; order are any JSON.
(module
  (import "sluice" "log" (func $log (param $level i32) (param $line i32) (param $len i32)))
  (memory (export "memory") 1)

  (global $order_bytes_max i32 (i32.const 10000))

  ;; What the answer is made of, at fixed addresses below 1024.
  (data (i32.const 16) "{\22outcomes\22:[")                          ;; 13 bytes
  (data (i32.const 32) "{\22seq\22:")                                ;; 7 bytes
  (data (i32.const 48) ",\22verdict\22:\22accept\22}")               ;; 20 bytes
  (data (i32.const 80) ",\22verdict\22:\22reject\22,\22problems\22:[{\22code\22:\22order-too-large\22,\22title\22:\22The order has more than 10000 bytes\22}]}") ;; 106 bytes
  (data (i32.const 208) "an order is too large")                     ;; 21 bytes
  (data (i32.const 240) "\22order\22")                               ;; 7 bytes

  ;; Where free memory begins. Nothing is given back: an instance lives for one batch.
  (global $free (mut i32) (i32.const 1024))
  ;; Where the answer is written next.
  (global $out (mut i32) (i32.const 0))

  (func $alloc (export "sluice_alloc") (param $len i32) (result i32)
    (local $start i32)
    (local.set $start (global.get $free))
    (global.set $free (i32.add (local.get $start) (local.get $len)))
    (block $enough
      (br_if $enough (i32.le_u (global.get $free) (i32.mul (memory.size) (i32.const 65536))))
      ;; One page more than what is missing, rounded down.
      (br_if $enough (i32.ne (i32.const -1) (memory.grow (i32.add (i32.const 1)
        (i32.div_u (i32.sub (global.get $free) (i32.mul (memory.size) (i32.const 65536))) (i32.const 65536))))))
      unreachable)
    (local.get $start))

  (func (export "sluice_process") (param $at i32) (param $len i32) (result i64)
    (local $answer i32) (local $seq i32) (local $seq_end i32) (local $end i32)
    (local.set $answer (global.get $free))
    (global.set $out (local.get $answer))
    (call $put (i32.const 16) (i32.const 13))
    ;; Behind {"abi":1,"config": comes the configuration, behind that ,"events":[
    (local.set $at (i32.add (call $end_of_value (i32.add (local.get $at) (i32.const 18))) (i32.const 11)))
    (block $done (loop $each_event
      (br_if $done (i32.eq (i32.load8_u (local.get $at)) (i32.const 0x5d)))              ;; ]
      ;; Behind {"seq": stands the number that the outcome repeats.
      (local.set $seq (i32.add (local.get $at) (i32.const 7)))
      (local.set $seq_end (call $end_of_value (local.get $seq)))
      ;; Over the members, to that one which is called "order".
      (local.set $at (local.get $seq_end))
      (loop $each_member                                                               ;; at the comma before a member
        (local.set $end (call $end_of_value (i32.add (local.get $at) (i32.const 1))))   ;; of its name
        (if (i32.eqz (call $is_order (i32.add (local.get $at) (i32.const 1)) (local.get $end))) (then
          (local.set $at (call $end_of_value (i32.add (local.get $end) (i32.const 1))))
          (br $each_member))))
      (local.set $at (i32.add (local.get $end) (i32.const 1)))
      (local.set $end (call $end_of_value (local.get $at)))
      (call $put (i32.const 32) (i32.const 7))
      (call $put (local.get $seq) (i32.sub (local.get $seq_end) (local.get $seq)))
      (if (i32.gt_u (i32.sub (local.get $end) (local.get $at)) (global.get $order_bytes_max))
        (then
          (call $log (i32.const 1) (i32.const 208) (i32.const 21))
          (call $put (i32.const 80) (i32.const 106)))
        (else (call $put (i32.const 48) (i32.const 20))))
      ;; Behind the order, perhaps its white space, and the event's closing brace: a comma and the next event, or the end.
      (local.set $at (local.get $end))
      (loop $to_the_brace
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br_if $to_the_brace (i32.ne (i32.load8_u (i32.sub (local.get $at) (i32.const 1))) (i32.const 0x7d))))
      (br_if $done (i32.ne (i32.load8_u (local.get $at)) (i32.const 0x2c)))
      (call $put_byte (i32.const 0x2c))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $each_event)))
    (call $put_byte (i32.const 0x5d))
    (call $put_byte (i32.const 0x7d))
    (i64.or
      (i64.shl (i64.extend_i32_u (local.get $answer)) (i64.const 32))
      (i64.extend_i32_u (i32.sub (global.get $out) (local.get $answer)))))

  ;; Appends to the answer.
  (func $put (param $from i32) (param $len i32)
    (drop (call $alloc (local.get $len)))
    (memory.copy (global.get $out) (local.get $from) (local.get $len))
    (global.set $out (i32.add (global.get $out) (local.get $len))))

  (func $put_byte (param $byte i32)
    (i32.store8 (call $alloc (i32.const 1)) (local.get $byte))
    (global.set $out (i32.add (global.get $out) (i32.const 1))))

  ;; Whether a member's name, with its quotes, is "order".
  (func $is_order (param $at i32) (param $end i32) (result i32)
    (if (i32.ne (i32.sub (local.get $end) (local.get $at)) (i32.const 7)) (then (return (i32.const 0))))
    (i32.and
      (i32.eq (i32.load (local.get $at)) (i32.load (i32.const 240)))
      (i32.eq (i32.load offset=3 (local.get $at)) (i32.load (i32.const 243)))))

  ;; Where the JSON value that begins here ends.
  (func $end_of_value (param $at i32) (result i32)
    (local $byte i32) (local $depth i32)
    (loop $next
      (local.set $byte (i32.load8_u (local.get $at)))
      (if (i32.eq (local.get $byte) (i32.const 0x22)) (then                              ;; a string
        (local.set $at (call $end_of_string (local.get $at)))
        (br_if $next (local.get $depth))
        (return (local.get $at))))
      (if (call $is_one_of_two (local.get $byte) (i32.const 0x7b) (i32.const 0x5b))      ;; { [
        (then (local.set $depth (i32.add (local.get $depth) (i32.const 1)))))
      (if (call $is_one_of_two (local.get $byte) (i32.const 0x7d) (i32.const 0x5d)) (then ;; } ]
        (if (i32.eqz (local.get $depth)) (then (return (local.get $at))))                ;; a number before it ends here
        (local.set $depth (i32.sub (local.get $depth) (i32.const 1)))
        (if (i32.eqz (local.get $depth)) (then (return (i32.add (local.get $at) (i32.const 1)))))))
      (if (i32.and (i32.eq (local.get $byte) (i32.const 0x2c)) (i32.eqz (local.get $depth)))
        (then (return (local.get $at))))                                                 ;; or at a comma
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))
    unreachable)

  (func $end_of_string (param $at i32) (result i32)
    (local $byte i32)
    (loop $next
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (local.set $byte (i32.load8_u (local.get $at)))
      (if (i32.eq (local.get $byte) (i32.const 0x5c)) (then                              ;; a backslash and what it escapes
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
      (br_if $next (i32.ne (local.get $byte) (i32.const 0x22))))
    (i32.add (local.get $at) (i32.const 1)))

  (func $is_one_of_two (param $byte i32) (param $one i32) (param $other i32) (result i32)
    (i32.or (i32.eq (local.get $byte) (local.get $one)) (i32.eq (local.get $byte) (local.get $other)))))
