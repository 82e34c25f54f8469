use coracle_provider::fake::{FakeExec, FakeProvider};
use coracle_provider::{ContainerConfig, ExecSyncResponse, PodRef, RuntimeService, SandboxConfig};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::clock;
use crate::fakes::{FakeSink, FakeTransport};

struct Rig {
    runner: HandlerRunner,
    target: HookTarget,
    transport: Arc<FakeTransport>,
    provider: Arc<FakeProvider>,
    sink: Arc<FakeSink>,
}

impl Rig {
    async fn new() -> Self {
        let (transport, sink) = (FakeTransport::new(), Arc::new(FakeSink::default()));
        let provider = FakeProvider::new("fake", clock::now);
        let pod = PodRef { uid: "u".into(), namespace: "nsFoo".into(), name: "podFoo".into() };
        let sandbox = provider.run_sandbox(SandboxConfig { pod, ..SandboxConfig::default() }).await.unwrap();
        let config = ContainerConfig { name: "containerFoo".into(), ..ContainerConfig::default() };
        let container = provider.create_container(&sandbox.id, config).await.unwrap();
        provider.start_container(&container.id).await.unwrap();
        let spec =
            json!({"name": "containerFoo", "image": "i", "ports": [{"name": "quux", "containerPort": 8080}]});
        Self {
            runner: HandlerRunner::new(transport.clone(), Recorder::new(sink.clone())),
            target: HookTarget {
                pod: "podFoo_nsFoo(u)".into(),
                pod_reference: ObjectReference::default(),
                container: serde_json::from_value(spec).unwrap(),
                container_id: container.id.clone(),
                provider: provider.clone(),
                pod_ip: Some("233.252.0.1".into()),
            },
            transport,
            provider,
            sink,
        }
    }

    async fn run(&self, handler: Value) -> Result<(), String> {
        self.runner.run(&self.target, &serde_json::from_value(handler).unwrap()).await
    }

    /// The URLs that were asked.
    fn urls(&self) -> Vec<String> {
        let gets = self.transport.gets.lock();
        gets.iter().map(|g| format!("{}://{}:{}/{}", g.scheme.as_str(), g.host, g.port, g.path)).collect()
    }
}

#[tokio::test]
async fn commands_run_in_the_container() {
    let rig = Rig::new().await;
    rig.run(json!({"exec": {"command": ["ls", "-a"]}})).await.unwrap();
    let command = ["ls", "-a"].map(str::to_owned).to_vec();
    assert_eq!(rig.provider.executed(), [(rig.target.container_id.clone(), command)]);
}

#[tokio::test]
async fn a_command_that_fails_says_how() {
    let rig = Rig::new().await;
    let answer = ExecSyncResponse { stdout: b"some ".to_vec(), stderr: b"output".to_vec(), exit_code: 2 };
    rig.provider.set_exec("ls", FakeExec { delay: Duration::ZERO, result: Ok(answer) });
    assert_eq!(
        rig.run(json!({"exec": {"command": ["ls", "--a"]}})).await.unwrap_err(),
        "Exec lifecycle hook ([ls --a]) for Container \"containerFoo\" in Pod \"podFoo_nsFoo(u)\" failed - error: \
         command 'ls --a' exited with 2: output, message: \"some output\""
    );
    let result = Err(Error::unimplemented("exec"));
    rig.provider.set_exec("ls", FakeExec { delay: Duration::ZERO, result });
    assert_eq!(
        rig.run(json!({"exec": {"command": ["ls"]}})).await.unwrap_err(),
        "Exec lifecycle hook ([ls]) for Container \"containerFoo\" in Pod \"podFoo_nsFoo(u)\" failed - error: exec is \
         not supported by this provider, message: \"\""
    );
}

