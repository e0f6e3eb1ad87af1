//! The directory as a source: what is in force after which change, and how soon.

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n";

fn pod(name: &str, ip: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
         status: {{podIP: {ip}}}\n"
    )
}

fn policy(name: &str, port: &str) -> String {
    format!(
        "---\n{POLICY}metadata: {{name: {name}}}\nspec: {{ingress: [{{ports: [{{port: {port}}}]}}]}}\n"
    )
}

struct Lab {
    dir: TempDir,
    source: ManifestSource,
}

impl Lab {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let source = ManifestSource::new(dir.path()).unwrap();
        Self { dir, source }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::create_dir_all(self.path(file).parent().unwrap()).unwrap();
        fs::write(self.path(file), text).unwrap();
    }

    /// Both ways of looking must come to the same: `refresh` is tried first, `rescan` after it must
    /// have nothing to add.
    fn look(&mut self) -> (Vec<String>, Vec<String>) {
        let update = self.source.refresh();
        let again = self.source.rescan();
        assert!(again.events.is_empty(), "refresh missed {:?}", again.events);
        assert_eq!(update.problems, again.problems);
        (titles(&update.events), update.problems.iter().map(ToString::to_string).collect())
    }

    fn events(&mut self) -> Vec<String> {
        let (events, problems) = self.look();
        assert!(problems.is_empty(), "{problems:?}");
        events
    }
}

fn titles(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event {
            Event::PodApplied(pod) => format!("+pod {} {:?}", pod.key.name, pod.addresses),
            Event::PodDeleted(key) => format!("-pod {}", key.name),
            Event::NamespaceApplied(ns) => format!("+ns {}", ns.name),
            Event::NamespaceDeleted(name) => format!("-ns {name}"),
            Event::PolicyApplied(p) => format!("+policy {}", p.metadata.name.as_deref().unwrap()),
            Event::PolicyDeleted(key) => format!("-policy {}", key.name),
            Event::NodeApplied(node) => format!("+node {} {:?}", node.name, node.primary),
            Event::NodeDeleted(name) => format!("-node {name}"),
            Event::ServiceApplied(s) => format!("+service {} {:?}", s.key.name, s.cluster_ips),
            Event::ServiceDeleted(key) => format!("-service {}", key.name),
            Event::SliceApplied(slice) => {
                format!("+slice {} {:?}", slice.key.name, slice.endpoints[0].addresses)
            }
            Event::SliceDeleted(key) => format!("-slice {}", key.name),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn services_come_change_and_go() {
    let mut lab = Lab::new();
    let all = |address: &str, port: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{clusterIP: 10.96.0.1, \
             ports: [{{port: {port}}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: s-1}}\naddressType: IPv4\nendpoints: [{{addresses: [{address}]}}]\n\
             ---\napiVersion: v1\nkind: Node\nmetadata: {{name: w}}\nstatus: {{addresses: [{{type: \
             InternalIP, address: 192.0.2.1}}]}}\n"
        )
    };
    lab.write("a.yaml", &all("10.0.0.1", "80"));
    let expected = ["+node w [192.0.2.1]", "+slice s-1 [10.0.0.1]", "+service s [10.96.0.1]"];
    assert_eq!(lab.events(), expected);
    lab.write("a.yaml", &all("10.0.0.2", "80"));
    assert_eq!(lab.events(), ["+slice s-1 [10.0.0.2]"]);
    lab.write("a.yaml", &all("10.0.0.3", "0"));
    let (events, problems) = lab.look();
    assert_eq!(events, ["+slice s-1 [10.0.0.3]"]);
    assert_eq!(
        problems,
        ["a.yaml, document 1: Service default/s: spec.ports[0].port: \"0\": must be a port, 1 to \
          65535 (the last good state stays in force)"]
    );
    lab.write("a.yaml", "");
    assert_eq!(lab.events(), ["-service s", "-slice s-1", "-node w"]);
}

#[test]
fn objects_come_change_and_go() {
    let mut lab = Lab::new();
    assert_eq!(lab.events(), [""; 0]);
    lab.write("b.yaml", &(pod("a", "10.0.0.1") + &policy("p", "80")));
    lab.write(
        "sub/deep/ns.json",
        r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"n"}}"#,
    );
    assert_eq!(lab.events(), ["+ns n", "+pod a [10.0.0.1]", "+policy p"]);
    assert_eq!(lab.events(), [""; 0]);
    lab.write("b.yaml", &(pod("a", "10.0.0.2") + &policy("q", "80")));
    assert_eq!(lab.events(), ["+pod a [10.0.0.2]", "+policy q", "-policy p"]);
    fs::rename(lab.path("b.yaml"), lab.path("c.yaml")).unwrap();
    assert_eq!(lab.events(), [""; 0]);
    fs::remove_file(lab.path("c.yaml")).unwrap();
    assert_eq!(lab.events(), ["-policy q", "-pod a"]);
    fs::remove_dir_all(lab.path("sub")).unwrap();
    assert_eq!(lab.events(), ["-ns n"]);
}

