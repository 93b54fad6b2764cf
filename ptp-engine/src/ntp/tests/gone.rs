//! A server that comes late, goes and comes again.

use super::*;

#[test]
fn a_server_that_comes_late_is_asked_as_at_the_start_and_missed_as_soon_when_it_goes() {
    let mut world = World::at(ExchangeKind::Basic, BEGIN, Poll::new(-1, 10));
    let state = |world: &World| world.client.states().next().unwrap();
    world.loses = true;
    for _ in 0..16 {
        world.exchange();
    }
    assert!(state(&world).poll > 4, "{:?}", state(&world));
    world.loses = false;
    world.exchange();
    assert_eq!(state(&world).poll, -1);
    let came = world.now;
    for _ in 0..6 {
        world.exchange();
    }
    assert!(world.now - came < Duration::from_secs(5), "{:?}", world.now - came);
    world.loses = true;
    let went = world.now;
    while !state(&world).is_silent {
        world.exchange();
    }
    assert!(world.now - went < Duration::from_secs(5), "{:?}", world.now - went);
}
