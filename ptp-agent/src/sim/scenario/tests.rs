//! What a scenario file may say, and what is refused.

use super::*;

fn parse(text: &str) -> Result<Scenario, String> {
    Scenario::parse("test.toml", text, Path::new("/nonexistent")).map_err(|error| error.to_string())
}

#[test]
fn the_least_scenario_is_a_duration_and_a_grandmaster() {
    let scenario = parse("duration-s = 10\n[[grandmaster]]\n").unwrap();
    assert_eq!(scenario.grandmaster[0], Grandmaster::default());
}

#[test]
fn unknown_keys_and_impossible_values_are_refused_with_their_place() {
    let gm = "duration-s = 10\n[[grandmaster]]\n";
    for (text, line, word) in [
        ("duration-s = 10\nspeed = 1\n[[grandmaster]]\n".to_owned(), "line 2", "speed"),
        ("duration-s = -10\n[[grandmaster]]\n".to_owned(), "line 1", "-10"),
        ("duration-s = nan\n[[grandmaster]]\n".to_owned(), "line 1", "NaN"),
        ("duration-s = 10\nservo = \"magic\"\n[[grandmaster]]".to_owned(), "line 2", "magic"),
        (format!("{gm}log-sync-interval = -9\n"), "line 3", "-9"),
        (format!("{gm}link.forward.loss = 1.5\n"), "line 3", "1.5"),
        (
            format!("{gm}[grandmaster.link.forward]\njitter.exponential.mean-ns = -1\n"),
            "line 4",
            "-1",
        ),
        (format!("{gm}link.forward.jitter.gauss.sd-ns = 1\n"), "line 3", "gauss"),
        (
            "duration-s = 1e6\nsample-interval-s = 0.1\n[[grandmaster]]\n".to_owned(),
            "line 2",
            "samples",
        ),
        (format!("warm-up-s = 10\n{gm}"), "line 1", "nothing is left"),
        (format!("{gm}outages = [{{ from-s = 2, to-s = 1 }}]\n"), "line 3", "to-s"),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.contains(line) && error.contains(word), "{text}: {error}");
    }
    assert!(parse("duration-s = 10\n").is_err());
    assert!(parse("duration-s = 10\ngrandmaster = []\n").is_err());
}

#[test]
fn a_file_of_noise_that_does_not_exist_is_named() {
    let text = "duration-s = 10\n[[grandmaster]]\nhost.receive.empirical.file = \"rx.txt\"\n";
    assert!(parse(text).unwrap_err().contains("/nonexistent/rx.txt"));
}

