//! Attaches the kernel programs to an interface and holds them until its standard input ends: a
//! process that the tests can kill. `attach INTERFACE tcx|clsact`, or `attach unprivileged`, which
//! first gives up its privileges. Prints one line: `attached`, or why not.

use std::{env, io, process::ExitCode};

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use ptp_agent::capture::{CaptureError, Options, Programs, TcAttach, XdpHook};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["unprivileged"] => {
            give_up_privileges().expect("the tests run as root");
            attach("lo", TcAttach::Auto)
        }
        [interface, "tcx"] => attach(interface, TcAttach::Auto),
        [interface, "clsact"] => attach(interface, TcAttach::Clsact),
        _ => panic!("usage: attach INTERFACE tcx|clsact, attach unprivileged"),
    };
    match result {
        Ok(programs) => {
            println!("attached");
            // Ends when the test closes the pipe, or ends itself.
            let _ = io::read_to_string(io::stdin());
            drop(programs);
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn attach(interface: &str, tc: TcAttach) -> Result<Programs, CaptureError> {
    let options = Options { tc, xdp: Some(XdpHook::Generic), xmit: true, ..Options::default() };
    let mut programs = Programs::load(options)?;
    programs.attach(interface)?;
    Ok(programs)
}

fn give_up_privileges() -> nix::Result<()> {
    let nobody = 65_534;
    setgroups(&[])?;
    setgid(Gid::from_raw(nobody))?;
    setuid(Uid::from_raw(nobody))
}
