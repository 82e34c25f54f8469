//! Which form of a page somebody wants.

use http::HeaderMap;
use http::header::ACCEPT;

/// Versions of the JSON, and the one that upstream warns of.
const VERSIONS: [&str; 2] = ["v1beta1", DEPRECATED];
pub(super) const DEPRECATED: &str = "v1alpha1";
const GROUP: &str = "config.k8s.io";

/// A form of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Text,
    Json { version: &'static str },
    Other,
}

/// The first acceptable form (`negotiation.NegotiateOutputMediaType`): JSON has to be asked for with the kind, as in
/// `application/json;g=config.k8s.io;v=v1beta1;as=Flagz`.
pub(super) fn negotiate(headers: &HeaderMap, kind: &str) -> Wanted {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.trim().is_empty() {
        return Wanted::Text;
    }
    accept.split(',').find_map(|clause| wanted(clause, kind)).unwrap_or(Wanted::Other)
}

fn wanted(clause: &str, kind: &str) -> Option<Wanted> {
    let mut parts = clause.split(';').map(str::trim);
    let media_type = parts.next()?.to_ascii_lowercase();
    let (mut group, mut version, mut form) = (None, None, None);
    for part in parts {
        match part.split_once('=') {
            Some(("g", value)) => group = Some(value),
            Some(("v", value)) => version = VERSIONS.into_iter().find(|known| *known == value),
            Some(("as", value)) => form = Some(value),
            _ => {}
        }
    }
    match media_type.as_str() {
        "text/plain" | "text/*" | "*/*" if form.is_none() => Some(Wanted::Text),
        "application/json" | "application/*" | "*/*" if group == Some(GROUP) && form == Some(kind) => {
            version.map(|version| Wanted::Json { version })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_for_who_names_its_kind() {
        let json = |version| Wanted::Json { version };
        for (accept, form) in [
            ("", Wanted::Text),
            ("*/*", Wanted::Text),
            ("text/plain", Wanted::Text),
            ("text/html, text/plain;q=0.5", Wanted::Text),
            ("application/json;v=v1beta1;g=config.k8s.io;as=Flagz", json("v1beta1")),
            ("application/json; v=v1alpha1; g=config.k8s.io; as=Flagz", json("v1alpha1")),
            ("application/json;v=v1beta1;g=config.k8s.io;as=Statusz", Wanted::Other),
            ("application/json;v=v9;g=config.k8s.io;as=Flagz", Wanted::Other),
            ("application/json", Wanted::Other),
            ("application/json, */*", Wanted::Text),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
            assert_eq!(negotiate(&headers, "Flagz"), form, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new(), "Flagz"), Wanted::Text);
    }
}
