//! Claims about loading the kernel programs where the process may do less than it wants to. Needs root.

use std::process::Stdio;

use bpf_tests::{links::Wire, need, objects::kernel_programs, program};

#[test]
fn too_few_files_are_named_and_not_taken_for_an_old_kernel() {
    let wire = need!(kernel_programs().and_then(|()| Wire::new()));
    let shell = need!(program("sh"));
    // With standard input closed it ends as soon as it has attached.
    let attach_with = |limit: &str| {
        let script = format!("ulimit {limit} && exec {} ptp0 tcx", env!("CARGO_BIN_EXE_attach"));
        let mut command = wire.client.command(&shell);
        let output = command.args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for limit in [10, 12, 16, 24] {
        match attach_with(&format!("-n {limit}")) {
            (true, message) => assert!(limit > 12, "{message}"),
            (false, message) => {
                assert!(message.contains(&format!("may have {limit} files open")), "{message}");
            }
        }
    }
    // A soft limit is raised as far as the hard one permits.
    let (is_attached, message) = attach_with("-Sn 12");
    assert!(is_attached, "{message}");
}
