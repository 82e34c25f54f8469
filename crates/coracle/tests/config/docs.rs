//! The committed documentation is what the tables say.

/// Run with `UPDATE_DOCS=1` to write the file anew.
#[test]
fn flags_md_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/flags.md");
    let expected = coracle::config::docs::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == expected,
        "docs/flags.md is out of date: run UPDATE_DOCS=1 cargo test -p coracle --test config"
    );
}
