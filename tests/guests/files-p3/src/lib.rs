//! Works on files by the interfaces of WASI 0.3, one command an argument, as `commands/src/bin/files.rs` does by the standard
//! library: `cat PATH`, `ls PATH` (without hidden names), `write PATH TEXT`, `append PATH TEXT`, `rm PATH`, `link OLD NEW`,
//! `rename OLD NEW`, `never PATH TEXT` tries to read PATH very often, and fails if it ever has TEXT in it.

use std::io::Write as _;

use wasip3::cli::environment;
use wasip3::filesystem::preopens;
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};
use wasip3::wit_stream;

struct Files;

wasip3::cli::command::export!(Files);

impl wasip3::exports::cli::run::Guest for Files {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        let mut words = arguments.iter().skip(1).map(String::as_str);
        let folders = Folders(preopens::get_directories());
        while let Some(command) = words.next() {
            let path = words.next().unwrap_or_default();
            let mut word = || words.next().unwrap_or_default();
            let result = match command {
                "cat" => folders.read(path).await.map(|content| print(&content)),
                "ls" => folders.list(path).await,
                "write" => folders.write(path, word(), OpenFlags::CREATE | OpenFlags::TRUNCATE).await,
                "append" => folders.append(path, word()).await,
                "rm" => folders.remove(path).await,
                "link" => folders.link(path, word()).await,
                "rename" => folders.rename(path, word()).await,
                "never" => folders.never(path, word()).await,
                _ => Err(ErrorCode::Unsupported),
            };
            if let Err(error) = result {
                eprintln!("{command} {path}: {error:?}");
                return Err(());
            }
        }
        Ok(())
    }
}

/// Nothing else flushes it: there is no `main` whose end does.
fn print(content: &[u8]) {
    let mut output = std::io::stdout();
    output.write_all(content).and_then(|()| output.flush()).expect("standard output takes everything");
}

/// The folders that the host opened, with their paths.
struct Folders(Vec<(Descriptor, String)>);

impl Folders {
    /// The folder that a path lies in, the innermost of several, and the rest of the path.
    fn find(&self, path: &str) -> Result<(&Descriptor, String), ErrorCode> {
        let rest = |folder: &str| {
            let rest = path.strip_prefix(folder.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/').to_owned())
        };
        let found = self.0.iter().filter_map(|(folder, name)| Some((folder, rest(name)?)));
        let (folder, rest) = found.min_by_key(|(_, rest)| rest.len()).ok_or(ErrorCode::NoEntry)?;
        Ok((folder, if rest.is_empty() { ".".to_owned() } else { rest }))
    }

    async fn open(
        &self,
        path: &str,
        how: OpenFlags,
        what_for: DescriptorFlags,
    ) -> Result<Descriptor, ErrorCode> {
        let (folder, rest) = self.find(path)?;
        folder.open_at(PathFlags::SYMLINK_FOLLOW, rest, how, what_for).await
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, ErrorCode> {
        let file = self.open(path, OpenFlags::empty(), DescriptorFlags::READ).await?;
        let (content, end) = file.read_via_stream(0);
        let content = content.collect().await;
        end.await.map(|()| content)
    }

    async fn list(&self, path: &str) -> Result<(), ErrorCode> {
        let folder = self.open(path, OpenFlags::DIRECTORY, DescriptorFlags::READ).await?;
        let (entries, end) = folder.read_directory();
        let entries = entries.collect().await;
        end.await?;
        let mut names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names.iter().for_each(|name| println!("{name}"));
        Ok(())
    }

    async fn write(&self, path: &str, text: &str, how: OpenFlags) -> Result<(), ErrorCode> {
        let file = self.open(path, how, DescriptorFlags::WRITE).await?;
        let (mut writer, content) = wit_stream::new();
        let end = file.write_via_stream(content, 0);
        writer.write_all(text.as_bytes().to_vec()).await;
        drop(writer);
        end.await
    }

    async fn append(&self, path: &str, text: &str) -> Result<(), ErrorCode> {
        let file = self.open(path, OpenFlags::CREATE, DescriptorFlags::WRITE).await?;
        let (mut writer, content) = wit_stream::new();
        let end = file.append_via_stream(content);
        writer.write_all(text.as_bytes().to_vec()).await;
        drop(writer);
        end.await
    }

    async fn remove(&self, path: &str) -> Result<(), ErrorCode> {
        let (folder, rest) = self.find(path)?;
        folder.unlink_file_at(rest).await
    }

    async fn link(&self, old: &str, new: &str) -> Result<(), ErrorCode> {
        let ((from, old), (to, new)) = (self.find(old)?, self.find(new)?);
        from.link_at(PathFlags::empty(), old, to, new).await
    }

    async fn rename(&self, old: &str, new: &str) -> Result<(), ErrorCode> {
        let ((from, old), (to, new)) = (self.find(old)?, self.find(new)?);
        from.rename_at(old, to, new).await
    }

    async fn never(&self, path: &str, text: &str) -> Result<(), ErrorCode> {
        for _ in 0..5_000 {
            if self.read(path).await.is_ok_and(|content| content == text.as_bytes()) {
                return Err(ErrorCode::Access);
            }
        }
        Ok(())
    }
}
