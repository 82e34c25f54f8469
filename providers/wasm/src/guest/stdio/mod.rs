//! Standard input, output and error of guests: where they lead, and who may join in.

mod input;
mod output;
mod pipe;
mod terminal;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tokio_util::sync::CancellationToken;
use wasmtime_wasi::WasiCtxBuilder;

use self::input::Input;
use self::output::{Followers, Output};
use self::pipe::{PipeReader, PipeWriter, pipe};
use self::terminal::Terminal;
use crate::logs::{ContainerLog, LogStream, Source, Tag};

/// The standard streams of one instance.
pub(crate) struct Stdio {
    stdin: Option<Input>,
    stdout: Output,
    stderr: Output,
}

impl Stdio {
    /// Gives an instance these streams.
    pub(super) fn configure(self, builder: &mut WasiCtxBuilder) {
        if let Some(stdin) = self.stdin {
            builder.stdin(stdin);
        }
        builder.stdout(self.stdout).stderr(self.stderr);
    }
}

/// Where the host tells what became of an instance.
pub(crate) struct Notes {
    log: Option<Arc<ContainerLog>>,
    followers: Arc<Followers>,
    is_terminal: bool,
}

impl Notes {
    pub(super) fn write(&self, text: &str) {
        if let Some(log) = &self.log {
            log.note(Source::Stderr, text);
        }
        let text = format!("{}\n", text.trim_end());
        if self.is_terminal {
            self.followers.push(&output::carriage_returned(text.as_bytes()));
        } else {
            self.followers.push(text.as_bytes());
        }
    }
}

/// A client's ends of the standard streams.
pub(crate) struct Client {
    /// Towards the guest. The guest's input ends when it is dropped, unless others may still write.
    pub(crate) stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// From the guest. What it writes is lost once this is dropped.
    pub(crate) stdout: PipeReader,
    /// From the guest; none with a terminal, which has one screen.
    pub(crate) stderr: Option<PipeReader>,
}

/// The standard streams of a container's own program: its log, and those who are attached to it.
pub(crate) struct ContainerStdio {
    log: Arc<ContainerLog>,
    stdout: Arc<Followers>,
    stderr: Arc<Followers>,
    stdin: Option<ContainerInput>,
    is_terminal: bool,
    /// A client with a terminal pressed Ctrl-C.
    interrupted: CancellationToken,
}

struct ContainerInput {
    reader: PipeReader,
    /// What keeps the pipe open while nobody is attached. None once the first client took it, if it is for one only.
    writer: Mutex<Option<PipeWriter>>,
    once: bool,
}

impl ContainerStdio {
    /// Streams that lead to a log. `stdin` says whether there is input; `stdin_once`, that it ends with the first client
    /// that had it.
    pub(crate) fn new(log: Arc<ContainerLog>, stdin: bool, stdin_once: bool, tty: bool) -> Self {
        let input = || {
            let (writer, reader) = pipe();
            ContainerInput { reader, writer: Mutex::new(Some(writer)), once: stdin_once }
        };
        let stdout = Arc::new(Followers::default());
        Self {
            log,
            stderr: if tty { stdout.clone() } else { Arc::default() },
            stdout,
            stdin: stdin.then(input),
            is_terminal: tty,
            interrupted: CancellationToken::new(),
        }
    }

    pub(crate) fn log(&self) -> &Arc<ContainerLog> {
        &self.log
    }

    pub(super) fn interrupted(&self) -> &CancellationToken {
        &self.interrupted
    }

    /// The streams of an instance. `last_line` says how a last line of output without a newline is marked.
    pub(super) fn instance(&self, last_line: Tag) -> Stdio {
        let output = |source, followers: &Arc<Followers>| Output {
            log: Some(LogStream::new(self.log.clone(), source, last_line)),
            followers: followers.clone(),
            is_terminal: self.is_terminal,
        };
        let stdout = output(Source::Stdout, &self.stdout);
        Stdio {
            stdin: self
                .stdin
                .as_ref()
                .map(|stdin| Input { pipe: stdin.reader.clone(), is_terminal: self.is_terminal }),
            // A terminal has one screen, so that its lines stay in order.
            stderr: if self.is_terminal { stdout.clone() } else { output(Source::Stderr, &self.stderr) },
            stdout,
        }
    }

    pub(super) fn notes(&self) -> Notes {
        Notes { log: Some(self.log.clone()), followers: self.stderr.clone(), is_terminal: self.is_terminal }
    }

    /// Joins in, from now on. Without `stdin`, or where the container has no input (any more), only to listen.
    pub(crate) fn attach(&self, stdin: bool) -> Client {
        let stderr = (!self.is_terminal).then(|| self.stderr.join());
        let stdout = self.stdout.join();
        let writer = self.stdin.as_ref().filter(|_| stdin).and_then(|input| {
            let mut writer = input.writer.lock();
            if input.once { writer.take() } else { writer.clone() }
        });
        Client { stdin: writer.map(|writer| self.keyboard(writer)), stdout, stderr }
    }

    fn keyboard(&self, input: PipeWriter) -> Box<dyn AsyncWrite + Send + Unpin> {
        if self.is_terminal {
            Box::new(Terminal::new(input, self.stdout.clone(), self.interrupted.clone()))
        } else {
            Box::new(input)
        }
    }

    /// The program has ended, and so does what its clients read.
    pub(crate) fn end(&self) {
        self.stdout.end();
        self.stderr.end();
    }
}

/// The standard streams of a command beside the container's own program.
pub(crate) struct Session {
    pub(crate) stdio: Stdio,
    pub(crate) notes: Notes,
    pub(crate) client: Client,
    /// The client pressed Ctrl-C.
    pub(crate) interrupted: CancellationToken,
    /// What the client reads ends when this is dropped, which has to be after the last note.
    pub(crate) end: SessionEnd,
}

/// Ends what the client of a [`Session`] reads when it is dropped.
pub(crate) struct SessionEnd([Arc<Followers>; 2]);

impl Drop for SessionEnd {
    fn drop(&mut self) {
        self.0.iter().for_each(|followers| followers.end());
    }
}

impl Session {
    pub(crate) fn new(stdin: bool, tty: bool) -> Self {
        let interrupted = CancellationToken::new();
        let stdout = Arc::new(Followers::default());
        let stderr = if tty { stdout.clone() } else { Arc::default() };
        let (reader, keyboard) = if stdin {
            let (writer, reader) = pipe();
            let keyboard: Box<dyn AsyncWrite + Send + Unpin> = if tty {
                Box::new(Terminal::new(writer, stdout.clone(), interrupted.clone()))
            } else {
                Box::new(writer)
            };
            (Some(Input { pipe: reader, is_terminal: tty }), Some(keyboard))
        } else {
            (None, None)
        };
        let client = Client { stdin: keyboard, stdout: stdout.join(), stderr: (!tty).then(|| stderr.join()) };
        let output =
            |followers: &Arc<Followers>| Output { log: None, followers: followers.clone(), is_terminal: tty };
        Self {
            stdio: Stdio { stdin: reader, stdout: output(&stdout), stderr: output(&stderr) },
            notes: Notes { log: None, followers: stderr.clone(), is_terminal: tty },
            client,
            interrupted,
            end: SessionEnd([stdout, stderr]),
        }
    }
}
