//! What a guest tells besides results of tests: facts for the table of kernels, and figures. One JSON
//! line each, printed when no test is running, because the harness begins a test's line before it.

use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

static LINES: Mutex<Vec<Value>> = Mutex::new(Vec::new());

/// A property of the kernel.
pub(crate) fn fact(name: &str, value: &str) {
    keep(json!({"event": "fact", "name": name, "value": value}));
}

/// A measurement.
pub(crate) fn figure(name: &str, values: Value) {
    keep(json!({"event": "figure", "name": name, "values": values}));
}

/// Prints what there is to tell.
pub(crate) fn tell() {
    for line in LINES.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        println!("{line}");
    }
}

fn keep(line: Value) {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
}
