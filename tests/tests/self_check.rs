//! The agent checks itself: what the kernel judges is what the objects say.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    AgentOptions, Mode, PodSpec, Probe, World,
    world::{must, shop_pods, shop_policies},
};

/// What the agent has counted of a result.
fn counted(world: &World, result: &str) -> f64 {
    let text = must(world.lab.node().run(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect("127.0.0.1:10465")?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }))
    .expect("the agent serves metrics");
    let series = format!("enforcer_self_checks_total{{result=\"{result}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap_or_else(|| panic!("no {series} in {text}")).parse().expect("a number")
}

#[test]
fn what_is_judged_is_what_the_objects_say_while_they_change() {
    let options =
        AgentOptions { flags: vec!["--self-check=1000".to_owned()], ..AgentOptions::default() };
    let world = World::with(Mode::PointToPoint, &shop_pods(), &shop_policies(), options);
    let probe = |from: &str, port, open| (Probe::tcp(from, "shop/server", port), open);
    // Long enough apart that nothing changes while samples wait.
    let quiet = || thread::sleep(Duration::from_millis(600));
    quiet();
    world.expect(&[
        probe("shop/client", 80, true),
        (Probe::tcp("shop/client", "shop/server", 80).v6(), true),
        (Probe::udp("shop/client", "shop/server", 80), true),
        probe("shop/client", 81, false),
        probe("shop/other", 80, false),
        (Probe::tcp("shop/server", "shop/other", 80), true),
    ]);
    quiet();
    let before = counted(&world, "agrees");
    assert!(before >= 6.0, "{before}");
    for (role, open) in [("client", true), ("nobody", false), ("client", true)] {
        world.describe(&PodSpec::numbered("shop/other", 3).label("role", role));
        world.settle();
        world.expect(&[probe("shop/other", 80, open)]);
    }
    let since = Instant::now();
    while counted(&world, "agrees") + counted(&world, "passed_over") < before + 3.0 {
        assert!(since.elapsed() < Duration::from_secs(5), "they are not checked");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(counted(&world, "differs") < 0.5, "{}", world.agent.log());
}
