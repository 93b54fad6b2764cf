//! `ptp-agent trace` as a user runs it, on files that this makes: what is certain, what cannot be told, which clock
//! lied, and what it says of files, clocks and a Prometheus that are not as they should be.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

const START: i64 = 1_700_000_000_000_000_000;
const S: i64 = 1_000_000_000;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// What an agent on `host` prints for two minutes: its clock is `offset` ns ahead, known to 500 ns.
    fn readings(&self, host: &str, offset: impl Fn(i64) -> i64) -> PathBuf {
        let lines = (-5..120).map(|second| {
            let offset = offset(second);
            let line = json!({
                "event": "host", "host": host, "mono_ns": second * S,
                "real_ns": START + second * S + offset, "offset_ns": offset, "bound_ns": 500,
                "grandmaster": "gm", "domain": 0,
            });
            format!("{line}\n")
        });
        self.write(&format!("{host}.jsonl"), &lines.collect::<String>())
    }
}

fn id(number: u64) -> String {
    format!("{number:016x}")
}

/// A span of `host` that is from `from` to `to` ns after the start, by a clock that is `offset` ns ahead.
fn span(
    trace: u64,
    number: u64,
    parent: u64,
    host: &str,
    [from, to]: [i64; 2],
    offset: i64,
) -> Value {
    json!({
        "resource": {"attributes": [{"key": "host.name", "value": {"stringValue": host}}]},
        "scopeSpans": [{"spans": [{
            "traceId": format!("{trace:032x}"),
            "spanId": id(number),
            "parentSpanId": if parent == 0 { String::new() } else { id(parent) },
            "name": format!("span {number}"),
            "startTimeUnixNano": (START + from + offset).to_string(),
            "endTimeUnixNano": (START + to + offset).to_string(),
        }]}],
    })
}

fn otlp(spans: &[Value]) -> String {
    json!({"resourceSpans": spans}).to_string()
}

fn trace(arguments: &[&str], files: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ptp-agent"));
    command.arg("trace").args(arguments).args(files).output().unwrap()
}

/// The JSON lines of a run that succeeded.
fn lines(arguments: &[&str], files: &[&Path]) -> Vec<Value> {
    let output = trace(&[&["--json"], arguments].concat(), files);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_event<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn orders_that_clocks_show_wrong_are_told_right_and_corrected_spans_are_written() {
    let place = Place::new();
    let (a, b) = (place.readings("a", |_| 0), place.readings("b", |_| -3_000_000));
    let spans = otlp(&[
        span(1, 1, 0, "a", [0, 9_000_001], 0),
        span(1, 2, 1, "b", [2_000_001, 4_000_001], -3_000_000),
    ]);
    let file = place.write("spans.json", &spans);
    let readings = ["--readings", text(&a), "--readings", text(&b)];
    let corrected = place.0.path().join("corrected.json");
    let page = place.0.path().join("page.html");
    let more = ["--output", text(&corrected), "--html", text(&page)];
    let told = lines(&[readings.as_slice(), &more].concat(), &[&file]);
    let pair = of_event(&told, "pair")[0];
    assert_eq!((&pair["verdict"], &pair["raw_backwards"]), (&json!("certain"), &json!(true)));
    let gap = pair["gap_ns"].as_i64().unwrap();
    assert!((gap - 2_000_001).abs() <= pair["bound_ns"].as_i64().unwrap(), "{pair}");
    let summary = of_event(&told, "summary")[0];
    assert_eq!((&summary["raw_backwards"], &summary["impossible"]), (&json!(1), &json!(0)));

    // What was written is read again, and says the same without any clock.
    let again = lines(&["--readings", "/dev/null"], &[&corrected]);
    assert_eq!(of_event(&again, "pair")[0]["verdict"], "certain");
    assert_eq!(of_event(&again, "pair")[0]["raw_backwards"], false);
    assert_eq!(of_event(&again, "summary")[0]["corrected_at_source"], 2);
    let written = fs::read_to_string(&corrected).unwrap();
    assert!(written.contains("\"ptp.start_offset_ns\"") && written.contains("\"gm\""), "{written}");
    let protobuf = place.0.path().join("corrected.pb");
    lines(&[readings.as_slice(), &["--output", text(&protobuf)]].concat(), &[&file]);
    let again = lines(&["--readings", "/dev/null"], &[&protobuf]);
    assert_eq!(of_event(&again, "pair")[0]["verdict"], "certain");

    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("<svg") && html.contains("b: span 2"));
    for foreign in ["<script", "src=", "href=", "@import", "url("] {
        assert!(!html.contains(foreign), "{foreign}");
    }
}

