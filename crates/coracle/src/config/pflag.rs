//! How upstream's flags spell their values (Go's pflag and component-base's flag types).

use serde_json::{Map, Value, json};

use super::document::check_text;
use super::field::Kind;
use super::taints;

/// Reads all values that were given for one flag, in order, over the value the field has so far.
///
/// Scalars: the last one wins. Lists and maps: the first one replaces the value so far, further ones add to it.
pub(super) fn parse(
    kind: Kind,
    given: &[String],
    current: Option<&Value>,
) -> Result<Value, (String, String)> {
    let mut value = match kind {
        // Log patterns add to the file's; an empty address keeps the one so far.
        Kind::VModule | Kind::Ip => current.cloned().unwrap_or_default(),
        _ => Value::Null,
    };
    for text in given {
        value = parse_one(kind, text, value).map_err(|message| (text.clone(), message))?;
    }
    Ok(value)
}

fn parse_one(kind: Kind, text: &str, so_far: Value) -> Result<Value, String> {
    match kind {
        Kind::Bool => parse_bool(text).map(Value::from),
        Kind::Int32 => i32::try_from(parse_int(text)?).map(Value::from).map_err(|_| not(kind)),
        Kind::Int64 => parse_int(text).map(Value::from),
        Kind::Level => text
            .parse()
            .ok()
            .filter(|level| i32::try_from(*level).is_ok())
            .map(|level: u32| level.into())
            .ok_or_else(|| not(kind)),
        Kind::Float => text.parse::<f64>().map(Value::from).map_err(|_| not(kind)),
        Kind::Ip if text.is_empty() => Ok(so_far),
        Kind::Text | Kind::Path | Kind::Ip | Kind::Duration | Kind::DurationOrNanos | Kind::Quantity => {
            check_text(kind, text).map_err(|problem| problem.unwrap_or_else(|| not(kind)))
        }
        Kind::Texts => Ok(extended(so_far, parts(text, ',').map(Value::from))),
        Kind::Ips => {
            let addresses = parts(text, ',')
                .map(|part| check_text(Kind::Ip, part).map_err(|problem| problem.unwrap_or_default()));
            Ok(extended(so_far, addresses.collect::<Result<Vec<_>, _>>()?))
        }
        Kind::TextMap => parse_map(so_far, text, '=', |_, value| Ok(value.into())),
        Kind::Thresholds => parse_map(so_far, text, '<', |_, value| Ok(value.into())),
        Kind::BoolMap => parse_map(so_far, text, '=', |_, value| parse_bool(value).map(Value::from)),
        Kind::TextListMap => parse_map(so_far, text, ':', |before, value| {
            Ok(extended(before.cloned().unwrap_or_default(), [Value::from(value)]))
        }),
        Kind::Taints => taints::parse_flag(text),
        Kind::VModule => {
            let items = parts(text, ',').map(parse_pattern).collect::<Result<Vec<_>, _>>()?;
            Ok(extended(so_far, items))
        }
        Kind::ReservedMemory => {
            let items = parts(text, ';').map(parse_reservation).collect::<Result<Vec<_>, _>>()?;
            Ok(extended(so_far, items))
        }
        Kind::Ints | Kind::PriorityGracePeriods | Kind::QuantityMap => {
            Err("it can only be set in a file".to_owned())
        }
    }
}

/// Go's `strconv.ParseBool`.
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(not(Kind::Bool)),
    }
}

/// The comma (or other) separated parts of a value, without empty ones.
pub(super) fn parts(text: &str, separator: char) -> impl Iterator<Item = &str> {
    text.split(separator).map(str::trim).filter(|part| !part.is_empty())
}

fn not(kind: Kind) -> String {
    format!("expected {}", kind.expected())
}

fn parse_int(text: &str) -> Result<i64, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        _ => (10, digits),
    };
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|_| not(Kind::Int64))
}

fn extended(list: Value, more: impl IntoIterator<Item = Value>) -> Value {
    let mut values = match list {
        Value::Array(values) => values,
        _ => Vec::new(),
    };
    values.extend(more);
    values.into()
}

