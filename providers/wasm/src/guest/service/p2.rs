//! Instances of WASI 0.2: one request after another.

use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};

use super::Service;
use super::instances::{End, Job, Seat};
use crate::guest::state::GuestState;

/// Answers requests until there are no more for this instance, or it fails.
pub(super) async fn run(service: &Service, pre: &ProxyPre<GuestState>, seat: &mut Seat, first: Job) {
    let mut store = service.store();
    let made = service.env.engine.metrics().instantiating(pre.instantiate_async(&mut store)).await;
    let instance = match made {
        Ok(instance) => instance,
        Err(error) => {
            let _ = first.end.send(service.failed(&error));
            return;
        }
    };
    let mut next = Some(first);
    while let Some(Job { request, responder, end, hold }) = next {
        let handled = async {
            let mut http = store.data_mut().http();
            let request = http.new_incoming_request(Scheme::Http, request)?;
            let response = http.new_response_outparam_from_callback(move |response| {
                // The client may have gone away.
                let _ = responder.send(response.map_err(|error: ErrorCode| format!("{error:?}")));
            })?;
            instance.wasi_http_incoming_handler().call_handle(&mut store, request, response).await
        };
        let handled = handled.await;
        // Whoever waits for the response and hears nothing waits for this.
        let _ = end.send(match &handled {
            Ok(()) => End::Returned,
            Err(error) => service.failed(error),
        });
        if handled.is_err() || service.instances.reuse.count == 1 {
            // Whoever has the next turn may need the memory of this instance.
            drop(store);
            drop(hold);
            return;
        }
        drop(hold);
        seat.done();
        next = seat.next(service, true).await;
    }
}