#[test]
fn clock_that_lied_is_named_and_since_when() {
    let place = Place::new();
    let readings: Vec<PathBuf> =
        ["a", "b", "c"].iter().map(|host| place.readings(host, |_| 0)).collect();
    // From the 60th second on, b is 40 ms behind, and its agent does not know it.
    let spans: Vec<Value> = (0..100)
        .flat_map(|n| {
            let at = n * S + 1;
            let lie = if n >= 60 { -40_000_000 } else { 0 };
            [
                span(n as u64 + 1, 1, 0, "a", [at, at + 9_000_000], 0),
                span(n as u64 + 1, 2, 1, "b", [at + 1_000_000, at + 2_000_000], lie),
                span(n as u64 + 1, 3, 1, "c", [at + 3_000_000, at + 8_000_000], 0),
                span(n as u64 + 1, 4, 3, "b", [at + 4_000_000, at + 5_000_000], lie),
            ]
        })
        .collect();
    let file = place.write("spans.json", &otlp(&spans));
    let mut arguments = Vec::new();
    for path in &readings {
        arguments.extend(["--readings", text(path)]);
    }
    let told = lines(&arguments, &[&file]);
    let suspicions = of_event(&told, "suspicion");
    assert_eq!(suspicions.len(), 1, "{suspicions:?}");
    assert_eq!(suspicions[0]["one_of"], json!(["b"]));
    let since = |key: &str| (suspicions[0][key].as_i64().unwrap() - START + 100_000_000) / S;
    assert_eq!((since("last_good_unix_ns"), since("first_unix_ns")), (59, 60));
    let output = String::from_utf8(trace(&arguments, &[&file]).stdout).unwrap();
    assert!(output.contains("b: 80 impossible pairs, 39.00 ms beyond the bounds"), "{output}");
}

#[test]
fn host_without_an_agent_is_said_and_never_guessed() {
    let place = Place::new();
    let a = place.readings("a", |_| 0);
    let spans = [
        span(1, 1, 0, "a", [1, 9_000_000], 0),
        span(1, 2, 1, "elsewhere", [-5_000_000, 4_000_001], 0),
    ];
    let file = place.write("spans.json", &otlp(&spans));
    let told = lines(&["--readings", text(&a)], &[&file]);
    let pair = of_event(&told, "pair")[0];
    assert_eq!((&pair["verdict"], &pair["reason"]), (&json!("not_to_be_told"), &json!("no_agent")));
    let summary = of_event(&told, "summary")[0];
    assert_eq!(summary["hosts_without_agent"], json!([{"host": "elsewhere", "spans": 1}]));
    // Under the name that its agent has, it is known.
    let told = lines(&["--readings", text(&a), "--host", "elsewhere=a"], &[&file]);
    assert_eq!(of_event(&told, "summary")[0]["uncorrected"], json!({}));
}

#[test]
fn gap_and_step_of_a_clock_leave_untold_what_they_touch() {
    let place = Place::new();
    let a = place.readings("a", |_| 0);
    // Set back by 50 ms in the 20th second.
    let b = place.readings("b", |second| if second >= 20 { -50_000_000 } else { 0 });
    let spans = [
        span(1, 1, 0, "a", [10 * S, 30 * S], 0),
        span(1, 2, 1, "b", [19 * S + S / 2, 25 * S + 1], 0),
        span(2, 1, 0, "a", [500 * S, 510 * S], 0),
        span(2, 2, 1, "b", [505 * S, 506 * S], 0),
        // Within the gap of the step, and close to it.
        span(3, 1, 0, "a", [19 * S + S / 2 + 20_000_000, 30 * S], 0),
        span(3, 2, 1, "b", [19 * S + S / 2, 25 * S + 1], 0),
    ];
    let file = place.write("spans.json", &otlp(&spans));
    let told = lines(&["--readings", text(&a), "--readings", text(&b)], &[&file]);
    let of_trace = |number: u64| {
        let trace = format!("{number:032x}");
        *of_event(&told, "pair").iter().find(|pair| pair["trace"] == trace).unwrap()
    };
    assert_eq!(of_trace(1)["verdict"], "certain", "nine seconds are more than the step");
    assert_eq!(of_trace(2)["reason"], "gap");
    assert_eq!(of_trace(3)["reason"], "bounds_overlap", "either side of the step");
}

