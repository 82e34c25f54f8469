;; Succeeds if `wasi:config` says that COLOUR is blue.
(component
  (import "wasi:config/store@0.2.0-rc.1" (instance $store
    (type $cases (variant (case "upstream" string) (case "io" string)))
    (export "error" (type $error (eq $cases)))
    (export "get" (func (param "key" string) (result (result (option string) (error $error)))))))
  (core module $libc
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.get $next)
      (global.set $next (i32.add (global.get $next) (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8))))))
  (core instance $libc (instantiate $libc))
  (core func $get (canon lower (func $store "get") (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core module $main
    (import "libc" "memory" (memory 1))
    (import "config" "get" (func $get (param i32 i32 i32)))
    (data (i32.const 0) "COLOUR")
    (data (i32.const 16) "blue")
    (func (export "run") (result i32)
      (call $get (i32.const 0) (i32.const 6) (i32.const 64))
      ;; At 64 whether it failed, at 68 whether there is a value, at 72 where it is and how long.
      (i32.load8_u (i32.const 64))
      (i32.ne (i32.load8_u (i32.const 68)) (i32.const 1))
      (i32.ne (i32.load (i32.const 76)) (i32.const 4))
      (i32.ne (i32.load (i32.load (i32.const 72))) (i32.load (i32.const 16)))
      i32.or
      i32.or
      i32.or))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "config" (instance (export "get" (func $get))))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $runner (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $runner)))
