//! Reads one `KubeletConfiguration` document, YAML or JSON, as strictly as upstream's strict decoder.
//!
//! The result is JSON that has been checked against the table of fields: names are known, no key appears twice, and
//! every value has its field's type, with durations in one spelling. Nulls are kept, because a drop-in uses them to
//! unset a field.

use std::fmt;
use std::path::Path;

use coracle_core::quantity::Quantity;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::{Map, Value};

use super::duration;
use super::error::ConfigError;
use super::field::Kind;
use super::fields::{field, is_object};

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";

/// Reads and checks one file.
pub(super) fn read(path: &Path) -> Result<Map<String, Value>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(|fault| ConfigError::Document {
        path: path.to_owned(),
        line: fault.line,
        message: fault.message,
    })
}

/// What is wrong with a document, and in which line where that is known.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) line: Option<u64>,
    pub(super) message: String,
}

/// Checks a document's apiVersion and kind, then all of it.
pub(super) fn parse(text: &str) -> Result<Map<String, Value>, Fault> {
    if text.trim().is_empty() {
        return Err(Fault { line: None, message: "the file is empty".to_owned() });
    }
    let header: TypeMeta = serde_saphyr::from_str(text).map_err(fault)?;
    header.check().map_err(|message| Fault { line: None, message })?;
    let object = Object { path: String::new() };
    let value = serde_saphyr::with_deserializer_from_str(text, |document| object.deserialize(document))
        .map_err(fault)?;
    let Value::Object(mut fields) = value else { return Ok(Map::new()) };
    fields.remove("apiVersion");
    fields.remove("kind");
    Ok(fields)
}

fn fault(error: serde_saphyr::Error) -> Fault {
    use serde_saphyr::Error;
    let message = match error.without_snippet() {
        Error::SerdeUnknownField { field, .. } => format!("unknown field {field:?}"),
        Error::SerdeInvalidType { unexpected, expected, .. } => {
            format!("invalid type: {unexpected}, expected {expected}")
        }
        Error::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("invalid value: {unexpected}, expected {expected}")
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("key {key:?} already set in map"),
        // The line is told once, in front of the message.
        other => other.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
    };
    Fault { line: error.location().map(|location| location.line()), message }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeMeta {
    api_version: Option<String>,
    kind: Option<String>,
}

impl TypeMeta {
    fn check(&self) -> Result<(), String> {
        match (self.api_version.as_deref(), self.kind.as_deref()) {
            (Some(API_VERSION), Some(KIND)) => Ok(()),
            (Some(version), Some(kind)) => Err(format!(
                "no kind {kind:?} is registered for version {version:?}; want {KIND} of {API_VERSION}"
            )),
            (None, _) => Err(format!("Object 'apiVersion' is missing; want {API_VERSION}")),
            (_, None) => Err(format!("Object 'Kind' is missing; want {KIND}")),
        }
    }
}

/// An object whose fields come from the table; the root has the empty path.
struct Object {
    path: String,
}

impl<'de> DeserializeSeed<'de> for Object {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Object {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object for \"{}\"", if self.path.is_empty() { KIND } else { &self.path })
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            let value = if let Some(field) = field(&path) {
                map.next_value_seed(Leaf { path, kind: field.kind })?
            } else if is_object(&path) {
                map.next_value_seed(Object { path })?
            } else if matches!(path.as_str(), "apiVersion" | "kind") {
                map.next_value_seed(Leaf { path, kind: Kind::Text })?
            } else {
                return Err(A::Error::unknown_field(&path, &[]));
            };
            values.insert(name, value);
        }
        Ok(values.into())
    }
}

/// A value of a known kind. `path` is for messages.
struct Leaf {
    path: String,
    kind: Kind,
}

impl Leaf {
    fn element(&self, name: impl fmt::Display, kind: Kind) -> Self {
        Self { path: format!("{}{name}", self.path), kind }
    }