#[tokio::test]
async fn requests_go_where_the_user_wants() {
    let cases = [
        (Some("233.252.0.1"), json!({"host": "foo", "port": 8080, "path": "bar"}), Ok("http://foo:8080/bar")),
        (None, json!({"host": "example.test", "port": 42, "path": "foo"}), Ok("http://example.test:42/foo")),
        (Some("233.252.0.1"), json!({"port": 42, "path": "foo"}), Ok("http://233.252.0.1:42/foo")),
        (Some("233.252.0.1"), json!({"port": "quux", "path": "foo"}), Ok("http://233.252.0.1:8080/foo")),
        (
            Some("233.252.0.1"),
            json!({"port": 4430, "path": "foo", "scheme": "HTTPS"}),
            Ok("https://233.252.0.1:4430/foo"),
        ),
        (Some("233.252.0.1"), json!({"port": 80, "path": "foo?k=v"}), Ok("http://233.252.0.1:80/foo?k=v")),
        (None, json!({"port": 42, "path": "foo"}), Err("the pod has no address")),
        (Some("233.252.0.1"), json!({"port": "", "path": "foo"}), Err("port \"\" not found")),
        (
            Some("233.252.0.1"),
            json!({"port": 80, "path": "foo", "scheme": "baz"}),
            Err("unsupported protocol scheme \"baz\""),
        ),
    ];
    for (ip, action, expected) in cases {
        let mut rig = Rig::new().await;
        rig.target.pod_ip = ip.map(str::to_owned);
        let result = rig.run(json!({"httpGet": action})).await;
        match expected {
            Ok(url) => assert_eq!((result, rig.urls()), (Ok(()), vec![url.to_owned()])),
            Err(error) => {
                let message = format!(
                    "HTTP lifecycle hook (foo) for Container \"containerFoo\" in Pod \"podFoo_nsFoo(u)\" failed - error: {error}"
                );
                assert_eq!((result, rig.urls()), (Err(message), Vec::new()));
            }
        }
    }
}

#[tokio::test]
async fn headers_are_the_users() {
    let rig = Rig::new().await;
    let headers = json!([{"name": "Foo", "value": "bar"}, {"name": "Host", "value": "from.header"}]);
    rig.run(json!({"httpGet": {"port": 80, "path": "/", "httpHeaders": headers}})).await.unwrap();
    let sent = rig.transport.gets.lock()[0].headers.clone();
    assert_eq!(sent, [("Foo".into(), "bar".into()), ("Host".into(), "from.header".into())]);
}

#[tokio::test]
async fn a_request_that_fails_says_how() {
    let rig = Rig::new().await;
    rig.transport.hooks.lock().push(Err(HookError::Failed("fake http error".into())));
    assert_eq!(
        rig.run(json!({"httpGet": {"host": "foo", "port": 8080, "path": "bar"}})).await.unwrap_err(),
        "HTTP lifecycle hook (bar) for Container \"containerFoo\" in Pod \"podFoo_nsFoo(u)\" failed - error: fake \
         http error"
    );
    assert_eq!(rig.urls(), ["http://foo:8080/bar"]);
    assert!(rig.sink.told().is_empty());
}

#[tokio::test]
async fn a_server_without_tls_is_asked_again_without_credentials() {
    let secret = json!({"httpGet": {"host": "127.0.0.1", "port": 8080, "path": "bar", "scheme": "https",
        "httpHeaders": [{"name": "authorization", "value": "secret"}, {"name": "X-A", "value": "b"}]}});
    let refused =
        || Err(HookError::HttpResponseToHttps("http: server gave HTTP response to HTTPS client".into()));
    let rig = Rig::new().await;
    rig.transport.hooks.lock().push(refused());
    rig.run(secret.clone()).await.unwrap();
    assert_eq!(rig.urls(), ["https://127.0.0.1:8080/bar", "http://127.0.0.1:8080/bar"]);
    assert_eq!(rig.transport.gets.lock()[1].headers, [("X-A".to_owned(), "b".to_owned())]);
    assert_eq!(
        rig.sink.told(),
        [
            "LifecycleHTTPFallback: request to HTTPS lifecycle hook 127.0.0.1:8080 got HTTP response, retry with \
          HTTP succeeded"
        ]
    );

    let rig = Rig::new().await;
    rig.transport.hooks.lock().extend([refused(), Err(HookError::Failed("down".into()))]);
    let error = rig.run(secret).await.unwrap_err();
    assert!(error.ends_with("error: http: server gave HTTP response to HTTPS client"), "{error}");
    assert!(rig.sink.told().is_empty());
}

#[tokio::test(start_paused = true)]
async fn sleeping_is_a_hook() {
    let rig = Rig::new().await;
    for (seconds, expected) in [(5, 5), (0, 0), (-1, 0)] {
        let start = Instant::now();
        rig.run(json!({"sleep": {"seconds": seconds}})).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), expected);
    }
}

#[tokio::test]
async fn what_is_no_hook_is_refused() {
    let rig = Rig::new().await;
    for handler in [json!({}), json!({"tcpSocket": {"port": 80}})] {
        let error = rig.run(handler).await.unwrap_err();
        assert_eq!(error, "Cannot run handler: invalid handler: one of exec, httpGet and sleep is needed");
    }
}
