//! Names by number: spans keep four bytes instead of a string, and a hostile file with a new name for
//! each span takes no more memory than [`LIMIT`] names.

use std::collections::HashMap;

/// Distinct names that are kept; all further ones are [`Names::OTHER`].
pub const LIMIT: usize = 65_536;
/// Bytes that are kept of a name.
const LENGTH: usize = 200;

/// Names, each once.
#[derive(Clone, Debug)]
pub struct Names {
    numbers: HashMap<Box<str>, u32>,
    names: Vec<Box<str>>,
}

impl Default for Names {
    fn default() -> Self {
        Self { numbers: HashMap::new(), names: vec!["(other)".into()] }
    }
}

impl Names {
    /// What stands for the names that are too many.
    pub const OTHER: u32 = 0;

    /// The number of `name`.
    pub fn number(&mut self, name: &str) -> u32 {
        let name = shortened(name);
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let (Ok(number), true) = (u32::try_from(self.names.len()), self.names.len() < LIMIT) else {
            return Self::OTHER;
        };
        self.names.push(name.into());
        self.numbers.insert(name.into(), number);
        number
    }

    /// The name with this number.
    pub fn name(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("(other)", |name| name)
    }
}

/// No more of `name` than is kept.
fn shortened(name: &str) -> &str {
    let mut end = name.len().min(LENGTH);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_once_and_not_without_end() {
        let mut names = Names::default();
        let first = names.number("GET /");
        assert_eq!(names.number("GET /"), first);
        assert_eq!(names.name(first), "GET /");
        for n in 0..2 * LIMIT {
            names.number(&n.to_string());
        }
        assert_eq!(names.number("one too many"), Names::OTHER);
        assert_eq!(names.number("GET /"), first);
    }

    #[test]
    fn long_name_is_cut_between_letters() {
        let mut names = Names::default();
        let number = names.number(&"ä".repeat(LENGTH));
        assert_eq!(names.name(number).chars().count(), LENGTH / 2);
    }
}