    fn integer<E: serde::de::Error>(&self, number: i64) -> Result<Value, E> {
        let in_range = match self.kind {
            Kind::Int32 => i32::try_from(number).is_ok(),
            Kind::Level => (0..=i64::from(i32::MAX)).contains(&number),
            Kind::Int64 | Kind::Float => true,
            Kind::DurationOrNanos => return Ok(duration::format(number).into()),
            Kind::Quantity => return Ok(number.to_string().into()),
            _ => false,
        };
        if in_range { Ok(number.into()) } else { Err(E::invalid_type(Unexpected::Signed(number), self)) }
    }
}

impl<'de> DeserializeSeed<'de> for Leaf {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Leaf {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for \"{}\"", self.kind.expected(), self.path)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        match self.kind {
            Kind::Bool => Ok(value.into()),
            _ => Err(E::invalid_type(Unexpected::Bool(value), &self)),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.integer(value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        match i64::try_from(value) {
            Ok(value) => self.integer(value),
            Err(_) => Err(E::invalid_type(Unexpected::Unsigned(value), &self)),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        match self.kind {
            Kind::Float => Ok(value.into()),
            _ => Err(E::invalid_type(Unexpected::Float(value), &self)),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        check_text(self.kind, text).map_err(|problem| match problem {
            Some(_) => E::invalid_value(Unexpected::Str(text), &self),
            None => E::invalid_type(Unexpected::Str(text), &self),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values: Vec<Value> = Vec::new();
        loop {
            let name = format!("[{}]", values.len());
            let value = match self.kind {
                Kind::Texts => items.next_element_seed(self.element(name, Kind::Text))?,
                Kind::Ips => items.next_element_seed(self.element(name, Kind::Ip))?,
                Kind::Ints => items.next_element_seed(self.element(name, Kind::Int32))?,
                _ => match self.kind.elements() {
                    Some(fields) => {
                        items.next_element_seed(Element { path: format!("{}{name}", self.path), fields })?
                    }
                    None => return Err(A::Error::invalid_type(Unexpected::Seq, &self)),
                },
            };
            match value {
                Some(value) => values.push(value),
                None => return Ok(values.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let kind = match self.kind {
            Kind::TextMap | Kind::Thresholds => Kind::Text,
            Kind::TextListMap => Kind::Texts,
            Kind::BoolMap => Kind::Bool,
            Kind::QuantityMap => Kind::Quantity,
            _ => return Err(A::Error::invalid_type(Unexpected::Map, &self)),
        };
        let mut values = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(self.element(format_args!("[{name}]"), kind))?;
            values.insert(name, value);
        }
        Ok(values.into())
    }
}

/// One object of a list, with its own few fields.
struct Element {
    path: String,
    fields: &'static [(&'static str, Kind)],
}

impl<'de> DeserializeSeed<'de> for Element {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object for \"{}\"", self.path)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let path = format!("{}.{name}", self.path);
            let Some((_, kind)) = self.fields.iter().find(|(known, _)| *known == name) else {
                return Err(A::Error::unknown_field(&path, &[]));
            };
            let value = map.next_value_seed(Leaf { path, kind: *kind })?;
            values.insert(name, value);
        }
        Ok(values.into())
    }
}

/// A text as a value of a kind, in that kind's one spelling. The error is `None` where the kind takes no text at all.
pub(super) fn check_text(kind: Kind, text: &str) -> Result<Value, Option<String>> {
    match kind {
        Kind::Text | Kind::Path => Ok(text.into()),
        Kind::Duration | Kind::DurationOrNanos => Ok(duration::format(duration::parse(text)?).into()),
        Kind::Quantity => Quantity::parse(text).map(|_| text.into()).map_err(|error| Some(error.to_string())),
        // Empty counts as unset, as everywhere in the format.
        Kind::Ip if text.is_empty() || text.parse::<std::net::IpAddr>().is_ok() => Ok(text.into()),
        Kind::Ip => Err(Some(format!("{text:?} is not {}", kind.expected()))),
        _ => Err(None),
    }
}
