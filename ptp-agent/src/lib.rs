//! The agent as a library. Data flows in one direction: packet -> hook -> ring record -> [`capture`]
//! pairs it with the message that passed the host's firewall on the socket ([`transport`]) ->
//! [`engine`] turns stamps into measurements -> [`servo`] turns measurements into offset, delay and
//! frequency -> [`clock`] is steered and [`publish`] tells. `engine` and `servo` never touch a
//! socket, a clock or a runtime: they are given `now` and inputs and return actions.
#![deny(unsafe_code)]

pub mod agent;
pub mod bench;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod doctor;
pub mod engine;
pub mod lab;
pub mod limits;
pub mod linuxptp;
pub mod publish;
pub mod recording;
pub mod security;
pub mod servo;
pub mod sim;
pub mod stamp;
pub mod status;
pub mod sys;
pub mod transport;
