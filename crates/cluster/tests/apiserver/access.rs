use std::sync::Arc;

use coracle_cluster::{KubeAccessReviewer, KubeTokenIssuer};
use coracle_core::ports::{AccessReviewer, ApiError, Attributes, TokenIssuer, UserInfo};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use crate::bed::Bed;

fn token_request(pod: &Pod) -> TokenRequest {
    TokenRequest {
        spec: Some(TokenRequestSpec {
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.name_any()),
                uid: pod.uid(),
            }),
            expiration_seconds: Some(3607),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_just_bound_gets_its_token() {
    let bed = Bed::new("token").await;
    let issuer = KubeTokenIssuer::new(Arc::clone(&bed.client));
    // Each pod is the first that the authorizer hears of, so its race is run several times.
    for n in 0..5 {
        let pod = bed.pod(&format!("p{n}"), json!({})).await;
        let answer = issuer.create_token(&bed.name, "default", token_request(&pod)).await.unwrap();
        let token = answer.status.unwrap().token.unwrap();

        let reviewer = KubeAccessReviewer::new(Arc::clone(&bed.client));
        let user = reviewer.review_token(&token).await.unwrap().unwrap();
        assert_eq!(user.username, format!("system:serviceaccount:{}:default", bed.name));
        assert!(user.groups.contains(&"system:serviceaccounts".to_owned()));
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], [pod.name_any()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_a_strangers_pod_is_refused() {
    let bed = Bed::new("stranger").await;
    let pod = bed.pod("p", json!({"nodeName": "another-node"})).await;
    let issuer = KubeTokenIssuer::new(Arc::clone(&bed.client));
    let answer = issuer.create_token(&bed.name, "default", token_request(&pod)).await;
    assert!(matches!(answer, Err(ApiError::Forbidden(_))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_nobodys_is_nobodys() {
    let bed = Bed::new("nobody").await;
    let reviewer = KubeAccessReviewer::new(Arc::clone(&bed.client));
    assert_eq!(reviewer.review_token("not a token").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn access_is_as_the_cluster_says() {
    let bed = Bed::new("access").await;
    let reviewer = KubeAccessReviewer::new(Arc::clone(&bed.client));
    let attributes = Attributes {
        verb: "create".to_owned(),
        resource: "nodes".to_owned(),
        subresource: "proxy".to_owned(),
        name: bed.name.clone(),
        path: "/exec/ns/p/c".to_owned(),
    };
    let user = |group: &str| UserInfo {
        username: "somebody".to_owned(),
        groups: vec![group.to_owned()],
        ..UserInfo::default()
    };
    assert!(reviewer.review_access(&user("system:masters"), &attributes).await.unwrap());
    assert!(!reviewer.review_access(&user("system:authenticated"), &attributes).await.unwrap());
}
