//! The image side as a whole: against a real registry, and against one that misbehaves.

mod bed;
mod credentials;
mod fake;
mod formats;
mod lifecycle;
mod local;
mod mirrors;
mod misbehaviour;
mod real;
mod tools;
