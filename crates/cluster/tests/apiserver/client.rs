use coracle_cluster::{ClientOptions, KubeAccessReviewer, connect};
use coracle_core::ports::AccessReviewer;
use http::Version;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::bed::Bed;

async fn who_am_i(client: kube::Client) -> String {
    let review = Api::<SelfSubjectReview>::all(client)
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .unwrap();
    review.status.unwrap().user_info.unwrap().username.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_share_a_connection_of_http2() {
    let bed = Bed::new("http2").await;
    let request = http::Request::get("/version").body(Body::empty()).unwrap();
    assert_eq!(bed.client.kube().send(request).await.unwrap().version(), Version::HTTP_2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_what_the_file_says_now() {
    let bed = Bed::new("reload").await;
    assert_eq!(who_am_i(bed.client.kube()).await, format!("system:node:{}", bed.name));

    let by_token = kubeconfig_of(&bed, json!({"token": service_account_token(&bed).await}));
    std::fs::write(&bed.kubeconfig, by_token.to_string()).unwrap();
    assert_eq!(who_am_i(bed.client.kube()).await, format!("system:node:{}", bed.name));
    bed.client.reload().await.unwrap();
    assert_eq!(who_am_i(bed.client.kube()).await, format!("system:serviceaccount:{}:default", bed.name));

    std::fs::write(&bed.kubeconfig, "{}").unwrap();
    assert!(bed.client.reload().await.is_err());
    assert_eq!(who_am_i(bed.client.kube()).await, format!("system:serviceaccount:{}:default", bed.name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_be_in_a_file() {
    let bed = Bed::new("token-file").await;
    let folder = bed.kubeconfig.parent().unwrap();
    std::fs::write(folder.join("token"), service_account_token(&bed).await).unwrap();
    let path = folder.join("by-token");
    std::fs::write(&path, kubeconfig_of(&bed, json!({"tokenFile": "token"})).to_string()).unwrap();
    let client = connect(&path, ClientOptions::default()).await.unwrap();
    assert_eq!(who_am_i(client.kube()).await, format!("system:serviceaccount:{}:default", bed.name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_calls_is_kept() {
    let bed = Bed::new("limit").await;
    let options = ClientOptions { qps: Some(10.0), burst: 2, ..ClientOptions::default() };
    let reviewer = KubeAccessReviewer::new(connect(&bed.kubeconfig, options).await.unwrap());
    let start = Instant::now();
    for _ in 0..7 {
        reviewer.review_token("nobody").await.unwrap();
    }
    // Two at once, then five at a tenth of a second each.
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
}

/// The kubeconfig of the test with another user.
fn kubeconfig_of(bed: &Bed, user: Value) -> Value {
    let text = std::fs::read_to_string(&bed.kubeconfig).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"] = user;
    config
}

async fn service_account_token(bed: &Bed) -> String {
    let accounts = bed.api::<ServiceAccount>();
    let request = TokenRequest::default();
    let answer = accounts.create_token_request("default", &PostParams::default(), &request).await.unwrap();
    answer.status.unwrap().token.unwrap()
}