#[test]
fn cut_cyclic_and_contradictory_files_are_told_and_the_rest_is_judged() {
    let place = Place::new();
    let (a, b) = (place.readings("a", |_| 0), place.readings("b", |_| 0));
    let spans = [
        span(1, 1, 0, "a", [1, 9_000_000], 0),
        span(1, 2, 1, "b", [5_000_000, 6_000_000], 0),
        // A ring, a span that ends before it starts, and one that is there twice.
        span(2, 1, 2, "a", [1, 9_000_000], 0),
        span(2, 2, 1, "b", [1, 9_000_000], 0),
        span(3, 1, 0, "a", [9_000_000, 1], 0),
        span(1, 2, 1, "b", [7_000_000, 8_000_000], 0),
    ];
    let whole = otlp(&spans);
    let cut = &whole[..whole.len() - 30];
    let file = place.write("spans.json", &format!("{whole}\n{{\"resourceSpans\":[7]}}\n{cut}"));
    let arguments = ["--json", "--readings", text(&a), "--readings", text(&b)];
    let output = trace(&arguments, &[&file, Path::new("/nonexistent")]);
    assert_eq!(output.status.code(), Some(1));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let summary: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(summary["files"][0]["faults"], 2, "{summary}");
    assert!(summary["files"][1]["error"].as_str().unwrap().contains("No such file"));
    let odd = &summary["odd"];
    assert_eq!((&odd["in_cycles"], &odd["backwards"]), (&json!(2), &json!(2)), "{odd}");
    assert!(odd["duplicates"].as_u64().unwrap() >= 3, "{odd}");
    assert_eq!(summary["certain"], 1, "{summary}");
}

#[test]
fn prometheus_that_is_away_is_said_once_and_spans_are_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let place = Place::new();
    let spans = [span(1, 1, 0, "a", [1, 2], 0), span(1, 2, 1, "b", [5_000_000, 6_000_000], 0)];
    let file = place.write("spans.json", &otlp(&spans));
    let told = lines(&["--prometheus", &url], &[&file]);
    let summary = of_event(&told, "summary")[0];
    let complaints = summary["complaints"].as_array().unwrap();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].as_str().unwrap().contains("cannot be reached"));
    assert_eq!((&summary["spans"], &summary["not_to_be_told"]), (&json!(2), &json!(1)));
}

#[test]
fn bad_usage_says_what_to_do() {
    let place = Place::new();
    let file = place.write("spans.json", "{}");
    for (arguments, words) in [
        ([].as_slice(), "--readings"),
        (&["--prometheus", "https://prometheus"], "port-forward"),
        (&["--readings", "/dev/null", "--host", "name"], "NAME=CLOCK"),
    ] {
        let output = trace(arguments, &[&file]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn jaeger_s_microseconds_are_not_taken_for_nanoseconds() {
    let place = Place::new();
    let (a, b) = (place.readings("a", |_| 0), place.readings("b", |_| 0));
    let start = START / 1_000;
    let process =
        |host: &str| json!({"serviceName": "s", "tags": [{"key": "hostname", "value": host}]});
    let jaeger = |gap: i64| {
        json!({"data": [{"traceID": "1", "processes": {"p1": process("a"), "p2": process("b")}, "spans": [
            {"traceID": "1", "spanID": "1", "operationName": "x", "startTime": start + 1, "duration": 90,
             "processID": "p1", "references": []},
            {"traceID": "1", "spanID": "2", "operationName": "y", "startTime": start + 1 + gap,
             "duration": 5, "processID": "p2",
             "references": [{"refType": "CHILD_OF", "traceID": "1", "spanID": "1"}]},
        ]}]})
        .to_string()
    };
    for (gap, verdict) in [(1, "not_to_be_told"), (50, "certain")] {
        let file = place.write("jaeger.json", &jaeger(gap));
        let told = lines(&["--readings", text(&a), "--readings", text(&b)], &[&file]);
        let pair = of_event(&told, "pair")[0];
        assert_eq!(pair["verdict"], verdict, "{pair}");
        assert!(pair["bound_ns"].as_i64().unwrap() >= 1_999, "{pair}");
    }
}
