//! The binary as its users meet it: `coracle run` on a developer's machine, and a node in a real cluster with kubectl
//! as the client. `cargo xtask test system` runs it in a network of its own.

mod bed;
