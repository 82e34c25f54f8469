//! Files with variables, for `fileKeyRef` (upstream: `ParseEnv` in `util/env/env_util.go`).

/// A file that is not as it has to be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EnvFileError {
    #[error("invalid environment variable format at line {line}: {what}")]
    Line { line: usize, what: &'static str },
    #[error("invalid environment variable format starting at line {line}: unclosed single quote")]
    Unclosed { line: usize },
}

/// The value of a variable; empty if the file does not have it. Nothing behind the variable is looked at.
///
/// A file has comments and lines `NAME='value'`: a subset of a shell's, without escapes, in which values are quoted and may
/// have several lines.
pub(super) fn parse_env(content: &str, key: &str) -> Result<String, EnvFileError> {
    let mut lines = content.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let wrong = |what| EnvFileError::Line { line: number, what };
        let line = trim_start(line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("missing '='"))?;
        if trim_end(name).is_empty() {
            return Err(wrong("empty variable name"));
        }
        if trim_end(name) != name {
            return Err(wrong("whitespace before '=' is not allowed"));
        }
        if trim_start(value) != value {
            // For a shell this is an empty value, and a command behind it.
            if name == key {
                return Ok(String::new());
            }
            continue;
        }
        let rest =
            value.strip_prefix('\'').ok_or_else(|| wrong("value must be enclosed in single quotes"))?;
        let value = quoted(rest, number, &mut lines)?;
        if name == key {
            return Ok(value);
        }
    }
    Ok(String::new())
}

/// What is in quotes that began before `rest`, in this line and maybe in following ones.
fn quoted<'a>(
    mut rest: &'a str,
    began: usize,
    lines: &mut impl Iterator<Item = (&'a str, usize)>,
) -> Result<String, EnvFileError> {
    let (mut value, mut line) = (String::new(), began);
    loop {
        if let Some((end, after)) = rest.split_once('\'') {
            value.push_str(end);
            let after = trim_start(after);
            if !after.is_empty() && !after.starts_with('#') {
                return Err(EnvFileError::Line { line, what: "unexpected content after closing quote" });
            }
            return Ok(value);
        }
        value.push_str(rest);
        value.push('\n');
        (rest, line) = lines.next().ok_or(EnvFileError::Unclosed { line: began })?;
    }
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

fn trim_end(text: &str) -> &str {
    text.trim_end_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of `TestParseEnv`, which are what a shell has after reading the file.
    #[test]
    fn values_are_those_that_a_shell_would_read() {
        let several = "line1\n\nline3 $VAR \\n  \nline4   ";
        let cases = [
            ("   KEY1='val1'\n\t\tKEY2='val2'\nKEY3='val3'\n", "KEY2", "val2"),
            ("# comment\n\nKEY1='foo'\n   # another\n \t\nKEY2='bar'\n", "KEY2", "bar"),
            ("KEY1='foo'\nKEY2='bar'\n", "KEY3", ""),
            ("KEY1='foo#notcomment'\n", "KEY1", "foo#notcomment"),
            ("KEY1='   foo bar   '\n", "KEY1", "   foo bar   "),
            ("KEY1='foo'\nKEY2=''\n", "KEY2", ""),
            ("KEY1='foo=bar=baz'\n", "KEY1", "foo=bar=baz"),
            ("KEY1='foo'\nKEY2='bar' # comment\n", "KEY2", "bar"),
            ("KEY1='foo$BAR-${HOME}_$'", "KEY1", "foo$BAR-${HOME}_$"),
            ("KEY1='a\\nb\\\\c'\n", "KEY1", "a\\nb\\\\c"),
            ("KEY1='中文 Español 🌍'\n", "KEY1", "中文 Español 🌍"),
            ("KEY1='with \"nested\" quotes'\n", "KEY1", "with \"nested\" quotes"),
            ("KEY1= 'val1'\nKEY2='val2'\n", "KEY1", ""),
            ("KEY1= 'val1'\nKEY2='val2'\n", "KEY2", "val2"),
            (&format!("KEY1='{several}'\nKEY2='bar'\n"), "KEY1", several),
            (&format!("KEY1='{several}'\nKEY2='bar'\n"), "KEY2", "bar"),
            ("KEY1='foo'\r\nKEY2='bar'\r\n", "KEY2", "bar"),
            ("", "KEY", ""),
            // What comes behind the variable is not looked at.
            ("KEY1='foo'\nINVALID\n", "KEY1", "foo"),
        ];
        for (content, key, expected) in cases {
            assert_eq!(parse_env(content, key).as_deref(), Ok(expected), "{key} in {content:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_as_it_has_to_be_is_told_by_line() {
        let cases = [
            ("KEY1 = 'val1'\nKEY2='val2'\n", "at line 1: whitespace before '=' is not allowed"),
            ("='foo'\nKEY2='bar'\n", "at line 1: empty variable name"),
            ("KEY1='foo'\nINVALID_LINE\nKEY2='bar'\n", "at line 2: missing '='"),
            ("KEY1='foo'\nKEY2=bar\n", "at line 2: value must be enclosed in single quotes"),
            ("KEY1='foo'\nKEY2=\"bar\"\n", "at line 2: value must be enclosed in single quotes"),
            ("KEY2='foo''bar'", "at line 1: unexpected content after closing quote"),
            ("KEY1='foo'\nKEY2='bar\nKEY3='baz'\n", "at line 3: unexpected content after closing quote"),
            ("KEY2='with \\'nested\\' quotes'", "at line 1: unexpected content after closing quote"),
            ("KEY1='foo'\nKEY2='bar\nbaz\n", "starting at line 2: unclosed single quote"),
        ];
        for (content, expected) in cases {
            let error = parse_env(content, "KEY2").unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
    }
}
