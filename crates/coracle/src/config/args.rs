//! The raw command line of `coracle kubelet`: which flags were given, with which values.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::error::ConfigError;
use super::flags::{self, Flag, flags};
use super::pflag;
use super::support::Support;

/// The flags of `coracle kubelet` as they were given; `resolve` turns them into a configuration.
///
/// It fits into a derived parser as `Kubelet(KubeletArgs)`: the flags come from the table, so that help texts,
/// warnings and documentation cannot disagree with it.
#[derive(Clone, Default)]
pub struct KubeletArgs {
    given: BTreeMap<&'static str, Vec<String>>,
}

/// Only names: values may be secret.
impl fmt::Debug for KubeletArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.given.keys()).finish()
    }
}

impl KubeletArgs {
    /// Whether `--version` or `--version=raw` asks for the version instead of a start.
    pub fn version(&self) -> Result<bool, ConfigError> {
        match self.last(flags::VERSION) {
            None => Ok(false),
            Some("raw") => Ok(true),
            Some(value) => pflag::parse_bool(value).map_err(|_| ConfigError::Argument {
                flag: flags::VERSION,
                value: value.to_owned(),
                message: "expected true, false or raw; the version that is reported cannot be changed"
                    .to_owned(),
            }),
        }
    }

    /// All values of a flag in the order they were given, or none.
    pub(super) fn values(&self, name: &str) -> &[String] {
        self.given.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value of a flag that counts, unless it is empty.
    pub(super) fn last(&self, name: &str) -> Option<&str> {
        self.values(name).last().map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The same as a path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.last(name).map(PathBuf::from)
    }

    /// The checked value of a flag that no field stands for; null if it was not given.
    pub(super) fn own(&self, name: &str) -> Result<serde_json::Value, ConfigError> {
        let flag = self.given_flags().find(|flag| flag.name == name);
        flag.map_or(Ok(serde_json::Value::Null), |flag| self.parse(&flag, None))
    }

    /// The flags that were given, sorted by name.
    pub(super) fn given_flags(&self) -> impl Iterator<Item = Flag> {
        flags().into_iter().filter(|flag| self.given.contains_key(flag.name))
    }

    /// Reads the values given for one flag over the one it has so far.
    pub(super) fn parse(
        &self,
        flag: &Flag,
        so_far: Option<&serde_json::Value>,
    ) -> Result<serde_json::Value, ConfigError> {
        pflag::parse(flag.kind, self.values(flag.name), so_far)
            .map_err(|(value, message)| ConfigError::Argument { flag: flag.name, value, message })
    }
}

impl clap::FromArgMatches for KubeletArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for flag in flags() {
            if let Some(values) = matches.get_many::<String>(flag.name) {
                self.given.insert(flag.name, values.cloned().collect());
            }
        }
        Ok(())
    }
}

impl clap::Args for KubeletArgs {
    fn augment_args(command: Command) -> Command {
        flags().iter().fold(command, |command, flag| command.arg(arg(flag)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// A flag with pflag's spelling: booleans take a value only after `=`, others take the next word whatever it is,
/// everything may be repeated, and `_` stands for `-`.
fn arg(flag: &Flag) -> Arg {
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .action(ArgAction::Append)
        .help(help(flag))
        .help_heading(heading(flag))
        .hide_short_help(!matches!(flag.support, Support::Works(_)))
        .value_name(if flag.is_boolean() { "BOOL" } else { "VALUE" });
    let arg = match flag.name.as_bytes() {
        [letter] => arg.short(char::from(*letter)),
        _ if flag.name.contains('-') => arg.alias(flag.name.replace('-', "_")),
        _ => arg,
    };
    if flag.is_boolean() {
        arg.num_args(0..=1).require_equals(true).default_missing_value("true")
    } else {
        arg.num_args(1).allow_hyphen_values(true)
    }
}

fn help(flag: &Flag) -> String {
    match (flag.support, flag.field) {
        (Support::Works(what), Some(field)) => format!("{}: {what}", field.path),
        (Support::Works(what), None) => what.to_owned(),
        (support, _) => support.reason().to_owned(),
    }
}

fn heading(flag: &Flag) -> &'static str {
    match (flag.support, flag.field) {
        (Support::Works(_), None) => "Flags of this node",
        (Support::Works(_), Some(_)) => "Flags that override a field of the file given by --config",
        (Support::NoEffect(_), _) => "Accepted for upstream's sake, without effect in this version",
        (Support::Refused(_), _) => "Refused in this version",
    }
}
