//! Answers HTTP requests. By path:
//!
//! - `/count`, `/count/MILLISECONDS` how many requests this instance had begun with this one; at once, or after a while
//! - `/echo` the request's body and its trailers, piece by piece
//! - `/authority` the authority that the request names
//! - `/header/NAME` a header of the request
//! - `/slow/MILLISECONDS` after a while
//! - `/fetch/AUTHORITY/PATH` what another server answers
//! - `/error` an error instead of an answer; `/trap` nothing: it traps
//! - anything else: hello, with the path

use std::sync::atomic::{AtomicU32, Ordering};

use wasip3::clocks::monotonic_clock;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme, Trailers};
use wasip3::wit_bindgen::{FutureReader, StreamReader};
use wasip3::{wit_future, wit_stream};

struct Http;

wasip3::http::service::export!(Http);

static REQUESTS: AtomicU32 = AtomicU32::new(0);

impl wasip3::exports::http::handler::Guest for Http {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let count = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
        let path = request.get_path_with_query().unwrap_or_else(|| "/".into());
        let mut words = path.trim_start_matches('/').splitn(2, '/');
        let (route, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match route {
            "count" => {
                let milliseconds: u64 = rest.parse().unwrap_or_default();
                monotonic_clock::wait_for(milliseconds * 1_000_000).await;
                Ok(text(200, count.to_string()))
            }
            "echo" => Ok(echo(request)),
            "authority" => Ok(text(200, request.get_authority().unwrap_or_default())),
            "header" => Ok(header(&request, rest)),
            "slow" => {
                let milliseconds: u64 = rest.parse().unwrap_or(1000);
                monotonic_clock::wait_for(milliseconds * 1_000_000).await;
                Ok(text(200, format!("slow: {rest}\n")))
            }
            "fetch" => fetch(rest).await,
            "error" => Err(ErrorCode::InternalError(Some("as the client wished".into()))),
            "trap" => std::process::abort(),
            _ => Ok(text(200, format!("hello from wasm: {path}\n"))),
        }
    }
}

fn header(request: &Request, name: &str) -> Response {
    match request.get_headers().get(name).pop() {
        Some(value) => text(200, String::from_utf8_lossy(&value).into_owned()),
        None => text(404, String::new()),
    }
}

/// An answer whose body is sent while the handler has returned already.
fn text(status: u16, content: String) -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (trailers, no_trailers) = wit_future::new(|| Ok(None));
    drop(trailers);
    wasip3::wit_bindgen::spawn_local(async move {
        // A client that has gone away takes no more, and that is no failure.
        writer.write_all(content.into_bytes()).await;
    });
    respond(status, reader, no_trailers)
}

fn respond(
    status: u16,
    body: StreamReader<u8>,
    trailers: FutureReader<Result<Option<Trailers>, ErrorCode>>,
) -> Response {
    let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
    // Only numbers that are no status are refused, and there are none here.
    let _ = response.set_status_code(status);
    response
}

fn echo(request: Request) -> Response {
    let (_, processed) = wit_future::new(|| Ok(()));
    let (body, trailers) = Request::consume_body(request, processed);
    respond(200, body, trailers)
}

/// The body of the answer goes on as it comes.
async fn fetch(target: &str) -> Result<Response, ErrorCode> {
    let (authority, path) = target.split_once('/').unwrap_or((target, ""));
    let (trailers, no_trailers) = wit_future::new(|| Ok(None));
    drop(trailers);
    let (request, _sent) = Request::new(Fields::new(), None, no_trailers, None);
    let named = request.set_scheme(Some(&Scheme::Http)).and(request.set_authority(Some(authority)));
    named
        .and(request.set_path_with_query(Some(&format!("/{path}"))))
        .map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    let response = client::send(request).await?;
    let status = response.get_status_code();
    let (_, processed) = wit_future::new(|| Ok(()));
    let (body, trailers) = Response::consume_body(response, processed);
    Ok(respond(status, body, trailers))
}