#[test]
fn nonsense_in_the_newer_keys_is_refused_with_its_place() {
    let rx = "duration-s = 10\n[time-receiver]\nHERE\n[[grandmaster]]\n";
    let gm = "duration-s = 10\n[[grandmaster]]\nHERE\n";
    let top = "duration-s = 10\nHERE\n[[grandmaster]]\n";
    for (place, text, word) in [
        (rx, "host.stall.every-s = 0", "0.001"),
        (rx, "host.stall.every-s = 5", "length"),
        (rx, "host.stalls = [{ at-s = 1, length-s = 2, count = 3 }]", "count without every-s"),
        (rx, "host.receive-grid-ns = -1", "-1"),
        (rx, "host.bad-stamps = { probability = 2 }", "2"),
        (rx, "host.bad-stamps = { probability = 0.1, sign = \"up\" }", "up"),
        (rx, "host.transmit.cold = { cold-ns = 1, warm-ns = 2, within-ms = 3 }", "warm-ns"),
        (rx, "host.receive.sum = []", "one to"),
        (rx, "host.receive.pareto = { shape = 1.0, scale-ns = 5 }", "1.05"),
        (rx, "host.receive.schedule = { parts = [] }", "no parts"),
        (
            rx,
            "host.receive.schedule = { every-s = 5, parts = [{ at-s = 5, noise.constant.ns = 1 }] }",
            "every-s",
        ),
        (
            rx,
            "host.receive.schedule = { parts = [{ at-s = 2, noise = \"none\" }, { at-s = 1, noise = \"none\" }] }",
            "order",
        ),
        (
            rx,
            "host.receive.sum = [{ sum = [{ sum = [{ sum = [{ constant.ns = 1 }] }] }] }]",
            "deep",
        ),
        (rx, "suspends = [{ at-s = 1, length-s = 2, clock = \"melts\" }]", "melts"),
        (rx, "oscillator.cycle = { amplitude-ppb = 1, phase = 2 }", "2"),
        (
            rx,
            "oscillator.steps = [{ at-s = 0, every-s = 0.001, phase-ns = 1, count = 20000 }]",
            "20000",
        ),
        (
            rx,
            "oscillator.temperature = [{ from-s = 0, to-s = 3, every-s = 3, change-ppb = 1 }]",
            "every-s is not longer",
        ),
        (gm, "outages = [{ from-s = 1, to-s = 2, silences = \"noise\" }]", "noise"),
        (gm, "restarts = [{ at-s = 1 }]", "silent-s"),
        (gm, "time-steps = [{ at-s = 1 }]", "by-ns"),
        (gm, "clock-accuracy = 256", "256"),
        (gm, "steps-removed = 254\nboundary-clocks = [{}]", "254"),
        (gm, "host.receive-doubt-ns = 5", "doubt"),
        (gm, "follow-up-loss = -0.1", "-0.1"),
        (gm, "link.forward.loss-bursts = { every-s = 1 }", "length-s"),
        (gm, "link.forward.queue.cross = { service-ns = 1, load = 0.99 }", "0.95"),
        (
            gm,
            "link.forward.queue.sawtooth = { peak-ns = 1, trough-ns = 2, period-s = 1 }",
            "trough-ns",
        ),
        (gm, "link.forward.queue.during = [{ from-s = 2, to-s = 1 }]", "to-s"),
        (gm, "link.forward.transparent-clocks = [{ rate-error-ppb = 1 }]", "residence"),
        (top, "servo-settings.least-delay-ns = [1]", "2"),
        (top, "servo-settings.asymmetry-limit-ns = -1", "-1"),
        (top, "expect.rms-over-best = 0.5", "0.5"),
        (top, "expect.excused = [{ from-s = 3, to-s = 2 }]", "to-s"),
    ] {
        let error = parse(&place.replace("HERE", text)).expect_err(text);
        assert!(error.contains("line") && error.contains(word), "{text}: {error}");
    }
}

#[test]
fn what_happens_again_is_written_out_to_the_end_or_as_often_as_it_says() {
    let scenario = parse(
        "duration-s = 100\n[[grandmaster]]\n\
         outages = [{ from-s = 50, to-s = 51 }, { from-s = 10, to-s = 12, every-s = 30 }]\n\
         oscillator.steps = [{ at-s = 5, every-s = 10, count = 3, phase-ns = 7 }]\n",
    )
    .unwrap();
    let gm = &scenario.grandmaster[0];
    let outages: Vec<[f64; 2]> =
        gm.outages.iter().map(|outage| [outage.from_s.get(), outage.to_s.get()]).collect();
    assert_eq!(outages, [[10.0, 12.0], [40.0, 42.0], [50.0, 51.0], [70.0, 72.0], [100.0, 102.0]]);
    let steps: Vec<f64> = gm.oscillator.steps.iter().map(|step| step.at_s.get()).collect();
    assert_eq!(steps, [5.0, 15.0, 25.0]);
    assert!(gm.oscillator.steps.iter().all(|step| step.phase_ns.get() == 7.0));
}

#[test]
fn settings_of_the_servo_are_those_of_the_agent() {
    let scenario = parse(
        "duration-s = 10\n[servo-settings]\nstep-threshold-ns = 5000\n\
         asymmetry-limit-ns = 70\nleast-delay-ns = [10, 20]\nrate-error-ppb = 200\n\
         boundary-clock-error-ns = 100\n[[grandmaster]]\n",
    )
    .unwrap();
    let options = scenario.servo_settings.options();
    let nanos = ptp_common::time::Duration::from_nanos;
    assert_eq!(options.step_threshold, Some(nanos(5_000)));
    assert_eq!(options.asymmetry_limit, Some(nanos(70)));
    assert_eq!(options.least_delay, [nanos(10), nanos(20)]);
    assert_eq!(options.rate_error_ppb, 200.0);
    assert_eq!(options.boundary_clock_error, Some(nanos(100)));
    let defaults = servo::Options::default();
    assert_eq!(options.first_step_threshold, defaults.first_step_threshold);
    assert_eq!(ServoSettings::default().options(), defaults);
}