#[test]
fn other_files_are_left_alone() {
    let mut lab = Lab::new();
    for file in [".a.yaml", "a.yaml~", "a.yaml.swp", "README.md", ".git/a.yaml"] {
        lab.write(file, &pod("a", "10.0.0.1"));
    }
    fs::create_dir(lab.path("dir.yaml")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(lab.path("fifo.yaml")).status().unwrap();
    assert!(fifo.success());
    symlink("nowhere", lab.path("dangling.yaml")).unwrap();
    symlink(".", lab.path("circle")).unwrap();
    assert_eq!(lab.events(), [""; 0]);
}

#[test]
fn an_invalid_object_leaves_its_last_good_state() {
    let mut lab = Lab::new();
    lab.write("a.yaml", &(policy("p", "80") + &policy("q", "80")));
    assert_eq!(lab.events(), ["+policy p", "+policy q"]);
    lab.write("a.yaml", &(policy("p", "0") + &policy("q", "81") + &policy("r", "0")));
    let (events, problems) = lab.look();
    assert_eq!(events, ["+policy q"]);
    assert_eq!(
        problems,
        [
            "a.yaml, document 1: NetworkPolicy default/p: spec.ingress[0].ports[0].port: \"0\": \
             must be a port, 1 to 65535 (the last good state stays in force)",
            "a.yaml, document 3: NetworkPolicy default/r: spec.ingress[0].ports[0].port: \"0\": \
             must be a port, 1 to 65535",
        ]
    );
    lab.write("a.yaml", &(policy("p", "82") + &policy("q", "81")));
    assert_eq!(lab.events(), ["+policy p"]);
}

#[test]
fn a_broken_file_leaves_all_its_objects() {
    let mut lab = Lab::new();
    lab.write("a.yaml", &(policy("p", "80") + &policy("q", "80")));
    lab.write("b.yaml", &pod("a", "10.0.0.1"));
    assert_eq!(lab.events().len(), 3);
    for broken in [&b"---\na: [\n"[..], b"\xff\xfe\n", b"---\nkind: A\n---\nkind: B\nkind: C\n"] {
        fs::write(lab.path("a.yaml"), broken).unwrap();
        lab.write("b.yaml", &pod("a", &format!("10.0.0.{}", broken.len())));
        let (events, problems) = lab.look();
        assert_eq!(events, [format!("+pod a [10.0.0.{}]", broken.len())]);
        assert!(problems.len() == 1 && problems[0].starts_with("a.yaml: "), "{problems:?}");
        assert!(problems[0].ends_with("(the last good state stays in force)"), "{problems:?}");
    }
    // An object whose name cannot be told may be any of them.
    lab.write("a.yaml", &policy("p", "80").replace("name: p", "nome: p"));
    let (events, problems) = lab.look();
    assert_eq!(events, [""; 0]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    lab.write("a.yaml", "# nothing\n");
    assert_eq!(lab.events(), ["-policy q", "-policy p"]);
}

#[test]
fn of_two_definitions_the_first_counts() {
    let mut lab = Lab::new();
    lab.write("b.yaml", &pod("a", "10.0.0.2"));
    lab.write("c.yaml", &(pod("a", "10.0.0.3") + &pod("a", "10.0.0.4")));
    let (events, problems) = lab.look();
    assert_eq!(events, ["+pod a [10.0.0.2]"]);
    let why = "Pod default/a: is also in b.yaml, document 1, which counts; remove one of the two";
    assert_eq!(
        problems,
        [format!("c.yaml, document 1: {why}"), format!("c.yaml, document 2: {why}")]
    );
    lab.write("a.yaml", &pod("a", "10.0.0.1"));
    assert_eq!(lab.look().0, ["+pod a [10.0.0.1]"]);
    // Broken, the first keeps its claim.
    lab.write("a.yaml", "[");
    let (events, problems) = lab.look();
    assert_eq!(events, [""; 0]);
    assert!(problems[1].contains("also in a.yaml (its last good state)"), "{problems:?}");
    fs::remove_file(lab.path("a.yaml")).unwrap();
    assert_eq!(lab.look().0, ["+pod a [10.0.0.2]"]);
    // An invalid first one that never was good claims nothing.
    lab.write("a.yaml", &pod("a", "x"));
    let (events, problems) = lab.look();
    assert_eq!((events.len(), problems.len()), (0, 3), "{problems:?}");
}

#[test]
fn ignored_kinds_are_listed() {
    let mut lab = Lab::new();
    lab.write(
        "a.yaml",
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a}\n",
    );
    let update = lab.source.rescan();
    let expected = Ignored { file: "a.yaml".into(), kind: "CiliumNetworkPolicy.cilium.io".into() };
    assert_eq!(update.ignored, [expected]);
    assert!(update.changed && !lab.source.rescan().changed);
}

#[test]
fn a_config_map_mount_is_followed() {
    let mut lab = Lab::new();
    lab.write("..2024_1/p.yaml", &policy("p", "80"));
    symlink("..2024_1", lab.path("..data")).unwrap();
    symlink("..data/p.yaml", lab.path("p.yaml")).unwrap();
    assert_eq!(lab.events(), ["+policy p"]);
    lab.write("..2024_2/p.yaml", &policy("p", "81"));
    symlink("..2024_2", lab.path("..tmp")).unwrap();
    fs::rename(lab.path("..tmp"), lab.path("..data")).unwrap();
    assert_eq!(lab.events(), ["+policy p"]);
}

#[test]
fn a_missing_directory_is_an_error_at_the_start_and_a_problem_later() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("manifests");
    let error = ManifestSource::new(&root).unwrap_err().to_string();
    assert!(error.contains("cannot read the manifests directory"), "{error}");
    assert!(error.contains("--manifests"), "{error}");

    fs::create_dir(&root).unwrap();
    fs::write(root.join("a.yaml"), pod("a", "10.0.0.1")).unwrap();
    let mut source = ManifestSource::new(&root).unwrap();
    assert_eq!(source.rescan().events.len(), 1);
    fs::rename(&root, dir.path().join("away")).unwrap();
    let update = source.refresh();
    assert!(update.events.is_empty() && update.changed);
    assert!(update.problems[0].last_good, "{:?}", update.problems);
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a.yaml"), pod("a", "10.0.0.2")).unwrap();
    assert_eq!(titles(&source.refresh().events), ["+pod a [10.0.0.2]"]);
    fs::write(root.join("a.yaml"), pod("a", "10.0.0.3")).unwrap();
    assert_eq!(titles(&source.refresh().events), ["+pod a [10.0.0.3]"]);
}

