use stateright::{Checker, Model};

use crate::{Protocol, Write};

#[test]
fn the_protocol_holds_in_every_order_of_events() {
    let checker = Protocol::default().checker().threads(2).spawn_bfs().join();
    println!("{} states, {} of them different", checker.state_count(), checker.unique_state_count());
    checker.assert_properties();
    assert!(checker.unique_state_count() > 10_000, "too few states to say anything");
}

#[test]
fn a_write_without_its_fence_is_caught() {
    for write in Write::ALL {
        let broken = Protocol { unfenced: Some(write) };
        let checker =
            broken.checker().threads(2).finish_when(stateright::HasDiscoveries::AnyFailures).spawn_bfs().join();
        let found: Vec<_> = checker
            .discoveries()
            .into_iter()
            .filter(|(name, _)| !name.contains(" can "))
            .map(|(name, path)| (name, path.into_actions()))
            .collect();
        assert!(!found.is_empty(), "{write:?} without its fence goes unnoticed");
        for (property, steps) in found {
            println!("{write:?} without its fence breaks \"{property}\": {steps:?}");
        }
    }
}
