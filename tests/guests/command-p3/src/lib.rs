//! Says hello, then its arguments, one a line; `fail` as the first argument makes it fail after that, and `echo` makes it
//! repeat its standard input instead.

use wasip3::cli::{environment, stdin, stdout};

struct Command;

wasip3::cli::command::export!(Command);

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        let wish = arguments.get(1).map(String::as_str);
        if wish == Some("echo") {
            let (input, _end) = stdin::read_via_stream();
            return stdout::write_via_stream(input).await.map_err(drop);
        }
        println!("hello from wasm");
        arguments.iter().skip(1).for_each(|argument| println!("{argument}"));
        if wish == Some("fail") { Err(()) } else { Ok(()) }
    }
}