#[test]
fn a_file_being_written_is_left_alone_until_it_is_closed() {
    let mut lab = Lab::new();
    lab.write("a.yaml", &policy("p", "80"));
    assert_eq!(lab.events(), ["+policy p"]);
    let mut file = fs::File::create(lab.path("a.yaml")).unwrap();
    // Truncated: read now, the policy would be gone.
    let update = lab.source.rescan();
    assert!(update.events.is_empty() && !update.settled, "{update:?}");
    file.write_all(policy("p", "81").as_bytes()).unwrap();
    let update = lab.source.rescan();
    assert!(update.events.is_empty() && !update.settled, "{update:?}");
    drop(file);
    let update = lab.source.rescan();
    assert_eq!(titles(&update.events), ["+policy p"]);
    assert!(update.settled);
    // Truncated and closed is meant.
    drop(fs::File::create(lab.path("a.yaml")).unwrap());
    assert_eq!(lab.events(), ["-policy p"]);
}

#[test]
fn a_change_with_the_same_size_and_time_is_seen() {
    let mut lab = Lab::new();
    for i in 0..50 {
        lab.write("a.yaml", &pod("a", &format!("10.0.0.{}", 10 + i)));
        assert_eq!(lab.events(), [format!("+pod a [10.0.0.{}]", 10 + i)]);
    }
}

/// Runs `body` on the kind of runtime that the agent has.
fn on_runtime<T>(body: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body)
}

async fn next_events(source: &mut ManifestSource, within: Duration) -> Vec<String> {
    let start = Instant::now();
    loop {
        let left = within.checked_sub(start.elapsed()).expect("no change was noticed in time");
        tokio::time::timeout(left, source.changed()).await.expect("no change was noticed in time");
        let update = source.refresh();
        if !update.events.is_empty() {
            return titles(&update.events);
        }
    }
}

