//! What every object must have: its licence, by which the kernel decides which helpers it may call, and a panic handler,
//! which the verifier lets nothing reach.

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
