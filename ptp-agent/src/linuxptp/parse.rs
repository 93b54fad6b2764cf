//! The shape of linuxptp's configuration file: sections in brackets, one option with its value per
//! line, comments. What the options mean is said elsewhere.

/// A line with an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting<'a> {
    /// Of the file, from 1.
    pub(super) line: usize,
    /// The option.
    pub(super) option: &'a str,
    /// Everything behind it.
    pub(super) value: &'a str,
}

/// A section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section<'a> {
    /// Of its name, from 1.
    pub(super) line: usize,
    /// What stands in the brackets.
    pub(super) name: &'a str,
    /// In order.
    pub(super) settings: Vec<Setting<'a>>,
}

/// A line that is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken<'a> {
    /// Of the file, from 1.
    pub(super) line: usize,
    /// The line.
    pub(super) text: &'a str,
    /// What is wrong with it.
    pub(super) problem: &'static str,
}

/// The sections of a file in order, and the lines that belong to none.
pub(super) fn parse(text: &str) -> (Vec<Section<'_>>, Vec<Broken<'_>>) {
    let (mut sections, mut broken) = (Vec::<Section<'_>>::new(), Vec::new());
    for (index, text) in text.lines().enumerate() {
        let line = index + 1;
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if let Some(rest) = text.strip_prefix('[') {
            match rest.split_once(']') {
                Some((name, "")) if !name.trim().is_empty() => {
                    sections.push(Section { line, name: name.trim(), settings: Vec::new() });
                }
                _ => broken.push(Broken { line, text, problem: "no section: expected [name]" }),
            }
            continue;
        }
        let setting = text.split_once(char::is_whitespace);
        match (setting, sections.last_mut()) {
            (_, None) => {
                broken.push(Broken { line, text, problem: "stands before the first section" });
            }
            (None, _) => broken.push(Broken { line, text, problem: "an option without a value" }),
            (Some((option, value)), Some(section)) => {
                section.settings.push(Setting { line, option, value: value.trim() });
            }
        }
    }
    (sections, broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_hold_their_options_with_line_numbers() {
        let (sections, broken) =
            parse("# a\n[global]\nverbose\t 1\n\n[eth0]\nuserDescription a b\n");
        assert_eq!(broken, []);
        let names: Vec<_> = sections.iter().map(|section| (section.line, section.name)).collect();
        assert_eq!(names, [(2, "global"), (5, "eth0")]);
        let [verbose] = &sections[0].settings[..] else { panic!() };
        assert_eq!((verbose.line, verbose.option, verbose.value), (3, "verbose", "1"));
        assert_eq!(sections[1].settings[0].value, "a b");
    }

    #[test]
    fn lines_that_are_nothing_are_told_with_their_number() {
        let (_, broken) = parse("verbose 1\n[global]\nverbose\n[\n[]\n[a] b\n");
        let lines: Vec<usize> = broken.iter().map(|broken| broken.line).collect();
        assert_eq!(lines, [1, 3, 4, 5, 6]);
    }
}
