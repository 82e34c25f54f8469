//! Lets requests through to the handlers, or does not (`InstallAuthFilter`).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use coracle_core::ports::UserInfo;
use http::StatusCode;
use http::request::Parts;
use tracing::{debug, warn};

use super::KubeletAuth;
use super::attributes::request_attributes;
use crate::peer::Peer;
use crate::text::text;

/// The middleware around everything that the HTTPS port serves, unknown paths too.
pub(crate) async fn require_auth(
    State(auth): State<Arc<KubeletAuth>>,
    request: Request,
    next: Next,
) -> Response {
    let (head, body) = request.into_parts();
    let peer = head.extensions.get::<Peer>().cloned().unwrap_or_default();
    let Ok(user) = auth.authenticator.authenticate(&peer.certificates, &head.headers).await else {
        return text(StatusCode::UNAUTHORIZED, "Unauthorized");
    };
    if let Err(refusal) = auth.authorize(&user, &head).await {
        return *refusal;
    }
    peer.mark_allowed();
    next.run(Request::from_parts(head, body)).await
}

impl KubeletAuth {
    /// Whether the user may do one of the things that the request can mean; if not, the answer to give.
    async fn authorize(&self, user: &UserInfo, request: &Parts) -> Result<(), Box<Response>> {
        let choices = request_attributes(&self.node_name, &request.method, request.uri.path());
        let (name, verb) =
            (user.username.as_str(), choices.first().map_or("", |choice| choice.verb.as_str()));
        for attributes in &choices {
            match self.authorizer.authorize(user, attributes).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    let subresource = &attributes.subresource;
                    warn!(user = name, verb, subresource, %error, "authorization failed");
                    let message = format!(
                        "Authorization error (user={name}, verb={verb}, resource=nodes, subresource={subresource})"
                    );
                    return Err(Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, message)));
                }
            }
        }
        let subresources: Vec<&str> = choices.iter().map(|choice| choice.subresource.as_str()).collect();
        let subresources = subresources.join(" ");
        debug!(user = name, verb, subresources, "forbidden");
        let message = format!(
            "Forbidden (user={name}, verb={verb}, resource=nodes, subresource(s)=[{subresources}])\n"
        );
        Err(Box::new(text(StatusCode::FORBIDDEN, message)))
    }
}