fn parse_map(
    so_far: Value,
    text: &str,
    separator: char,
    read: impl Fn(Option<&Value>, &str) -> Result<Value, String>,
) -> Result<Value, String> {
    let mut map = match so_far {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    for pair in parts(text, ',') {
        let Some((name, value)) = pair.split_once(separator) else {
            return Err(format!("malformed pair {pair:?}, expect name{separator}value"));
        };
        let (name, value) = (name.trim(), value.trim());
        let value = read(map.get(name), value)?;
        map.insert(name.to_owned(), value);
    }
    Ok(map.into())
}

fn parse_pattern(text: &str) -> Result<Value, String> {
    let (pattern, level) = text
        .split_once('=')
        .filter(|(pattern, level)| !pattern.is_empty() && !level.is_empty())
        .ok_or_else(|| format!("{text:?} does not have the pattern=N format"))?;
    let level = parse_one(Kind::Level, level, Value::Null)?;
    Ok(json!({"filePattern": pattern, "verbosity": level}))
}

fn parse_reservation(text: &str) -> Result<Value, String> {
    let malformed = || format!("expected numaNodeID:type=quantity[,type=quantity...], got {text}");
    let (node, limits) = text.split_once(':').ok_or_else(malformed)?;
    let node = parse_one(Kind::Int32, node, Value::Null)?;
    let limits = parse_map(Value::Null, limits, '=', |_, quantity| {
        check_text(Kind::Quantity, quantity).map_err(|problem| problem.unwrap_or_else(malformed))
    })?;
    Ok(json!({"numaNode": node, "limits": limits}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(kind: Kind, values: &[&str]) -> Result<Value, String> {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        parse(kind, &values, None).map_err(|(_, message)| message)
    }

    #[test]
    fn scalars_take_the_last_value_and_check_each() {
        assert_eq!(given(Kind::Int32, &["1", "0x10"]), Ok(json!(16)));
        assert_eq!(given(Kind::Int32, &["-999"]), Ok(json!(-999)));
        assert_eq!(given(Kind::Bool, &["T"]), Ok(json!(true)));
        assert_eq!(given(Kind::Duration, &["90s"]), Ok(json!("1m30s")));
        assert!(given(Kind::Int32, &["x", "1"]).is_err());
        assert!(given(Kind::Int32, &["3000000000"]).is_err());
        assert!(given(Kind::Bool, &["yes"]).is_err());
        assert!(given(Kind::Level, &["-1"]).is_err());
        assert!(given(Kind::Ip, &["localhost"]).is_err());
    }

    #[test]
    fn lists_and_maps_add_up() {
        assert_eq!(
            given(Kind::Ips, &["10.0.0.1,10.0.0.2", "fd00::1"]),
            Ok(json!(["10.0.0.1", "10.0.0.2", "fd00::1"]))
        );
        assert_eq!(given(Kind::Texts, &[""]), Ok(json!([])));
        assert_eq!(
            given(Kind::TextMap, &["cpu=1, memory=1Gi", "cpu=2"]),
            Ok(json!({"cpu": "2", "memory": "1Gi"}))
        );
        assert_eq!(given(Kind::Thresholds, &["memory.available<5%"]), Ok(json!({"memory.available": "5%"})));
        assert_eq!(given(Kind::BoolMap, &["A=true,B=0"]), Ok(json!({"A": true, "B": false})));
        assert_eq!(given(Kind::TextListMap, &["a:1,a:2"]), Ok(json!({"a": ["1", "2"]})));
        assert_eq!(
            given(Kind::ReservedMemory, &["0:memory=1Gi,hugepages-2Mi=4Mi;1:memory=2Gi"]),
            Ok(json!([
                {"numaNode": 0, "limits": {"memory": "1Gi", "hugepages-2Mi": "4Mi"}},
                {"numaNode": 1, "limits": {"memory": "2Gi"}},
            ]))
        );
        assert!(given(Kind::TextMap, &["cpu"]).is_err());
        assert!(given(Kind::BoolMap, &["A=maybe"]).is_err());
    }

    #[test]
    fn log_patterns_add_to_the_file() {
        let file = json!([{"filePattern": "a", "verbosity": 1}]);
        assert_eq!(
            parse(Kind::VModule, &["b*=2".to_owned()], Some(&file)),
            Ok(json!([{"filePattern": "a", "verbosity": 1}, {"filePattern": "b*", "verbosity": 2}]))
        );
        assert!(given(Kind::VModule, &["b"]).is_err());
    }
}
