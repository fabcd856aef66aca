//! The one error type of the command line: what went wrong, where, and what would be right.

use std::fmt;

/// An error that a person can act on. It always prints as one line: `what; where; what would be right`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    what: String,
    place: String,
    right: String,
}

/// The result of everything that can meet bad input.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// `what` went wrong, `place` says where (a path, an option, a sample), `right` what would have been accepted.
    /// `place` and `right` may be empty and are then left out.
    pub fn new(
        what: impl fmt::Display,
        place: impl fmt::Display,
        right: impl fmt::Display,
    ) -> Self {
        Self {
            what: one_line(what),
            place: one_line(place),
            right: one_line(right),
        }
    }

    /// The same error, found while reading `place`: the outer place is put before the inner one.
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        let outer = one_line(place);
        self.place = if self.place.is_empty() {
            outer
        } else {
            format!("{outer}, {}", self.place)
        };
        self
    }

    /// What went wrong, without the place and the remedy.
    pub fn what(&self) -> &str {
        &self.what
    }
}

/// Control characters (a path may hold a line feed) would break the promise of one line.
fn one_line(text: impl fmt::Display) -> String {
    let text = text.to_string();
    text.trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.what, &self.place, &self.right];
        let parts: Vec<&str> = parts
            .into_iter()
            .map(String::as_str)
            .filter(|part| !part.is_empty())
            .collect();
        f.write_str(&parts.join("; "))
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_one_line_whatever_it_is_given() {
        let error = Error::new("no such\nfile", "a\r\nb.npz", "").within("--data");
        assert_eq!(error.to_string(), "no such file; --data, a  b.npz");
    }
}