#[test]
fn a_change_is_noticed_within_100_ms_beside_1000_pods_and_300_policies() {
    const SOON: Duration = Duration::from_millis(100);
    let mut lab = Lab::new();
    for i in 0..1000 {
        let ip = format!("10.1.{}.{}", i / 250, i % 250 + 1);
        lab.write(&format!("pods/{i}.yaml"), &pod(&format!("pod-{i}"), &ip));
    }
    for i in 0..300 {
        lab.write(&format!("policies/{i}.yaml"), &policy(&format!("policy-{i}"), "80"));
    }
    assert_eq!(lab.source.rescan().events.len(), 1300);
    on_runtime(async {
        for i in 0..10 {
            // The time of the change itself is not the source's.
            lab.write("policies/7.yaml", &policy("policy-7", &(90 + i).to_string()));
            assert_eq!(next_events(&mut lab.source, SOON).await, ["+policy policy-7"]);
        }
        lab.write("new/deep/a.yaml", &pod("new", "10.9.0.1"));
        assert_eq!(next_events(&mut lab.source, SOON).await, ["+pod new [10.9.0.1]"]);
        lab.write("new/deep/a.yaml", &pod("new", "10.9.0.2"));
        assert_eq!(next_events(&mut lab.source, SOON).await, ["+pod new [10.9.0.2]"]);
        fs::write(lab.path("x.tmp"), policy("x", "1")).unwrap();
        fs::rename(lab.path("x.tmp"), lab.path("x.yaml")).unwrap();
        assert_eq!(next_events(&mut lab.source, SOON).await, ["+policy x"]);
        fs::remove_file(lab.path("x.yaml")).unwrap();
        assert_eq!(next_events(&mut lab.source, SOON).await, ["-policy x"]);
    });
}

#[test]
fn a_writer_that_never_closes_is_heard_in_the_end() {
    let mut lab = Lab::new();
    assert_eq!(lab.events(), [""; 0]);
    let mut file = fs::File::create(lab.path("a.yaml")).unwrap();
    file.write_all(pod("a", "10.0.0.1").as_bytes()).unwrap();
    let events = on_runtime(next_events(&mut lab.source, Duration::from_secs(3)));
    assert_eq!(events, ["+pod a [10.0.0.1]"]);
}

#[test]
fn nothing_is_noticed_when_nothing_changes() {
    let mut lab = Lab::new();
    lab.write("a.yaml", &pod("a", "10.0.0.1"));
    lab.source.rescan();
    let quiet = on_runtime(async {
        tokio::time::timeout(Duration::from_millis(300), lab.source.changed()).await
    });
    assert!(quiet.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let path = Path::new("a.yaml");
        prop_assert!(file::parse(path, &bytes, &[], &mut Shared::default()).is_ok_and(|d| d.len() < 401)
            || file::parse(path, &bytes, &[], &mut Shared::default()).is_err());
        prop_assert!(file::parse(Path::new("a.json"), &bytes, &[], &mut Shared::default()).is_ok_and(|d| d.len() < 2)
            || file::parse(Path::new("a.json"), &bytes, &[], &mut Shared::default()).is_err());
    }

    /// Text made of what YAML and the API care about comes further than bytes do.
    #[test]
    fn no_text_is_too_much(parts in proptest::collection::vec(proptest::sample::select(&[
        "---\n", "...\n", "apiVersion: v1\n", "apiVersion: networking.k8s.io/v1\n", "kind: Pod\n",
        "kind: NetworkPolicy\n", "kind: List\n", "items:\n", "- ", "  ", "metadata: {name: a}\n",
        "metadata:\n", "  name: a\n", "spec:\n", "  ingress:\n", "  - ports: [{port: 1}]\n", "&a ",
        "*a", "!!str ", "? ", ": ", "|\n", ">-\n", "\"", "'", "[", "]", "{", "}", ",", "\t", "<<: ",
        "#", "%YAML 1.1\n", "\u{feff}", "é", "0x1f", "1e999", "~", "\r\n", "status: {podIP: 1}\n",
    ][..]), 0..40)) {
        let text = parts.concat();
        let count = text::documents(&text).len();
        match file::parse(Path::new("a.yaml"), text.as_bytes(), &[], &mut Shared::default()) {
            Ok(documents) => prop_assert_eq!(documents.len(), count),
            Err(reason) => prop_assert!(!reason.is_empty()),
        }
    }
}
