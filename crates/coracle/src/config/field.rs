//! The shape of one configuration field: its type, what it means when it is left out, and what this program does with it.

use serde_json::{Map, Value};

use super::support::Support;

/// One leaf of `KubeletConfiguration`, as the table in `fields.rs` lists them.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The path of JSON names: `authentication.webhook.cacheTTL`.
    pub path: &'static str,
    /// What values it takes, and how its flag spells them.
    pub kind: Kind,
    /// What an absent field means.
    pub unset: Unset,
    /// What this program does with it.
    pub support: Support,
    /// The command line flag that overrides it, without dashes.
    pub flag: Option<&'static str>,
}

impl Field {
    /// Starts a row of the table.
    pub(super) const fn new(path: &'static str, kind: Kind, unset: Unset, support: Support) -> Self {
        Self { path, kind, unset, support, flag: None }
    }

    /// Names the flag of this field.
    pub(super) const fn flag(mut self, name: &'static str) -> Self {
        self.flag = Some(name);
        self
    }

    /// How messages name the field, with its flag where it has one.
    pub fn display_name(&self) -> String {
        match self.flag {
            Some(flag) => format!("KubeletConfiguration.{} (--{flag})", self.path),
            None => format!("KubeletConfiguration.{}", self.path),
        }
    }
}

/// The type of a field. A flag of the same field takes the spelling noted here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A 32-bit whole number.
    Int32,
    /// A 64-bit whole number.
    Int64,
    /// A log level: a whole number from 0 to 2147483647.
    Level,
    /// A number.
    Float,
    /// Any text.
    Text,
    /// A path; one in the file given by `--config` is relative to that file's directory.
    Path,
    /// An IP address.
    Ip,
    /// A Go duration.
    Duration,
    /// A Go duration, or a whole number of nanoseconds.
    DurationOrNanos,
    /// A resource quantity.
    Quantity,
    /// A list of texts; as a flag separated by commas.
    Texts,
    /// A list of IP addresses; as a flag separated by commas.
    Ips,
    /// A list of 32-bit whole numbers.
    Ints,
    /// Texts by name; as a flag `name=text` separated by commas.
    TextMap,
    /// Eviction thresholds by signal; as a flag `signal<threshold` separated by commas.
    Thresholds,
    /// Lists of texts by name; as a flag `name:text` separated by commas.
    TextListMap,
    /// Booleans by name; as a flag `name=true` separated by commas.
    BoolMap,
    /// Node taints; as a flag `key=value:Effect` separated by commas.
    Taints,
    /// Memory reservations of NUMA nodes; as a flag `node:type=quantity,…` separated by semicolons.
    ReservedMemory,
    /// Log levels by file; as a flag `pattern=N` separated by commas.
    VModule,
    /// Shutdown grace periods by pod priority; it has no flag.
    PriorityGracePeriods,
    /// Quantities by resource name, inside a memory reservation.
    QuantityMap,
}

impl Kind {
    /// The fields of each element, for a kind that is a list of objects.
    pub(super) fn elements(self) -> Option<&'static [(&'static str, Kind)]> {
        match self {
            Self::Taints => Some(&[
                ("key", Self::Text),
                ("value", Self::Text),
                ("effect", Self::Text),
                ("timeAdded", Self::Text),
            ]),
            Self::ReservedMemory => Some(&[("numaNode", Self::Int32), ("limits", Self::QuantityMap)]),
            Self::VModule => Some(&[("filePattern", Self::Text), ("verbosity", Self::Level)]),
            Self::PriorityGracePeriods => {
                Some(&[("priority", Self::Int32), ("shutdownGracePeriodSeconds", Self::Int64)])
            }
            _ => None,
        }
    }

    /// What a value of this kind is called in an error message.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Int32 => "a whole number that fits into 32 bits",
            Self::Int64 => "a whole number that fits into 64 bits",
            Self::Level => "a whole number from 0 to 2147483647",
            Self::Float => "a number",
            Self::Text | Self::Path => "a string",
            Self::Ip => "an IP address",
            Self::Duration => "a duration such as \"10s\" or \"2m3s\"",
            Self::DurationOrNanos => "a duration such as \"10s\", or a number of nanoseconds",
            Self::Quantity => "a quantity such as \"10Mi\"",
            Self::Texts => "a list of strings",
            Self::Ips => "a list of IP addresses",
            Self::Ints => "a list of whole numbers",
            Self::TextMap | Self::Thresholds => "a map of strings",
            Self::TextListMap => "a map of lists of strings",
            Self::BoolMap => "a map of booleans",
            Self::QuantityMap => "a map of quantities",
            Self::Taints | Self::ReservedMemory | Self::VModule | Self::PriorityGracePeriods => {
                "a list of objects"
            }
        }
    }
}

/// What an absent field means. Upstream tells a pointer, where only an absent field is unset, from a plain value,
/// where zero counts as unset too (`SetDefaults_KubeletConfiguration`).
#[derive(Clone, Copy, Debug)]
pub enum Unset {
    /// The zero value.
    Zero,
    /// Nothing is set; any value is a setting.
    Nil,
    /// This default; an explicit zero is kept.
    NilMeans(Literal),
    /// This default, which also replaces an explicit zero.
    ZeroMeans(Literal),
}

impl Unset {
    /// Whether a value, or its absence, is the same as leaving the setting out.
    pub(super) fn is_default(self, value: Option<&Value>) -> bool {
        let Some(value) = value else { return true };
        match self {
            Self::Nil => false,
            Self::Zero => is_zero(value),
            Self::NilMeans(default) => *value == default.value(),
            Self::ZeroMeans(default) => is_zero(value) || *value == default.value(),
        }
    }

    /// The default, where there is one other than zero.
    pub fn default_value(self) -> Option<Value> {
        match self {
            Self::Zero | Self::Nil => None,
            Self::NilMeans(literal) | Self::ZeroMeans(literal) => Some(literal.value()),
        }
    }
}

/// A default in the table. Durations are in Go's own spelling.
#[derive(Clone, Copy, Debug)]
pub enum Literal {
    /// A boolean.
    Truth(bool),
    /// A whole number.
    Int(i64),
    /// A text, path, address, duration or quantity.
    Str(&'static str),
    /// A list of texts.
    Strs(&'static [&'static str]),
    /// Texts by name.
    Pairs(&'static [(&'static str, &'static str)]),
}

impl Literal {
    pub(super) fn value(self) -> Value {
        match self {
            Self::Truth(value) => value.into(),
            Self::Int(value) => value.into(),
            Self::Str(value) => value.into(),
            Self::Strs(values) => values.into(),
            Self::Pairs(pairs) => {
                pairs.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect::<Map<_, _>>().into()
            }
        }
    }
}

/// Whether a value is its type's zero, which upstream's `omitempty` fields cannot tell from an absent one.
pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0s" || text == "0",
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
    }
}
