(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))
  (core module $m
    (func (export "handle") (param i32 i32))
    (func (export "run") (result i32) i32.const 1))
  (core instance $i (instantiate $m))
  (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
    (canon lift (core func $i "handle")))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $handler (export "handle" (func $handle)))
  (instance $runner (export "run" (func $run)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler))
  (export "wasi:cli/run@0.2.0" (instance $runner)))
