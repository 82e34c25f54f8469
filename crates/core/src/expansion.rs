//! `$(VAR)` references in commands, arguments, environment and subPathExpr (`third_party/forked/golang/expansion`).

/// Replaces every `$(NAME)` by what `mapping` answers. `$$` is a literal `$`; a reference that is never closed, and
/// any other `$`, stay as they are.
pub fn expand(input: &str, mut mapping: impl FnMut(&str) -> String) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            escaped
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|a| a.split_once(')')) {
            out.push_str(&mapping(name));
            tail
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
    out
}

/// A reference as it was written: what an unknown variable expands to in commands, arguments and environment.
pub fn syntax_wrap(name: &str) -> String {
    format!("$({name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_as_upstream() {
        let table = [
            ("", ""),
            ("plain", "plain"),
            ("$(VAR_A)", "A"),
            ("___$(VAR_B)___", "___B___"),
            ("$(VAR_A)-$(VAR_B)", "A-B"),
            ("$$(VAR_A)", "$(VAR_A)"),
            ("$$$(VAR_A)", "$A"),
            ("$$$$(VAR_A)", "$$(VAR_A)"),
            ("$(VAR_A", "$(VAR_A"),
            ("$VAR_A", "$VAR_A"),
            ("$(unknown)", "$(unknown)"),
            ("$(VAR_A)$", "A$"),
            ("$", "$"),
            ("$(VAR_REF)", "$(VAR_A)"),
            ("$(foo$(VAR_A)", "$(foo$(VAR_A)"),
            ("$((VAR_A))", "$((VAR_A))"),
            ("$()", "$()"),
            ("é$(VAR_A)é", "éAé"),
        ];
        let mapping = |name: &str| match name {
            "VAR_A" => "A".to_owned(),
            "VAR_B" => "B".to_owned(),
            "VAR_REF" => "$(VAR_A)".to_owned(),
            unknown => syntax_wrap(unknown),
        };
        for (input, expected) in table {
            assert_eq!(expand(input, mapping), expected, "{input}");
        }
    }
}
