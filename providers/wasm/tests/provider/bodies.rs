//! Bodies that stream, and clients that do not take what they get.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_provider::RuntimeService;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::Client;
use crate::services::serve;
use crate::serving::http2;
use crate::support::{Host, log, within};

#[tokio::test(flavor = "multi_thread")]
async fn services_of_wasi_0_2_stream_both_ways_and_pass_trailers_on() {
    let host = Host::start().await;
    let (_, address) = serve(&host, |_| ()).await;
    let (parts, body) = futures::channel::mpsc::unbounded();
    let mut sender = http2::<StreamBody<_>>(address).await;
    let request = Request::post("http://h/mirror").body(StreamBody::new(body)).unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    let mut mirror = response.into_body();
    for number in 0..3 {
        let part = Bytes::from(format!("part {number}"));
        parts.unbounded_send(Ok::<_, Infallible>(Frame::data(part.clone()))).unwrap();
        let frame = within(mirror.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), part, "it comes back before more is sent");
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", HeaderValue::from_static("42"));
    parts.unbounded_send(Ok(Frame::trailers(trailers.clone()))).unwrap();
    drop(parts);
    let rest = within(mirror.collect()).await.unwrap();
    assert_eq!(rest.trailers(), Some(&trailers));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_does_not_take_is_not_made_and_holds_nothing_up_for_long() {
    let host = Host::start_with(|options| options.services.body_timeout = Duration::from_millis(500)).await;
    let (container, address) = serve(&host, |_| ()).await;
    let mut patient = Client::connect(address).await;
    assert_eq!(patient.get("/zeros/3000000").await.1.len(), 3_000_000);

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /zeros/1000000000 HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(patient.get("/").await.0, StatusCode::OK);
    let begun = Instant::now();
    let stopped = within(host.provider.stop_container(&container.id, Duration::from_secs(50))).await.unwrap();
    assert_eq!(stopped.exit_code, 0, "the connection was given up: {}", stopped.message);
    assert!(begun.elapsed() < Duration::from_secs(40));
    drop(stream);
    let gone = log(&container).iter().filter(|line| line.contains("all zeros are gone")).count();
    assert_eq!(gone, 1, "only those that somebody took");
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large_are_refused_over_http_2_as_well() {
    let host = Host::start().await;
    let (_, address) = serve(&host, |_| ()).await;
    let ask = async |size: usize| {
        let value = HeaderValue::try_from("x".repeat(size)).unwrap();
        let request = Request::get("http://h/").header("large", value).body(Empty::<Bytes>::new()).unwrap();
        let mut sender = http2(address).await;
        within(sender.send_request(request)).await.map(|response| response.status())
    };
    let refused = ask(200_000).await;
    assert!(
        refused.as_ref().map_or(true, |status| *status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        "{refused:?}"
    );
    assert_eq!(ask(10_000).await.unwrap(), StatusCode::OK);
}
